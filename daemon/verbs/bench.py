"""`bench`: measured throughput and latency on this machine, part by part, beside what was promised."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from daemon.bench import PARTS, Plan
from daemon.common.errors import BAD_DATA, INPUT_OUTPUT, USAGE, UserError
from daemon.common.options import Group, Option

_SHAPE = Group("one JSON object, or a page", is_choice=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    plan: Plan
    soak: Annotated[int | None, Option("so many curves through one service", "N", unless="off")] = None
    json: Annotated[bool, Option("one JSON object", group=_SHAPE)] = False
    markdown: Annotated[bool, Option("a page for deploy/measurements", group=_SHAPE)] = False
    picture: Annotated[Path | None, Option("latency against load, as SVG", "FILE.svg")] = None


def run(options: Options) -> int:
    """About two and a half minutes with the defaults; bars that are missed are told, and are no error."""
    plan = plan_of(options)
    if options.picture is not None and "load" not in plan.parts:
        raise UserError(USAGE, "--picture shows the load; measure it too (--only load)")
    if options.picture is not None and not options.picture.absolute().parent.is_dir():
        raise UserError(INPUT_OUTPUT, f"{options.picture.parent}: no such folder; make it first")
    from daemon.bench.report import measure, write_page, write_report

    found = measure(plan, _say)
    if options.picture is not None:
        from daemon.bench.table import draw
        from models.files import write_whole

        write_whole(options.picture, draw(found))
    if options.json:
        print(json.dumps(found))
    elif options.markdown:
        print(write_page(found, f"afm-triage {shlex.join(sys.argv[1:])}"), end="")
    else:
        print(write_report(found))
    return 0


def plan_of(options: Options) -> Plan:
    """What was asked for. Raises UserError 64 for nonsense, 65 for a folder that is not there."""
    plan, soak = options.plan, options.soak
    if min(plan.files, plan.burst) < 1 or not plan.hold_s > 0:
        raise UserError(USAGE, "--files and --burst take whole numbers from 1 on, --hold a number above 0")
    if min(plan.busy, plan.simulated, plan.seed) < 0 or (soak is not None and soak < 1):
        raise UserError(USAGE, "--busy, --simulate and --seed take whole numbers from 0 on, --soak from 1 on")
    for folder in plan.curves:
        if not folder.is_dir():
            raise UserError(BAD_DATA, f"--curves {folder}: no such folder")
    asked = {*plan.parts, "soak"} if soak is not None else plan.parts
    return replace(plan, parts=tuple(part for part in PARTS if part in asked), soak=soak or plan.soak)


def _say(text: str) -> None:
    if sys.stderr.isatty() or text.startswith("warning"):
        print(text, file=sys.stderr, flush=True)
