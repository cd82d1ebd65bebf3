"""The explanation: one curve of a file, judged as in service, with where in its picture the network looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from daemon.common.errors import BAD_DATA, UserError
from daemon.common.text import clean
from daemon.formats.names import find_other, is_second_half, other_names
from daemon.formats.text_rule import TextRule
from daemon.judging import Decision, Judge, decide
from daemon.judging.classify import classify
from daemon.reading import Reading
from daemon.reading.pool import read_files
from daemon.sources.existing import find
from deploy.serving import Model
from models.bundle import Bundle
from models.curve import Curve
from models.frontend import Prepared, prepare
from models.gradcam import Place, place_of
from models.raster import coverage, envelope
from models.sign import turned

if TYPE_CHECKING:
    from models.network import ResNet18


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """What the network saw of a curve, and where it looked."""

    picture: NDArray[np.float32]  # (H, W) ink, row 0 is the strongest push
    map: NDArray[np.float32]  # (H, W) what speaks for an event, 0 to 1
    along: NDArray[np.float32]  # (W,) the same for each column; all 0 where nothing does
    place: Place
    peak: float | None  # the sample of the retract where it is warmest


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """A verdict on a curve and what it rests on; ``sight`` is None where no score could be made."""

    decision: Decision
    curve: Curve  # upside down where its sign was open and that way it scored higher
    prepared: Prepared
    bundle: Bundle
    sight: Sight | None


def find_reading(file: Path, index: int, rules: Sequence[TextRule] = ()) -> Reading:
    """Curve ``index`` of a file; UserError 65 when there is no such file or curve, or nobody can read it."""
    shown = clean(str(file))
    if file.is_dir():
        raise UserError(BAD_DATA, f"{shown}: is a folder; name one file")
    if not file.is_file():
        raise UserError(BAD_DATA, f"{shown}: no such file; name one file of force curves")
    if is_second_half(file.name):
        raise UserError(BAD_DATA, f"{shown}: is the second half of a pair; name the first, {_first_half(file)}")
    total = 0
    for part in read_files(find([file]), workers=1, rules=rules):
        if part.outcome != "curves":
            why = f" ({part.reason})" if part.reason else ""
            raise UserError(BAD_DATA, f"{shown}: no force curve{why}; see README for what is read")
        for reading in part.readings:
            if reading.index == index and reading.curve is None:
                raise UserError(BAD_DATA, f"{shown}: curve {index} cannot be read: {reading.reason}")
            if reading.index == index:
                return reading
        total = part.total
    there = "holds one curve, number 0" if total == 1 else f"holds {total} curves, 0 to {total - 1}"
    raise UserError(BAD_DATA, f"{shown} {there}; --curve {index} is none of them")


def _first_half(second: Path) -> str:
    return clean((find_other(second) or second.with_name(next(other_names(second.name)))).name)


def explain(reading: Reading, model: Model, judge: Judge) -> Explanation:
    """Judge the curve of ``reading`` as in service, then look again with gradients, in single precision."""
    assert reading.curve is not None
    (scored,) = classify([reading], model, judge.thresholds)
    decision = decide([reading], [scored], judge)[0]
    curve = turned(reading.curve) if scored is not None and scored.is_turned else reading.curve
    prepared = prepare([curve], model.bundle.profile)[0]
    sight = None
    if decision.score is not None:
        sight = _look(curve, prepared, network_of(model), model.bundle)
    return Explanation(decision, curve, prepared, model.bundle, sight)


def network_of(model: Model) -> ResNet18:
    """The network of a model in single precision, where its engine computes."""
    import torch

    from models.network import load

    weights = {name: torch.from_numpy(tensor) for name, tensor in model.bundle.weights.items()}
    return load(model.bundle.width, weights).to(model.engine.device)


def _look(curve: Curve, prepared: Prepared, network: ResNet18, bundle: Bundle) -> Sight:
    from models.gradcam import look

    assert prepared.signal is not None
    picture = coverage(envelope([prepared.signal], bundle.profile), bundle.profile)
    heat = look(network, picture)
    place, column = place_of(curve, prepared, bundle.profile), int(heat.peaks[0])
    peak = float(place.sample_of(column)) if column >= 0 else None
    return Sight(picture[0, 0], heat.map[0], heat.along[0], place, peak)


# ---- The wording of an explanation: reasons and limits as sentences for whoever measured the curve.

_SENTENCES = {
    "too_short": "too few points to show a rupture",
    "nonfinite": "the file holds numbers that are not finite",
    "constant": "the force never changes",
    "no_calibration": "the spring constant or sensitivity is missing, and this model needs piconewton",
    "orientation": "the retract looks stored the wrong way round",
    "no_contact": "no push against the surface was found",
    "still_attached": "something still pulls at the far end: its rupture is not in the file",
    "noise_out_of_range": "the noise is outside what the model was made for",
    "saturated": "the pull is cut off at the end of the detector's range",
    "text_rule": "a [[text]] table of the configuration said what the file does not",
    "sign_assumed": "the file does not say which way is pulling, so both were judged",
    "sign_turned": "what is shown is the curve upside down: that way it scored higher",
    "columns_assumed": "which column is force and which is distance is a guess",
    "flipped": "upside down the curve looks like an event: the sign of the deflection may be wrong",
    "ends_missing": "part of the retract was never recorded",
    "no_score": "the network gave no finite answer",
    "engine_fault": "the network failed on this curve",
    "no_certificate": "no certificate yet, so nothing is discarded",
}


def sentences(reasons: Sequence[str]) -> list[str]:
    """What every reason but the score itself means."""
    return [_SENTENCES.get(reason, reason.replace("_", " ")) for reason in reasons if reason != "score"]


def share(value: float) -> str:
    """``0.97``, ``0.0021``: three digits that count, never rounded to a certainty."""
    if 0.9995 <= value < 1.0:
        return "> 0.999"
    return f"{value:.3g}" if value >= 1e-4 else f"{value:.0e}"
