"""Quantising: int8 for one model, from a laboratory's own curves; what `models build --precision int8` does.

It finds the ranges with which a network computes in eight bits, and proves them on other curves. A range is the one
that rounds the values of the calibration curves with the least squared error, so that one spike of a strong adhesion
does not make all else coarse. Nothing else is changed: on the shipped model the largest error is a tenth of that of a
general quantiser, which also moves biases (deploy/decisions/0010).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.common.errors import BAD_DATA, UNREACHABLE, UserError
from daemon.common.stdio import progress
from daemon.reading.ahead import find, read_curves
from deploy.classifier import CHUNK, EngineRequest, Signals
from deploy.engine_cache import UnsafeCache
from deploy.engines import named
from deploy.openvino_engine import Graph, Int8, OpenVinoClassifier, compiled, keep
from deploy.serving import TOLERANCE
from models.anatomy import fold
from models.bundle import Bundle
from models.curve import Curve
from models.frontend import prepare
from models.raster import RasterProfile, coverage, envelope
from models.simulate import simulate

FEWEST = 100  # curves; with fewer the largest error says little of the next
MOST_CALIBRATED = 500
SIMULATED = (300, 1000)  # that calibrate and prove beside them: what a laboratory has not yet seen must not be cut off
SAFETY = 1.5  # times the largest error seen
REACH = 2.0  # times the largest error anywhere: a logit further than that from both thresholds moves no verdict
BINS = 4096
_SHARES = np.linspace(0.05, 1.0, 96)  # of the largest value: the ranges that are tried
_SEED = 5_000_000


class CannotQuantise(Exception):
    """One line for the user: too few curves, or a network that eight bits do not carry."""


def quantise(bundle: Bundle, signals: Signals, threads: int | None = None) -> Int8:
    """Prepared signals of real curves -> ranges from some, errors from the others; CannotQuantise where it will not do.

    Every other curve calibrates, 500 at most; neighbours in a folder resemble each other, so both halves see all.
    """
    if len(signals) < FEWEST:
        raise CannotQuantise(f"{len(signals)} curves that can be scored are too few for int8; give {FEWEST} or more")
    chosen = range(0, len(signals), 2)[:: -(-len(signals) // (2 * MOST_CALIBRATED))]
    others = sorted(set(range(len(signals))).difference(chosen))
    drawn = _draw(bundle.profile)
    ranges = find_ranges(bundle, [*(signals[place] for place in chosen), *islice(drawn, SIMULATED[0])], threads)
    held_back = [*(signals[place] for place in others), *drawn]
    rough = OpenVinoClassifier(bundle, "int8", threads, Int8(ranges, 0.0, {})).classify(held_back).logits
    exact = OpenVinoClassifier(bundle, "fp32", threads).classify(held_back).logits
    found = _prove(bundle, ranges, rough, exact, len(others))
    if found.evidence["moved"] or not found.margin <= TOLERANCE["int8"]:
        worst = f"near a threshold a logit is {found.evidence['largest_error']:.2f} off"
        most = f"{TOLERANCE['int8'] / SAFETY:.2f} is the most allowed"
        raise CannotQuantise(f"{bundle.id} does not stand int8: {worst}, {most}; leave [engine] precision at auto")
    return found


def _draw(profile: RasterProfile) -> Iterator[NDArray[np.float32]]:
    """Signals of simulated curves, half of them with an event."""
    for item in simulate(sum(SIMULATED), _SEED, 0.5):
        signal = prepare([item.curve], profile)[0].signal
        if signal is not None:
            yield signal


def _prove(
    bundle: Bundle, ranges: dict[str, float], rough: NDArray[np.float64], exact: NDArray[np.float64], real: int
) -> Int8:
    """(N,) logits in int8 and in single precision, ``real`` ones first -> the margin, and what it rests on."""
    limits = bundle.limits
    errors = np.abs(rough - exact)
    within = np.abs(exact[:, None] - limits).min(axis=1) < REACH * errors.max()
    largest = float(errors[within].max(initial=0.0))
    near = np.abs(rough[:, None] - limits).min(axis=1) < SAFETY * largest
    moved = np.digitize(rough, limits) != np.digitize(exact, limits)
    evidence = {
        "proved_on": {"real": real, "simulated": len(exact) - real, "within_reach": int(within.sum())},
        "largest_error": largest,
        "largest_error_anywhere": float(errors.max()),
        "error_99": float(np.quantile(errors, 0.99)),
        "median_error": float(np.median(errors)),
        "judged_twice": float(near[:real].mean()),  # of the real ones
        "moved_alone": int(moved.sum()),
        "moved": int((moved & ~near).sum()),
    }
    return Int8(ranges, SAFETY * largest, evidence)


def find_ranges(bundle: Bundle, signals: Signals, threads: int | None = None) -> dict[str, float]:
    """Point of the graph -> the range whose 256 levels fit its values best; a picture's is 0 to 1."""
    shape = (1, bundle.profile.rows, bundle.profile.columns)
    graph = Graph(bundle.width, fold(bundle.width, bundle.weights), shape)
    request, names = compiled(graph.watched(), "fp32", threads), list(graph.points)
    highest = np.full(len(names), 1e-6)
    for values in _watch(request, bundle, signals):
        highest = np.maximum(highest, [float(value.max()) for value in values])
    counts = np.zeros((len(names), BINS))
    for values in _watch(request, bundle, signals):
        for place, value in enumerate(values):
            bins = np.minimum(value.reshape(-1) * np.float32(BINS / highest[place]), BINS - 1).astype(np.int32)
            counts[place] += np.bincount(bins, minlength=BINS)
    best = [float(top) * _best_share(count) for top, count in zip(highest, counts, strict=True)]
    return dict(zip(names, best, strict=True)) | {"pictures": 1.0}


def _watch(request: Any, bundle: Bundle, signals: Signals) -> Iterator[Sequence[NDArray[np.float32]]]:
    """The values at every point, for each batch."""
    for start in range(0, len(signals), CHUNK):
        images = coverage(envelope(signals[start : start + CHUNK], bundle.profile), bundle.profile)
        found = request.infer([images])
        yield [found[place] for place in range(len(found))]


def _best_share(counts: NDArray[np.float64]) -> float:
    """(BINS,) values between 0 and the largest -> the share of it at which to cut, by least squares.

    Zero is exact at any range, so the first bin has no say.
    """
    centres = (np.arange(BINS) + 0.5) / BINS
    steps = _SHARES[:, None] / 255.0
    rounded = np.minimum(np.round(centres / steps), 255.0) * steps
    costs = (counts[1:] * (rounded - centres)[:, 1:] ** 2).sum(axis=1)
    return float(_SHARES[int(np.argmin(costs))])


# The signals that engines are compared on: of real curves and simulated ones, the same for every engine.

SIMULATED_SEED = 4_000_000  # added to the seed: curves that no training has drawn


@dataclass(frozen=True, slots=True, eq=False)
class PreparedCurves:
    """N curves that can be scored."""

    names: tuple[str, ...]  # path#index, or "simulated N"
    signals: tuple[NDArray[np.float32], ...]  # as models.frontend.prepare gives them
    reasons: tuple[tuple[str, ...], ...]
    real: int  # so many of them, and they come first

    def save(self, path: Path) -> None:
        """The signals alone, for another process."""
        lengths = np.array([len(signal) for signal in self.signals], np.int64)
        np.savez(path, samples=np.concatenate(self.signals), lengths=lengths)


def load(path: Path) -> Signals:
    """What ``save`` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return np.split(stored["samples"], np.cumsum(stored["lengths"])[:-1])


def gather(
    folders: Sequence[Path], simulated: int, seed: int, profile: RasterProfile, prevalence: float = 0.5
) -> PreparedCurves:
    """Every curve below ``folders`` that can be scored, then ``simulated`` ones, ``prevalence`` of them events."""
    names: list[str] = []
    signals: list[NDArray[np.float32]] = []
    reasons: list[tuple[str, ...]] = []
    real = 0
    stream = simulate(simulated, seed + SIMULATED_SEED, prevalence)
    drawn = (item.curve for item in progress(stream, "simulating", simulated))
    for is_real, curves in ((True, _read(folders)), (False, ((f"simulated {n}", one) for n, one in enumerate(drawn)))):
        for name, curve in curves:
            (prepared,) = prepare([curve], profile)
            if prepared.signal is not None:
                names.append(name)
                signals.append(prepared.signal)
                reasons.append(prepared.reasons)
                real += is_real
    return PreparedCurves(tuple(names), tuple(signals), tuple(reasons), real)


def _read(folders: Sequence[Path]) -> Iterator[tuple[str, Curve]]:
    """In reader processes, as what lies in a folder may be anything."""
    for reading in progress(read_curves(find(folders)), "reading"):
        if reading.curve is not None:
            yield f"{reading.arrival.path}#{reading.index}", reading.curve


def build_int8(bundle: Bundle, folders: Sequence[Path], cache: Path, threads: int | None = None) -> list[str]:
    """Measure and keep it for ``[engine] precision = "int8"``; lines that say what it costs.

    UserError 65 for curves that are too few or a model that does not stand it, 69 without OpenVINO.
    """
    if refusal := named("openvino").refuses(EngineRequest(engine="openvino", precision="int8")):
        raise UserError(UNREACHABLE, f"int8 is computed by OpenVINO: {refusal}")
    if missing := [str(folder) for folder in folders if not folder.exists()]:
        raise UserError(BAD_DATA, f"--curves {', '.join(missing)}: no such file or folder")
    from daemon.learn.int8 import CannotQuantise, quantise

    curves = gather(folders, 0, 0, bundle.profile)
    try:
        found = quantise(bundle, curves.signals, threads)
        keep(bundle, found, cache)
    except (CannotQuantise, UnsafeCache) as error:
        raise UserError(BAD_DATA, str(error)) from None
    return [*describe(bundle, found), f"kept for the service whose state folder is {cache.parent}"]


def describe(bundle: Bundle, found: Int8) -> list[str]:
    """For a person who decides whether to use it."""
    said, proved = found.evidence, found.evidence["proved_on"]
    return [
        f"{bundle.id} in int8, on {proved['real']} of these curves and {proved['simulated']} simulated ones, none of "
        "which calibrated it:",
        f"  a logit is {said['median_error']:.3f} off (median), {said['error_99']:.3f} (99 %), "
        f"{said['largest_error']:.3f} (largest near a threshold)",
        f"  closer than {found.margin:.3f} to a threshold single precision decides: {said['judged_twice']:.1%} of the "
        "real ones",
        f"  verdicts that are not those of single precision: {said['moved']} ({said['moved_alone']} by int8 alone)",
        'to serve with it: [engine] precision = "int8", then afm-triage reload',
    ]
