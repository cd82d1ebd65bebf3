"""`status`: one screen of state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec

from daemon.client import status
from daemon.common.errors import UNREACHABLE
from daemon.common.options import Option
from daemon.common.stdio import as_json
from daemon.config import Flags, Keys, load
from daemon.screens import Printer
from daemon.screens.status import page


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    service: Annotated[Flags, Keys("state", "instrument")]
    json: Annotated[bool, Option("the same as one JSON object")] = False


def run(options: Options) -> int:
    """Exit 0 when the service runs and is well, 69 otherwise."""
    config = load(options.service)
    report = {**status.gather(config), "learning": status.learning_of(config)}
    from daemon.guard.morning import last_report, left_in

    written = last_report(config.state)
    report["last_report"] = None if written is None else str(written)
    if not report["running"]:  # of a service that runs all is known from itself
        report["guard"] = msgspec.to_builtins(left_in(config.state))
    if options.json:
        print(as_json(report, indent=1))
    else:
        printer = Printer()
        for line in page(report):
            printer.print(line)
    return 0 if status.is_well(report) else UNREACHABLE
