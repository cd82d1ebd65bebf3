"""The canaries: fresh simulated curves that go down the live line, so that it is known at any moment whether it works.

:class:`CanarySource` makes them, one of six without an event, each as a file that the readers open like any other, and
knows the truth about it. The pipeline judges them in the same batches as data and sets them apart; daemon.guard.path
tells from what became of them whether the line works.

Canaries are spread by the clock, not by share: a fall in the middle of a run is found after about a hundred. Every one
is a new draw, for the network says of the same curve always the same.
"""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from daemon.common.errors import INPUT_OUTPUT, UserError
from daemon.common.text import first_line
from daemon.config import GuardConfig
from daemon.formats.afmcurve import SUFFIX
from daemon.formats.jpk import JpkReader
from daemon.judging import Judged
from daemon.metrics import CanaryResult
from daemon.sources import CANARY, Arrival, SourceHealth
from models.clock import CLOCK, Clock
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
        if self.judged is None or _FAULTS.intersection(self.judged.decision.reasons):
            return "lost"
        decision = self.judged.decision
        if self.canary.kind == "event_free":
            return "false_kept" if decision.verdict == "keep" else "quiet"
        is_missed = decision.verdict == "discard" or "no_certificate" in decision.reasons
        return "missed" if is_missed else "found"


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
