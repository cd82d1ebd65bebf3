"""The canaries: fresh simulated curves that go down the live line, so that it is known at any moment whether it works.

:class:`CanarySource` makes them, one of six without an event, each as a file that the readers open like any other, and
knows the truth about it. The pipeline judges them in the same batches as data and sets them aside. :class:`PathWatch`
counts what came out: an alarm when more events are missed than the served cut misses by itself, or when a canary does
not come out at all. It says whether the line works, and nothing about real events: where those are misread, simulated
ones are found all the same.

Canaries are spread by the clock, not by share: a fall in the middle of a run is found after about a hundred. Every one
is a new draw, for the network says of the same curve always the same.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from daemon.common.text import first_line
from daemon.config import GuardConfig
from daemon.formats.afmcurve import SUFFIX
from daemon.judging import Judge, Judged
from daemon.judging.loss import Nulls
from daemon.ledger import numbers
from daemon.metrics import CanaryResult
from daemon.sources import CANARY, Arrival, SourceHealth
from models.anytime import EDetector, burst_limit, recall_lower_bound
from models.clock import CLOCK, Clock, day_and_minute, rfc3339

log = logging.getLogger(__name__)

Kind = Literal["event", "event_free", "yours"]
#: One of so many canaries holds no event.
EVENT_FREE_EVERY = 6
#: Events of a burst: a line that misses 15 % is told by it in 99.98 %.
BURST = 150
#: So soon after the start the first one goes: whoever only wants to know whether the service starts does not wait.
START_S = 2.0
#: Of a burst while no curve waits; while curves wait, so many canaries go for each of them.
AT_REST_PER_S, OF_THE_LINE = 5.0, 0.02
#: A curve that has waited so long says that curves wait now; that holds for the moment after.
_WAITS_S, _HOLDS_S = 1.0, 1.0
#: A canary that has not come out so long after it was sent is lost.
LOST_S = 60.0
#: No more are in the line at any moment.
_MOST_AHEAD = 8
_LOOK_S = 1.0
_MOST_CREDIT = 4.0
_NAME = "canary-"


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
        if self.judged is None or self.judged.decision.score is None:
            return "lost"
        decision = self.judged.decision
        if self.canary.kind == "event_free":
            return "false_kept" if decision.verdict == "keep" else "quiet"
        is_missed = decision.verdict == "discard" or "no_certificate" in decision.reasons
        return "missed" if is_missed else "found"


class CanarySource:
    """Implements ``daemon.sources.Source``. Of no folder that anybody watches, and never in any account.

    A thread of its own makes and removes the files in ``folder``. ``is_held`` tells whether the line stands because
    nothing can be recorded: then none is sent, and none is taken for lost. ``trouble``: why none can be made, or "".
    """

    name = CANARY

    def __init__(
        self, folder: Path, settings: GuardConfig, wake: Callable[[], None] = lambda: None, clock: Clock = CLOCK
    ) -> None:
        self.settings, self.trouble = settings, ""
        self.is_held: Callable[[], bool] = lambda: False
        self._folder, self._wake, self._clock = folder, wake, clock
        self._seed = int.from_bytes(os.urandom(16))  # no other run has had it, nor has any training
        self._made = 0
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
        """None: nobody waits for a canary."""
        return None

    def health(self) -> list[SourceHealth]:
        """Nothing: it is no folder."""
        return []

    def stop(self) -> None:
        """End the thread, and remove the files."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(1.0)
        self._clear()

    def observe(self, judged: Sequence[Judged]) -> list[Outcome]:
        """A batch came out of the line; what became of the canaries in it. For the loop."""
        now_s, outcomes, curves = self._clock.steady_s(), [], 0
        for one in judged:
            if not one.reading.arrival.is_canary:
                curves += 1
                if now_s - one.decision.noticed_s > _WAITS_S:
                    self._waits_until_s = now_s + _HOLDS_S
            elif (canary := self._sent.pop(one.reading.arrival.path, None)) is not None:
                outcomes.append(Outcome(canary, one))
        if curves:
            self._curve_s, self._credit = now_s, min(self._credit + OF_THE_LINE * curves, _MOST_CREDIT)
        return outcomes

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
        """Whether no burst goes on."""
        return not self._owed

    # The thread.

    def _run(self) -> None:
        self._clear()
        pause_s = _LOOK_S
        while not self._ending.wait(pause_s):
            try:
                pause_s = self.step()
                self.trouble = ""
            except Exception as error:  # whatever it is: the line goes on, and it is told
                self.trouble, pause_s = f"no canary can be made: {first_line(error)}", _LOOK_S

    def step(self) -> float:
        """Send what is due, and see which are lost; in how many seconds to come again. OSError: no file is taken."""
        now_s, is_held = self._clock.steady_s(), self.is_held()
        self._line_s += 0.0 if is_held else min(now_s - self._looked_s, 2 * _LOOK_S)
        self._looked_s = now_s
        while self._over:
            self._over.popleft().unlink(missing_ok=True)
        for name, canary in tuple(self._sent.items()):
            if self._line_s - canary.sent_s > LOST_S:
                self._lose(name)
        if not self.settings.canaries:
            self._owed = 0
            self._copies.clear()
        elif not is_held and now_s >= self._begin_s and self.pending < _MOST_AHEAD:
            self._send_due(now_s)
        return 1 / AT_REST_PER_S if self._owed or self._copies else min(_LOOK_S, self.settings.canary_s)

    def _send_due(self, now_s: float) -> None:
        curves_come = now_s - self._curve_s < self.settings.canary_rest_s
        every_s = self.settings.canary_s if curves_come else self.settings.canary_rest_s
        curves_wait = now_s < self._waits_until_s
        may_hurry = self._credit >= 1.0 if curves_wait else now_s - self._last_s >= 0.9 / AT_REST_PER_S
        if may_hurry and self._owed:
            self._send_simulated(now_s, self._burst)
        elif may_hurry and self._copies:
            copy, seq = self._copies.popleft()
            self._send(copy, SUFFIX, Canary("yours", 0, seq, self._line_s), now_s)
        elif now_s - self._last_s >= every_s:
            self._send_simulated(now_s, 0)

    def _send_simulated(self, now_s: float, burst: int) -> None:
        from daemon.instrument.jpk_writer import pack  # late: no start of a service waits for them
        from models.simulate import simulate

        is_event = (self._made + 1) % EVENT_FREE_EVERY != 0
        (simulated,) = simulate(1, self._seed, float(is_event), self._made)
        canary = Canary("event" if is_event else "event_free", burst, 0, self._line_s)
        self._send(pack(simulated.curve), ".jpk-force", canary, now_s)
        if burst and is_event and burst == self._burst:
            self._owed = max(self._owed - 1, 0)

    def _send(self, content: bytes, suffix: str, canary: Canary, now_s: float) -> None:
        """Write and offer it. No sync: after a crash nobody misses it."""
        name = f"{_NAME}{self._made:08d}{suffix}"
        self._made, self._last_s, self._credit = self._made + 1, now_s, max(self._credit - 1.0, 0.0)
        file = self._folder / name
        self._folder.mkdir(exist_ok=True)
        file.write_bytes(content)
        self._sent[name] = canary
        arrival = Arrival(CANARY, name, file, size_bytes=len(content), noticed_s=now_s, answer=self._answered)
        self._ready.append(arrival)
        self._wake()

    def _answered(self, arrival: Arrival, is_done: bool, reason: str | None) -> None:
        """Judged, or what was whole when it was written could not be read."""
        self._over.append(arrival.file)
        if not is_done or reason is not None:
            self._lose(arrival.path)

    def _lose(self, name: str) -> None:
        if (canary := self._sent.pop(name, None)) is not None:
            self._lost.append(Outcome(canary, None))

    def _clear(self) -> None:
        with suppress(OSError):
            for entry in os.scandir(self._folder):
                if entry.name.startswith(_NAME):
                    os.unlink(entry)


#: After an alarm so many of a kind must come out as they should, until it is over: events, curves without one, any.
_EVENTS_AFTER, _EVENT_FREE_AFTER, _ANY_AFTER = BURST, 40, 20
#: A configured cut that discards more of the simulated events than this is told of.
_MOST_BY_ITSELF = 0.10
Trouble = Literal["missed", "lost", "kept"]


@dataclass(slots=True)
class _Alarm:
    since_s: float
    seen: int = 0  # canaries of its kind since it rang, or since it was last found to last
    bad: int = 0  # of these


@dataclass(slots=True)
class _Tally:
    """Of one pipeline, since a time."""

    since_s: float
    counts: Counter[CanaryResult] = field(default_factory=Counter)

    @property
    def events(self) -> int:
        return self.counts["found"] + self.counts["missed"]


class PathWatch:
    """Whether the line works, told by what became of the canaries. May be asked from any thread.

    One pipeline at a time: a model, its cut and its calibration. Where an alarm rings the counts begin anew: what was
    good before says nothing of now.
    """

    def __init__(self, source: CanarySource, count: Callable[[CanaryResult], None], clock: Clock = CLOCK) -> None:
        self._source, self._count, self._clock = source, count, clock
        self._lock = threading.Lock()
        self._pipeline = self._by_itself = ""
        self._tally = _Tally(clock.wall_s())
        self._begin_watching(Nulls())
        self._burst, self._burst_missed = 0, 0
        self._alarms: dict[Trouble, _Alarm] = {}
        self._bound: tuple[int, int, float] = (0, 0, 0.0)

    def serve(self, judge: Judge, nulls: Nulls, state: Mapping[str, Any] | None = None) -> None:
        """This judges from now on; ``state``: how far the watch over it had come before a restart, as :attr:`state`."""
        with self._lock:
            self._pipeline, self._alarms = judge.pipeline, {}
            is_bold = judge.cut.origin == "configured" and nulls.is_counted and nulls.missed > _MOST_BY_ITSELF
            cut = f"the configured discard threshold ({judge.thresholds.discard:g})"
            self._by_itself = (
                f"{cut} discards up to {nulls.missed:.0%} of simulated events by itself" if is_bold else ""
            )
            self._tally = _Tally(self._clock.wall_s())
            self._begin_watching(nulls)
            if state is not None:
                self._restore(state)

    def know(self, nulls: Nulls) -> None:
        """What a sound line does has been counted meanwhile."""
        with self._lock:
            self._begin_watching(nulls)

    def burst(self) -> None:
        """Send many at once: something has changed."""
        with self._lock:
            self._begin_burst()

    def note(self, outcome: Outcome) -> None:
        """A canary came out, or did not."""
        result, canary = outcome.result, outcome.canary
        if canary.kind == "yours":
            return
        self._count(result)
        with self._lock:
            if outcome.judged is not None and outcome.judged.decision.judge.pipeline != self._pipeline:
                return  # by what served before
            self._tally.counts[result] += 1
            self._see("lost", result == "lost", _ANY_AFTER)
            if result == "lost":
                self._ring("lost")
            elif canary.kind == "event":
                self._burst_missed += result == "missed" and canary.burst == self._burst > 0
                is_told = self._burst_missed >= burst_limit(self._nulls.missed, BURST)
                self._weigh("missed", result == "missed", is_told, _EVENTS_AFTER)
            else:
                self._weigh("kept", result == "false_kept", False, _EVENT_FREE_AFTER)

    def numbers(self) -> numbers.Path:
        """All of it, for status, console and page."""
        with self._lock:
            tally, counts, text = self._tally, self._tally.counts, self._finding()
            bound = self._lower_bound()
            return numbers.Path(
                canaries=tally.events,
                missed=counts["missed"],
                lost=counts["lost"],
                event_free=counts["quiet"] + counts["false_kept"],
                false_kept=counts["false_kept"],
                lower_bound=bound,
                null=self._nulls.missed,
                since=rfc3339(tally.since_s),
                pending=self._source.pending,
                is_well=text is None,
                text=text or self._words(bound),
            )

    def finding(self) -> str | None:
        """What is wrong with the line, in one sentence; None while it works."""
        with self._lock:
            return self._finding()

    @property
    def state(self) -> dict[str, Any]:
        """What :meth:`serve` goes on from after a restart."""
        with self._lock:
            detectors = {name: [one.null, *one.state] for name, one in self._detectors.items()}
            return {"since_s": self._tally.since_s, "counts": dict(self._tally.counts), "detectors": detectors}

    # Under the lock.

    def _begin_watching(self, nulls: Nulls) -> None:
        self._nulls = nulls
        self._detectors = {"missed": EDetector(nulls.missed), "kept": EDetector(nulls.kept)}
        self._recent: dict[Trouble, deque[bool]] = {name: deque(maxlen=BURST) for name in ("missed", "kept")}

    def _restore(self, state: Mapping[str, Any]) -> None:
        with suppress(KeyError, TypeError, ValueError):  # of another version: begun anew
            self._tally = _Tally(
                float(state["since_s"]), Counter({name: int(n) for name, n in state["counts"].items()})
            )
            for name, (null, *evidence) in state["detectors"].items():
                if self._detectors[name].null == null:
                    self._detectors[name].restore(evidence)

    def _weigh(self, trouble: Literal["missed", "kept"], is_bad: bool, is_told: bool, after: int) -> None:
        self._recent[trouble].append(is_bad)
        rings = self._detectors[trouble].observe(is_bad)
        self._see(trouble, is_bad, after)
        if rings or is_told:
            self._ring(trouble)

    def _ring(self, trouble: Trouble) -> None:
        self._burst_missed = 0
        if trouble in self._alarms:
            return
        now_s = self._clock.wall_s()
        self._alarms[trouble] = _Alarm(now_s)
        if trouble != "lost":
            self._tally = _Tally(now_s)
        self._begin_burst()  # soon it is known whether it is over

    def _see(self, trouble: Trouble, is_bad: bool, after: int) -> None:
        """An alarm is over when ``after`` canaries since came out as they should, or the next so many."""
        if (alarm := self._alarms.get(trouble)) is None:
            return
        alarm.seen, alarm.bad = alarm.seen + 1, alarm.bad + is_bad
        if alarm.seen < after:
            return
        allowed = {"missed": self._nulls.missed, "kept": self._nulls.kept}.get(trouble)
        if alarm.bad < (1 if allowed is None else burst_limit(allowed, after)):
            del self._alarms[trouble]
            self._tally = _Tally(self._clock.wall_s())
        alarm.seen = alarm.bad = 0

    def _begin_burst(self) -> None:
        self._burst, self._burst_missed = self._source.burst(), 0

    def _lower_bound(self) -> float | None:
        events, missed = self._tally.events, self._tally.counts["missed"]
        if not events:
            return None
        if self._bound[:2] != (events, missed):
            self._bound = (events, missed, recall_lower_bound(events, missed))
        return self._bound[2]

    def _words(self, bound: float | None) -> str:
        counts, events = self._tally.counts, self._tally.events
        if bound is None:
            return "no simulated event has come out of the line yet"
        since = day_and_minute(rfc3339(self._tally.since_s))
        said = f"{counts['found']:,} of {events:,} simulated events found since {since}: at least {bound:.1%} are, 95 %"
        return said if self._nulls.is_counted else f"{said}; what the cut misses by itself is not counted yet"

    def _finding(self) -> str | None:
        said = [self._say(trouble, alarm) for trouble, alarm in self._alarms.items()]
        return "; ".join([*said, *filter(None, [self._by_itself])]) or None

    def _say(self, trouble: Trouble, alarm: _Alarm) -> str:
        since = f"since {day_and_minute(rfc3339(alarm.since_s))}"
        if trouble == "lost":
            lost = self._tally.counts["lost"]
            what = f"{lost:,} simulated {'curve' if lost == 1 else 'curves'} did not come out of the line with a score"
            return f"{since} {what}: look into the log, and restart the service"
        recent = self._recent[trouble]
        many, allowed = f"{sum(recent)} of the last {len(recent)} simulated", self._nulls
        if trouble == "kept":
            return f"{since} {many} curves without an event are kept; {allowed.kept:.1%} at most would be usual"
        usual = f"this cut discards {allowed.missed:.1%} at most when all is well"
        return f"{since} {many} events are discarded, {usual}: look at the model, its cut and the engine"
