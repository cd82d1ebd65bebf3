"""The goal: how long until so many curves are kept, as an interval that is right nine times in ten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

#: Curves to be kept, where a session names no number.
WANTED = 50
#: With fewer kept nothing is foretold.
FEWEST = 5
#: The chance that the time comes to lie in the interval.
CONFIDENCE = 0.9


@dataclass(frozen=True, slots=True)
class Goal:
    """Times are seconds from now, all None while it is too early to say; ``high_s`` alone None: no end in sight."""

    kept: Annotated[int, Meta(ge=0, description="kept so far, less those that a person said no to")]
    wanted: Annotated[int, Meta(ge=1, description="the number in the session's goal, else 50")]
    low_s: Annotated[float | None, Meta(description="seconds from now, at least; 90 % between low_s and high_s")]
    likely_s: Annotated[float | None, Meta(description="seconds from now, as likely longer as shorter")]
    high_s: Annotated[float | None, Meta(description="seconds from now, at most; null with low_s: no end in sight")]
    text: Annotated[str, Meta(description="the same in words, for people")]


def told(kept: int, wanted: int, times_s: tuple[float, float | None, float | None] | None = None) -> Goal:
    """The goal with its words. ``times_s``: low, likely and high; None: too early to say, or there."""
    so_far = f"{kept:,} of {wanted:,} kept"
    if kept >= wanted:
        return Goal(kept, wanted, 0.0, 0.0, 0.0, f"{so_far}: the goal is reached")
    if times_s is None:
        why = f": from {FEWEST} on the time to {wanted:,} is foretold" if kept < FEWEST else ""
        return Goal(kept, wanted, None, None, None, f"{so_far}, too early to say how long{why}")
    low_s, likely_s, high_s = times_s
    until = f"{_words(low_s)} or more, no end in sight" if high_s is None else f"{_words(low_s)} to {_words(high_s)}"
    likely = "" if likely_s is None else f", likely {_words(likely_s)}"
    return Goal(kept, wanted, low_s, likely_s, high_s, f"{so_far}; {wanted:,} in {until} (90 %){likely}")


def _words(seconds: float) -> str:
    """``12 min``, ``1 h 40 min``, ``2 d 3 h``: no finer than it is known."""
    minutes = max(round(seconds / 60), 1)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(round(minutes / 5) * 5, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes and hours < 10 else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
