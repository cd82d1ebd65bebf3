"""The clock: wall time for people, steady time for durations, and how a time is written.

The one thing tests replace.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal


@dataclass(frozen=True, slots=True)
class Clock:
    """Two sources of seconds; order never comes from either of them, but from ``seq``."""

    wall_s: Callable[[], float] = time.time
    steady_s: Callable[[], float] = time.monotonic


CLOCK = Clock()


def rfc3339(wall_s: float, digits: Literal["seconds", "milliseconds"] = "milliseconds") -> str:
    """Seconds since 1970 as UTC: ``2026-11-20T12:00:00.123Z``, or without its milliseconds."""
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec=digits).replace("+00:00", "Z")


def since_1970(written: str) -> float:
    """The seconds of what :func:`rfc3339` wrote; a time without a zone is this computer's. ValueError for nonsense."""
    return datetime.fromisoformat(written).timestamp()


def moment(wall_s: float) -> str | None:
    """As :func:`rfc3339`, with milliseconds only where there are any; None for a time that no calendar has."""
    try:
        return rfc3339(wall_s, "seconds" if float(wall_s).is_integer() else "milliseconds")
    except (ValueError, OverflowError, OSError):
        return None


def utc_now(digits: Literal["seconds", "milliseconds"] = "milliseconds") -> str:
    """This moment, as :func:`rfc3339` writes it."""
    return rfc3339(time.time(), digits)


def time_of_day(wall_s: float | None = None) -> str:
    """``14:05:09`` in the time of this computer, for lines that a person sees at once; without ``wall_s`` now."""
    return time.strftime("%H:%M:%S", time.localtime(wall_s))


def day_and_minute(written: str) -> str:
    """``2026-11-20 14:05`` in the time of this computer, of what :func:`rfc3339` wrote. ValueError for nonsense."""
    return datetime.fromisoformat(written).astimezone().strftime("%Y-%m-%d %H:%M")


def day_and_second(written: str) -> str:
    """``2026-11-20 14:05:09``, as :func:`day_and_minute`: what spreadsheets take for a time."""
    return datetime.fromisoformat(written).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def minute_of(written: str, now_s: float | None = None) -> str:
    """``14:05`` in the time of this computer; of another day than that of ``now_s`` as :func:`day_and_minute`."""
    told = day_and_minute(written)
    today = time.strftime("%Y-%m-%d", time.localtime(now_s))
    return told[11:] if told[:10] == today else told


def today() -> str:
    """``2026-11-20`` in the time of this computer."""
    return time.strftime("%Y-%m-%d")


def stamp(wall_s: float) -> str:
    """``2026-11-20T115958Z``: a moment in the name of a folder, on any disk; later ones sort behind it."""
    return time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime(wall_s))


def night_of(wall_s: float) -> str:
    """``2026-11-20`` for every moment from its noon to the next one, in the time of this computer."""
    return time.strftime("%Y-%m-%d", time.localtime(wall_s - 43_200.0))


def end_of_night(night: str) -> str:
    """``2026-11-21 12:00``, the noon at which the night ``2026-11-20`` of :func:`night_of` ends."""
    return f"{datetime.fromisoformat(night) + timedelta(days=1):%Y-%m-%d} 12:00"


def hour_of(wall_s: float) -> str:
    """``2026-11-20T14``, in the time of this computer."""
    return time.strftime("%Y-%m-%dT%H", time.localtime(wall_s))


def hours_between(first: str, last: str) -> Iterator[str]:
    """Every hour from the one to the other, both as :func:`hour_of` writes them, and these two."""
    at, end = (datetime.fromisoformat(f"{hour}:00") for hour in (first, last))
    while at <= end:
        yield at.strftime("%Y-%m-%dT%H")
        at += timedelta(hours=1)


def spoken(written: str) -> str:
    """``Fri 20 Nov 14:05`` in the time of this computer, of what :func:`rfc3339` wrote; the year where it is another.

    Its last five letters are the time of day.
    """
    told = datetime.fromisoformat(written).astimezone()
    return told.strftime("%a %d %b %H:%M" if _is_this_year(told) else "%a %d %b %Y %H:%M")


def spoken_hour(wall_s: float) -> str:
    """``Fri 14:05`` in the time of this computer."""
    return time.strftime("%a %H:%M", time.localtime(wall_s))


def spoken_start(start: str) -> str:
    """``Fri 14:00``, ``20 Nov`` or ``Nov 2026`` of ``2026-11-20T14``, ``2026-11-20`` or ``2026-11``.

    With the year where it is another: ``20 Nov 2009 14:00``, ``20 Nov 2009``.
    """
    if len(start) == len("2026-11-20T14"):
        told = datetime.fromisoformat(f"{start}:00")
        return told.strftime("%a %H:%M" if _is_this_year(told) else "%d %b %Y %H:%M")
    if len(start) == len("2026-11"):
        return datetime.fromisoformat(f"{start}-01").strftime("%b %Y")
    told = datetime.fromisoformat(start)
    return told.strftime("%d %b" if _is_this_year(told) else "%d %b %Y")


def _is_this_year(told: datetime) -> bool:
    return told.year == datetime.fromtimestamp(CLOCK.wall_s()).year


def as_when(written: str) -> str:
    """``2026-11-20T14:05`` in the time of this computer, as --since takes it, of what :func:`rfc3339` wrote."""
    return day_and_minute(written).replace(" ", "T")


def noon_before_last(now_s: float) -> str:
    """``2026-11-19T12:00`` all through the 20th: when the night that is over, or goes on, began."""
    return f"{datetime.fromtimestamp(now_s) - timedelta(days=1):%Y-%m-%d}T12:00"
