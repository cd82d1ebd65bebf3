"""The guard: what is being missed, at any moment of the night, and is anything wrong with the tip.

It watches beside the line and never stands in it: ``observe`` takes some microseconds a curve, what is slow is done on
a thread of its own, and whatever fails in it is told as the one condition ``guard`` while judging goes on.

What it finds becomes an alarm once, and clears when it is over. Whether events may be getting lost is an *alarm*: at
three in the morning somebody is to be woken, for what is missed now is gone by breakfast. What the tip or the run is
like is *advice*: it is announced the same way, at the lowest level, for whoever is at the microscope or looks at the
console; but the service judges as well as ever, so its state stays ``ready``, and nobody whose duty is the computer is
woken for a dirty tip.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from daemon.common.errors import INPUT_OUTPUT, UserError
from daemon.common.text import first_line
from daemon.config import GuardConfig
from daemon.guard.canaries import CanarySource, Outcome, PathWatch
from daemon.guard.logbook import NAME, Logbook
from daemon.guard.morning import NO_CANARIES, Memory, level_of
from daemon.guard.tip import RunWatch, TipWatch
from daemon.guard.unseen import second, unseen
from daemon.judging import Judged
from daemon.judging.judge import Serving
from daemon.judging.sentinel import Dispute
from daemon.labels import Labels
from daemon.labels.confirmed import AsDecided, Said, as_decided, events_of, network_of, your_events
from daemon.labels.sessions import Session
from daemon.ledger import numbers
from daemon.ledger.events import Level
from daemon.ledger.numbers import ADVICE, Advice, TipPoint
from daemon.ledger.view import LedgerView
from models.clock import utc_now

log = logging.getLogger(__name__)

#: The thread works so often.
STEP_S = 1.0
#: Trouble that is over sooner is not told: another program may hold a file for a moment.
TOLD_S = 10.0
#: A watch that failed on a curve is said to fail for so long after.
_FAILED_S = 60.0
#: A look at the labels may take this share of the time.
_SHARE = 0.05
#: A service that begins later finds another tip, for all that is known.
_SAME_TIP_S = 3_600.0
#: Confirmed events that wait for the network that serves.
_AT_ONCE = 20
#: Where none of them has come out for so long, they are lost, and others have their turn.
_TURN_S = 120.0
#: While only curves come, what nobody sees is counted anew this often.
_AUDIT_S = 10.0
_PATIENCE_S, _GONE_S = 0.2, 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to be told, or that it is over (level ok). ``is_advice``: it leaves the service's state as it is."""

    name: str
    level: Level
    text: str
    is_advice: bool = False


@dataclass(frozen=True, slots=True)
class _Failure:
    since_s: float
    last_s: float
    text: str


class Guard(threading.Thread):
    """One a service. ``observe`` and ``reloaded`` are the loop's, the others but for ``step`` are anybody's."""

    def __init__(
        self,
        state: Path,
        view: LedgerView,
        serving: Serving,
        dispute: Dispute,
        session: Callable[[], Session | None] = lambda: None,
        *,
        now: Callable[[], float] = time.monotonic,
        path: PathWatch | None = None,
    ) -> None:
        super().__init__(name="guard", daemon=True)
        self._path, self._path_state = path, dict[str, Any]()
        self._service: tuple[str, Mapping[str, int]] = ("", {})
        self._view, self._serving, self._dispute = view, serving, dispute
        self._session, self._now = session, now
        self._ending = threading.Event()
        self._failures: dict[str, _Failure] = {}
        self._told: dict[str, Finding] = {}
        self.logbook = Logbook(state / NAME, view.stream)
        self._memory = Memory(self.logbook)
        self._tip, self._run_watch = TipWatch(), RunWatch()
        self._blocks: deque[tuple[TipPoint, str | None, dict[str, Any]]] = deque()  # to be noted
        self._seq = view.last_seq
        try:
            self._restore()
        except Exception as error:  # whatever was left behind: no start fails on it
            log.exception("the guard begins anew")
            self._fail("watching", error)
        self._labels = _LabelWatch(state / "labels.sqlite", view, self.logbook, path.source if path else None, now)

    def _restore(self) -> None:
        """Go on where the service before this one ended."""
        self._memory.begin()
        self._tip.remember(self.logbook.blocks())
        state = self.logbook.kept("tip").get(self.logbook.stream, {})
        with suppress(KeyError, TypeError, ValueError):
            if 0.0 <= time.time() - state["time_s"] < _SAME_TIP_S:
                self._tip.restore(state)

    # The loop's.

    def observe(self, judged: Sequence[Judged], canaries: Sequence[Judged] = ()) -> None:
        """A batch that was judged, and the canaries in it. Raises nothing."""
        try:
            if self._path is not None:
                noticed_s = min((one.decision.noticed_s for one in judged), default=0.0)
                for outcome in self._path.observe(canaries, len(judged), noticed_s):
                    self._labels.hear(outcome)
            current = self._session()
            session = None if current is None else current.number
            for one in judged:
                self._observe(one, session)
        except Exception as error:  # whatever it is, the line goes on
            if "watching" not in self._failures:
                log.exception("the guard failed on a batch")
            self._fail("watching", error)

    def _observe(self, one: Judged, session: int | None) -> None:
        self._seq += 1
        if block := self._tip.observe(one.reading, one.decision, self._seq, session):
            self._blocks.append((*block, self._tip.state()))
        self._run_watch.observe(one.decision, session)

    def reloaded(self, settings: GuardConfig) -> None:
        """The configuration was read anew."""
        if self._path is not None:
            self._path.source.settings = settings
            self._path.burst()

    # Anybody's.

    def hear(self, name: str, level: Level, text: str, since: str) -> None:
        """A condition of the service has come to this level: for the morning. ``since``: UTC, RFC 3339."""
        self._memory.hear(name, level, text, since)

    def serve(self, engine: str, ignored: Mapping[str, int]) -> None:
        """For the morning too: on what the service judges, and how many files of each kind it has passed over."""
        self._service = engine, ignored

    def status(self) -> numbers.GuardNumbers:
        """The numbers as they are known now; nothing is looked up. Raises nothing."""
        try:
            return self._numbers()
        except Exception as error:  # a status without them is better than none
            self._fail("watching", error)
            return numbers.GuardNumbers()

    def _numbers(self) -> numbers.GuardNumbers:
        blocks, advice = self._tip.blocks, self._advice()
        tip = numbers.Tip(unit=self._tip.unit, blocks=blocks, advice=advice) if blocks or advice else None
        path = self._path.numbers() if self._path is not None else None
        of_labels = self._labels
        return numbers.GuardNumbers(
            path=path,
            events=of_labels.events,
            unseen=of_labels.unseen,
            second=of_labels.second,
            tip=tip,
            no_path=NO_CANARIES if self._path is not None and path is None else None,
            told=self._memory.not_seen_again(),
        )

    def pulse(self) -> numbers.Pulse:
        """The same in short."""
        return numbers.in_short(self.status())

    def findings(self) -> Iterator[Finding]:
        """What there is to tell, and of what was told before that it is over. Raises nothing."""
        try:
            now = {one.name: one for one in self._findings()}
        except Exception as error:  # whatever was told before stays so
            self._fail("watching", error)
            yield Finding("guard", "degraded", self._trouble())
            return
        for name, before in self._told.items():
            if name not in now:
                yield replace(before, level="ok", text=f"over: {before.text}")
        self._told = {name: one for name, one in now.items() if one.level != "ok"}
        yield from now.values()

    def _findings(self) -> Iterator[Finding]:
        trouble = self._trouble()
        yield Finding("guard", "degraded" if trouble else "ok", trouble or "the guard watches")
        if self._path is not None and (path := self._path.numbers()) is not None:
            yield Finding("path", "ok" if path.is_well else "alarm", path.text)
        low, high = self._serving.judge.thresholds.both
        if not low < high:  # no configuration and no model can say so
            text = f"the discard threshold ({low:g}) is not below keep ({high:g}): look at the model that serves"
            yield Finding("thresholds", "alarm", text)
        if disputed := self._dispute.finding():
            yield Finding("second opinion", "alarm", disputed)
        advice: dict[tuple[str, Level], list[str]] = {}
        for one in self._advice():
            advice.setdefault((f"{ADVICE}{one.kind}", level_of(one)), []).append(one.text)
        for (name, level), texts in advice.items():
            yield Finding(name, level, "; ".join(texts), is_advice=level != "alarm")

    def _advice(self) -> tuple[Advice, ...]:
        return (*self._tip.advice, *self._run_watch.advice)

    def _trouble(self) -> str:
        """What fails in the guard itself, in one line; what is over soon is not told."""
        now_s, told = self._now(), []
        for name, one in tuple(self._failures.items()):
            is_old = one.last_s - one.since_s >= TOLD_S
            is_fresh = name == "watching" and now_s - one.last_s < _FAILED_S
            if is_old or is_fresh:
                told.append(one.text)
        return f"{'; '.join(told)}; judging goes on" if told else ""

    # The thread's.

    def run(self) -> None:
        if self._path is not None:
            self._path.source.start()
        self.step()
        while not self._ending.wait(STEP_S):
            self.step()

    def stop(self) -> None:
        self._ending.set()
        if self.is_alive():
            self.join(_GONE_S)
        if self._path is not None:
            self._path.stop()
        if not self.is_alive():
            self._memory.note(self._advice())
            self._memory.end()
            self.logbook.close()

    def step(self) -> None:
        """What is slow, once a second. Raises nothing."""
        parts: dict[str, Callable[[], None]] = {
            "the path": self._look_at_path,
            "the labels": self._look_at_labels,
            "the logbook": self._write,
        }
        for name, work in parts.items():
            try:
                work()
            except Exception as error:  # of whatever kind: the next look may go better
                if not isinstance(error, UserError) and name not in self._failures:
                    log.exception("the guard failed on %s", name)
                self._fail(name, error)
            else:
                self._failures.pop(name, None)

    def _look_at_path(self) -> None:
        """Raises UserError where no canary can be made."""
        if (path := self._path) is None:
            return
        session = self._session()
        path.look(self._serving, session.number if session else None, self.logbook.kept("path").get)
        hour = f"{utc_now()[:13]}:00:00Z"
        for result, canaries in path.results().items():
            self.logbook.count(hour, path.pipeline, result, canaries)
        if (state := path.state) != self._path_state:
            self._path_state = state
            self.logbook.keep("path", path.pipeline, state)
        self._memory.note_path(path.numbers())
        if path.source.trouble:
            raise UserError(INPUT_OUTPUT, path.source.trouble)

    def _look_at_labels(self) -> None:
        self._labels.look(self._serving, self._session())

    def _write(self) -> None:
        with suppress(UserError):  # told by the ledger itself
            self._seq = self._view.last_seq
        while self._blocks:
            point, unit, state = self._blocks.popleft()
            self.logbook.note_block(point, unit)
            self.logbook.keep("tip", self.logbook.stream, {**state, "time_s": time.time()})
        self._memory.note(self._advice())
        self._memory.note_service(*self._service)
        self.logbook.write()
        if self.logbook.trouble:
            raise UserError(INPUT_OUTPUT, self.logbook.trouble)

    def _fail(self, name: str, error: Exception) -> None:
        said = str(error) if isinstance(error, UserError) else first_line(error)
        now_s, text = self._now(), f"{name}: {said}"
        before = self._failures.get(name)
        if before is None or (name == "watching" and now_s - before.last_s > _FAILED_S):
            before = _Failure(now_s, now_s, text)
        self._failures[name] = _Failure(before.since_s, now_s, text)


class _LabelWatch:
    """What rests on people's words: your events, live and now, and what nobody sees. For the guard's thread.

    ``events``, ``unseen`` and ``second`` are anybody's, ``hear`` is the loop's.
    """

    def __init__(
        self,
        labels: Path,
        view: LedgerView,
        logbook: Logbook,
        canaries: CanarySource | None,
        now: Callable[[], float],
    ) -> None:
        self.events: numbers.YourEvents | None = None
        self.unseen: numbers.Unseen | None = None
        self.second: numbers.SecondOpinion | None = None
        self._file, self._view, self._logbook, self._canaries, self._now = labels, view, logbook, canaries, now
        self._labels: Labels | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._due_s = self._audit_due_s = self._asked_s = 0.0
        self._decided: dict[int, AsDecided] = {}
        self._network = ""
        self._later: dict[int, Said] = {}  # by that network
        self._asked: set[int] = set()  # whom that network was asked about,
        self._waiting: set[int] = set()  # and has not answered yet
        self._heard: deque[Outcome] = deque()
        self._seen: object = None  # what ``events`` was made of,
        self._audited: tuple[object, ...] = ()  # and the others

    def look(self, serving: Serving, session: Session | None) -> None:
        """Look at the labels where they have changed. Raises UserError where they, or the ledger, cannot be read."""
        began_s = self._now()
        if began_s < self._due_s:
            return
        judge = serving.judge
        if network_of(judge.pipeline) != self._network:
            self._network = network_of(judge.pipeline)
            self._later, self._asked, self._waiting = self._logbook.said(self._network), set(), set()
        stamp = self._read()
        self._take_heard()
        self._ask()
        number = None if session is None else session.number
        seen = (stamp, judge.pipeline, judge.thresholds, number, len(self._later))
        if seen != self._seen:
            decided = self._decided.values()
            self.events = your_events(decided, judge.pipeline, judge.thresholds, session, self._later)
            self._seen = seen
        self._audit(stamp, judge.pipeline)
        self._due_s = began_s + (self._now() - began_s) / _SHARE

    def _audit(self, stamp: object, pipeline: str) -> None:
        """At once where people have said something, and now and then while only curves come."""
        said = (stamp, pipeline)
        audited = (*said, self._view.last_seq)
        if audited == self._audited or (said == self._audited[:2] and self._now() < self._audit_due_s):
            return
        self.unseen = unseen(self._view, self._labels, pipeline)
        self.second = second(self._view, self._labels)
        self._audited, self._audit_due_s = audited, self._now() + _AUDIT_S

    def hear(self, outcome: Outcome) -> None:
        """What serves has judged one that another network had decided."""
        self._heard.append(outcome)

    def _take_heard(self) -> None:
        while self._heard:
            outcome = self._heard.popleft()
            seq, decision = outcome.canary.seq, None if outcome.judged is None else outcome.judged.decision
            self._waiting.discard(seq)
            self._asked_s = self._now()
            if decision is not None and network_of(decision.judge.pipeline) == self._network:
                said = self._later[seq] = Said(decision.score, decision.reasons)
                self._logbook.note_said(self._network, seq, said)

    def _ask(self) -> None:
        """Have some that another network decided judged by the one that serves, where the ledger keeps a copy."""
        if self._canaries is None:
            return
        if not self._canaries.settings.canaries:
            self._asked -= self._waiting  # those on their way are forgotten there; asked again when switched on
            self._waiting.clear()
            return
        if self._now() - self._asked_s > _TURN_S:
            self._waiting.clear()
        for seq, one in self._decided.items():
            if len(self._waiting) >= _AT_ONCE:
                return
            if one.network == self._network or seq in self._later or seq in self._asked:
                continue
            self._asked.add(seq)
            if copy := self._view.compact_copy(seq):
                self._waiting.add(seq)
                self._asked_s = self._now()
                self._canaries.send(copy, seq)

    def _read(self) -> object:
        """Bring ``_decided`` up to date, where the file is another than at the last look; its stamp."""
        try:
            stat = self._file.stat()
        except OSError:  # nobody has said anything yet
            stat = None
        stamp = stat and (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if stamp == self._stamp and self.events is not None:
            return stamp
        if self._labels is not None and (stamp is None or self._stamp is None or stamp[0] != self._stamp[0]):
            self._labels.close()
            self._labels = None
        seqs = set()
        if stamp and stamp[2]:
            if self._labels is None:
                self._labels = Labels(self._file, patience_s=_PATIENCE_S, is_reading=True)
            seqs = events_of(self._labels)
        fresh = as_decided(self._view, seqs - self._decided.keys())
        known = {seq: one for seq, one in self._decided.items() if seq in seqs}
        self._decided = known | {one.seq: one for one in fresh}
        self._stamp = stamp
        return stamp
