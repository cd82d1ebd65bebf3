"""`status`: one screen of state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

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
    report = status.gather(load(options.service))
    if options.json:
        print(as_json(report, indent=1))
    else:
        printer = Printer()
        for line in page(report):
            printer.print(line)
    return 0 if status.is_well(report) else UNREACHABLE
