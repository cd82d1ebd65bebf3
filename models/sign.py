"""The sign: which way is pulling, where a file does not say it, and where what it says is checked.

A curve whose sign is open is prepared both ways, and the judge takes the larger score. Of all others a fixed share is
prepared upside down as well, so that a format whose sign is read wrong, or whose writer has changed it, does not lose
events in silence (deploy/decisions/0011).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from models.curve import Curve
from models.frontend import Prepared, prepare
from models.raster import RasterProfile
from models.reasons import LIFTING

OPEN = "sign_assumed"
SPOT = 50  # one curve in so many is checked, though nothing speaks against its sign
_LOOKED_AT = 256  # samples, at least, that choose whether it is this one


def turned(curve: Curve) -> Curve:
    """The same curve if pulling is the other way."""
    approach = curve.approach_force
    return replace(curve, force=-curve.force, approach_force=None if approach is None else -approach)


def prepare_to_judge(curves: Sequence[Curve], profile: RasterProfile) -> list[Prepared]:
    """As ``prepare``, with ``flipped`` where the judge wants it; what it costs the others is a few microseconds."""
    return [
        with_flipped(prepared, curve, profile) if _wants_flipped(curve, prepared) else prepared
        for curve, prepared in zip(curves, prepare(curves, profile), strict=True)
    ]


def with_flipped(prepared: Prepared, curve: Curve, profile: RasterProfile) -> Prepared:
    """The same, with what the front-end makes of the curve upside down."""
    return replace(prepared, flipped=prepare([turned(curve)], profile)[0])


def _wants_flipped(curve: Curve, prepared: Prepared) -> bool:
    """An open sign always; else what could be discarded, if no push confirms its sign or the lot falls on it."""
    if OPEN in curve.notes:
        return True
    if prepared.blocking or LIFTING.intersection(prepared.reasons):
        return False
    return "no_contact" in prepared.reasons or is_spot(curve)


def is_spot(curve: Curve) -> bool:
    """Whether the lot falls on this curve: from its samples alone, so that whoever judges it again agrees."""
    some = np.ascontiguousarray(curve.force[:: max(len(curve) // _LOOKED_AT, 1)])
    return zlib.crc32(some.tobytes()) % SPOT == 0
