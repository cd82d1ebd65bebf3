"""`doctor`: versions, devices, watch limits, mounts, and what to do about each problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from daemon.common.errors import UNREACHABLE
from daemon.common.options import Option
from daemon.common.stdio import as_json
from daemon.config import Flags, Keys, load
from daemon.screens import Printer, doctor


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    service: Annotated[Flags, Keys("watch", "state", "instrument", "model", "device")]
    json: Annotated[bool, Option("the same as one JSON object")] = False


def run(options: Options) -> int:
    """Exit 0 when nothing stands in the way, 69 when something does."""
    printer = Printer()
    findings = []
    for finding in doctor.examine(load(options.service, needs_state=False)):
        findings.append(finding)
        if not options.json:
            printer.print(doctor.line(finding))
    if options.json:
        print(as_json(doctor.as_json(findings), indent=1))
    return 0 if doctor.is_well(findings) else UNREACHABLE
