"""`status`: one screen of state."""

from __future__ import annotations

import argparse
import json

from rich.console import Console

from daemon import status
from daemon.config import add_service_options, load
from daemon.errors import UNREACHABLE
from daemon.status.page import page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Contract section 3."""
    add_service_options(parser)
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Exit 0 when the service runs and is well, 69 otherwise."""
    report = status.gather(load(args))
    if args.json:
        print(json.dumps(report, ensure_ascii=False, indent=1))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for line in page(report):
            console.print(line)
    return 0 if status.is_well(report) else UNREACHABLE
