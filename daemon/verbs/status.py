"""`status`: one screen of state."""

from __future__ import annotations

import argparse

from daemon import status
from daemon.config import add_service_options, load
from daemon.errors import UNREACHABLE
from daemon.printer import Printer
from daemon.status.page import page
from daemon.stdio import as_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Contract section 3."""
    add_service_options(parser)
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Exit 0 when the service runs and is well, 69 otherwise."""
    report = status.gather(load(args))
    if args.json:
        print(as_json(report, indent=1))
    else:
        printer = Printer()
        for line in page(report):
            printer.print(line)
    return 0 if status.is_well(report) else UNREACHABLE
