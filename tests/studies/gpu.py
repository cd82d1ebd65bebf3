"""Study gpu: the model on the GPU of this machine: bits, speed, verdicts, a million curves, new weights, real faults.

Needs numpy, torch with CUDA and safetensors beside this repository, and TensorRT where it is installed; a part that
fails says so and hides no other. With ``--device cpu`` the study only tries itself: its figures mean nothing.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from daemon.common.errors import BAD_DATA, UNREACHABLE, USAGE, UserError
from daemon.common.options import Option
from daemon.common.text import align

if TYPE_CHECKING:
    from tests.studies.gpu_parts import Session


PARTS = ("raster", "engines", "verdicts", "rescore", "plans", "swap", "faults")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Defaults take about five minutes of an H100."""

    model: Annotated[str, Option("model that judges")] = "shipped"
    device: Annotated[Literal["cuda", "cpu"], Option("cpu: only to try the study")] = "cuda"
    only: Annotated[tuple[str, ...] | None, Option(f"repeatable: {', '.join(PARTS)}", "PART", choices=PARTS)] = None
    simulate: Annotated[int, Option("curves beside the bundled ones", "N")] = 4000
    rescore: Annotated[int, Option("curves to judge again", "N")] = 1_000_000
    seconds: Annotated[float, Option("each repeated measurement", "S")] = 1.0
    seed: Annotated[int, Option("of the simulated curves", "N")] = 1
    out: Annotated[Path | None, Option("also what the tables were made from, part by part", "FILE.json")] = None


def run(options: Options) -> int:
    """Exit 0 with the tables, 64 for options that make no sense, 69 where there is no GPU."""
    if options.simulate < 1 or options.rescore < 1 or options.seed < 0 or not options.seconds > 0:
        raise UserError(USAGE, "--simulate and --rescore are 1 or more, --seconds above 0, --seed 0 or more")
    import tempfile

    import torch

    from daemon.bench import CURVES
    from daemon.learn.int8 import gather
    from models.bundle import BadBundle, read, resolve
    from tests.studies.gpu_parts import Session

    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError(UNREACHABLE, "there is no NVIDIA GPU that torch can use (--device cpu only tries the study)")
    try:
        bundle = read(resolve(options.model))
    except BadBundle as error:
        raise UserError(BAD_DATA, str(error)) from None
    curves = gather((CURVES,), options.simulate, options.seed, bundle.profile)
    found: dict[str, Any] = {"machine": _machine(options.device), "model": bundle.id, "settings": _settings(options)}
    with tempfile.TemporaryDirectory(prefix="afm-triage-") as folder:
        session = Session(bundle, options.device, curves, options.seconds, options.rescore, Path(folder) / "engines")
        for part in PARTS:
            if part in (options.only or PARTS):
                print(f"{part} …", file=sys.stderr, flush=True)
                found[part] = _measured(_parts()[part], session)
                _keep(options.out, found)
    print(write_text(found))
    return 0


def _parts() -> dict[str, Callable[[Session], dict[str, Any]]]:
    from tests.studies import gpu_parts, gpu_swap

    return {
        "raster": gpu_parts.compare_rasters,
        "engines": gpu_parts.time_engines,
        "verdicts": gpu_parts.compare_verdicts,
        "rescore": gpu_parts.rescore,
        "plans": gpu_swap.plans,
        "swap": gpu_swap.swap,
        "faults": gpu_swap.cause_faults,
    }


def _measured(part: Callable[[Session], dict[str, Any]], session: Session) -> dict[str, Any]:
    """Whatever a part raises is what it found."""
    from tests.studies.gpu_parts import failed

    try:
        return part(session)
    except Exception as error:
        return failed(error)


def _keep(out: Path | None, found: dict[str, Any]) -> None:
    """After every part: a library may end the process."""
    if out is not None:
        from models.files import write_whole

        write_whole(out, (json.dumps(found, indent=1) + "\n").encode())


def _machine(device: str) -> dict[str, Any]:
    import torch

    from deploy.tensorrt_engine import driver, flavours_here

    found: dict[str, Any] = {"torch": torch.__version__, "device": device, "cores": len(os.sched_getaffinity(0))}
    found["torch-tensorrt"] = ", ".join(flavour.distribution for flavour in flavours_here()) or "not installed"
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        found |= {"gpu": card.name, "capability": f"{card.major}.{card.minor}", "driver": driver()}
        found |= {"gpu_bytes": card.total_memory, "cuda": torch.version.cuda}
    return found


def _settings(options: Options) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("simulate", "rescore", "seconds", "seed", "only")}


# The tables of `make study TOPIC=gpu`, part by part; what was not measured says why.

Found = Mapping[str, Any]


def write_text(found: Found) -> str:
    """Lines for a terminal, or for a page between the fences of a code block."""
    machine = found["machine"]
    lines = [f"{key}: {value}" for key, value in machine.items()]
    for part, write in _PARTS.items():
        if part in found:
            lines += ["", *(_trouble(part, found[part]) or list(write(found[part])))]
    return "\n".join(lines)


def _trouble(part: str, one: Found) -> list[str]:
    return [f"{part}: {word}: {one[word]}" for word in ("skipped", "failed") if word in one]


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
    yield f"{one['library']}: accepted by this GPU: {'yes' if one['accepted'] else 'NO'}; {one['bytes'] / 1e6:.1f} MB"
    yield f"  compiled in {one['build_s']:.2f} s, loaded in {one['load_s']:.2f} s"
    refit = one["refit"]
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
    "raster": _raster,
    "engines": _engines,
    "verdicts": _verdicts,
    "rescore": _rescore,
    "plans": _plans,
    "swap": _swap,
    "faults": _faults,
}
