"""`status`: one screen of state."""

from __future__ import annotations

import argparse

from daemon.client import status
from daemon.common.errors import UNREACHABLE
from daemon.common.stdio import as_json
from daemon.config import add_service_options, load
from daemon.screens import Printer
from daemon.screens.status import page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``status``."""
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
