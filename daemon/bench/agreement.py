"""Agreement: whether an engine gives the verdicts of torch in single precision, curve by curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.judging import Thresholds, Verdict, verdict_of
from daemon.learn.int8 import Curves
from models.bundle import Bundle

_APART = {"keep", "discard"}


def compare(curves: Curves, bundle: Bundle, wanted: Sequence[float], found: Sequence[float]) -> dict[str, Any]:
    """Logits of N curves, ``wanted`` and ``found``: the largest difference, and every verdict that is another.

    In ``verdicts`` and ``scores`` the first is the reference's. ``jumps`` are curves that went from keep to discard or
    back: no rounding does that.
    """
    reference, other = np.asarray(wanted, np.float64), np.asarray(found, np.float64)
    before, after = _verdicts(curves, bundle, reference), _verdicts(curves, bundle, other)
    scores = bundle.calibration.score(reference), bundle.calibration.score(other)
    changes = [
        {
            "curve": curves.names[place],
            "verdicts": [before[place], after[place]],
            "scores": [float(scores[0][place]), float(scores[1][place])],
            "logit_difference": round(float(other[place] - reference[place]), 4),
        }
        for place in range(len(curves.names))
        if before[place] != after[place]
    ]
    jumps = [name for name, one, two in zip(curves.names, before, after, strict=True) if {one, two} == _APART]
    return {
        "largest_difference": round(float(np.abs(other - reference).max(initial=0.0)), 5),
        "share_changed": len(changes) / max(len(curves.names), 1),
        "changes": changes,
        "jumps": jumps,
    }


def _verdicts(curves: Curves, bundle: Bundle, logits: NDArray[np.float64]) -> list[Verdict]:
    thresholds = Thresholds(bundle.discard, bundle.keep)
    scores = bundle.calibration.score(logits)
    return [
        verdict_of(float(score), reasons, thresholds) for score, reasons in zip(scores, curves.reasons, strict=True)
    ]
