"""The time of a measurement, as files state it: seconds since 1970, or None where they do not, or state nonsense.

Never a guess. Month names are English or unknown; of ``03/04/2021`` nobody can tell day from month; a zone's letters
count where they mean one zone, or this computer's; a day without a time of day is no time. What was before there were
such instruments (1601, 1904, 1970: the zeros of clocks), or is still to come, is nonsense. A time without a zone is
this computer's. Whoever has no time here is dated by the file's own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Literal

_EARLIEST_S = datetime(1986, 1, 1, tzinfo=UTC).timestamp()  # the first atomic force microscope
_MOST_AHEAD_S = 86400.0  # of this computer's clock
_LONGEST = 64  # characters of a date with its time
_LOOKED_AT = 16384  # characters at the beginning of a text

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH_NAMES = {
    **{name: number for number, name in enumerate(_MONTHS, 1)},
    **dict(zip(("january", "february", "march", "april", "june", "july"), (1, 2, 3, 4, 6, 7), strict=True)),
    **dict(zip(("august", "september", "sept", "october", "november", "december"), (8, 9, 9, 10, 11, 12), strict=True)),
}
_WEEKDAYS = re.compile(r"\b(?:mon|tue|tues|wed|wednes|thu|thur|thurs|fri|sat|satur|sun)(?:day)?\b[.,]?", re.IGNORECASE)
_TIME = re.compile(
    r"(?<![\d:])(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?(?![\d:])"
    r"(?:\s*([AaPp])\.?[Mm]\b\.?)?"
    r"(?:\s*(Z\b|(?:UTC|GMT)?\s*[+-]\d{2}:?\d{2}(?!\d)|[A-Z]{3,4}\b))?"
)
_YEAR_FIRST = re.compile(r"(\d{4})([-/.: ])(\d{1,2})\2(\d{1,2})")
_YEAR_LAST = re.compile(r"(\d{1,2})([-/. ])(\d{1,2})\2(\d{4})")
_DAY_NAME_YEAR = re.compile(r"(\d{1,2})(?:st|nd|rd|th)?[-. ]+([A-Za-z]{3,9})[-. ]+(\d{4})")
_NAME_DAY_YEAR = re.compile(r"([A-Za-z]{3,9})[-. ]+(\d{1,2})(?:st|nd|rd|th)?[-. ]+(\d{4})")
#: Hours from UTC, where the letters mean one zone wherever instruments stand; not CST or IST, which mean several.
_ZONES = {
    **{"Z": 0, "UTC": 0, "GMT": 0, "WET": 0, "WEST": 1, "BST": 1, "CET": 1, "CEST": 2, "MEZ": 1, "MESZ": 2},
    **{"EET": 2, "EEST": 3, "MSK": 3, "IDT": 3, "JST": 9, "KST": 9, "EST": -5, "EDT": -4, "PST": -8, "PDT": -7},
}
_RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:[Zz]|[+-]\d{2}:\d{2})?")

_DATE_KEYS = (
    r"(?:date|datum|fecha|date\s*/\s*time|date and time|date[_ ]?time|time[_ ]?stamp|acqui(?:red|sition)(?: (?:on|at|"
    r"date|time))?|measured(?: (?:on|at))?|measurement (?:date|time)|recorded(?: (?:on|at))?|date of measurement)"
)
_TIME_KEYS = r"(?:time|zeit|uhrzeit|hora|heure|acquisition time|measurement time)"
_BEFORE, _BETWEEN = r"(?:^[\s\"#%;*\\]*|,)", r"[\"\s]*[:=\t,;][\s\"]*"
_DATE_LINE = re.compile(rf"{_BEFORE}{_DATE_KEYS}{_BETWEEN}(?=[^\s,;])([^\r\n]+)", re.IGNORECASE | re.MULTILINE)
_TIME_LINE = re.compile(
    rf"{_BEFORE}{_TIME_KEYS}{_BETWEEN}(\d{{1,2}}[:/]\d\d(?:[:/]\d\d)?[^\r\n,;\t\"]{{0,12}})",
    re.IGNORECASE | re.MULTILINE,
)
_WORDS = ("date", "datum", "fecha", "stamp", "acqui", "measure", "record")  # without one of them no line is a date


def moment(text: str) -> float | None:
    """A day with its time, as ``2021-06-11 09:46:29.745 +0200`` or ``11:17:04 AM Mon Jan 27 2014``."""
    if text[4:5] == "-" and ":" in text and len(text) <= _LONGEST:  # most are, and a map has one a curve
        try:
            return _plausible(datetime.fromisoformat(text.replace(" +", "+").replace(" -", "-")))
        except ValueError:
            pass
    found = _TIME.search(text) if 0 < len(text) <= _LONGEST else None
    if found is None:
        return None
    zone_text, rest = found[6] or "", text[: found.start()] + " " + text[found.end() :]
    if zone_text[:3].lower() in _MONTHS or _WEEKDAYS.fullmatch(zone_text):
        zone_text, rest = "", text[: found.start()] + " " + text[found.start(6) :]
    day = _day(rest)
    hour = _hour(int(found[1]), found[5])
    zone = _zone(zone_text)
    if day is None or hour is None or zone is False:
        return None
    fraction = float(f"0.{found[4]}") if found[4] else 0.0
    try:
        return _plausible(datetime(*day, hour, int(found[2]), int(found[3] or 0), tzinfo=zone or None), fraction)
    except ValueError:  # month 15
        return None


def _day(text: str) -> tuple[int, int, int] | None:
    """Year, month and day; None where a month is not known by its name, or not told from the day."""
    words = " ".join(_WEEKDAYS.sub(" ", text).replace(",", " ").strip("Tt \"'").split())
    if found := _YEAR_FIRST.fullmatch(words):
        return int(found[1]), int(found[3]), int(found[4])
    if found := _YEAR_LAST.fullmatch(words):
        one, other, year = int(found[1]), int(found[3]), int(found[4])
        if one == other or max(one, other) > 12 >= min(one, other):
            return year, min(one, other), max(one, other)
        return None
    if found := _DAY_NAME_YEAR.fullmatch(words):
        number, name, year = int(found[1]), found[2], int(found[3])
    elif found := _NAME_DAY_YEAR.fullmatch(words):
        number, name, year = int(found[2]), found[1], int(found[3])
    else:
        return None
    month = _MONTH_NAMES.get(name.lower())
    return None if month is None else (year, month, number)


def _hour(hour: int, half: str | None) -> int | None:
    """Of 24; with AM or PM there are twelve."""
    if half is None:
        return hour
    return hour % 12 + (12 if half in "pP" else 0) if 1 <= hour <= 12 else None


def _zone(text: str) -> tzinfo | Literal[False] | None:
    """None for this computer's; False where the letters say nothing certain."""
    if not text or text in time.tzname:
        return None
    digits = re.sub(r"[^-+\d]", "", text)
    if digits:
        minutes = int(digits[1:3]) * 60 + int(digits[3:5])
        return timezone(timedelta(minutes=-minutes if digits[0] == "-" else minutes)) if minutes < 1440 else False
    return timezone(timedelta(hours=_ZONES[text])) if text in _ZONES else False


def _plausible(when: datetime, fraction: float = 0.0) -> float | None:
    try:
        return plausible(when.timestamp() + fraction)
    except (ValueError, OverflowError, OSError):  # near the ends of the calendar
        return None


def plausible(wall_s: float | None) -> float | None:
    """The same seconds since 1970, unless no such instrument can have measured then."""
    is_possible = wall_s is not None and _EARLIEST_S <= wall_s <= time.time() + _MOST_AHEAD_S
    return wall_s if is_possible else None


def since_1904(seconds: float | None) -> float | None:
    """From what Igor counts: the seconds that this computer's clock on the wall has made since then."""
    if seconds is None:
        return None
    try:
        return _plausible(datetime(1904, 1, 1) + timedelta(seconds=seconds))
    except (ValueError, OverflowError):
        return None


def rfc3339(text: str) -> float | None:
    """What a sender states. Raises ValueError for what is no such time; one without a zone is this computer's."""
    if not _RFC3339.fullmatch(text):
        raise ValueError(text)
    whole, dot, rest = text.partition(".")
    digits = re.match(r"\d*", rest)[0] if dot else ""  # type: ignore[index]  # it always matches
    when = datetime.fromisoformat((whole + rest[len(digits) :]).upper())
    return _plausible(when, float(f"0.{digits}") if digits else 0.0)


def of_header(above: Sequence[str]) -> float | None:
    """What a line ``Date: …`` above a table says, with its ``Time: …`` where that stands by itself."""
    head = "\n".join(above)[:_LOOKED_AT]
    lowered = head.lower()
    if not any(word in lowered for word in _WORDS):
        return None
    for found in _DATE_LINE.finditer(head):
        value = found[1].strip(" \t\",;'")
        for stated in dict.fromkeys((value, re.split(r"[,;\t]", value)[0])):
            if (when := moment(stated)) is not None:
                return when
            if not _TIME.search(stated) and (clock := _TIME_LINE.search(head)):
                hours = clock[1].replace("/", ":").strip()
                if (when := moment(f"{stated} {hours}")) is not None:
                    return when
    return None
