"""`doctor`: versions, devices, watch limits, mounts, and what to do about each problem."""

from __future__ import annotations

import argparse
import os

from daemon.common.errors import UNREACHABLE
from daemon.common.stdio import as_json
from daemon.config import add_service_options, load
from daemon.screens import Printer, doctor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``doctor``."""
    add_service_options(parser)
    parser.add_argument("--model", metavar="NAME-or-DIR", help="model that would judge (shipped)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where it would run (auto)")
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Exit 0 when nothing stands in the way, 69 when something does."""
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    printer = Printer()
    findings = []
    for finding in doctor.examine(load(args, needs_state=False)):
        findings.append(finding)
        if not args.json:
            printer.print(doctor.line(finding))
    if args.json:
        print(as_json(doctor.as_json(findings), indent=1))
    return 0 if doctor.is_well(findings) else UNREACHABLE
