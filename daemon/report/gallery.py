"""The gallery: the curves that a page shows, drawn from the copies in the ledger, each with its ruptures."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from daemon.charts import Trace, trace
from daemon.formats.afmcurve import unpack
from daemon.formats.base import Unfinished, Unreadable
from daemon.labels import Label, unanimous
from daemon.labels.curve_name import name_of
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import Event
from daemon.report.tally import Tally, spread
from models.curve import Curve
from models.frontend import OPEN
from models.ruptures import Rupture, pulling, ruptures

#: Kept curves that are shown, evenly over the span; of the pile, and of what was thrown away.
MOST_KEPT, MOST_FLAGGED, MOST_DISCARDED = 60, 12, 12


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


def pictures(view: LedgerView, tally: Tally, said: Mapping[int, Sequence[Label]]) -> dict[str, tuple[Shown, ...]]:
    """The curves that a page shows."""
    kept = spread(tally.seqs_of("keep"), MOST_KEPT)
    waiting = {seq for seq in tally.seqs_of("review") if seq not in said}
    flagged = sorted(_shown(view, waiting, said), key=lambda one: -(one.score or 0.0))[:MOST_FLAGGED]
    lost = [seq for seq in tally.seqs_of("discard") if word_of(said.get(seq)) == "keep"][:MOST_DISCARDED]
    held = tally.holds(view.disputed(min(tally.seqs) - 1, max(tally.seqs)) if tally.seqs else [])
    disputed = sorted(_shown(view, held - said.keys(), said), key=lambda one: -(one.steps or 0.0))
    discarded = [*_shown(view, lost, said), *disputed][:MOST_DISCARDED]
    shown = {"kept": _shown(view, kept, said), "flagged": flagged, "discarded": discarded}
    return {name: tuple(_drawn(view, one) for one in some) for name, some in shown.items()}


def _shown(view: LedgerView, seqs: Iterable[int], said: Mapping[int, Sequence[Label]]) -> list[Shown]:
    found = view.decisions(list(seqs))
    return [_of(event, word_of(said.get(seq))) for seq, event in sorted(found.items(), key=_measured)]


def _measured(item: tuple[int, Event]) -> tuple[float, int]:
    told = item[1]["data"].get("acquired") or item[1]["time"]
    return datetime.fromisoformat(told).timestamp(), item[0]


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
    return replace(one, ruptures=breaks, trace=trace(curve, samples=[each.index for each in found]))


def _break_of(one: Rupture) -> Break:
    place = None if math.isnan(one.position_nm) else round(one.position_nm, 2)
    return Break(_short(one.force), _short(one.drop), one.unit, place)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
