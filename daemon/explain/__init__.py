"""The explanation: one curve of a file, judged as in service, with where in its picture the network looked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
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
from daemon.judging import Decision, Judge, classify, decide
from daemon.labels.curve_name import CurveFinder, Subject, is_there
from daemon.ledger.view import LedgerView
from daemon.reading import Reading
from daemon.reading.pool import ReaderPool
from daemon.sources import Arrival, find
from deploy.serving import Model
from models.bundle import Bundle
from models.curve import Curve, Prepared
from models.frontend import prepare, turned
from models.gradcam import Place, place_of
from models.raster import coverage, envelope
from models.reasons import REASONS

if TYPE_CHECKING:
    from models.network import ResNet18


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


def look_up(name: str, curve: int | None, service: Config, rules: Sequence[TextRule] = ()) -> tuple[Subject, Reading]:
    """The curve of a name, from its file, else from the copy that the ledger keeps of what may be looked at.

    UserError 65 where there is none, 64 where the name may be that of several.
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
            reading = find_reading(subject.file, subject.curve, rules)
        elif ledger is not None and subject.seq is not None and (copy := ledger.compact_copy(subject.seq)) is not None:
            reading = _of_copy(subject, copy)
        else:
            gone = "its file is gone or does not answer, and the ledger keeps no copy of most discards"
            raise UserError(BAD_DATA, f"{subject.name}: {gone}")
    # Under the name that events give it.
    return subject, replace(reading, arrival=replace(reading.arrival, path=subject.path, folder=subject.folder))


def find_reading(file: Path, index: int, rules: Sequence[TextRule] = ()) -> Reading:
    """Curve ``index`` of a file; UserError 65 when there is no such file or curve, or nobody can read it."""
    shown = clean(str(file))
    if file.is_dir():
        raise UserError(BAD_DATA, f"{shown}: is a folder; name one file")
    if not file.is_file():
        raise UserError(BAD_DATA, f"{shown}: no such file; name one file of force curves")
    if NAMES.is_second_half(file.name):
        raise UserError(BAD_DATA, f"{shown}: is the second half of a pair; name the first, {_first_half(file)}")
    (arrival,) = find([file])
    with ReaderPool(1, rules=rules) as pool:
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
        return LedgerView(service.state / "ledger.sqlite")
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


def explain(reading: Reading, model: Model, judge: Judge) -> Explanation:
    """Judge the curve of ``reading`` as in service, then look again with gradients, in single precision."""
    assert reading.curve is not None
    (scored,) = classify([reading], model, judge.thresholds)
    decision = decide([reading], [scored], judge)[0]
    curve = turned(reading.curve) if scored is not None and scored.is_turned else reading.curve
    prepared = prepare([curve], model.bundle.profile)[0]
    attention = None
    if decision.score is not None:
        attention = _look(curve, prepared, network_of(model), model.bundle)
    return Explanation(decision, curve, prepared, model.bundle, attention)


def network_of(model: Model) -> ResNet18:
    """The network of a model in single precision, where its engine computes."""
    import torch

    from models.network import load

    weights = {name: torch.from_numpy(tensor) for name, tensor in model.bundle.weights.items()}
    return load(model.bundle.width, weights).to(model.engine.device)


def _look(curve: Curve, prepared: Prepared, network: ResNet18, bundle: Bundle) -> Attention:
    from models.gradcam import look

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
