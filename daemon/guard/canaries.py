"""The canaries: fresh simulated curves that go down the live line, so that it is known at any moment whether it works.

:class:`CanarySource` makes them, one of six without an event, each as a file that the readers open like any other, and
knows the truth about it. The pipeline judges them in the same batches as data and sets them apart. :class:`PathWatch`
tells from what became of them whether the line works, and nothing about real events: where those are misread, simulated
ones are found all the same.

Canaries are spread by the clock, not by share: a fall in the middle of a run is found after about a hundred. Every one
is a new draw, for the network says of the same curve always the same.
"""

from __future__ import annotations

import os
import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from daemon.common.errors import INPUT_OUTPUT, UserError
from daemon.common.text import first_line
from daemon.config import GuardConfig
from daemon.formats.afmcurve import SUFFIX
from daemon.formats.jpk import JpkReader
from daemon.judging import Judge, Judged
from daemon.judging.judge import Serving
from daemon.judging.loss import Counting, Nulls, SimulatedLoss
from daemon.ledger import numbers
from daemon.metrics import CanaryResult, Metrics
from daemon.sources import CANARY, Arrival, SourceHealth
from models.anytime import Alarm, burst_limit, recall_lower_bound
from models.certificate import percent_down
from models.clock import CLOCK, Clock, minute_of, rfc3339
from models.reasons import UNREADABLE

Kind = Literal["event", "event_free", "yours"]
#: One of so many canaries holds no event.
EVENT_FREE_EVERY = 6
#: Events of a burst: a line that misses 15 % is told by it in 99.98 %.
BURST = 150
#: So soon after the start the first one goes: whoever only wants to know whether the service starts does not wait.
START_S = 2.0
#: Of a burst while no curve waits; while curves wait, so many canaries go for each. One costs as much as three of them.
AT_REST_PER_S, OF_THE_LINE = 3.0, 0.01
#: A curve that has waited so long says that curves wait now; that holds for the moment after.
_WAITS_S, _HOLDS_S = 1.0, 1.0
#: A canary that has not come out so long after it was sent is lost.
LOST_S = 60.0
_MOST_AHEAD = 8  # in the line at any moment
_LOOK_S, _MOST_CREDIT = 1.0, 4.0
_NAME = "canary-"
_OURS = re.compile(rf"{_NAME}[0-9a-f-]+[.][a-z-]+")
#: The line has failed on a canary. Of other reasons a simulated one may have its own, as one out of the model's range.
_FAULTS = UNREADABLE | {"engine_fault", "no_score"}


@dataclass(frozen=True, slots=True)
class Canary:
    """The truth about one; ``yours``: a confirmed event of the laboratory's, from its copy, to be scored anew."""

    kind: Kind
    burst: int = 0  # the number of the burst that it is of; 0: of none
    seq: int = 0  # of the decision on the curve that a copy is of
    sent_s: float = 0.0  # by the clock of the line, which stands while nothing can be recorded


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of a canary. ``judged``: None where it did not come out."""

    canary: Canary
    judged: Judged | None

    @property
    def result(self) -> CanaryResult:
        decision = None if self.judged is None else self.judged.decision
        if decision is None or _FAULTS.intersection(decision.reasons):
            return "lost"
        if self.canary.kind == "event_free":
            return "false_kept" if decision.verdict == "keep" else "quiet"
        return "missed" if decision.verdict == "discard" or "no_certificate" in decision.reasons else "found"


class CanarySource:
    """Implements ``daemon.sources.Source``; a thread of its own makes and removes the files in ``folder``.

    ``is_held`` tells whether the line stands because nothing can be recorded: then none is sent, and none is taken for
    lost. ``trouble``: why none can be made, or "".
    """

    name = CANARY

    def __init__(
        self, folder: Path, settings: GuardConfig, wake: Callable[[], None] = lambda: None, clock: Clock = CLOCK
    ) -> None:
        self.settings, self.trouble = settings, ""
        self.is_held: Callable[[], bool] = lambda: False
        self._folder, self._wake, self._clock = folder, wake, clock
        self._seed, self._made = int.from_bytes(os.urandom(16)), 0  # no other run has had it, nor has any training
        self._ready: deque[Arrival] = deque()
        self._sent: dict[str, Canary] = {}  # by file name, until it came out or is lost
        self._lost: deque[Outcome] = deque()
        self._over: deque[Path] = deque()  # files that nobody needs any more
        self._copies: deque[tuple[bytes, int]] = deque()
        self._owed = self._burst = 0  # events of the burst, and its number
        self._credit, self._curve_s, self._waits_until_s = 0.0, -float("inf"), -float("inf")
        self._line_s = 0.0  # the clock of the line
        self._looked_s = self._begin_s = self._last_s = self._clock.steady_s()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="canaries", daemon=True)

    # What the pipeline asks.

    def start(self) -> None:
        """Begin, with what an earlier run left behind removed."""
        self._begin_s = self._clock.steady_s() + START_S
        self._thread.start()

    def take(self, limit: int, large: int) -> list[Arrival]:
        """At most ``limit``; none is large."""
        return [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]

    def ready(self) -> int:
        return len(self._ready)

    def oldest_pending_s(self) -> float | None:
        return None  # nobody waits for a canary

    def health(self) -> list[SourceHealth]:
        return []  # it is no folder

    def stop(self) -> None:
        """End the thread, and remove the files."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(1.0)
        self._clear()

    def observe(self, canaries: Sequence[Judged], curves: int = 0, noticed_s: float = 0.0) -> list[Outcome]:
        """A batch came out of the line; what became of the canaries in it. For the loop.

        ``curves``: how many of it are data, of which the first was noticed at ``noticed_s``.
        """
        now_s = self._clock.steady_s()
        if curves:
            self._curve_s, self._credit = now_s, min(self._credit + OF_THE_LINE * curves, _MOST_CREDIT)
            if now_s - noticed_s > _WAITS_S:
                self._waits_until_s = now_s + _HOLDS_S
        truths = ((self._sent.pop(one.reading.arrival.path, None), one) for one in canaries)
        return [Outcome(canary, one) for canary, one in truths if canary is not None]

    # What the guard asks.

    def burst(self, events: int = BURST) -> int:
        """Send so many events, and the curves without one that go with them, as fast as they disturb nobody.

        The number of the burst; one that goes on is over with it.
        """
        self._burst += 1
        self._owed = events
        return self._burst

    def send(self, copy: bytes, seq: int) -> None:
        """Have a compact copy of a decided curve judged by what serves now; it comes out as ``yours``."""
        self._copies.append((copy, seq))

    def lost(self) -> list[Outcome]:
        """Those that were found lost since the last call."""
        return [self._lost.popleft() for _ in range(len(self._lost))]

    @property
    def pending(self) -> int:
        """Canaries that were sent and have not come out."""
        return len(self._sent)

    @property
    def is_at_rest(self) -> bool:
        return not self._owed  # no burst goes on

    # The thread.

    def _run(self) -> None:
        self._clear()
        pause_s = _LOOK_S
        while not self._ending.wait(pause_s):
            try:
                pause_s = self.step()
            except Exception as error:  # whatever it is: the line goes on, and it is told
                said = str(error) if isinstance(error, UserError) else first_line(error)
                self.trouble, pause_s = f"no canary can be made: {said}", _LOOK_S

    def step(self) -> float:
        """Send what is due, and see which are lost; in how many seconds to come again. OSError: no file is taken."""
        now_s, is_held = self._clock.steady_s(), self.is_held()
        self._line_s += 0.0 if is_held else min(now_s - self._looked_s, 2 * _LOOK_S)
        self._looked_s = now_s
        while self._over and not self._folder.is_symlink():
            self._over.popleft().unlink(missing_ok=True)
        for name, canary in tuple(self._sent.items()):
            if self._line_s - canary.sent_s > LOST_S:
                self._lose(name)
        if not self.settings.canaries:
            self._owed, self.trouble = 0, ""
            self._copies.clear()
        elif not is_held and now_s >= self._begin_s and self.pending < _MOST_AHEAD:
            self._send_due(now_s)
        return 1 / AT_REST_PER_S if self._owed or self._copies else min(_LOOK_S, self.settings.canary_s)

    def _send_due(self, now_s: float) -> None:
        curves_come = now_s - self._curve_s < self.settings.canary_rest_s
        every_s = self.settings.canary_s if curves_come else self.settings.canary_rest_s
        curves_wait = now_s < self._waits_until_s
        may_hurry = self._credit >= 1.0 if curves_wait else now_s - self._last_s >= 0.9 / AT_REST_PER_S
        if may_hurry and self._owed and (self._made % 2 or not self._copies):  # in turn with the copies
            self._send_simulated(now_s, self._burst)
        elif may_hurry and self._copies:
            copy, seq = self._copies.popleft()
            self._send(copy, SUFFIX, Canary("yours", 0, seq, self._line_s), now_s)
        elif now_s - self._last_s >= every_s:
            self._send_simulated(now_s, 0)

    def _send_simulated(self, now_s: float, burst: int) -> None:
        from daemon.instrument import pack  # late: no start of a service waits for them
        from models.simulate import simulate

        is_event = (self._made + 1) % EVENT_FREE_EVERY != 0
        (simulated,) = simulate(1, self._seed, float(is_event), self._made)
        canary = Canary("event" if is_event else "event_free", burst, 0, self._line_s)
        self._send(pack(simulated.curve), JpkReader.format.suffixes[0], canary, now_s)
        if burst and is_event and burst == self._burst:
            self._owed = max(self._owed - 1, 0)

    def _send(self, content: bytes, suffix: str, canary: Canary, now_s: float) -> None:
        name = f"{_NAME}{self._seed % 16**8:08x}-{self._made:08d}{suffix}"  # no other file has it
        self._made, self._last_s, self._credit = self._made + 1, now_s, max(self._credit - 1.0, 0.0)
        file = self._folder / name
        if self._folder.is_symlink() or self._folder.is_file():
            raise UserError(INPUT_OUTPUT, f"{self._folder} is no folder of this service's own: move it away")
        try:
            self._folder.mkdir(exist_ok=True)
            file.write_bytes(content)
        except OSError:
            self._over.append(file)
            raise
        self.trouble, self._sent[name] = "", canary
        arrival = Arrival(CANARY, name, file, size_bytes=len(content), noticed_s=now_s, answer=self._answered)
        # Whatever its content, it is never taken for a curve that was decided: a copy may well be like one.
        self._ready.append(replace(arrival, known_curve=f"{CANARY}-{self._seed:x}-{self._made}"))
        self._wake()

    def _answered(self, arrival: Arrival, is_done: bool, reason: str | None) -> None:  # else a whole file was not read
        self._over.append(arrival.file)
        if not is_done or reason is not None:
            self._lose(arrival.path)

    def _lose(self, name: str) -> None:
        if (canary := self._sent.pop(name, None)) is not None:
            self._lost.append(Outcome(canary, None))

    def _clear(self) -> None:
        with suppress(OSError):  # behind a link it is not known whose files they are
            for entry in () if self._folder.is_symlink() else os.scandir(self._folder):
                if _OURS.fullmatch(entry.name):
                    os.unlink(entry)


#: A configured cut that discards more of the simulated events than this is told of.
_MOST_BY_ITSELF = 0.10
_RAISED = "lower `discard` in [thresholds] and reload"
_LOOK = "look at the engine; `models rollback` takes back the last model or cut"


class PathWatch:
    """Whether the line works, told by what became of the canaries. May be asked from any thread.

    One pipeline at a time: a model, its calibration and its cut. Where too many are missed, and when that is over, the
    counts begin anew: what came before says nothing of now.
    """

    def __init__(self, source: CanarySource, metrics: Metrics, state: Path, clock: Clock = CLOCK) -> None:
        self.source = source
        self._metrics, self._state, self._clock = metrics, state, clock
        self._lock = threading.Lock()
        self._counting = Counting()
        self._loss: SimulatedLoss | None = None
        self._told: object = None  # what is in force, as last seen
        self.pipeline, self._is_bold = "", False
        self._burst = self._burst_missed = 0
        self._counts, self._fresh = Counter[CanaryResult](), Counter[CanaryResult]()  # the latter since last asked for
        self._begin(Nulls())

    def observe(self, canaries: Sequence[Judged], curves: int = 0, noticed_s: float = 0.0) -> list[Outcome]:
        """The loop's, as of the source; the outcomes of ``yours``, which are for others."""
        outcomes = self.source.observe(canaries, curves, noticed_s)
        for one in outcomes:
            self._note(one)
        return [one for one in outcomes if one.canary.kind == "yours"]

    def burst(self) -> None:
        """Send many at once: something has changed."""
        with self._lock:
            self._burst, self._burst_missed = self.source.burst(), 0

    def look(self, serving: Serving, session: int | None, kept: Callable[[str], Mapping[str, Any] | None]) -> None:
        """The guard's, once a second: what is lost, what has changed. ``kept``: of a pipeline, its :attr:`state`."""
        for one in self.source.lost():
            self._note(one)
        if not self.source.settings.canaries:
            return
        judge, model = serving.judge, serving.model
        if judge.pipeline != self.pipeline:
            self._loss = SimulatedLoss(self._state, model.bundle)
            state = None if self.pipeline else kept(judge.pipeline)
            self._serve(judge, Nulls.of(self._loss, judge), state)
        if self._told != (told := (judge.pipeline, serving.engine, session)):
            self._told = told
            self.burst()
        if self.source.is_at_rest and self._loss is not None and self._counting.look(self._loss):
            self._serve(judge, replace(Nulls.of(self._loss, judge), is_awaited=False), self.state)
            self.burst()

    def results(self) -> dict[CanaryResult, int]:
        """How many came to what since the last call, by the pipeline that serves."""
        with self._lock:
            found, self._fresh = dict(self._fresh), Counter()
            return found

    def stop(self) -> None:
        """End what it has begun."""
        self.source.stop()
        self._counting.stop()

    # Anybody's.

    def numbers(self) -> numbers.Path | None:
        """All of it, for status, console and page; None where canaries are switched off."""
        if not self.source.settings.canaries:
            return None
        with self._lock:
            counts, bound, trouble = self._counts, self._lower_bound(), self._finding()
            return numbers.Path(
                canaries=counts["found"] + counts["missed"],
                missed=counts["missed"],
                lost=counts["lost"],
                event_free=counts["quiet"] + counts["false_kept"],
                false_kept=counts["false_kept"],
                lower_bound=bound,
                null=self._nulls.missed,
                since=rfc3339(self._since_s),
                pending=self.source.pending,
                is_well=trouble is None,
                text=trouble or self._words(bound),
            )

    @property
    def state(self) -> dict[str, Any]:
        """Of the pipeline that serves: what the next service goes on from."""
        with self._lock:
            evidence = {name: one.state for name, one in self._watched().items()}
            return {"since_s": self._since_s, "counts": dict(self._counts), "evidence": evidence}

    # Under the lock, but for the first two.

    def _note(self, outcome: Outcome) -> None:
        if outcome.canary.kind == "yours":
            return
        result, judged, now_s = outcome.result, outcome.judged, self._clock.wall_s()
        self._metrics.canary.labels(result).inc()
        with self._lock:
            if judged is not None and judged.decision.judge.pipeline != self.pipeline:
                return  # by what served before
            self._counts[result], self._fresh[result] = self._counts[result] + 1, self._fresh[result] + 1
            self._lost.observe(result == "lost", now_s)
            if self._nulls.is_awaited:
                return  # of what this network does by itself nothing is known yet
            if result in ("found", "missed"):
                self._burst_missed += result == "missed" and outcome.canary.burst == self._burst > 0
                is_told = self._burst_missed >= self._burst_limit
                if self._missed.observe(result == "missed", now_s, is_told):
                    self._counts, self._since_s = Counter[CanaryResult](), now_s
                    self._burst, self._burst_missed = self.source.burst(), 0  # soon it is known whether it lasts
            elif result != "lost":
                self._kept.observe(result == "false_kept", now_s)

    def _serve(self, judge: Judge, nulls: Nulls, state: Mapping[str, Any] | None) -> None:
        with self._lock:
            self.pipeline = judge.pipeline
            is_configured = judge.cut.origin == "configured" and nulls.is_counted
            self._is_bold = is_configured and nulls.missed > _MOST_BY_ITSELF
            self._begin(nulls)
            with suppress(KeyError, TypeError, ValueError):  # of another version: begun anew
                if state is not None:
                    self._restore(state)

    def _begin(self, nulls: Nulls) -> None:
        self._nulls, self._burst_limit = nulls, burst_limit(nulls.missed, BURST)
        self._missed, self._kept, self._lost = Alarm(nulls.missed, BURST), Alarm(nulls.kept, 40), Alarm(None, 20)
        self._counts = Counter[CanaryResult]()
        self._since_s = self._clock.wall_s()
        self._bound: tuple[int, int, float | None] = (0, 0, None)

    def _restore(self, state: Mapping[str, Any]) -> None:
        for name, alarm in self._watched().items():
            alarm.restore(state["evidence"][name])
        self._counts.update({name: int(count) for name, count in state["counts"].items()})
        self._since_s = float(state["since_s"])

    def _watched(self) -> dict[str, Alarm]:
        return {"missed": self._missed, "kept": self._kept}

    def _lower_bound(self) -> float | None:
        missed = self._counts["missed"]
        events = self._counts["found"] + missed
        if self._bound[:2] != (events, missed):
            self._bound = (events, missed, recall_lower_bound(events, missed) if events else None)
        return self._bound[2]

    def _words(self, bound: float | None) -> str:
        if bound is None:
            return "no simulated event has come out of the line yet"
        found, since = self._counts["found"], minute_of(rfc3339(self._since_s))
        events, least = found + self._counts["missed"], percent_down(bound)
        said = f"{found:,} of {events:,} simulated events found since {since}: at least {least} are (95 %)"
        return said if self._nulls.is_counted else f"{said}; what the cut misses by itself is not counted yet"

    def _finding(self) -> str | None:
        nulls, found, since = self._nulls, self._counts["found"], minute_of(rfc3339(self._since_s))
        cut = "this" if nulls.is_counted else "a usual"
        watched = {
            "curves were lost on the way through readers and engine: look into the log": self._lost,
            f"events are discarded, of which {cut} cut discards {nulls.missed:.1%} at most: {_LOOK}": self._missed,
            f"curves without an event are kept, usually {nulls.kept:.1%} at most: {_LOOK}": self._kept,
        }
        said = [_said(alarm, what) for what, alarm in watched.items() if alarm.since_s is not None]
        if self._is_bold:
            bold = (
                f"since {since} {found:,} of {found + self._counts['missed']:,} simulated events found, as the "
                f"configured discard threshold gives up as many as {nulls.missed:.0%} of them by itself: {_RAISED}"
            )
            said.insert(0, bold)
        return "; ".join(said) or None


def _said(alarm: Alarm, what: str) -> str:
    since = minute_of(rfc3339(alarm.since_s or 0.0))
    return f"since {since} {sum(alarm.recent)} of the last {len(alarm.recent)} simulated {what}"
