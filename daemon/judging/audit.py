"""The audit of discards: which of them a person is asked to look at, drawn when they are decided.

Poisson sampling: each discard has a chance of its own, which depends on its score and on what was discarded before it,
never on what is found; it is drawn where a number that follows from its identity alone lies below that chance. So
whoever looks later can neither choose nor repeat the draw. Events are likelier where the score is higher, and drawn
more often there; a fifth of the draw does not ask for the score, because an event of a kind that the network does not
know may lie anywhere.

What the second opinion disputes is a stratum of its own, all of which is looked at; so is the band of a raised cut.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, NamedTuple

#: Of all discards, on average.
AUDIT_SHARE = 0.02
#: Of the draw, the part that every discard has alike.
UNIFORM = 0.2
#: Of the mean score, added to each: so that the chance of a low one depends little on how low it is.
_FLOOR = 0.02
#: The least chance that a discard has, whatever its score.
LEAST = AUDIT_SHARE * (UNIFORM + (1 - UNIFORM) * _FLOOR / (1 + _FLOOR))
#: Discards of a pipeline before their mean is taken for known; until then all have the same chance.
_FEWEST = 50
#: Of the first ``BAND_CURVES`` that only a raised cut discards: where it does harm, the harm is there.
BAND_SHARE, BAND_CURVES = 0.1, 500

#: The scores between the cut before (excluded) and the raised one (included).
Band = tuple[float, float]
#: Why a discard has its chance: for its ``score``, as it lies in the ``band``, or for the ``steps`` seen in it.
Stratum = Literal["score", "band", "steps"]


@dataclass(frozen=True, slots=True)
class Past:
    """What one pipeline has discarded so far, on disk: the same after a restart."""

    discards: int = 0
    scores: float = 0.0  # their sum
    in_band: int = 0  # of these, but for the disputed
    disputed: int = 0


class Chance(NamedTuple):
    """With which a discard is drawn, and why."""

    stratum: Stratum
    probability: float


def chance_of(score: float | None, band: Band | None, past: Past, *, is_disputed: bool = False) -> Chance:
    """Of a discard; ``past``: what was discarded before the batch that it is of."""
    if is_disputed:
        return Chance("steps", 1.0)
    share = _share_of(score, past)
    if is_in_band(score, band):
        return Chance("band", max(share, BAND_SHARE) if past.in_band < BAND_CURVES else share)
    return Chance("score", share)


def _share_of(score: float | None, past: Past) -> float:
    if score is None or past.discards < _FEWEST or past.scores <= 0:
        return AUDIT_SHARE
    mean = past.scores / past.discards
    return min(AUDIT_SHARE * (UNIFORM + (1 - UNIFORM) * (score + _FLOOR * mean) / ((1 + _FLOOR) * mean)), 1.0)


def is_drawn(identity: str, chance: Chance) -> bool:
    """Whether this curve is drawn with this chance."""
    return draw(identity) < chance.probability


def draw(identity: str) -> float:
    """From 0 to below 1, uniform over curves, and the same for the same curve."""
    digest = hashlib.sha256(b"audit " + identity.encode("utf-8", "backslashreplace")).digest()
    return int.from_bytes(digest[:7]) / 2**56  # what a float holds without rounding up to 1


def is_in_band(score: float | None, band: Band | None) -> bool:
    """Whether only the raised cut discards a curve of this score."""
    return band is not None and score is not None and band[0] < score <= band[1]
