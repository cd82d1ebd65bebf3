"""Does anything that is read come into the folder? Where only other files come, the curves may be saved elsewhere."""

from __future__ import annotations

from daemon.config import AlarmConfig
from daemon.ignored import UNCLAIMED, words
from daemon.sources.unread import Unread

#: A note and a thumbnail are no measurement, however long they lie there.
_FEW = 3


def alarm_of(unread: Unread, alarm: AlarmConfig, now_s: float) -> str | None:
    """What to raise about a folder; None while there is nothing to say. ``now_s`` is time.monotonic()."""
    if not alarm.unread_files or unread.since_s is None or unread.is_reading:
        return None
    is_late = now_s - unread.since_s >= alarm.unread_s and unread.files >= _FEW
    if unread.files < alarm.unread_files and not is_late:
        return None
    kinds = {kind.removeprefix(f"{UNCLAIMED} "): files for kind, files in unread.kinds.items()}
    remedy = "watch the folder that the curves are saved into, or save them in a kind that is read"
    return (
        f"{unread.files:,} files came and none is a kind that is read: {words(kinds)}; {remedy}"
        " (README, Which files it reads)"
    )
