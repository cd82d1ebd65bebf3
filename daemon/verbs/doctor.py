"""`doctor`: versions, devices, watch limits, mounts, and what to do about each problem."""

from __future__ import annotations

import argparse
import json
import os

from rich.console import Console

from daemon import doctor
from daemon.config import add_service_options, load
from daemon.errors import UNREACHABLE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Contract section 3."""
    add_service_options(parser)
    parser.add_argument("--model", metavar="NAME-or-DIR", help="model that would judge (shipped)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where it would run (auto)")
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Exit 0 when nothing stands in the way, 69 when something does."""
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    console = Console(highlight=False, soft_wrap=True)
    findings = []
    for finding in doctor.examine(load(args)):
        findings.append(finding)
        if not args.json:
            console.print(doctor.line(finding))
    if args.json:
        print(json.dumps(doctor.as_json(findings), ensure_ascii=False, indent=1))
    return 0 if doctor.is_well(findings) else UNREACHABLE
