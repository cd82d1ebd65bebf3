"""The audit of discards: which of them a person is asked to look at, drawn when they are decided.

The draw is a number that follows from the curve's identity alone: whoever looks later can neither choose nor repeat it,
and a larger share holds all that a smaller one does.
"""

from __future__ import annotations

import hashlib

#: Of all discards.
AUDIT_SHARE = 0.02
#: Of the first ``BAND_CURVES`` that only a raised cut discards: where it does harm, the harm is there.
BAND_SHARE, BAND_CURVES = 0.1, 500

#: The scores between the cut before (excluded) and the raised one (included).
Band = tuple[float, float]


def draw(identity: str) -> float:
    """From 0 to below 1, uniform over curves, and the same for the same curve."""
    digest = hashlib.sha256(b"audit " + identity.encode("utf-8", "backslashreplace")).digest()
    return int.from_bytes(digest[:7]) / 2**56  # what a float holds without rounding up to 1


def is_in_band(score: float | None, band: Band | None) -> bool:
    """Whether only the raised cut discards a curve of this score."""
    return band is not None and score is not None and band[0] < score <= band[1]


def share_of(score: float | None, band: Band | None, number: int = 1) -> float:
    """With which a discard is drawn that is the ``number``-th of its band, if it is in it."""
    return BAND_SHARE if is_in_band(score, band) and number <= BAND_CURVES else AUDIT_SHARE
