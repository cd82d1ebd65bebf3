"""`bench`: measured throughput and latency on this machine, part by part, beside what was promised.

Every part of a plan is measured into one object, which is printed as it is, or as a page.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

from daemon.bench import BATCH, PARTS, Plan, apart, line, machine
from daemon.bench.apart import ChildFailed, bare, call
from daemon.bench.table import bars, draw, write_text
from daemon.client.folders import refuse_watched
from daemon.common.errors import BAD_DATA, INPUT_OUTPUT, INTERNAL, UNREACHABLE, USAGE, UserError
from daemon.common.options import Group, Option
from deploy.classifier import EngineId, NoEngine, default_threads
from deploy.engines import candidates
from models.bundle import BadBundle, read, resolve
from models.clock import utc_now
from models.files import write_whole

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
    refuse_watched({"--picture": options.picture})
    found = measure(plan, _say)
    if options.picture is not None:
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


# The shares: what the whole line reaches of the bare engine's rate, and what the line costs beyond the engine.


def shares(plan: Plan, load: Mapping[str, Any], engines: Mapping[str, Any] | None, cores: int) -> list[dict[str, Any]]:
    """A row for each engine that a service ran with.

    ``ceiling_per_s`` is what so many cores could reach at most with the CPU time that a curve takes.
    """
    rows = []
    for name, served in load["engines"].items():
        speed = _speed(name, plan, engines)["batches"][str(BATCH)]
        rows.append(
            {
                "engine": name,
                "line_per_s": served["per_s"],
                "bare_per_s": speed["per_s"],
                "share": round(served["per_s"] / speed["per_s"], 4),
                "ceiling_per_s": round(1000.0 * cores / served["cpu_ms"], 1),
                "line_cpu_ms": served["cpu_ms"],
                "engine_cpu_ms": speed["cpu_ms"],
                "beyond_cpu_ms": round(served["cpu_ms"] - speed["cpu_ms"], 3),
            }
        )
    return rows


def _speed(name: str, plan: Plan, engines: Mapping[str, Any] | None) -> dict[str, Any]:
    """As measured in this run; else it is measured now."""
    for one in engines["engines"] if engines else ():
        if one["engine"] == name and "batches" in one:
            found: dict[str, Any] = one
            return found
    engine = EngineId.parse(name)
    return bare(replace(plan, engine=engine.maker.removesuffix("-rtx"), precision=engine.precision))


_PACKAGES = ("torch", "openvino", "torch_tensorrt", "numpy", "afmformats")


def measure(plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """One object, as ``--json`` prints it. ``say`` hears what is being done.

    Raises UserError 65 for what is no model, 69 where no engine can do what is asked.
    """
    model = _check(plan)
    before = machine.look()
    if before.warning:
        say(f"warning: {before.warning}")
    others = machine.Others()
    found: dict[str, Any] = {
        "time": utc_now("seconds"),
        "machine": asdict(before),
        "warning": before.warning,
        "versions": _versions(before.python),
        "model": model,
        "settings": plan.settings(),
        "batch": BATCH,
        "threads": default_threads(),
        "took_s": {},
    }
    for part in plan.parts:
        say(f"{part} …")
        begun_s = time.monotonic()
        found |= _part(part, plan, found)
        found["took_s"][part] = round(time.monotonic() - begun_s, 1)
    found["others_cores"] = round(others.cores(), 3)
    found["bars"] = [asdict(bar) | {"holds": bar.holds} for bar in bars(found)]
    return found


def _check(plan: Plan) -> str:
    """The model's id, once it is clear that something here can run it."""
    try:
        list(candidates(plan.wish))
        return read(resolve(plan.model)).id
    except BadBundle as error:
        raise UserError(BAD_DATA, f"model {plan.model}: {error}") from error
    except NoEngine as error:
        raise UserError(UNREACHABLE, f"no engine for this: {error}") from error


def _part(part: str, plan: Plan, found: Mapping[str, Any]) -> dict[str, Any]:
    try:
        if part == "stages":
            return {part: call("stages", plan.request(wish=asdict(plan.wish)))}
        if part == "engines":
            return {part: apart.measure(plan)}
        if part == "soak":
            return {part: line.measure_soak(plan)}
        if part == "swap":
            return {part: line.measure_swap(plan)}
        if part == "recipe":
            return {part: call("recipe", plan.request())}
        loaded = line.measure(plan)
        return {part: loaded, "shares": shares(plan, loaded, found.get("engines"), found["machine"]["cores"])}
    except ChildFailed as error:
        raise UserError(INTERNAL, f"{part} could not be measured: {error}") from error


def _versions(python: str) -> str:
    known = [f"Python {python}"]
    for package in _PACKAGES:
        try:
            known.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(known)


def write_report(found: Mapping[str, Any]) -> str:
    """For a terminal."""
    return write_text(found, bars(found))


def write_page(found: Mapping[str, Any], command: str) -> str:
    """For deploy/measurements: the command, and below it what it printed."""
    text = write_report(found)
    shown = "\n".join(f"    {row}".rstrip() for row in [f"$ {command}", *text.splitlines()])
    return f"# Engines and speed, {found['time'][:10]}\n\n{_WORDS}\n\n{shown}\n"


_WORDS = """CPU figures are time of one core, medians of repeats. Latency is taken by another process: from its own
`close()` of a file in the watched folder to the event's arrival on its ZeroMQ socket; bundled real files, written in
pieces, above 50 a second eight back to back. Engines run each in a process of its own, with the service's number of
threads; `again` is a second build in the same process, as a swap makes it."""
