"""Pulls after each other in one column: a distance that goes and returns more than once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from models.curve import Samples

_SWING = 0.5  # of the whole span, a turn is followed by at least so much
_LOOKED_AT = 8192  # samples, however long the column
_SHORTEST = 32  # samples of a stroke
_RAMP = 0.8  # a stroke follows its rows at least so closely
_STANDS_OUT = 3.0


def cycles(force: Samples, distance: Samples | None) -> tuple[list[slice], bool]:
    """The rows of each pull with the approach before it, and whether it is plain which turns are at the surface.

    Empty where the distance goes once, or once there and back.
    """
    if distance is None or distance.shape[0] < 4 * _SHORTEST or not np.isfinite(distance).all():
        return [], True
    turns = _turns(distance)
    edges = [0, *turns, distance.shape[0] - 1]
    if not turns:
        return [], True
    strokes = [distance[before:after] for before, after in pairwise(edges)]
    if min(stroke.shape[0] for stroke in strokes) < _SHORTEST or min(map(_straightness, strokes)) < _RAMP:
        return [], True
    ends = [_push(force, edges[place::2]) for place in (0, 1)]
    surface = int(ends[1] > ends[0])
    is_sure = max(ends) > _STANDS_OUT * min(ends)
    if len(turns) == 1 and (surface or not is_sure):
        return [], True
    far = edges[1 - surface :: 2]
    if far[0] > 0:
        far = [0, *far]  # the first pull comes without its approach
    return [slice(one, other + 1) for one, other in pairwise(far)], is_sure


def _turns(distance: Samples) -> list[int]:
    """Where the distance turns, as sample numbers."""
    step = max(distance.shape[0] // _LOOKED_AT, 1)
    thin = distance[::step]
    swing = _SWING * float(np.ptp(thin))
    turns: list[int] = []
    low = high = heading = 0  # heading: 1 upwards, -1 downwards, 0 not known yet
    for at, value in enumerate(thin.tolist()):
        if heading >= 0 and value > thin[high]:
            high = at
        if heading <= 0 and value < thin[low]:
            low = at
        if heading >= 0 and thin[high] - value > swing:
            turns += [high] if heading else []
            heading, low = -1, at
        elif heading <= 0 and value - thin[low] > swing:
            turns += [low] if heading else []
            heading, high = 1, at
    return [turn * step for turn in turns]


def _straightness(stroke: Samples) -> float:
    rows = np.arange(stroke.shape[0], dtype=np.float64)
    return float(abs(np.corrcoef(stroke, rows)[0, 1])) if np.ptp(stroke) > 0 else 0.0


def _push(force: Samples, turns: list[int]) -> float:
    """How far the force stands out at these turns."""
    level = float(np.nanmedian(force))
    width = max(force.shape[0] // (100 * max(len(turns), 1)), 2)
    return float(np.median([abs(np.nanmedian(force[max(at - width, 0) : at + width]) - level) for at in turns]))
