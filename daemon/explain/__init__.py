"""The explanation: one curve of a file, judged as in service, with where in its picture the network looked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from daemon.client.folders import wait_for_shares, watched_folders
from daemon.common.errors import BAD_DATA, UNREACHABLE, UserError
from daemon.common.text import clean, page
from daemon.config import Config
from daemon.formats import NAMES
from daemon.formats.afmcurve import PackedReader, unpack
from daemon.formats.text_rule import TextRule
from daemon.judging import Decision, Judge, Thresholds, Verdict, classify, decide
from daemon.labels.curve_name import CurveFinder, Subject, is_there
from daemon.ledger.view import LedgerView
from daemon.reading import Reading
from daemon.reading.ahead import find
from daemon.reading.pool import ReaderPool
from daemon.sources import Arrival
from deploy.serving import Model
from models.bundle import Bundle
from models.curve import Curve, Prepared, Samples
from models.frontend import LARGEST, force_scale, prepare, turned
from models.raster import coverage, envelope
from models.reasons import REASONS
from models.ruptures import Rupture, approach_nm, positions_nm, ruptures

if TYPE_CHECKING:
    from models.network import Place, ResNet18


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """What the network saw of a curve, and where it looked."""

    picture: NDArray[np.float32]  # (H, W) ink, row 0 is the strongest push
    map: NDArray[np.float32]  # (H, W) what speaks for an event, 0 to 1
    along: NDArray[np.float32]  # (W,) the same for each column; all 0 where nothing does
    place: Place
    peak: float | None  # the sample of the retract where it is warmest


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """A verdict on a curve and what it rests on; ``attention`` is None where no score could be made."""

    decision: Decision
    curve: Curve  # upside down where its sign was open and that way it scored higher
    prepared: Prepared
    bundle: Bundle
    attention: Attention | None
    ruptures: tuple[Rupture, ...] = ()
    judged: Judged | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """The decision that the ledger has of a curve."""

    time: str  # RFC 3339
    verdict: Verdict
    score: float | None
    model: str  # its id
    thresholds: Thresholds
    sha256: str | None  # of the file as it was then


def judged(subject: Subject, service: Config) -> Judged | None:
    """What was decided of a curve that :func:`look_up` found; None where it never was, or no ledger says so."""
    ledger = None if subject.seq is None else _ledger_of(service, Path(subject.path))
    if ledger is None or subject.seq is None:
        return None
    with ledger:
        event = ledger.decisions([subject.seq]).get(subject.seq)
    if event is None:
        return None
    data = event["data"]
    cuts = Thresholds(data["thresholds"]["discard"], data["thresholds"]["keep"])
    return Judged(event["time"], data["verdict"], data["score"], data["model"], cuts, data.get("sha256"))


def look_up(
    name: str, curve: int | None, service: Config, rules: Sequence[TextRule] = (), pool: ReaderPool | None = None
) -> tuple[Subject, Reading]:
    """The curve of a name, from its file, else from the copy that the ledger keeps of what may be looked at.

    ``pool``: readers with these rules, for who asks for many. UserError 65 where there is none, 64 where the name may
    be that of several.
    """
    wait_for_shares([Path(name)])
    if os.path.isdir(name):
        raise UserError(BAD_DATA, f"{clean(name)}: is a folder; name one file")
    with ExitStack() as closing:
        ledger = _ledger_of(service, Path(name))
        if ledger is not None:
            closing.enter_context(ledger)
        watched = service.watch if ledger is None else watched_folders(service)
        subject = CurveFinder(ledger, watched, takes_first=True).find(name, curve)
        if subject.file is not None and is_there(subject.file):
            reading = find_reading(subject.file, subject.curve, rules, pool)
        elif ledger is not None and subject.seq is not None and (copy := ledger.compact_copy(subject.seq)) is not None:
            reading = _of_copy(subject, copy)
        else:
            gone = "its file is gone or does not answer, and the ledger keeps no copy of most discards"
            raise UserError(BAD_DATA, f"{subject.name}: {gone}")
    # Under the name that events give it.
    return subject, replace(reading, arrival=replace(reading.arrival, path=subject.path, folder=subject.folder))


def find_reading(file: Path, index: int, rules: Sequence[TextRule] = (), shared: ReaderPool | None = None) -> Reading:
    """Curve ``index`` of a file; UserError 65 when there is no such file or curve, or nobody can read it."""
    shown = clean(str(file))
    if file.is_dir():
        raise UserError(BAD_DATA, f"{shown}: is a folder; name one file")
    if not file.is_file():
        raise UserError(BAD_DATA, f"{shown}: no such file; name one file of force curves")
    if NAMES.is_second_half(file.name):
        raise UserError(BAD_DATA, f"{shown}: is the second half of a pair; name the first, {_first_half(file)}")
    (arrival,) = find([file])
    with ReaderPool(1, rules=rules) if shared is None else nullcontext(shared) as pool:
        part = pool.read(arrival)
        if part.outcome != "curves":
            why = f" ({part.reason})" if part.reason else ""
            raise UserError(BAD_DATA, f"{shown}: no force curve{why}; which are read: {page('files')}")
        if index >= part.total:
            there = (
                "holds one curve, number 0" if part.total == 1 else f"holds {part.total} curves, 0 to {part.total - 1}"
            )
            raise UserError(BAD_DATA, f"{shown} {there}; --curve {index} is none of them")
        if index >= len(part.readings):
            part = pool.read(arrival.portion(index, part.readings[0].sha256, part.total))
    reading = next(one for one in part.readings if one.index == index)
    if reading.curve is None:
        raise UserError(BAD_DATA, f"{shown}: curve {index} cannot be read: {reading.reason}")
    return reading


def _ledger_of(service: Config, file: Path) -> LedgerView | None:
    """None where there is none; a file that is there is explained also where the ledger cannot be read."""
    try:
        return LedgerView(service.ledger_file)
    except UserError as error:
        if error.exit_code == UNREACHABLE or file.is_file():
            return None
        raise


def _of_copy(subject: Subject, compact_copy: bytes) -> Reading:
    curve = unpack(compact_copy)[0]
    arrival = Arrival("score", subject.path, subject.file or Path(subject.path))
    format = PackedReader.format.name
    return Reading(arrival, subject.curve, subject.sha256, curve, format=format, acquired_s=curve.acquired_s)


def _first_half(second: Path) -> str:
    return clean((NAMES.find_other(second) or second.with_name(next(NAMES.other_names(second.name)))).name)


def explain(reading: Reading, model: Model, judge: Judge, before: Judged | None = None) -> Explanation:
    """Judge the curve of ``reading`` as in service, then look again with gradients, in single precision.

    ``before``: what was decided of it, to be told beside.
    """
    assert reading.curve is not None
    (scored,) = classify([reading], model, judge.thresholds)
    decision = decide([reading], [scored], judge)[0]
    curve = turned(reading.curve) if scored is not None and scored.is_turned else reading.curve
    prepared = prepare([curve], model.bundle.profile)[0]
    attention = None
    if decision.score is not None:
        attention = _look(curve, prepared, network_of(model), model.bundle)
    broken = ruptures(curve, prepared)
    return Explanation(decision, curve, prepared, model.bundle, attention, broken, before)


def network_of(model: Model) -> ResNet18:
    """The network of a model in single precision, where its engine computes."""
    from models.network import load

    return load(model.bundle.width, model.bundle.weights).to(model.engine.device)


def _look(curve: Curve, prepared: Prepared, network: ResNet18, bundle: Bundle) -> Attention:
    from models.network import look, place_of

    assert prepared.signal is not None
    picture = coverage(envelope([prepared.signal], bundle.profile), bundle.profile)
    heat = look(network, picture)
    place, column = place_of(curve, prepared, bundle.profile), int(heat.peaks[0])
    peak = float(place.sample_of(column)) if column >= 0 else None
    return Attention(picture[0, 0], heat.map[0], heat.along[0], place, peak)


def sentences(reasons: Sequence[str]) -> list[str]:
    """What every reason but the score itself means."""
    return [REASONS[reason].text for reason in reasons if reason != "score"]


def share(value: float) -> str:
    """``0.97``, ``0.0021``: three digits that count, never rounded to a certainty."""
    if 0.9995 <= value < 1.0:
        return "> 0.999"
    return f"{value:.3g}" if value >= 1e-4 else f"{value:.0e}"


# The axes of an explanation: a retract in units that a biophysicist reads, thinned to what a screen can show.

SCREEN = 1500  # pairs of points; a picture is not wider
_EARLY = 0.2  # of a push: the tip is deepest where it turns round, and while it rests there


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """A retract ready to be drawn, (n,) each."""

    x: Samples
    y: Samples  # baseline at 0 where it is known; NaN where the file holds no finite number
    approach: tuple[Samples, Samples] | None  # x and y, (m,) each, in time order
    baseline: Samples | None  # (n,) what the model took away
    heat: Samples  # 0 to 1, NaN where the picture does not show the sample
    noise: float | None  # rms of the averaged baseline, as y
    x_label: str
    y_label: str
    x_unit: str
    y_unit: str


def trace_of(explanation: Explanation) -> Trace:
    """Force in pN where the file says how, else in nm or V of deflection, else in the file's own numbers."""
    curve, prepared = explanation.curve, explanation.prepared
    x, x_label, x_unit = _abscissa(curve, prepared)
    level = prepared.level if prepared.level is not None else 0.0
    force = np.where(np.abs(curve.force) < LARGEST, curve.force - level, np.nan)
    factor, y_label, y_unit = _ordinate(curve, float(np.nanmax(np.abs(force), initial=0.0)))
    attention = explanation.attention
    heat = np.full(len(curve), np.nan) if attention is None else attention.place.spread(attention.along)
    baseline = None if attention is None else factor * _baseline(prepared, attention.place.first, len(curve))
    noise = None if prepared.noise is None else factor * prepared.noise
    on = approach_nm(curve, prepared) if x_unit else None
    approach = None if on is None or curve.approach_force is None else (on, factor * (curve.approach_force - level))
    return Trace(x, factor * force, approach, baseline, heat, noise, x_label, y_label, x_unit, y_unit)


def extent_of(trace: Trace) -> tuple[float, float]:
    """(bottom, top) that hold the whole retract, both ways, and of the push against the surface a third of the rest.

    A push is often many times as high as a rupture and would press everything else flat. Raises ValueError where no
    sample is finite.
    """
    y = trace.y[np.isfinite(trace.y)]
    bottom, top = float(y.min()), float(y.max())
    if trace.baseline is None:
        return bottom, top  # no score: nobody has said which part is the retract
    beyond = y[_contact_of(y) :]
    lowest, highest = float(beyond.min()), float(beyond.max())
    return max(bottom, min(lowest, -0.35 * max(highest, -lowest))), top


def _contact_of(y: Samples) -> int:
    """How many samples push against the surface: from the deepest, at the very start, up to the baseline.

    A dip that begins at the baseline is none, however low it goes: it may be an event of a curve of the wrong sign.
    """
    above = np.flatnonzero(y >= 0.0)
    stop = int(above[0]) if above.size else 0
    return stop if stop and int(y[:stop].argmin()) <= _EARLY * stop else 0


def thin(trace: Trace, most: int = SCREEN) -> NDArray[np.int64]:
    """The samples to draw: of many, the lowest and the highest of each of ``most`` stretches, in order."""
    n = trace.y.shape[0]
    if n <= 2 * most:
        return np.arange(n)
    edges = np.linspace(0, n, most + 1).astype(np.int64)
    filled = np.nan_to_num(trace.y)
    pairs = [
        (start + int(filled[start:stop].argmin()), start + int(filled[start:stop].argmax()))
        for start, stop in pairwise(edges)
    ]
    return np.unique(np.array(pairs))


def _baseline(prepared: Prepared, first: int, n: int) -> Samples:
    """(n,) in force_unit, 0 at the far end; a line over what is shown."""
    return (prepared.tilt or 0.0) * (np.arange(n) - (n - 1)) / max(n - first, 1)


def _abscissa(curve: Curve, prepared: Prepared) -> tuple[Samples, str, str]:
    x, kind = positions_nm(curve, prepared)
    if x is None:
        return np.arange(len(curve), dtype=np.float64), "sample of the retract", ""
    words = {"piezo": "piezo travel", "separation": "tip–sample separation"}
    start = "the turnaround" if prepared.contact is None else "the surface"
    return x, f"{words.get(kind or '', 'distance')} from {start} (nm)", "nm"


def _ordinate(curve: Curve, largest: float) -> tuple[float, str, str]:
    factor, unit = force_scale(curve)
    if unit == "pN" and factor * largest > 1e4:
        return factor / 1e3, "force (nN)", "nN"
    what = {"pN": "force (pN)", "": "force (the file names no unit)"}
    return factor, what.get(unit, f"deflection ({unit})"), unit
