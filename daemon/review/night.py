"""The night: how the service does, what it has brought, and what is left to look at; what stands around the curve."""

from __future__ import annotations

import shlex
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from math import isnan
from typing import Any

import msgspec

from daemon import __version__
from daemon.client.feed import ask_status
from daemon.client.service_file import find as find_service
from daemon.client.status import advice, learning, promises, remembered, troubles, with_since
from daemon.common.text import clean, many
from daemon.config import Config
from daemon.guard.logbook import NAME as LOGBOOK
from daemon.guard.morning import at_rest, last_report
from daemon.judging import VERDICTS
from daemon.labels import Labels
from daemon.labels.confirmed import missing_of
from daemon.labels.raters import Share, figures
from daemon.labels.sessions import FIELDS, Session, Sessions, Stretches
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import Event, StreamScores
from daemon.review.desk import Desk, Held, told
from daemon.review.queues import Aims, lengths
from daemon.review.request import Refused
from models.clock import CLOCK, night_of, rfc3339, since_1970, utc_now

_STATUS_HOLDS_S = 1.0  # one question to the service, however many pages ask
_FIGURES_HOLD_S = 10.0
_RECKONED_HOLDS_S = 2.0  # what no service says, so that it is counted here
_RATERS = 50  # whose figures are held
_HOURS = 12
_YOUNG_S = 900.0  # of less time no rate per hour is told: only what was kept
_COUNTED = 20_000  # of the decisions from before the page was started
_AT_ONCE = 2_000


class Hours:
    """Decisions of each hour by verdict; only what is new is read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stream, self._last = "", 0
        self._by_hour: dict[str, Counter[str]] = {}  # "2026-11-28T10"
        self._first: dict[str, str] = {}  # and when the first decision of it was made
        self._yielded = (0, 0.0)

    def last(self, view: LedgerView, now: str) -> list[dict[str, Any]]:
        """The last twelve hours that brought anything and this one, the oldest first."""
        with self._lock:
            stream, last = view.stream, view.last_seq
            if stream != self._stream or last < self._last:
                self._stream, self._last, self._by_hour, self._first = stream, max(last - _COUNTED, 0), {}, {}
            while self._last < last:
                events = view.decisions(range(self._last + 1, min(self._last + _AT_ONCE, last) + 1))
                for event in events.values():
                    hour = event["time"][:13]
                    self._first.setdefault(hour, event["time"])
                    self._by_hour.setdefault(hour, Counter())[event["data"]["verdict"]] += 1
                self._last = min(self._last + _AT_ONCE, last)
            self._by_hour.setdefault(now[:13], Counter())
            hours = sorted(self._by_hour)[-_HOURS:]
            kept = sum(self._by_hour[hour]["keep"] for hour in hours)
            self._yielded = kept, sum(self._seconds(hour, now) for hour in hours)
            return [
                {
                    "hour": f"{hour}:00:00Z",
                    **{word: self._by_hour[hour][word] for word in VERDICTS},
                }
                for hour in hours
            ]

    def yielded(self) -> tuple[int, float]:
        """What was kept in those hours, and how many seconds of them curves came or could have come."""
        return self._yielded

    def _seconds(self, hour: str, now: str) -> float:
        """Of an hour before which none brought anything from its first decision on; of this hour until now."""
        before = since_1970(f"{hour}:00:00Z") - 3600
        is_first = rfc3339(before, "seconds")[:13] not in self._by_hour
        begin = since_1970(self._first.get(hour, now)) if is_first else before + 3600
        return max(min(since_1970(now), before + 7200) - begin, 0.0)


class Scores:
    """Scores of the last decisions; only what is new is read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stream, self._last = "", 0
        self._scores: deque[float | None] = deque(maxlen=_COUNTED)  # of decisions in a row, the last one last

    def of(self, view: LedgerView, within: Stretches) -> tuple[list[float], int]:
        """Those of the last stretch, four digits each, and how many have none; at most 20,000 decisions."""
        with self._lock:
            stream, last = view.stream, view.last_seq
            if stream != self._stream or last < self._last:
                self._stream, self._last = stream, max(last - _COUNTED, 0)
                self._scores.clear()
            if self._last < last:
                self._scores.extend(_rounded(view.stream_scores(self._last, last, _COUNTED)))
                self._last = last
            first, until = within[-1]
            oldest = last - len(self._scores) + 1
            if first >= oldest or until is None or until >= last:
                end = len(self._scores) if until is None else min(until, last) - oldest + 1
                some = list(islice(self._scores, max(first - oldest, 0), max(end, 0)))
            else:
                some = _rounded(view.stream_scores(first - 1, until, _COUNTED))
        known = [score for score in some if score is not None]
        return known, len(some) - len(known)


def _rounded(stream: StreamScores) -> list[float | None]:
    return [None if isnan(score) else float(f"{score:.4g}") for score in stream.scores.tolist()]


class Night:
    """Methods may be called from any thread; they raise what the desk raises."""

    def __init__(self, desk: Desk, serving: Callable[[], Aims]) -> None:
        self._desk, self._serving = desk, serving
        self._hours, self._scores = Hours(), Scores()
        self._status = Held(self._ask, _STATUS_HOLDS_S)
        self._at_rest = Held(self._reckon, _RECKONED_HOLDS_S)
        self._learning = Held(self._learned, _FIGURES_HOLD_S)
        self._figures: OrderedDict[str, Held[dict[str, Any]]] = OrderedDict()

    def _ask(self) -> Event | None:
        where = find_service(self._desk.config)  # waiting for an answer takes a second: only where one may come
        return (
            ask_status(where.replay, key=where.key) if where.is_alive or "replay" in self._desk.config.origins else None
        )

    def status(self) -> dict[str, Any]:
        """What the running service says of itself; {} where none answers, or that of another ledger."""
        event = self._status.value()
        try:
            is_ours = event is not None and event.get("stream") == self._desk.ledger.stream
        except Refused:
            is_ours = False
        return dict(event["data"]) if event is not None and is_ours else {}

    def guard(self, said: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What is being missed, and how the tip is: as the service says, else what its files tell.

        ``from``: ``service``, ``files`` where none runs, ``off`` where its guard is switched off. ``alarms`` need a
        person, ``advice`` whoever is at the microscope; ``left``: both, as they stood when the service ended; ``notes``
        are worth knowing. ``said``: a status just read.
        """
        said = self.status() if said is None else said
        if not said:
            guard = self._at_rest.value()
            before = remembered(guard, is_running=False)
            return {
                "guard": guard,
                "from": "files",
                "alarms": [],
                "advice": [],
                "left": [{"level": level, "text": text} for level, _, text in before if level != "ok"],
                "notes": [text for level, _, text in before if level == "ok"],
            }
        guard, found = said.get("guard") or {}, troubles(said)
        before = remembered(guard, is_running=True)
        return {
            "guard": guard,
            "from": "service" if guard else "off",
            "alarms": [clean(one["text"]) for one in found if one["level"] == "alarm"],
            "advice": advice(said),
            "left": [],
            "notes": [clean(one["text"]) for one in found if one["level"] != "alarm"] + [text for *_, text in before],
        }

    def _reckon(self) -> dict[str, Any]:
        serving = self._serving().serving
        with told():
            known = at_rest(self._desk.ledger, self._desk.labels, self._desk.config.state / LOGBOOK, serving)
        guard: dict[str, Any] = msgspec.to_builtins(known)
        return guard

    def learning(self) -> dict[str, Any]:
        """How the teaching of the network stands: as `status` tells it."""
        return self._learning.value()

    def _learned(self) -> dict[str, Any]:
        config = self._desk.config
        with told():
            return learning(config.state, self._desk.labels, config.finetune.events)

    def scores(self, within: Stretches) -> tuple[list[float], int]:
        """As Scores.of."""
        view = self._desk.ledger
        with told():
            return self._scores.of(view, within)

    def _own(self, rater: str) -> dict[str, Any]:
        """A rater's own figures: every label is looked at for them, so not at every question."""
        if rater not in self._figures:
            self._figures[rater] = Held(lambda: _figures(self._desk.labels, rater), _FIGURES_HOLD_S)
            while len(self._figures) > _RATERS:
                self._figures.popitem(last=False)
        return self._figures[rater].value()

    def state(self, rater: str | None, within: Stretches, aims: Aims, effect: Sequence[str]) -> dict[str, Any]:
        """What stands above and beside the curve.

        ``within``: of which decisions the queues are counted. ``effect``: what the answers so far do to the cut, in
        words.
        """
        said, view, labels = self.status(), self._desk.ledger, self._desk.labels
        learns = self.learning()
        night = self.guard(said)  # one read: what stands on one screen is of one moment
        with told():
            counts = view.verdict_counts()
            session = Sessions(labels).present()
            hours = self._hours.last(view, utc_now())
            left = lengths(view, labels, rater, within, aims)
            left |= {} if self._desk.found is None else {"found": len(self._desk.listed(rater))}
            own = self._own(rater) if rater else None
            stream, last_seq = view.stream, view.last_seq
        kept, seconds = self._hours.yielded() if session is None or session.ended else _of(session, counts)
        per_hour = 3600 * kept / seconds if seconds >= _YOUNG_S else None
        return {
            "instrument": self._desk.config.instrument,
            "version": __version__,
            "running": bool(said),
            "state": said.get("state"),
            "health": [_condition(one) for one in said.get("health", [])],
            "last_curve_s": said.get("last_curve_s"),
            "rate_per_s": said.get("rate_per_s"),
            "model": said.get("model"),
            "engine": said.get("engine"),
            "stream": stream,
            "last_seq": last_seq,
            "counts": counts,
            "session": None if session is None else _session(session, counts),
            "yield": {"per_hour": per_hour, "kept": kept, "seconds": seconds, "hours": hours},
            "queues": left,
            "rater": own,
            "goal": said.get("goal"),
            "report": None if (report := last_report(self._desk.config.state)) is None else report.stem,
            "handover": handover(self._desk.config, session),
            "promises": promises(night["guard"]),
            "advice": night["advice"],
            "night": night,
            "learning": learns,
            "effect": [*effect, *_taught(learns)],
        }


def handover(config: Config, session: Session | None) -> dict[str, Any]:
    """How what was kept is handed over, ready to be typed: of the present session, else of this night."""
    if session is None:
        night = night_of(CLOCK.wall_s())
        what, which, name = f"since {night}, noon", ["--since", f"{night}T12:00"], f"kept-{night}"
    else:
        what = f"in session {session.number}" + ("" if session.ended else ", so far")
        which, name = ["--session", str(session.number)], f"kept-session-{session.number}"
    words = ["afm-triage", "collect", "--state", str(config.state), *which]
    table, copies = (shlex.join([*words, *rest]) for rest in (["--csv", f"{name}.csv"], ["--copy", name]))
    report = shlex.join(["afm-triage", "report", "--state", str(config.state), "--html", "night.html"])
    return {"what": what, "table": clean(table), "copies": clean(copies), "report": clean(report)}


def _condition(one: Mapping[str, Any]) -> dict[str, Any]:
    text = str(one.get("text"))
    is_ok = one.get("level") == "ok"
    return {
        "name": one.get("name"),
        "level": one.get("level"),
        "text": text if is_ok else with_since(text, one.get("since")),
    }


def _taught(learns: Mapping[str, Any]) -> list[str]:
    """What the answers so far mean for the network, in words."""
    if not (events := learns["events"]):
        return []
    if missing := missing_of(events, learns["events_needed"]):
        return [f"{missing} before the network learns"]
    return [f"{many(events, 'confirmed event')} can teach the network: `finetune`, or its timer by night"]


def _of(session: Session, counts: dict[str, int]) -> tuple[int, float]:
    """Kept curves of a session that goes on, and its seconds."""
    return session.counts(counts)["keep"], session.seconds


def _session(session: Session, counts: dict[str, int]) -> dict[str, Any]:
    return {
        "number": session.number,
        **{name: getattr(session, name) for name in FIELDS},
        "origin": session.origin,
        "began": session.began,
        "ended": session.ended,
        "seconds": session.seconds,
        "first_seq": session.first_seq,
        "counts": session.counts(counts),
    }


def _figures(labels: Labels, rater: str) -> dict[str, Any]:
    """A rater's own figures, in words, once they have labelled enough to see them."""
    own = figures(labels, rater)
    sentences = []
    if own.is_shown:
        sentences.append(f"{own.labels} labels of yours hold.")
        for share, words in (
            (own.agreed_with_self, "curves shown twice you said the same"),
            (own.right, "known curves you named as others do"),
        ):
            if share.of:
                sentences.append(f"On {_share(share)} {words}.")
        if own.missed.of:
            sentences.append(f"Of the known events you passed over {_share(own.missed)}.")
    return {"name": clean(rater), "labels": own.labels, "sentences": sentences}


def _share(share: Share) -> str:
    return f"{share.count} of {share.of} ({100 * share.low:.0f} to {100 * share.high:.0f} %)"
