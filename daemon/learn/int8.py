"""Quantising: int8 for one model, from a laboratory's own curves; what `models build --precision int8` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daemon.common.errors import BAD_DATA, UNREACHABLE, UserError
from daemon.common.progress import progress
from daemon.reading.ahead import read_curves
from daemon.sources.existing import find
from deploy.classifier import EngineRequest, Signals
from deploy.engine_cache import UnsafeCache
from deploy.engines import named
from deploy.openvino_engine import Int8, keep
from models.bundle import Bundle
from models.curve import Curve
from models.frontend import prepare
from models.raster import RasterProfile
from models.simulate import simulate

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
    from deploy.quantiser import CannotQuantise, quantise

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
