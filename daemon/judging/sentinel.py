"""The sentinel: whether the sign of a format has gone wrong, told by would-be discards that are events upside down.

The judge looks at a share of them (models.frontend). One whose sign no push against the surface confirms makes the
sentinel wary: for a while every would-be discard of its format is looked at. Three within 200 curves are told. One that
does push is reviewed like the others, but is no hint: as many are found where the sign is right as where it is wrong
(deploy/decisions/0011).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

WINDOW = 200  # curves of a format that are looked back on
MOST = 3  # hints among them; then it is told
WARY = 1000  # curves after a hint of which every would-be discard is looked at
LAST = 20  # curves that tell what comes now
_HINT = frozenset({"flipped", "no_contact"})

_REMEDIES = {
    "text": "say so, or correct it, with `pulling` in a [[text]] table of the configuration that fits these files",
    "ingest": "correct `pulling` in the headers that are sent",
}
_REMEDY = "look whether the sign of its sensitivity or of a channel was changed in the instrument's software"


@dataclass(slots=True)
class _Watch:
    """One format."""

    recent: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))  # hint or none, curve by curve
    wary: int = 0  # curves to come
    most: int = 0  # hints within any WINDOW so far
    most_of: int = 0  # and of how many curves: in the beginning of fewer

    @property
    def hints(self) -> int:
        return sum(self.recent)


class Sentinel:
    """What has been decided, format by format. It lives as long as its service: a restart begins anew."""

    def __init__(self) -> None:
        self._watches: dict[str, _Watch] = {}
        self._last: deque[str] = deque(maxlen=LAST)  # formats of the last curves

    def observe(self, format: str | None, reasons: tuple[str, ...]) -> None:
        """Note a curve that was judged; one of no format is passed over."""
        if format is None:
            return
        watch = self._watches.setdefault(format, _Watch())
        self._last.append(format)
        is_hint = _HINT.issubset(reasons)
        watch.recent.append(is_hint)
        watch.wary = WARY if is_hint else max(watch.wary - 1, 0)
        if is_hint and watch.hints > watch.most:
            watch.most, watch.most_of = watch.hints, len(watch.recent)

    @property
    def wary_of(self) -> frozenset[str]:
        """The formats of which every would-be discard is to be looked at."""
        return frozenset(name for name, watch in self._watches.items() if watch.wary)

    @property
    def turned(self) -> str:
        """The format of most of what comes, where its sign seems to be wrong; else ""."""
        found = (name for name, watch in self._watches.items() if watch.hints >= MOST)
        return next((name for name in found if 2 * self._last.count(name) > len(self._last)), "")

    def findings(self) -> Iterator[tuple[str, bool, str]]:
        """(format, whether it is well again, what to tell) of every format that there was ever anything to tell of."""
        for name, watch in self._watches.items():
            if watch.most >= MOST:
                is_well = watch.hints < MOST
                what = _what(name, watch.hints, len(watch.recent))
                yield name, is_well, what if is_well else f"{what}: {_advice(name)}"

    def summary(self) -> list[str]:
        """After a run: every format of which there were too many at any time."""
        return [
            f"{_what(name, watch.most, watch.most_of)}: {_advice(name)}"
            for name, watch in self._watches.items()
            if watch.most >= MOST
        ]


def _what(name: str, hints: int, curves: int) -> str:
    return f"{hints} of {curves} {name} curves in a row look like events when turned upside down"


def _advice(name: str) -> str:
    return f"the sign of the deflection may be wrong; `explain` shows one; {_REMEDIES.get(name, _REMEDY)}"
