"""The decisions of a span: what they add up to, and the curves of them that a page shows.

They are gone through once, in the order in which their curves were measured; that takes some 40 µs a decision, and 40
bytes. What is shown is drawn from the copies in the ledger, each with its ruptures.
"""

from __future__ import annotations

import math
import os
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np

from daemon.charts import Trace, trace
from daemon.formats.afmcurve import unpack
from daemon.formats.base import Unfinished, Unreadable
from daemon.judging import VERDICTS, Verdict
from daemon.labels import Label, unanimous
from daemon.labels.curve_name import name_of
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import Event
from models.clock import hour_of, hours_between, night_of, rfc3339, since_1970
from models.curve import Curve
from models.frontend import OPEN
from models.ruptures import Rupture, pulling, ruptures

#: A pause between two curves is a silence from so long on, and ten times what is usual between them.
SILENT_S = 900.0
#: However seldom they come, a pause of so long is one: files of several years lie in one folder.
_SURELY_SILENT_S = 21_600.0
_USUAL_TIMES = 10.0
#: A curve cannot be measured after its verdict; so far two clocks may differ.
_CLOCKS_S = 60.0
#: Bars that one chart shows: hours, and days.
_MOST_HOURS, _MOST_DAYS = 49, 93


@dataclass(slots=True)
class Count:
    """Curves by verdict, and when the first and the last of them were measured (seconds since 1970)."""

    by_verdict: Counter[str] = field(default_factory=Counter)
    first_s: float = float("inf")
    last_s: float = float("-inf")

    def add(self, verdict: str, acquired_s: float) -> None:
        self.by_verdict[verdict] += 1
        self.first_s, self.last_s = min(self.first_s, acquired_s), max(self.last_s, acquired_s)

    @property
    def curves(self) -> int:
        return self.by_verdict.total()

    def __getitem__(self, verdict: Verdict) -> int:
        return self.by_verdict[verdict]


@dataclass(frozen=True, slots=True)
class Silence:
    """No curve was measured between these two; seconds since 1970."""

    since_s: float
    until_s: float

    @property
    def seconds(self) -> float:
        return self.until_s - self.since_s


class Tally:
    """What the decisions of a span add up to."""

    def __init__(self) -> None:
        self.all = Count()
        self.hours: dict[str, Count] = {}  # "2026-11-27T22", of this computer's time
        self.folders: dict[tuple[str, str], Count] = {}  # watched folder ("" for none), folder within it
        self.models: dict[str, Count] = {}
        self.engines: Counter[str] = Counter()
        self.reasons: dict[str, Counter[str]] = {}  # reason -> verdicts
        self.nights: dict[str, set[str]] = {}  # pipeline -> nights in which it discarded
        self.untimed = self.ahead = 0  # without a time of measurement; measured after their verdict
        self.latencies_s = array("d")
        self.decided = [float("inf"), float("-inf")]  # when the first and the last was decided, seconds since 1970
        self.seqs, self.acquired_s = array("q"), array("d")
        self.verdicts = bytearray()  # of each, its place in VERDICTS
        self.scores, self.steps = array("d"), array("d")  # of each, NaN for none

    def add(self, event: Event) -> None:
        data, decided_s = event["data"], since_1970(event["time"])
        verdict, told = data["verdict"], data.get("acquired")
        acquired_s = decided_s if told is None else since_1970(told)
        self.untimed += told is None
        self.ahead += acquired_s > decided_s + _CLOCKS_S
        place = _folder_of(data.get("folder") or "", data["path"])
        self.hours.setdefault(hour_of(acquired_s), Count()).add(verdict, acquired_s)
        self.folders.setdefault(place, Count()).add(verdict, acquired_s)
        self.models.setdefault(data["model"], Count()).add(verdict, acquired_s)
        self.all.add(verdict, acquired_s)
        self.engines[data["engine"]] += 1
        for reason in data["reasons"]:
            self.reasons.setdefault(reason, Counter())[verdict] += 1
        if verdict == "discard":
            self.nights.setdefault(data["pipeline"], set()).add(night_of(decided_s))
        self.decided = [min(self.decided[0], decided_s), max(self.decided[1], decided_s)]
        self.latencies_s.append(data["latency_s"].get("total") or 0.0)
        self.seqs.append(event["seq"])
        self.acquired_s.append(acquired_s)
        self.verdicts.append(VERDICTS.index(verdict))
        for values, value in ((self.scores, data["score"]), (self.steps, data.get("steps"))):
            values.append(math.nan if value is None else value)

    def seqs_of(self, verdict: Verdict) -> list[int]:
        """Of the decisions of this verdict, in the order of measurement."""
        chosen = np.frombuffer(self.verdicts, np.uint8) == VERDICTS.index(verdict)
        return [int(seq) for seq in np.array(self.seqs, np.int64)[chosen]]

    def holds(self, seqs: Iterable[int]) -> set[int]:
        """Those of them that are of this span."""
        asked = np.fromiter(seqs, np.int64)
        return set(asked[np.isin(asked, np.array(self.seqs, np.int64))].tolist())

    def highest(self, seqs: Collection[int], values: Sequence[float], most: int) -> list[int]:
        """So many of them with the highest ``values``, which are ``scores`` or ``steps``; those without any last."""
        places = np.flatnonzero(np.isin(np.array(self.seqs, np.int64), np.fromiter(seqs, np.int64, len(seqs))))
        order = np.argsort(-np.nan_to_num(np.array(values)[places], nan=-math.inf), kind="stable")
        return [self.seqs[place] for place in places[order][:most]]

    def latency_s(self, share: float) -> float | None:
        """Of the time from a finished file to its verdict; ``share``: 0.5 for the median."""
        return float(np.quantile(np.array(self.latencies_s), share)) if self.latencies_s else None

    def silences(self) -> list[Silence]:
        """The longest first."""
        gaps = np.diff(np.array(self.acquired_s))
        if not gaps.size:
            return []
        least_s = min(max(SILENT_S, _USUAL_TIMES * median(gaps.tolist())), _SURELY_SILENT_S)
        found = [Silence(self.acquired_s[at], self.acquired_s[at + 1]) for at in np.flatnonzero(gaps >= least_s)]
        return sorted(found, key=lambda one: -one.seconds)

    def busy_s(self) -> float:
        """Seconds in which the instrument measured: from the first curve to the last, without the silences."""
        whole_s = max(self.all.last_s - self.all.first_s, 0.0) if self.seqs else 0.0
        return whole_s - sum(one.seconds for one in self.silences())

    def measured_s(self, seq: int) -> float:
        """When the curve of this decision, or of the last one before it, was measured."""
        seqs = np.array(self.seqs, np.int64)
        order = np.argsort(seqs)
        at = int(np.searchsorted(seqs[order], seq, "right")) - 1
        return float(self.acquired_s[int(order[max(at, 0)])])


def bars_of(hours: Mapping[str, Count]) -> list[tuple[str, Count]]:
    """One bar an hour from the first to the last, empty ones too.

    A day or a month each where those are too many, and then only such in which a curve was measured: old files that
    are judged today lie years apart.
    """
    if not hours:
        return []
    every = list(hours_between(min(hours), max(hours)))
    days = len(every) // 24
    size = 13 if len(every) <= _MOST_HOURS else 10 if days < _MOST_DAYS else 7
    found = {hour: Count() for hour in every} if size == len("2026-11-27T22") else {}
    for hour, count in hours.items():
        into = found.setdefault(hour[:size], Count())
        into.by_verdict += count.by_verdict
        into.first_s, into.last_s = min(into.first_s, count.first_s), max(into.last_s, count.last_s)
    return sorted(found.items())


def spread(seqs: Sequence[int], most: int) -> list[int]:
    """At most so many of them, evenly over all."""
    return list(seqs) if len(seqs) <= most else [seqs[place * len(seqs) // most] for place in range(most)]


def when(wall_s: float) -> str:
    """UTC, RFC 3339, in whole seconds."""
    return rfc3339(wall_s, "seconds")


def _folder_of(folder: str, path: str) -> tuple[str, str]:
    return folder, os.path.dirname(path)


# The curves that a page shows.

#: Kept curves that are shown, evenly over the span; of the pile, and of what was thrown away.
MOST_KEPT, MOST_FLAGGED, MOST_DISCARDED = 60, 12, 12
_COLUMNS = 300  # of a curve: it can be enlarged


@dataclass(frozen=True, slots=True)
class Break:
    """One rupture of a curve that is shown; force and drop in ``unit``."""

    force: float
    drop: float
    unit: str
    position_nm: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A curve with its picture."""

    seq: int
    name: str  # path#curve
    file: str  # absolute, where its folder is known
    acquired: str
    verdict: str
    score: float | None
    reasons: tuple[str, ...]
    model: str
    said: str  # what people say of it: keep, discard, unsure, or "" for nobody yet
    steps: float | None  # how far its strongest step stands out, by the second opinion
    ruptures: tuple[Break, ...] = ()
    trace: Trace | None = None  # left out of JSON


def word_of(said: Sequence[Label] | None) -> str:
    """What people say of a curve; "" where nobody has said anything."""
    return unanimous(one.label for one in said) if said else ""


def pictures(
    view: LedgerView, tally: Tally, said: Mapping[int, Sequence[Label]], *, is_drawn: bool
) -> dict[str, tuple[Shown, ...]]:
    """The curves that a page shows; without ``is_drawn`` only which discards a person should see."""
    kept = spread(tally.seqs_of("keep"), MOST_KEPT)
    waiting = {seq for seq in tally.seqs_of("review") if seq not in said}
    flagged = [] if not is_drawn else _shown(view, tally.highest(waiting, tally.scores, MOST_FLAGGED), said)
    lost = [seq for seq in tally.seqs_of("discard") if word_of(said.get(seq)) == "keep"][:MOST_DISCARDED]
    held = tally.holds(view.disputed(min(tally.seqs) - 1, max(tally.seqs)) if tally.seqs else [])
    disputed = _shown(view, tally.highest(held - said.keys(), tally.steps, MOST_DISCARDED), said)
    discarded = [*_shown(view, lost, said), *disputed][:MOST_DISCARDED]
    if not is_drawn:
        return {"kept": (), "flagged": (), "discarded": tuple(discarded)}
    shown = {"kept": _shown(view, kept, said), "flagged": flagged, "discarded": discarded}
    return {name: tuple(_drawn(view, one) for one in some) for name, some in shown.items()}


def _shown(view: LedgerView, seqs: Sequence[int], said: Mapping[int, Sequence[Label]]) -> list[Shown]:
    found = view.decisions(seqs)
    return [_of(found[seq], word_of(said.get(seq))) for seq in seqs if seq in found]


def _of(event: Event, said: str) -> Shown:
    data = event["data"]
    return Shown(
        seq=event["seq"],
        name=name_of(data["path"], data["curve"]),
        file=os.path.join(data.get("folder") or "", data["path"]),
        acquired=data.get("acquired") or event["time"],
        verdict=data["verdict"],
        score=data["score"],
        reasons=tuple(data["reasons"]),
        model=data["model"],
        said=said,
        steps=data.get("steps"),
    )


def _drawn(view: LedgerView, one: Shown) -> Shown:
    """With its curve, as the ledger keeps it, and with its ruptures; one that has no copy stays without."""
    try:
        curve, _ = unpack(view.compact_copy(one.seq) or b"")
    except (Unfinished, Unreadable):
        return one
    return _with_curve(one, pulling(curve) if OPEN in curve.notes else curve)


def _with_curve(one: Shown, curve: Curve) -> Shown:
    found = ruptures(curve)
    breaks = tuple(_break_of(each) for each in found)
    return replace(one, ruptures=breaks, trace=trace(curve, _COLUMNS, samples=[each.index for each in found]))


def _break_of(one: Rupture) -> Break:
    place = None if math.isnan(one.position_nm) else round(one.position_nm, 2)
    return Break(_short(one.force), _short(one.drop), one.unit, place)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
