"""Classify: the curves of a batch of readings through the model; a fault costs one batch its speed, never a curve."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from daemon.decision import Thresholds
from daemon.reading import Reading
from deploy.serving import Model, Scored
from models.curve import Curve

log = logging.getLogger(__name__)


def classify(readings: Sequence[Reading], model: Model, thresholds: Thresholds) -> list[Scored | None]:
    """One answer a reading, in order; None where the reading holds no curve."""
    curves = [reading.curve for reading in readings if reading.curve is not None]
    scored = iter(_judge(curves, model, (thresholds.discard, thresholds.keep)))
    return [None if reading.curve is None else next(scored) for reading in readings]


def _judge(curves: list[Curve], model: Model, edges: tuple[float, float]) -> list[Scored]:
    if not curves:
        return []
    try:
        return model.judge(curves, edges)
    except Exception as error:
        if len(curves) == 1:
            log.error("the classifier failed on one curve, which goes to review: %s", error)
            return [Scored(None, ("engine_fault",))]
        log.error("the classifier failed on %d curves, which are tried one by one: %s", len(curves), error)
    return [_judge([curve], model, edges)[0] for curve in curves]
