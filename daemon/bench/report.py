"""The report: every part of a plan measured, in one object; and the same as a page."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from daemon.bench import BATCH, engines, load, machine, shares, soak, swap
from daemon.bench.bars import bars
from daemon.bench.child import ChildFailed, call
from daemon.bench.plan import Plan
from daemon.bench.table import write_text
from daemon.common.errors import BAD_DATA, INTERNAL, UNREACHABLE, UserError
from deploy.cpu import default_threads
from deploy.engines import NoEngine, candidates
from deploy.registry import resolve
from models.bundle import BadBundle, read

Say = Callable[[str], None]
_PACKAGES = ("torch", "openvino", "torch_tensorrt", "numpy", "afmformats")


def measure(plan: Plan, say: Say) -> dict[str, Any]:
    """One object, as ``--json`` prints it. ``say`` hears what is being done.

    Raises UserError 65 for what is no model, 69 where no engine can do what is asked.
    """
    model = _check(plan)
    before = machine.look()
    if before.warning:
        say(f"warning: {before.warning}")
    others = machine.Others()
    found: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
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
            return {part: engines.measure(plan)}
        if part == "soak":
            return {part: soak.measure(plan)}
        if part == "swap":
            return {part: swap.measure(plan)}
        if part == "recipe":
            return {part: call("recipe", plan.request())}
        line = load.measure(plan)
        return {part: line, "shares": shares.shares(plan, line, found.get("engines"), found["machine"]["cores"])}
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
    shown = "\n".join(f"    {line}".rstrip() for line in [f"$ {command}", *text.splitlines()])
    return f"# Engines and speed, {found['time'][:10]}\n\n{_WORDS}\n\n{shown}\n"


_WORDS = """CPU figures are time of one core, medians of repeats. Latency is taken by another process: from its own
`close()` of a file in the watched folder to the event's arrival on its ZeroMQ socket; bundled real files, written in
pieces, above 50 a second eight back to back. Engines run each in a process of its own, with the service's number of
threads; `again` is a second build in the same process, as a swap makes it."""
