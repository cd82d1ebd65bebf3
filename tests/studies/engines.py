"""Study engines: does every engine on a CPU give the verdicts of torch in single precision, and what does each cost.

Labels are not needed: every engine is asked of the same curves. The simulated ones are a stream in which events are
rare, the real ones whatever lies below the folders. Int8 is calibrated on every other real curve and asked of the rest.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from daemon.bench import compare
from daemon.bench.apart import ChildFailed, call
from daemon.bench.machine import neighbours
from daemon.common.errors import USAGE, UserError
from daemon.common.options import Option
from daemon.common.stdio import progress
from daemon.common.text import align, first_line
from daemon.learn.int8 import PreparedCurves
from deploy.classifier import Classifier, EngineRequest, Seen, usable_cores
from deploy.engines import ENGINES, named
from deploy.serving import Model
from models.bundle import Bundle
from models.files import write_whole

FEWEST = 200  # real curves; with fewer, int8 is left out


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Folders of real curves are what int8 is calibrated on, so without them it is left out."""

    folders: Annotated[tuple[Path, ...], Option("real curves (without them: no int8)", "DIR", is_positional=True)] = ()
    model: Annotated[str, Option("the model that is asked")] = "shipped"
    curves: Annotated[int, Option("simulated ones", "N")] = 20_000
    prevalence: Annotated[float, Option("of events among them", "P")] = 0.02
    seed: Annotated[int, Option("no training has used it", "N")] = 970_501
    seconds: Annotated[float, Option("a measurement of speed; 0: none", "S")] = 1.0
    out: Annotated[Path | None, Option("what the tables were made from", "FILE.json")] = None


def run(options: Options) -> int:
    """Exit 0 with the tables, 64 for options that make no sense, 65 for folders that are not there."""
    if options.curves < 0 or not 0 < options.prevalence < 1 or options.seconds < 0:
        raise UserError(USAGE, "--curves and --seconds are 0 or more, --prevalence lies between 0 and 1")
    if missing := [str(folder) for folder in options.folders if not folder.exists()]:
        raise UserError(USAGE, f"{', '.join(missing)}: no such file or folder")
    if not options.curves and not options.folders:
        raise UserError(USAGE, "nothing to ask: name folders of curves, or leave --curves at 20000")

    with tempfile.TemporaryDirectory(prefix="afm-triage-") as cache:
        report = _study(options, Path(cache))
    if options.out is not None:
        write_whole(options.out, json.dumps(report, indent=1).encode() + b"\n")
        print(f"written: {options.out}", file=sys.stderr)
    print("\n".join(write_text(report)))
    return 0


def _study(options: Options, cache: Path) -> dict[str, Any]:
    from daemon.learn.int8 import gather
    from models.bundle import read, resolve

    bundle = read(resolve(options.model))
    curves = gather(options.folders, options.curves, options.seed, bundle.profile, options.prevalence)
    taught = teach_int8(bundle, curves, cache, FEWEST)
    return {
        "model": bundle.id,
        "thresholds": {"discard": bundle.discard, "keep": bundle.keep},
        "curves": {"real": curves.real, "simulated": len(curves.names) - curves.real},
        **{name: getattr(options, name) for name in ("prevalence", "seed")},
        "int8": taught,
        "agreement": agree(bundle, curves, cache, isinstance(taught, dict)),
        "cost": cost(options.model, curves, cache, isinstance(taught, dict), options.seconds)
        if options.seconds
        else [],
        "installed_bytes": installed_bytes(),
    }


# Agreement: each engine's logits and verdicts beside those of torch in single precision, curve by curve.

PART = 512  # curves between two signs of life


def cpu_requests(cache: Path, with_int8: bool) -> Iterator[EngineRequest]:
    """Every precision of every engine that computes here, on a processor; torch in single precision first."""
    yield EngineRequest("cpu", "torch", "fp32", 1, cache)
    for engine in ENGINES:
        for precision in engine.precisions if engine.device == "cpu" and engine.missing() is None else ():
            if (engine.name, precision) != ("torch", "fp32") and (precision != "int8" or with_int8):
                yield EngineRequest("cpu", engine.name, precision, 1, cache)


def teach_int8(bundle: Bundle, curves: PreparedCurves, cache: Path, fewest: int) -> dict[str, Any] | str:
    """Calibrate int8 on every other real curve and keep it in ``cache``; what was found, or why not."""
    if why := named("openvino").missing():
        return why
    if curves.real < fewest:
        return f"int8 is calibrated on real curves, and {curves.real} are too few ({fewest})"
    from daemon.learn.int8 import CannotQuantise, quantise
    from deploy.openvino_engine import keep

    try:
        found = quantise(bundle, curves.signals[: curves.real : 2], 1)
    except CannotQuantise as error:
        return str(error)
    keep(bundle, found, cache)
    return asdict(found)


timed_requests = cpu_requests  # a test, which has not an hour, times fewer


def agree(bundle: Bundle, curves: PreparedCurves, cache: Path, with_int8: bool) -> list[dict[str, Any]]:
    """One entry an engine: errors, margin, verdicts alone and as served; or why it does not run here."""
    wishes = list(cpu_requests(cache, with_int8))
    wanted = _seen(named("torch").build(bundle, wishes[0]), curves, "torch-cpu-fp32").logits
    found = []
    for wish in wishes[1:]:
        try:
            found.append(_compare(bundle, curves, wish, wanted))
        except Exception as error:  # a library's own, on a processor that it does not know: the others are asked
            found.append({"engine": f"{wish.engine}-cpu-{wish.precision}", "failed": first_line(error)})
    return found


def _compare(
    bundle: Bundle, curves: PreparedCurves, wish: EngineRequest, wanted: NDArray[np.float64]
) -> dict[str, Any]:
    if wish.precision == "int8":
        places = [*range(1, curves.real, 2), *range(curves.real, len(curves.names))]
        curves, wanted = _only(curves, places), wanted[places]
    engine = named(wish.engine)
    classifier = engine.build(bundle, wish)
    alone = _seen(classifier, curves, str(classifier.engine))
    model = Model.of(bundle, wish)
    served = _seen(model, curves, f"{classifier.engine}, as served").logits
    errors = np.abs(alone.logits - wanted)
    margin = model.margin_of(alone)
    near = np.abs(alone.logits[:, None] - bundle.limits).min(axis=1) < margin
    return {
        "engine": str(classifier.engine),
        "real": curves.real,
        "curves": len(curves.names),
        "errors": {name: float(np.quantile(errors, at)) for name, at in (("median", 0.5), ("99 %", 0.99), ("max", 1))},
        "margin": margin,
        "judged_twice": {
            "real": float(near[: curves.real].mean()) if curves.real else None,
            "simulated": float(near[curves.real :].mean()) if curves.real < len(near) else None,
        },
        "alone": compare(curves, bundle, wanted.tolist(), alone.logits.tolist()),
        "as_served": compare(curves, bundle, wanted.tolist(), served.tolist()),
    }


def _seen(classifier: Classifier | Model, curves: PreparedCurves, what: str) -> Seen:
    """All logits, and of the first part the margin."""
    starts = range(0, len(curves.signals), PART)
    parts = [classifier.classify(curves.signals[start : start + PART]) for start in progress(starts, what, len(starts))]
    logits, edges = (np.concatenate([getattr(part, name) for part in parts]) for name in ("logits", "edges"))
    return Seen(logits, edges, margin=parts[0].margin)


def _only(curves: PreparedCurves, places: Sequence[int]) -> PreparedCurves:
    return PreparedCurves(
        names=tuple(curves.names[place] for place in places),
        signals=tuple(curves.signals[place] for place in places),
        reasons=tuple(curves.reasons[place] for place in places),
        real=sum(place < curves.real for place in places),
    )


# Cost: speed, tail, start and memory of each engine on a CPU, each in a process of its own, and its installed
# size.

NEIGHBOURS = (0, 2)  # an acquisition program may keep every core of a small computer busy
THREADS = (1, 2)
_PACKAGES = {"openvino": ("openvino", "openvino-telemetry"), "torch": ("torch", "sympy", "networkx", "mpmath")}


def cost(model: str, curves: PreparedCurves, cache: Path, with_int8: bool, seconds: float) -> list[dict[str, Any]]:
    """One entry an engine, number of threads and neighbourhood."""
    signals = cache / "signals.npz"
    curves.save(signals)
    threads = [count for count in THREADS if count <= usable_cores()]
    plans = [
        (replace(wish, threads=count), busy)
        for busy in NEIGHBOURS
        for wish in timed_requests(cache, with_int8)
        for count in threads
    ]
    found = []
    for wish, busy in progress(plans, "speed", len(plans)):
        request = {"model": model, "signals": str(signals), "compare": False, "seconds": seconds}
        told = {**asdict(wish), "cache": str(cache)}
        with neighbours(busy), suppress(ChildFailed):  # what does not run here is told of where verdicts are compared
            answer = call("engine", {**request, "wish": told})
            found.append({"threads": wish.threads, "neighbours": busy, **answer})
    return found


def installed_bytes() -> dict[str, int]:
    """Files of the packages that an engine brings."""
    return {name: sum(map(_size_bytes, packages)) for name, packages in _PACKAGES.items()}


def _size_bytes(package: str) -> int:
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        return 0
    paths = (Path(str(file.locate())) for file in files)
    return sum(path.stat().st_size for path in paths if path.is_file())


# The engines on a CPU as text: agreement, every verdict that is another, and cost.

BAR = 0.001  # share of verdicts that may be another than single precision's
_MOST_SHOWN = 40


def write_text(report: Mapping[str, Any]) -> list[str]:
    """``report`` is what ``--out`` writes."""
    limits, counts, taught = report["thresholds"], report["curves"], report["int8"]
    lines = [
        f"{report['model']}: discard at {limits['discard']:.4g}, keep from {limits['keep']:.4g}",
        f"{counts['real']} real curves, {counts['simulated']} simulated ones, {report['prevalence']:.1%} with an event "
        f"(seed {report['seed']}); the reference is torch-cpu-fp32",
    ]
    lines += [f"no int8: {taught}"] if isinstance(taught, str) else [_int8(taught["evidence"])]
    asked = [one for one in report["agreement"] if "failed" not in one]
    lines += ["", *_agreement(asked), "", *_changes(asked)]
    lines += [f"{one['engine']} does not run here: {one['failed']}" for one in report["agreement"] if "failed" in one]
    if report["cost"]:
        lines += ["", *_cost(report["cost"])]
    return [*lines, "", *_installed(report["installed_bytes"])]


def _int8(said: Mapping[str, Any]) -> str:
    proved = said["proved_on"]
    return (
        f"int8: ranges from a quarter of the real curves, its margin from {proved['real']} more and "
        f"{proved['simulated']} simulated ones; it is asked of none of these"
    )


def _agreement(engines: Sequence[Mapping[str, Any]]) -> list[str]:
    head = ["logit off by", "curves", "median", "99 %", "largest", "margin", "judged twice (real, simulated)"]
    head += ["other verdicts, alone", "as served", f"bar {BAR:.1%}"]
    rows = [
        [
            one["engine"],
            str(one["curves"]),
            *(f"{one['errors'][name]:.2g}" for name in ("median", "99 %", "max")),
            f"{one['margin']:.3g}" if one["margin"] else "-",
            ", ".join("-" if share is None else f"{share:.1%}" for share in one["judged_twice"].values()),
            _count(one["alone"], one["curves"]),
            _count(one["as_served"], one["curves"]),
            "reached" if one["as_served"]["share_changed"] <= BAR else "missed",
        ]
        for one in engines
    ]
    return align([head, *rows])


def _count(found: Mapping[str, Any], curves: int) -> str:
    jumps = f", {len(found['jumps'])} keep <-> discard" if found["jumps"] else ""
    return f"{len(found['changes'])} ({len(found['changes']) / curves:.3%}{jumps})"


def _changes(engines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every verdict that is another, with both scores; of a very long list the beginning."""
    lines = []
    for one in engines:
        for name in ("alone", "as_served"):
            changes = one[name]["changes"]
            if changes:
                lines.append(f"{one['engine']}, {name.replace('_', ' ')}")
            lines += [
                f"  {change['curve']}: {' -> '.join(change['verdicts'])}, "
                f"scores {change['scores'][0]:.5g} and {change['scores'][1]:.5g}"
                for change in changes[:_MOST_SHOWN]
            ]
            lines += [f"  and {len(changes) - _MOST_SHOWN} more (--out)"] if len(changes) > _MOST_SHOWN else []
    return lines or ["no verdict is another"]


def _cost(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    sizes = list(rows[0]["batches"])
    head = ["network alone", "threads", "busy neighbours", *(f"curves/s at {size}" for size in sizes)]
    head += ["CPU ms a curve", "one curve p50", "p99 ms", "load s", "memory MB"]
    cells = [
        [
            one["engine"],
            str(one["threads"]),
            str(one["neighbours"]),
            *(f"{one['batches'][size]['per_s']:.0f}" for size in sizes),
            f"{one['batches'][sizes[1]]['cpu_ms']:.2f}",
            f"{one['batches']['1']['latency_ms']['p50']:.2f}",
            f"{one['batches']['1']['latency_ms']['p99']:.2f}",
            f"{one['build_s']:.2f}",
            f"{one['peak_rss_bytes'] / 1e6:.0f}",
        ]
        for one in rows
    ]
    return align([head, *cells])


def _installed(sizes: Mapping[str, int]) -> list[str]:
    return ["installed: " + ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in sizes.items())]
