"""Certificate sheets as the page sees them: what one would earn, how far the open one is, what the last one says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from daemon.labels.sessions import Sessions
from daemon.labels.sheets import Progress, SheetKind, Sheets
from daemon.ledger.view import LedgerView
from daemon.review.desk import Desk, told
from daemon.review.held import Held
from daemon.review.pace import Outlook, outlook, seconds_a_curve
from daemon.review.queues import Stretches
from daemon.review.security import Refused

_HOLDS_S = 3.0  # what is counted for the line beside the curve
KINDS: tuple[SheetKind, ...] = ("uniform", "weighted")


class Certifying:
    """Methods may be called from any thread; they raise what the desk raises."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._prospects = Held(lambda: outlook(desk.ledger, desk.labels, self._group()[1]), _HOLDS_S)

    def state(self, rater: str | None) -> dict[str, Any]:
        """The sheet that was drawn last, and what another one would take and earn, ready for JSON."""
        view, labels = self._desk.ledger, self._desk.labels
        with told():
            group, within = self._group()
            prospects, seconds = outlook(view, labels, within), seconds_a_curve(labels, rater)
            progress = self._progress(view)
        return {
            "sheet": None if progress is None else _plain(progress),
            "group": group,
            "offers": [_offer(prospects, kind, seconds) for kind in KINDS],
            "seconds_a_curve": seconds,
        }

    def draw(self, kind: str) -> dict[str, Any]:
        """Draw a sheet of the present session group. Raises Refused 400, or 409 while one is open or nothing is there.

        Who could draw again until the curves are kind would earn any promise.
        """
        wanted = next((one for one in KINDS if one == kind), None)
        if wanted is None:
            raise Refused(400, "kind must be uniform or weighted")
        view, labels = self._desk.ledger, self._desk.labels
        with told(), labels.together():  # of two who draw at once the second finds the first one's
            progress = self._progress(view)
            if progress is not None and not progress.is_done:
                raise Refused(409, f"{progress.sheet.name} is open: label it to its end, then another may be drawn")
            group, within = self._group()
            try:
                sheet = Sheets(labels).draw(view, wanted, within, group)
            except ValueError as error:
                raise Refused(409, str(error)) from None
            return _plain(Sheets(labels).progress(sheet, view))

    def beside(self, state: Mapping[str, Any], needed: int, rater: str | None) -> dict[str, Any]:
        """What the state of a night says besides: what the next rung costs, and what is left of an open sheet."""
        view, labels = self._desk.ledger, self._desk.labels
        with told():
            cost = self._prospects.value().cost(needed, state["yield"]["per_hour"], seconds_a_curve(labels, rater))
            progress = self._progress(view)
        plain = None if progress is None else _plain(progress)
        return {
            "effect": [*state["effect"], *([cost] if cost else [])],
            "sheet": plain,
            "queues": {**state["queues"], **({"sheet": plain["left"]} if plain and not plain["done"] else {})},
        }

    def _group(self) -> tuple[str, Stretches]:
        sessions = Sessions(self._desk.labels)
        group = Sessions.group(sessions.present())
        within: Sequence[tuple[int, int | None]] = sessions.seqs_of(group)
        return group, within

    def _progress(self, view: LedgerView) -> Progress | None:
        sheets = Sheets(self._desk.labels)
        sheet = sheets.current()
        return None if sheet is None else sheets.progress(sheet, view)


def _plain(progress: Progress) -> dict[str, Any]:
    sheet = progress.sheet
    return {
        "number": sheet.number,
        "kind": sheet.kind,
        "group": sheet.sample,
        "made": sheet.made,
        "goal": sheet.goal,
        "decided": sheet.decided,
        "drawn": progress.drawn,
        "answered": progress.answered,
        "left": 0 if progress.is_done else max(progress.drawn - progress.answered - progress.gone, 0),
        "events": progress.events,
        "missed": len(progress.missed),
        "done": progress.is_done,
        "bound": progress.bound,
        "sentence": progress.sentence(),
    }


def _offer(prospects: Outlook, kind: SheetKind, seconds: float) -> dict[str, Any]:
    offer = prospects.offer(kind, seconds)
    return {
        "kind": kind,
        "labels": offer.labels,
        "events": offer.events,
        "bound": offer.bound,
        "seconds": offer.labels * seconds,
        "sentence": offer.sentence,
    }
