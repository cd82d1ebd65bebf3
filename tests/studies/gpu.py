"""Study gpu: the model on the GPU of this machine: bits, speed, verdicts, a million curves, new weights, real faults.

Needs numpy, torch with CUDA, safetensors, msgspec and rich beside this repository, and TensorRT where it is installed
(tests/studies/gpu_pack.py brings what is missing to a machine without network). Parts come in their order of worth,
each in a process of its own and within a time of its own: what fails, hangs or takes the process along says so and
hides no other, and what was found by then is kept. With ``--device cpu`` the study only tries itself: its figures mean
nothing.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from daemon.common.errors import BAD_DATA, UNREACHABLE, USAGE, UserError
from daemon.common.options import Option
from daemon.common.text import align

if TYPE_CHECKING:
    from tests.studies.gpu_parts import Session

#: In their order of worth on a machine that is lent for minutes; each with the seconds that it may take on a GPU.
PARTS = {"plans": 75.0, "raster": 30.0, "engines": 110.0, "verdicts": 60.0}
PARTS |= {"rescore": 80.0, "swap": 60.0, "faults": 90.0}
_LEAST_S = 5.0  # with less left no part is begun
_LOOK_S = 0.05

Found = Mapping[str, Any]
Work = Callable[[Callable[[Found], None]], Found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Defaults are meant for a machine that is lent for eight minutes."""

    model: Annotated[str, Option("model that judges")] = "shipped"
    device: Annotated[Literal["cuda", "cpu"], Option("cpu: only to try the study")] = "cuda"
    only: Annotated[tuple[str, ...] | None, Option(f"repeatable: {', '.join(PARTS)}", "PART", choices=tuple(PARTS))] = (
        None
    )
    simulate: Annotated[int, Option("curves beside the bundled ones", "N")] = 4000
    rescore: Annotated[int, Option("curves to judge again", "N")] = 1_000_000
    seconds: Annotated[float, Option("each repeated measurement", "S")] = 1.0
    within: Annotated[float, Option("all parts together, at most", "S")] = 470.0
    seed: Annotated[int, Option("of the simulated curves", "N")] = 1
    out: Annotated[Path | None, Option("also what the tables were made from, part by part", "FILE.json")] = None
    page: Annotated[Path | None, Option("also a page for deploy/measurements, part by part", "FILE.md")] = None


def run(options: Options) -> int:
    """Exit 0 with the tables, 64 for options that make no sense, 69 where there is no GPU."""
    if options.simulate < 1 or options.rescore < 1 or options.seed < 0 or not options.seconds > 0:
        raise UserError(USAGE, "--simulate and --rescore are 1 or more, --seconds above 0, --seed 0 or more")
    begun_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="afm-triage-") as folder:
        machine = apart(lambda _: _machine(options.device), options.within, Path(folder))
        if "failed" in machine:
            raise UserError(UNREACHABLE, f"{machine['failed']} (--device cpu only tries the study)")
        session = _session(options, Path(folder))
        found: dict[str, Any] = {"time": time.strftime("%Y-%m-%d", time.gmtime()), "machine": machine}
        found |= {"model": session.bundle.id, "settings": _settings(options), "took_s": {}}
        found["took_s"]["start"] = round(time.monotonic() - begun_s, 1)
        for part, limit_s in PARTS.items():
            if part in (options.only or PARTS):
                left_s = options.within - (time.monotonic() - begun_s)
                print(f"{part} …", file=sys.stderr, flush=True)
                found |= _measured(part, session, min(limit_s, left_s) if session.has_gpu else left_s, found)
                _keep(options, found)
    print(write_text(found))
    return 0


def _session(options: Options, folder: Path) -> Session:
    """The curves are drawn once for all parts. Nothing here wakes torch's threads or the GPU: the process is forked."""
    from daemon.bench import CURVES
    from daemon.learn.int8 import gather
    from models.bundle import BadBundle, read, resolve
    from tests.studies.gpu_parts import Session

    try:
        bundle = read(resolve(options.model))
    except BadBundle as error:
        raise UserError(BAD_DATA, str(error)) from None
    curves = gather((CURVES,), options.simulate, options.seed, bundle.profile)
    return Session(bundle, options.device, curves, options.seconds, options.rescore, folder / "engines")


def _measured(part: str, session: Session, limit_s: float, before: Found) -> Found:
    """What is new in what was found: the part, and the seconds that it took."""
    if limit_s < _LEAST_S:
        return {part: {"skipped": "no time was left"}}

    def work(note: Callable[[Found], None]) -> Found:
        from tests.studies import gpu_parts, gpu_swap

        parts: dict[str, Callable[[Session, Callable[[Found], None]], Found]] = {
            "plans": gpu_swap.plans,
            "raster": gpu_parts.compare_rasters,
            "engines": gpu_parts.time_engines,
            "verdicts": gpu_parts.compare_verdicts,
            "rescore": gpu_parts.rescore,
            "swap": gpu_swap.swap,
            "faults": gpu_swap.cause_faults,
        }
        return parts[part](session, note)

    begun_s = time.monotonic()
    answer = apart(work, limit_s, session.cache.parent)
    return {part: answer, "took_s": before["took_s"] | {part: round(time.monotonic() - begun_s, 1)}}


def apart(work: Work, limit_s: float, folder: Path) -> dict[str, Any]:
    """What ``work`` finds in a process of its own, which is ended after ``limit_s`` with all that it has started.

    ``work`` is given a function to note what it has found so far. Where it does not come to its end the last note is
    the answer, with why in "failed".
    """
    from models.files import write_whole

    noted = folder / "found.json"
    noted.unlink(missing_ok=True)
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os.setsid()
        try:
            write_whole(noted, json.dumps(_ended(work, lambda found: _note(noted, found))).encode())
        finally:
            os._exit(0)
    try:
        why = _why_ended(child, time.monotonic() + limit_s, limit_s)
    finally:
        _end_group(child)
    found: dict[str, Any] = json.loads(noted.read_bytes()) if noted.exists() else {}
    if found.pop("is_whole", False):
        return found
    return {**found, "failed": why or "it ended before its end"}


def _note(noted: Path, found: Found) -> None:
    from models.files import write_whole

    write_whole(noted, json.dumps(found).encode())


def _ended(work: Work, note: Callable[[Found], None]) -> Found:
    """Whatever a part raises is what it found."""
    try:
        return {**work(note), "is_whole": True}
    except BaseException as error:
        from tests.studies.gpu_parts import failed

        return {**failed(error), "is_whole": True}


def _why_ended(child: int, until_s: float, limit_s: float) -> str | None:
    """Waits for the process; None where it came to its end by itself."""
    while time.monotonic() < until_s:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            number = os.waitstatus_to_exitcode(status)
            return f"its process was ended by {signal.Signals(-number).name}" if number < 0 else None
        time.sleep(_LOOK_S)
    return f"not done within {limit_s:.0f} s"


def _end_group(child: int) -> None:
    """The process, if it still runs, and the engine processes that it has left."""
    try:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):
        return


def _keep(options: Options, found: dict[str, Any]) -> None:
    """After every part: the machine may go before the last."""
    from models.files import write_whole

    if options.out is not None:
        write_whole(options.out, (json.dumps(found, indent=1) + "\n").encode())
    if options.page is not None:
        write_whole(options.page, write_page(found, f"python -m tests.studies gpu{_flags(options)}").encode())


def _flags(options: Options) -> str:
    """Those that differ from their defaults, but for where the results go."""
    usual = Options()
    given = {name: getattr(options, name) for name in ("model", "device", *_NUMBERS)}
    words = [f" --{name} {value}" for name, value in given.items() if value != getattr(usual, name)]
    return "".join([*words, *(f" --only {part}" for part in options.only or ())])


_NUMBERS = ("simulate", "rescore", "seconds", "within", "seed")


def _machine(device: str) -> dict[str, Any]:
    """Raises RuntimeError where there is no GPU. ``awake_s``: from nothing to the first answer of the device."""
    begun_s = time.monotonic()
    import torch

    from deploy.tensorrt_engine import driver, flavours_here

    found: dict[str, Any] = {"torch": torch.__version__, "device": device, "cores": len(os.sched_getaffinity(0))}
    found["torch-tensorrt"] = ", ".join(flavour.distribution for flavour in flavours_here()) or "not installed"
    if device == "cuda":
        if not torch.cuda.is_available():
            raise RuntimeError("there is no NVIDIA GPU that torch can use")
        card = torch.cuda.get_device_properties(0)
        found |= {"gpu": card.name, "capability": f"{card.major}.{card.minor}", "driver": driver()}
        found |= {"gpu_bytes": card.total_memory, "cuda": torch.version.cuda}
        torch.zeros(1, device="cuda").item()
    return found | {"awake_s": round(time.monotonic() - begun_s, 1)}


def _settings(options: Options) -> dict[str, Any]:
    return {name: getattr(options, name) for name in (*_NUMBERS, "only")}


# The tables of `make study TOPIC=gpu`, part by part; what was not measured says why.


def write_page(found: Found, command: str) -> str:
    """For deploy/measurements: the card, the command, and below it what it printed."""
    machine = found["machine"]
    card = f"on {machine['gpu']}" if "gpu" in machine else "tried on a processor"
    about = "**No GPU was there**: the study only tried itself, and its figures mean nothing."
    if "gpu" in machine:
        about = f"Card {machine['gpu']} (capability {machine['capability']}), driver {machine['driver']}."
    shown = "\n".join(f"    {row}".rstrip() for row in [f"$ {command}", *write_text(found).splitlines()])
    return f"# The network {card}, {found['time']}\n\n{about}\n\n{shown}\n"


def write_text(found: Found) -> str:
    """Lines for a terminal, or for a page."""
    lines = [f"{key}: {value}" for key, value in found["machine"].items()]
    took = found.get("took_s", {})
    if took:
        lines.append("seconds: " + ", ".join(f"{part} {seconds:g}" for part, seconds in took.items()))
    for part, write in _PARTS.items():
        if part in found:
            lines += ["", *_lines(part, found[part], write)]
    return "\n".join(lines)


def _lines(part: str, one: Found, write: Callable[[Found], Iterator[str]]) -> list[str]:
    """Of a part that did not come to its end, what it had noted, and why it did not."""
    trouble = [f"{part}: {word}: {one[word]}" for word in ("skipped", "failed") if word in one]
    rest = {key: value for key, value in one.items() if key not in ("skipped", "failed")}
    return [*trouble, *(write(rest) if rest else ())]


def _raster(one: Found) -> Iterator[str]:
    yield f"raster, {one['curves']} curves against numpy: {one['envelopes_differ']} envelopes differ in any bit,"
    yield f"  rows by {one['row_error']:.2g} (allowed {one['row_error_allowed']:g}), pixels by {one['pixel_error']:.2g}"
    rows = [["us/curve at", "envelope", "picture", "both by numpy"]]
    rows += [
        [size, *(f"{cost[name]:.2f}" for name in ("envelope", "picture", "numpy"))]
        for size, cost in one["microseconds"].items()
    ]
    yield from align(rows)


def _engines(one: Found) -> Iterator[str]:
    yield "engines, from signals to logits on the host; device: queued, envelope and network"
    rows = [["", "batch", "p50 ms", "p99 ms", "curves/s", "device ms", "raster"]]
    notes = []
    for name, engine in one.items():
        if "failed" in engine:
            notes.append(f"{name}: {engine['failed']}")
            continue
        for size, speed in engine["batches"].items():
            figures = [f"{speed[key]:.3f}" for key in ("p50_ms", "p99_ms")]
            share = f"{speed['raster_share']:.1%}" + ("" if speed["picture_ms"] is not None else " + picture inside")
            rows.append([name, size, *figures, f"{speed['per_s']:.0f}", f"{speed['device_ms']:.3f}", share])
        notes.append(
            f"{name} ({engine['engine']}): built in {engine['build_s']:.2f} s, again in {engine['again_s']:.2f} s;"
            f" a logit differs by {engine['bucket_difference']:.2g} between batch sizes at most"
        )
    yield from align(rows)
    yield from notes


def _verdicts(one: Found) -> Iterator[str]:
    yield f"verdicts against torch in single precision, {one['curves']} curves, {one['real']} of them real"
    rows = [["", "self-test", "largest difference", "changed", "with the second look", "keep <-> discard"]]
    for name, engine in _named(one):
        if "failed" in engine:
            rows.append([name, engine["failed"], "-", "-", "-", "-"])
            continue
        alone, looked = engine["alone"], engine["in_service"]
        changed = [f"{len(some['changes'])} ({some['share_changed']:.3%})" for some in (alone, looked)]
        difference = f"{alone['largest_difference']:.5f}"
        rows.append([name, engine["selftest"], difference, *changed, str(len(alone["jumps"]))])
    yield from align(rows, left=(0, 1))


def _rescore(one: Found) -> Iterator[str]:
    yield f"{one['curves']} prepared curves ({one['bytes'] / 1e9:.2f} GB) judged again"
    rows = [["", "s", "curves/s", "with the second look, s"]]
    for name, engine in _named(one):
        if "failed" in engine:
            rows.append([name, engine["failed"], "-", "-"])
        else:
            rate = one["curves"] / max(engine["alone_s"], 1e-9)
            rows.append([name, f"{engine['alone_s']:.2f}", f"{rate:.0f}", f"{engine['in_service_s']:.2f}"])
    yield from align(rows)


def _plans(one: Found) -> Iterator[str]:
    yield f"{one['library']}: accepts this GPU: {'yes' if one['accepted'] else 'NO'}"
    if "build_s" not in one:
        return
    yield f"  {one['bytes'] / 1e6:.1f} MB, compiled in {one['build_s']:.2f} s, loaded in {one['load_s']:.2f} s"
    if (refit := one.get("refit")) is None:
        return
    if "failed" in refit:
        yield f"  refit: {refit['failed']}"
    else:
        yield f"  refit: {refit['tensors']} tensors in {refit['refit_s']:.3f} s{'' if refit['done'] else ', REFUSED'}"


def _swap(one: Found) -> Iterator[str]:
    yield f"swap at 200 curves/s, {one['engine']}: the second engine beside the first in {one['beside_s']:.2f} s,"
    yield f"  longest wait for an answer {one['longest_gap_ms']:.1f} ms (p99 {one['p99_gap_ms']:.1f});"
    yield f"  {one['answers']} answers, {one['by_fallback']} of them by the fallback"


def _faults(one: Found) -> Iterator[str]:
    yield "real faults under a batch of 32, in an engine process"
    rows = [["", "answered s", "by", "right", "device back s", "of it pause", "same bits again", "seen as"]]
    for name, fault in one.items():
        if "failed" in fault:
            rows.append([name, "-", fault["failed"], "-", "-", "-", "-", "-"])
            continue
        back = "never" if fault["back_s"] is None else f"{fault['back_s']:.2f}"
        kinds = ", ".join(fault["faults"]) or "none"
        yes = ["yes" if fault[key] else "NO" for key in ("same_verdicts", "same_bits_again")]
        answered = f"{fault['answered_s']:.3f}"
        rows.append([name, answered, fault["by"], yes[0], back, f"{fault['pause_s']:g}", yes[1], kinds])
    yield from align(rows, left=(0, 2, 7))


def _named(one: Found) -> Iterator[tuple[str, Found]]:
    """The engines of a part, apart from its counts."""
    return ((name, engine) for name, engine in one.items() if isinstance(engine, Mapping))


_PARTS = {
    "plans": _plans,
    "raster": _raster,
    "engines": _engines,
    "verdicts": _verdicts,
    "rescore": _rescore,
    "swap": _swap,
    "faults": _faults,
}
