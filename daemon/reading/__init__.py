"""The reading: what came out of a file, curve by curve, or the reason why nothing did."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.sources import Arrival
from models.curve import Curve, Prepared
from models.raster import RasterProfile
from models.tip import TipState


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One curve of one file, or (``curve is None``) why it could not be had."""

    arrival: Arrival
    index: int  # retracts of the file in stored order, from 0
    sha256: str | None  # of the file's bytes; None when not a byte could be read
    curve: Curve | None
    reason: str | None = None  # one of models.reasons.UNREADABLE when curve is None
    read_s: float = 0.0  # with the front-end, where the reader ran it
    prepared: Prepared | None = None  # what the front-end made of the curve,
    profile: RasterProfile | None = None  # for this profile
    format: str | None = None  # the name of the reader that opened the file
    acquired_s: float | None = None  # when it was measured, as its file states it, in seconds since 1970
    tip: TipState | None = None  # what it tells of the tip, where the reader ran the front-end

    @property
    def sign_from(self) -> str | None:
        """Who said which way is pulling: the format, or whoever sent the curve in our own."""
        return "ingest" if self.arrival.source == "ingest" else self.format


@dataclass(frozen=True, slots=True, eq=False)
class FileReading:
    """What one request to the reader brought back.

    ``outcome``: "curves" (readings holds them; ``total`` curves in the file), "unfinished" (hand it back to
    its source, ``reason`` says why), "unclaimed" (no reader wants this kind of file; ``reason``, one of NO_CURVES,
    where a reader knows what it is instead of a curve).
    """

    arrival: Arrival
    outcome: str
    readings: tuple[Reading, ...] = ()
    total: int = 0
    reason: str | None = None
    format: str | None = None
