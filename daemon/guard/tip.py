"""The tip watch and the run watch: has something changed while the run goes on, and since when.

The rule of the tip was measured on real sets in file order: medians of 50 curves beside the median of the quiet blocks
before them. Two in a row that differ by more than a quarter, and by more than six times the scatter of the quiet ones,
are told; so nothing is told of a single bad place, nor of a sample whose curves differ anyway. All of it is advice: it
never changes a verdict.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from daemon.judging import Decision
from daemon.ledger.numbers import BLOCKS_SHOWN, QUANTITIES, Advice, Quantity, TipPoint
from daemon.reading import Reading
from models.anytime import YIELD_WINDOW, YieldWatch
from models.clock import minute_of, rfc3339
from models.curve import ForceUnit
from models.reasons import NOTED, REASONS, UNREADABLE
from models.tip import TipState

BLOCK = 50  # curves whose median is one point
LEAST_QUIET, MOST_QUIET = 6, 40  # blocks that a new one is compared with
LEAST_CHANGE, SIGMAS = math.log(1.25), 6.0
IN_A_ROW = 2  # blocks that must differ, or be quiet again
LEAST_TOLD = BLOCK // 2  # curves of a block that must tell a number, for it to have a median
LAST_BLOCKS = 20  # which unit most of these have is the one that is shown
AWAY = 6 * BLOCK  # curves of others after which a format or unit that no longer comes is forgotten
OTHER_UNIT = 300.0  # times as much noise is no tip: the unit, or the calibration, is another one
DAY_S = 86_400.0

Block = tuple[TipPoint, str | None]  # and the unit it is told in

#: How numbers are shown: unit of noise, tilt, wave and adhesion, and how many of it are one of the curve's own.
_SHOWN: Mapping[ForceUnit | None, tuple[str, float]] = {
    "N": ("pN", 1e12),
    "m": ("nm", 1e9),
    "V": ("mV", 1e3),
    None: ("", 1.0),
}
_PER_MICROMETRE = 1e-6
#: What each number is beside, in noises of the first quiet blocks: what is smaller has not changed by a quarter because
#: the noise has. For tilt it is where a straight scale that has a sign becomes a logarithmic one.
_TILT, _WAVE, _ADHESION = 48.0, 1.0, 10.0


@dataclass(slots=True)
class _Gauge:
    """One number, block by block, on a scale on which a difference is a ratio."""

    quiet: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_QUIET))
    strikes: int = 0  # blocks in a row that differ
    calm: int = 0  # and that do not, while something is told
    began_s: float = 0.0  # of the first of those that differ
    is_told: bool = False
    change: float = 0.0  # of the last block that differed

    def observe(self, value: float, began_s: float) -> None:
        """The median of a block that began at ``began_s``."""
        if len(self.quiet) < LEAST_QUIET:
            self.quiet.append(value)
            return
        usual = _median(self.quiet)
        spread = 1.4826 * _median([abs(one - usual) for one in self.quiet])
        if abs(value - usual) > max(LEAST_CHANGE, SIGMAS * spread):
            self.began_s = self.began_s if self.strikes or self.is_told else began_s
            self.strikes, self.calm, self.change = self.strikes + 1, 0, value - usual
            self.is_told = self.is_told or self.strikes >= IN_A_ROW
            return
        self.strikes, self.calm = 0, self.calm + 1
        if self.is_told:
            self.is_told = self.calm < IN_A_ROW
        else:
            self.quiet.append(value)

    def state(self) -> dict[str, Any]:
        """As plain values, for :meth:`of`."""
        return {name: getattr(self, name) for name in _GAUGE} | {"quiet": list(self.quiet)}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> _Gauge:
        return cls(deque(state["quiet"], MOST_QUIET), *(state[name] for name in _GAUGE))

    @property
    def usual(self) -> float:
        return _median(self.quiet)


_GAUGE = ("strikes", "calm", "began_s", "is_told", "change")


@dataclass(slots=True)
class _Watch:
    """Curves of one format and unit."""

    unit: ForceUnit | None
    number: int = 0  # of the last curve among all that were observed
    states: list[TipState] = field(default_factory=list)  # of the block that is being filled
    began_s: float = 0.0
    noise: float = 0.0  # of the first block, in the curve's unit: what small numbers are beside
    samples: float = 0.0  # of a retract
    gauges: dict[Quantity, _Gauge] = field(default_factory=dict)
    last: dict[Quantity, float | None] = field(default_factory=dict)  # medians of the last block

    def block(self) -> dict[Quantity, float | None]:
        """The medians of the block that is full; begins the next one."""
        states, self.states = self.states, []
        samples = _median([float(one.samples) for one in states])
        if self.noise and abs(math.log(samples / self.samples)) > LEAST_CHANGE:
            self.noise = 0.0  # other settings: fewer samples of the same tip have less noise
        found = {name: _told([getattr(one, name) for one in states]) for name in QUANTITIES}
        if not self.noise:
            self.gauges, self.samples = {name: _Gauge() for name in QUANTITIES}, samples
            self.noise = found["noise"] or 0.0
        self.last = found
        for name, value in found.items():
            if value is not None and self.noise > 0.0 and (scaled := self._scaled(name, value)) is not None:
                self.gauges[name].observe(scaled, self.began_s)
        return found

    def _scaled(self, name: Quantity, value: float) -> float | None:
        """On a scale on which a quarter more is 0.22, whatever the unit; None for what has no logarithm."""
        if name == "tilt":
            return math.asinh(value / (_TILT * self.noise))
        if name in ("wave", "adhesion"):
            beside = _WAVE if name == "wave" else _ADHESION
            return math.log(math.hypot(value / self.noise, beside))
        return math.log(value / self.noise if name == "noise" else value) if value > 0.0 else None

    def told(self) -> list[tuple[Quantity | Literal["unit"], float, str]]:
        """(what, since when, in words) of every number that has changed."""
        gauge = self.gauges.get("noise")
        if gauge is not None and gauge.is_told and abs(gauge.change) > math.log(OTHER_UNIT):
            way = "larger" if gauge.change > 0 else "smaller"
            return [("unit", gauge.began_s, f"forces are {_times(abs(gauge.change))} {way} than they were")]
        return [(name, one.began_s, self._words(name, one)) for name, one in self.gauges.items() if one.is_told]

    def _words(self, name: Quantity, gauge: _Gauge) -> str:
        grown = gauge.change > 0
        if name == "noise":
            return f"noise {_grown(gauge.change)}"
        if name == "slope":
            return f"contact {_times(gauge.change)} as steep"
        if name == "wave":
            return f"baseline swings {_times(gauge.change)} as much"
        if name == "tilt":
            unit, factor = _SHOWN[self.unit]
            was = math.sinh(gauge.usual) * _TILT * self.noise
            now = math.sinh(gauge.usual + gauge.change) * _TILT * self.noise
            return f"baseline tilts by {now * factor:+.3g}{unit and ' '}{unit} instead of {was * factor:+.3g}"
        now, was = (_above(level, _ADHESION) for level in (gauge.usual + gauge.change, gauge.usual))
        if not grown and now < 0.2 * was:
            return "adhesion gone"
        return "adhesion appeared" if grown and was < 0.2 * now else f"adhesion {_grown(math.log(now / was))}"


class TipWatch:
    """``observe`` every curve that was judged; ``blocks`` and ``advice`` may be read from any thread.

    Curves of one format and unit are watched together, of others apart: another unit, other settings or another session
    begin anew.
    """

    def __init__(self, wall_s: Callable[[], float] = time.time) -> None:
        self._wall_s = wall_s
        self._session: object = None
        self._watches: dict[tuple[str | None, ForceUnit | None], _Watch] = {}
        self._number = 0
        self._blocks: deque[Block] = deque(maxlen=4 * BLOCKS_SHOWN)  # of all units
        self.blocks: tuple[TipPoint, ...] = ()  # of the unit that is shown, the newest at the end
        self.unit: str | None = None  # that they are told in: pN, nm or mV, "" where files state none
        self.advice: tuple[Advice, ...] = ()

    def observe(self, reading: Reading, decision: Decision, seq: int, session: object = None) -> Block | None:
        """A curve that was judged; the block that it has filled. ``seq``: how far the ledger has come."""
        if session != self._session:
            self._session, self._watches, self.advice = session, {}, ()
        self._number += 1
        state = reading.tip
        if state is None:
            return None
        key = reading.sign_from, decision.force_unit
        watch = self._watches.setdefault(key, _Watch(decision.force_unit))
        watch.number = self._number
        if not watch.states:
            watch.began_s = when(decision, self._wall_s())
        watch.states.append(state)
        return self._close(watch, seq) if len(watch.states) == BLOCK else None

    def remember(self, blocks: Iterable[Block]) -> None:
        """What was measured before, the oldest first."""
        self._blocks.extend(blocks)
        self.unit, self.blocks = shown_of(self._blocks)

    def _close(self, watch: _Watch, seq: int) -> Block:
        found = watch.block()
        unit, factor = _SHOWN[watch.unit]
        shown = {name: None if value is None else value * factor for name, value in found.items()}
        if (slope := shown["slope"]) is not None:
            shown["slope"] = slope * _PER_MICROMETRE
        point = TipPoint(seq=seq, time=rfc3339(watch.began_s), **shown)
        self.remember([(point, unit)])
        self._watches = {key: one for key, one in self._watches.items() if self._number - one.number < AWAY}
        self._tell()
        return point, unit

    def _tell(self) -> None:
        self.advice = tuple(_advice(*one, self._wall_s()) for each in self._watches.values() for one in each.told())

    def state(self) -> dict[str, Any]:
        """How far it has come, as plain values; what a block that is not full holds is left out. The loop's thread."""
        watches = [
            [key, one.number, one.noise, one.samples, {name: gauge.state() for name, gauge in one.gauges.items()}]
            for key, one in self._watches.items()
        ]
        return {"session": self._session, "number": self._number, "watches": watches}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where another one was. KeyError, TypeError or ValueError for what is no state: then it begins anew."""
        watches = {}
        for (sign_from, unit), number, noise, samples, gauges in state["watches"]:
            found = {name: _Gauge.of(gauges[name]) for name in QUANTITIES if name in gauges}
            watches[sign_from, unit] = _Watch(unit, number, noise=noise, samples=samples, gauges=found)
        self._session, self._number, self._watches = state["session"], state["number"], watches
        self._tell()


def shown_of(blocks: Sequence[Block] | deque[Block]) -> tuple[str | None, tuple[TipPoint, ...]]:
    """The unit that most of the last blocks have, and the last blocks of it: another one in between hides nothing."""
    units = [unit for _, unit in list(blocks)[-LAST_BLOCKS:]]
    if not units:
        return None, ()
    shown = max(reversed(units), key=units.count)  # of as many the one that came last
    return shown, tuple(point for point, unit in blocks if unit == shown)[-BLOCKS_SHOWN:]


class RunWatch:
    """``observe`` every curve that was decided: do they all have one thing the matter with them, are fewer kept.

    A run of curves without contact is told already (daemon.service.health), and what a reader had to assume is so of
    all files of a kind. Another session begins anew. ``advice`` may be read from any thread.
    """

    def __init__(self, wall_s: Callable[[], float] = time.time) -> None:
        self._wall_s = wall_s
        self._session: object = None
        self.advice: tuple[Advice, ...] = ()
        self._begin()

    def _begin(self) -> None:
        self._recent: deque[frozenset[str]] = deque(maxlen=BLOCK)
        self._held: Counter[str] = Counter()  # of the recent curves, how many carry it
        self._runs: dict[str, tuple[int, float]] = {}  # reason -> curves in a row that carry it, and since when
        self._reasons: dict[str, Advice] = {}
        self._yield = YieldWatch()
        self._yield_told: str | None = None
        self._times_s: deque[float] = deque(maxlen=YIELD_WINDOW)  # of the curves that count for the yield
        self._yield_advice: Advice | None = None

    def observe(self, decision: Decision, session: object = None) -> None:
        """A curve that was decided, in the order in which they came."""
        if session != self._session:
            self._session = session
            self._begin()
        now_s = self._wall_s()
        began_s = when(decision, now_s)
        self._observe_reasons(frozenset(decision.reasons) - _OF_ALL, began_s, now_s)
        if not UNREADABLE.intersection(decision.reasons):
            self._observe_yield(decision.verdict == "keep", began_s, now_s)
        self.advice = tuple(self._reasons.values()) + ((self._yield_advice,) if self._yield_advice else ())

    def _observe_reasons(self, carried: frozenset[str], began_s: float, now_s: float) -> None:
        if len(self._recent) == BLOCK:
            self._held.subtract(self._recent[0])
        self._recent.append(carried)
        self._held.update(carried)
        self._runs = {one: self._longer(one, began_s) for one in carried}
        for one, (count, since_s) in self._runs.items():
            if count == BLOCK and one not in self._reasons:
                text = f"every curve since {minute_of(rfc3339(since_s), now_s)} carries `{one}`: {REASONS[one].text}"
                self._reasons[one] = Advice(kind="reason", since=rfc3339(since_s), text=text)
        if self._reasons:  # one curve without it ends nothing
            self._reasons = {one: told for one, told in self._reasons.items() if 2 * self._held[one] > BLOCK}

    def _longer(self, reason: str, began_s: float) -> tuple[int, float]:
        count, since_s = self._runs.get(reason, (0, began_s))
        return count + 1, since_s

    def _observe_yield(self, kept: bool, began_s: float, now_s: float) -> None:
        self._times_s.append(began_s)
        self._yield.observe(kept)
        if (told := self._yield.told) == self._yield_told:
            return
        self._yield_told, self._yield_advice = told, None
        if told is not None:
            before_n, before_k, now_n, now_k = self._yield.counts
            share, usual = now_k / now_n, before_k / before_n
            since_s = self._times_s[0]
            since = minute_of(rfc3339(since_s), now_s)
            text = (
                f"the yield {told}: of the {now_n} curves since {since} {share:.1%} are kept, "
                f"of the {before_n:,} before {usual:.1%}: look whether tip or sample has changed"
            )
            self._yield_advice = Advice(kind="yield", since=rfc3339(since_s), text=text)


#: What a curve may carry without anything being the matter with the run.
_OF_ALL = NOTED | {"score", "sign_turned", "no_certificate", "no_contact"}

#: What to do about it.
_REMEDIES = {"unit": "look at the unit and the calibration", "wave": "look at the laser, or move the tip"}


def _advice(kind: str, began_s: float, words: str, now_s: float) -> Advice:
    text = f"{words} since {minute_of(rfc3339(began_s), now_s)}: {_REMEDIES.get(kind, 'look at the tip')}"
    return Advice(kind=kind, since=rfc3339(began_s), text=text)


def when(decision: Decision, now_s: float) -> float:
    """When a curve was measured, seconds since 1970; of one from another day the moment it came."""
    acquired_s = decision.acquired_s
    return acquired_s if acquired_s is not None and now_s - DAY_S < acquired_s <= now_s else now_s


def _median(values: Sequence[float] | deque[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _told(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None and math.isfinite(value)]
    return _median(there) if len(there) >= LEAST_TOLD else None


def _above(scaled: float, beside: float) -> float:
    """What lies under a scale that is beside ``beside``, in noises; never quite nothing."""
    return math.sqrt(max(math.exp(2 * scaled) - beside * beside, 0.01))


def _times(change: float) -> str:
    ratio = math.exp(change)
    return f"{float(f'{ratio:.2g}'):,.0f} times" if ratio >= 10 else f"{ratio:.2g} times"


def _grown(change: float) -> str:
    ratio = math.exp(change)
    for word, exact in (("doubled", 2.0), ("tripled", 3.0), ("halved", 0.5)):
        if abs(ratio / exact - 1) < 0.15:
            return word
    return f"is {_times(change)} what it was"
