"""`make study TOPIC=guard`: what the guard says, checked by chance: false alarms, delays, and whether its bounds hold.

Everything that the product has is asked of the product's own code; only the three other rules for canaries live here,
to be compared with. Nights are simulated: what is true of them is known.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray

from daemon.common.errors import USAGE, UserError
from daemon.common.options import Option
from daemon.common.stdio import progress
from daemon.common.text import align
from daemon.judging.audit import AUDIT_SHARE, Past, chance_of
from models.anytime import (
    EDetector,
    YieldWatch,
    burst_limit,
    least_events,
    lost_bound,
    null_of,
    recall_lower_bound,
)
from models.bundle import SHIPPED, read
from models.files import write_whole
from models.metrics import at_least, clopper_pearson

if TYPE_CHECKING:
    from daemon.guard.tip import _Gauge

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]

NULL, BROKEN = 0.02, 0.15  # shares of canaries that are missed
GOOD, SOUND = 300, 500  # canaries before something breaks, and of a run in which nothing does
WINDOW = 100
BURST = 150
DISCARDS = 2_184


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much chance is asked."""

    runs: Annotated[int, Option("simulated streams of canaries, a rule", "N")] = 20_000
    nights: Annotated[int, Option("simulated nights, a bound", "N")] = 1_000
    events: Annotated[int, Option("simulated events that network and step detector are both asked of", "N")] = 4_000
    seed: Annotated[int, Option("of all of it", "S")] = 1
    out: Annotated[Path | None, Option("the figures as JSON", "FILE")] = None


@dataclass(frozen=True, slots=True)
class Alarm:
    """One rule that watches canaries."""

    rule: str
    false_in_100: float
    false_in_500: float
    between_false: float  # canaries, on average
    delay_mean: float  # canaries from the break to the alarm
    delay_p99: float
    found_in_100: float


@dataclass(frozen=True, slots=True)
class Cover:
    """How often something that is printed was not so, or something that is to be found was found."""

    what: str
    of: int
    wrong: int
    promised: float  # at most this share is wrong; NaN: nothing is promised
    says: str = ""  # how much the bound says, so that a careful one is not mistaken for a good one

    @property
    def holds(self) -> bool:
        """Not more often wrong than promised, as far as so many nights can tell."""
        return math.isnan(self.promised) or at_least(self.wrong, self.of, self.promised) > 0.001


def run(options: Options) -> int:
    """Exit 0."""
    if min(options.runs, options.nights, options.events) < 1 or options.seed < 0:
        raise UserError(USAGE, "--runs, --nights and --events count from 1, --seed from 0")
    alarms_from, gauge_from, bounds_from, *nights_from = (np.random.default_rng([options.seed, n]) for n in range(7))
    alarms = [watch(name, make, options.runs, alarms_from) for name, make in rules().items()]
    _show(table(alarms), burst())
    bounds, price = promises(bounds_from), shares(options.nights, bounds_from)
    _show(bounds, price)
    covers = list(gauge(options.runs, gauge_from))
    for part, rng in zip((audit, two_detectors, yields, tip), nights_from, strict=True):
        covers += part(options.nights, rng)
    together = dependence(options.events)
    _show(covered(covers), together)
    if options.out is not None:
        figures = {"alarms": [asdict(one) for one in alarms], "covers": [asdict(one) for one in covers]}
        write_whole(
            options.out,
            (json.dumps(figures | {"bounds": bounds, "price": price, "together": together}, indent=1) + "\n").encode(),
        )
    return 0


def _show(*parts: list[list[str]] | list[str]) -> None:
    for part in parts:
        lines = align([row for row in part if isinstance(row, list)]) or part
        print(*lines, "", sep="\n", flush=True)


def table(alarms: Sequence[Alarm]) -> list[list[str]]:
    """Figures of every rule."""
    head = ["rule", "false in 100", "in 500", "canaries between false", "delay", "p99", "found in 100"]
    return [head] + [
        [
            one.rule,
            f"{one.false_in_100:.2%}",
            f"{one.false_in_500:.1%}",
            f"{one.between_false:,.0f}",
            f"{one.delay_mean:.0f}",
            f"{one.delay_p99:.0f}",
            f"{one.found_in_100:.2%}",
        ]
        for one in alarms
    ]


def covered(covers: Sequence[Cover]) -> list[list[str]]:
    """How often each was wrong, and whether that is what was promised."""
    rows = [["", "of", "wrong", "promised", "holds", ""]]
    for one in covers:
        free = math.isnan(one.promised)
        promised, holds = ("", "") if free else (f"<= {one.promised:.0%}", "yes" if one.holds else "NO")
        rows.append([one.what, f"{one.of:,}", f"{one.wrong / one.of:.1%}", promised, holds, one.says])
    return rows


class Window:
    """Rings at so many missed of the last hundred."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._last: deque[bool] = deque()
        self._missed = 0

    def observe(self, missed: bool) -> bool:
        self._last.append(missed)
        self._missed += missed
        if len(self._last) > WINDOW:
            self._missed -= self._last.popleft()
        if len(self._last) < WINDOW or self._missed < self.limit:
            return False
        self._last.clear()
        self._missed = 0
        return True


class Cusum:
    """Page's cumulative sum of log likelihood ratios."""

    def __init__(self, limit: float) -> None:
        self.limit, self._sum = limit, 0.0
        self._if_missed, self._if_found = math.log(BROKEN / NULL), math.log((1 - BROKEN) / (1 - NULL))

    def observe(self, missed: bool) -> bool:
        self._sum = max(0.0, self._sum + (self._if_missed if missed else self._if_found))
        if self._sum < self.limit:
            return False
        self._sum = 0.0
        return True


Rule = Window | Cusum | EDetector


@cache
def shipped_null() -> float:
    """What canaries are held against as long as the shipped cut serves."""
    from daemon.judging.loss import SimulatedLoss

    bundle = read(SHIPPED)
    counted = SimulatedLoss(SHIPPED, bundle).counted()
    assert counted is not None, "the simulated curves of the shipped model are beside its weights"
    return null_of(counted.events.size, counted.missed(bundle.calibration.logit(bundle.discard)))


def rules() -> dict[str, Callable[[], Rule]]:
    """The four of the table, and the one that runs with the null of the shipped cut."""
    too_many = next(k for k in count() if clopper_pearson(WINDOW - k, WINDOW)[0] < 0.90)
    return {
        "window >= 7 of 100": lambda: Window(7),
        f"Clopper-Pearson < 0.90 of 100 (>= {too_many})": lambda: Window(too_many),
        "CUSUM 0.02/0.15, h = 6": lambda: Cusum(6.0),
        "e-detector, null 2 %": lambda: EDetector(NULL),
        "e-detector, null of the shipped cut": lambda: EDetector(shipped_null()),
    }


def watch(name: str, make: Callable[[], Rule], runs: int, rng: np.random.Generator) -> Alarm:
    """Each run sound until 500 canaries; then broken after 300 of them; and one long sound life."""
    sound = rng.random((runs, SOUND)) < NULL
    first, delays = np.zeros(runs), np.zeros(runs)
    for run in progress(range(runs), name, runs):
        first[run] = _first(make(), sound[run].tolist())
        delays[run] = _delay(make(), sound[run, :GOOD].tolist(), rng)
    rule, alarms = make(), 0
    for _ in progress(range(runs), f"{name}, sound", runs):
        alarms += sum(rule.observe(one) for one in (rng.random(SOUND) < NULL).tolist())
    return Alarm(
        rule=name,
        false_in_100=float((first <= 100).mean()),
        false_in_500=float((first <= SOUND).mean()),
        between_false=SOUND * runs / alarms if alarms else math.inf,
        delay_mean=float(delays.mean()),
        delay_p99=float(np.quantile(delays, 0.99)),
        found_in_100=float((delays <= 100).mean()),
    )


def _first(rule: Rule, missed: Sequence[bool]) -> float:
    """The canary that rings, from 1; infinite where none does."""
    return next((place for place, one in enumerate(missed, 1) if rule.observe(one)), math.inf)


def _delay(rule: Rule, before: Sequence[bool], rng: np.random.Generator) -> int:
    """Canaries from the break to the alarm; ``before`` it may have rung, and begun anew."""
    for one in before:
        rule.observe(one)
    waited = 0
    while True:
        for one in (rng.random(128) < BROKEN).tolist():
            waited += 1
            if rule.observe(one):
                return waited


def burst() -> list[str]:
    """Exact chances of the rule for a burst."""
    lines = []
    for null in (NULL, shipped_null()):
        limit = burst_limit(null, BURST)
        lines.append(
            f"burst of {BURST}, null {null:.2%}: rings at >= {limit} missed; false {at_least(limit, BURST, null):.2%}, "
            f"finds a miss of {BROKEN:.0%} with {at_least(limit, BURST, BROKEN):.2%}"
        )
    return lines


def gauge(runs: int, rng: np.random.Generator, until: int = 1_000) -> Iterator[Cover]:
    """Looked at after every canary; and what an exact interval that is not made for it would do."""
    missed = np.cumsum(rng.random((runs, until)) < NULL, axis=1)
    bound, exact = np.zeros((until + 1, missed.max() + 1)), np.zeros((until + 1, missed.max() + 1))
    for n in progress(range(1, until + 1), "gauge", until):
        for m in np.unique(missed[:, n - 1]).tolist():
            bound[n, m] = recall_lower_bound(n, m)
            if n % 20 == 0:
                exact[n, m] = clopper_pearson(n - m, n, 0.90)[0]
    places = np.arange(1, until + 1)
    wrong, exact_wrong = ((table[places, missed] > 1 - NULL).any(axis=1).sum() for table in (bound, exact))
    said = ", ".join(f"{bound[n, missed[:, n - 1]].mean():.3f} of {n:,}" for n in (100, 300, 1_000) if n <= until)
    yield Cover("gauge, looked at after every canary", runs, int(wrong), 0.05, f"at least {said} (means)")
    yield Cover("an exact bound, every 20 canaries (not used)", runs, int(exact_wrong), math.nan)


# The audit.


def chances(scores: Floats, share: float, uniform: float | None = None) -> Floats:
    """With which discards of these scores are drawn: the product's own rule, or another part that is uniform."""
    if uniform is not None:
        mean = scores.mean()
        return np.asarray(np.minimum(share * (uniform + (1 - uniform) * (scores + 0.02 * mean) / (1.02 * mean)), 1.0))
    past = Past(discards=scores.size, scores=float(scores.sum()))
    unit = np.array([chance_of(float(score), None, past).probability for score in scores])
    return np.asarray(np.minimum(unit * share / AUDIT_SHARE, 1.0))


def scores_of(discards: int, rng: np.random.Generator) -> Floats:
    """Of discards: logits about -6, cut off at the shipped cut."""
    logits = rng.normal(-6.0, 1.5, 2 * discards)
    return np.asarray(1 / (1 + np.exp(-logits[logits < -0.605][:discards])))


def promises(rng: np.random.Generator) -> list[list[str]]:
    """What an audit says that has found nothing, and one that has found one or three."""
    rows = [["looked at", "draw", "nothing found", "one found", "three found"]]
    scores = scores_of(DISCARDS, rng)
    for looked in (100, 500, 1_151):
        even = np.full(DISCARDS, looked / DISCARDS)
        for draw, chance in (("uniform", even), ("by score, a fifth uniform", chances(scores, looked / DISCARDS))):
            some = np.sort(rng.choice(chance, looked, replace=False, p=chance / chance.sum()))
            least = float(chance.min())
            rest = {least: DISCARDS - looked}
            told = []
            for found in (0, 1, 3):  # of the typical one
                answers = np.zeros(looked, bool)
                answers[looked // 2 : looked // 2 + found] = True
                told.append(f"{lost_bound(DISCARDS, some, answers, rest=rest):,}")
            rows.append([f"{looked:,}", draw, *told])
    return rows


def shares(nights: int, rng: np.random.Generator) -> list[list[str]]:
    """What the uniform part costs and gives: 20 lost events, as likely as their scores say."""
    head = ["uniform part", "nothing found, 100 looked at", "at most 64 needs", "at most 3 needs"]
    rows = [[*head, "rmse of the estimate, 20 lost", "rmse, 20 lost anywhere"]]
    for uniform in (0.0, 0.2, 0.5, 1.0):
        errors: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(nights):
            scores = scores_of(DISCARDS, rng)
            chance = chances(scores, 100 / DISCARDS, uniform)
            drawn = rng.random(DISCARDS) < chance
            for by_score, some in errors.items():
                lost = rng.choice(DISCARDS, 20, replace=False, p=scores / scores.sum() if by_score else None)
                some.append(float((drawn[lost] / chance[lost]).sum()) - 20)
        least = uniform + (1 - uniform) * 0.02 / 1.02  # of the mean chance
        needed = [f"{_needed(most, least):,}" for most in (64, 3)]
        rmse = [f"{math.sqrt(float(np.mean(np.square(some)))):.1f}" for some in errors.values()]
        rows.append([f"{uniform:.0%}", f"{_unseen(100, least):,}", *needed, *rmse])
    return rows


def _unseen(looked: int, least: float) -> int:
    """What is said if nothing was found; ``least``: the least chance, of the mean one."""
    return lost_bound(DISCARDS, [least * looked / DISCARDS] * looked, [False] * looked)


def _needed(most: int, least: float) -> int:
    """How many must be looked at, without an event, for no more than that to be said."""
    low, high = 0, DISCARDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _unseen(middle, least) <= most else (middle, high)
    return high


HIDDEN = ("as their scores say", "anywhere", "where the draw looks least")


def audit(nights: int, rng: np.random.Generator) -> Iterator[Cover]:
    """The bound is looked at again and again while a model's nights are labelled, and is wrong if it ever was."""
    for hidden in HIDDEN:
        for lost in (0.02, 0.1, 0.3):
            wrong, last = 0, []
            for _ in progress(range(nights), f"audit: lost {hidden}", nights):
                was_wrong, bound, truth = _audited(hidden, lost, rng)
                wrong += was_wrong
                last.append((bound, truth))
            said, true = np.mean(last, axis=0)
            yield Cover(
                f"audit: {lost:.0%} lost, {hidden}", nights, wrong, 0.05, f"at most {said:.0f}, true {true:.0f}"
            )


def _audited(hidden: str, lost: float, rng: np.random.Generator) -> tuple[bool, int, int]:
    """(wrong at any moment, the last bound, the truth): four nights of 300 discards, one in five is drawn."""
    past: list[tuple[Floats, Flags, Flags]] = []  # chances, events, drawn ones
    truth = bound = 0
    for _ in range(4):
        scores = scores_of(300, rng)
        chance = chances(scores, 0.2)
        low = chance <= np.quantile(chance, 0.5)
        weight = {HIDDEN[0]: scores / scores.mean(), HIDDEN[1]: np.ones(300), HIDDEN[2]: low * 2.0}[hidden]
        events, drawn = rng.random(300) < lost * weight, rng.random(300) < chance
        truth += int(events.sum())
        order = rng.permutation(np.flatnonzero(drawn))
        for looked in {*range(1, order.size, 8), order.size}:
            night = np.zeros(300, bool)
            night[order[:looked]] = True
            share = looked / order.size  # of this night; those before are looked at whole
            bound = _bound([*past, (chance * share, events, night)])
            if bound < truth:
                return True, bound, truth
        past.append((chance, events, drawn))
    return False, bound, truth


def _bound(nights: Sequence[tuple[Floats, Flags, Flags]]) -> int:
    chance, events, looked = (np.concatenate(parts) for parts in zip(*nights, strict=True))
    rest: dict[float, int] = {}
    for some, _, seen in nights:
        rest[float(some.min())] = rest.get(float(some.min()), 0) + int((~seen).sum())
    return lost_bound(chance.size, chance[looked], events[looked], rest=rest)


# Two detectors.


def two_detectors(nights: int, rng: np.random.Generator) -> Iterator[Cover]:
    """Events of one strength that both go by, more or less; then detectors that hinder each other, up to the limit."""
    for together in (0.0, 0.3, 0.6, 0.9):
        yield _paired(f"two detectors, correlation {together:g}", nights, partial(_strong, together), rng)
    for odds in (1.0, 0.6, 1 / 3):
        yield _paired(f"two detectors, odds ratio {odds:.2g}", nights, partial(_hinder, odds), rng)

    for part in (0.02, 0.04, 0.08, 0.3):
        yield _paired(f"two detectors, the first blind to {part:.0%} of events", nights, partial(_blind, part), rng)
    yield _paired("the same with 3 %, 1,500 events in all", nights, partial(_blind, 0.03), rng, 1_500)


def _paired(
    what: str, nights: int, cells: Callable[[np.random.Generator], Floats], rng: np.random.Generator, events: int = 0
) -> Cover:
    """Nights of 20 to 400 events; of ``events`` nothing is promised."""
    wrong, said = 0, []
    for _ in range(nights):
        both, one, other, none = map(int, rng.multinomial(events or rng.integers(20, 400), cells(rng)))
        least_missed = least_events(both, one, other) - both - one - other
        wrong += least_missed > none
        said.append((least_missed, none))
    least, missed = np.mean(said, axis=0)
    return Cover(
        what,
        nights,
        wrong,
        math.nan if events else 0.10,
        f"both missed at least {least:.1f}, true {missed:.1f} (means)",
    )


def _blind(part: float, rng: np.random.Generator) -> Floats:
    """The second sees all that the first is blind to, and a part of the others."""
    first, second = rng.uniform(0.9, 0.99), rng.uniform(0.2, 0.5)  # of these
    seen = [first * second, first * (1 - second), (1 - first) * second, (1 - first) * (1 - second)]
    return (1 - part) * np.array(seen) + part * np.array([0.0, 0.0, 1.0, 0.0])


def _strong(together: float, rng: np.random.Generator) -> Floats:
    """Chances of (both, only the first, only the second, neither) where the strengths correlate."""
    noise = rng.normal(size=(3, 4_000))
    strength = math.sqrt(together) * noise[0] + math.sqrt(1 - together) * noise[1:]
    misses = rng.uniform(0.01, 0.15), rng.uniform(0.3, 0.8)
    first, second = (one > np.quantile(one, miss) for one, miss in zip(strength, misses, strict=True))
    return np.array([np.mean(cell) for cell in (first & second, first & ~second, ~first & second, ~first & ~second)])


def _hinder(odds: float, rng: np.random.Generator) -> Floats:
    """The same with one odds ratio for all events."""
    first, second = rng.uniform(0.85, 0.99), rng.uniform(0.2, 0.7)
    low, high = max(0.0, first + second - 1), min(first, second)
    for _ in range(60):
        both = (low + high) / 2
        ratio = both * (1 - first - second + both) / max((first - both) * (second - both), 1e-300)
        low, high = (both, high) if ratio < odds else (low, both)
    return np.array([both, first - both, second - both, 1 - first - second + both])


def dependence(events: int) -> list[list[str]]:
    """The shipped network and the step detector on simulated events: do they find the same ones."""
    from daemon.config import ThresholdsConfig
    from daemon.judging.judge import judge_of, load_model
    from daemon.judging.sentinel import LEVEL
    from models.simulate import simulate
    from models.steps import second_opinion

    model = load_model("shipped")
    scores, steps = np.zeros(events), np.zeros(events)
    curves = (one.curve for one in progress(simulate(events, 77_000_001, 1.0), "simulated events", events))
    for start in range(0, events, 64):
        scored = model.judge(list(islice(curves, 64)))
        signals = [None if one.prepared is None else one.prepared.signal for one in scored]
        for place, (one, signal) in enumerate(zip(scored, signals, strict=True), start):
            scores[place] = 1.0 if one.score is None else one.score
            steps[place] = 0.0 if signal is None else second_opinion([signal])[0]
    rows = [["discarded", "both find", "network", "steps", "neither", "odds ratio", "said: both miss at least"]]
    shipped = judge_of(model, ThresholdsConfig()).thresholds.discard
    for cut in (shipped, float(np.quantile(scores, 0.1)), float(np.quantile(scores, 0.3))):
        network, other = scores > cut, steps > LEVEL
        cells = [int(np.sum(cell)) for cell in (network & other, network & ~other, ~network & other, ~network & ~other)]
        ratio = cells[0] * cells[3] / max(cells[1] * cells[2], 1)
        told = least_events(*cells[:3]) - sum(cells[:3])
        rows.append([f"{np.mean(~network):.1%}", *map(str, cells), f"{ratio:.1f}", str(told)])
    return rows


# The run and the tip.


def yields(nights: int, rng: np.random.Generator) -> Iterator[Cover]:
    """Nights of 20,000 curves of unchanged yield, and runs whose yield falls."""
    for share in (0.02, 0.1, 0.3):
        wrong = 0
        for _ in progress(range(nights), f"yield {share:.0%}", nights):
            rule = YieldWatch()
            wrong += any(_told(rule, one) for one in (rng.random(20_000) < share).tolist())
        yield Cover(f"yield of {share:.0%}, unchanged for 20,000 curves", nights, wrong, 0.01)
    for before, after in ((0.1, 0.0), (0.1, 0.03), (0.3, 0.1), (0.02, 0.1)):
        missed = 0
        for _ in range(nights):
            rule = YieldWatch()
            flags = rng.random(1_300) < np.where(np.arange(1_300) < 1_000, before, after)
            missed += not [_told(rule, one) for one in flags.tolist()][-1]
        yield Cover(f"yield of {before:.0%} becomes {after:.0%}: not told in 300", nights, missed, math.nan)


def _told(rule: YieldWatch, kept: bool) -> bool:
    rule.observe(kept)
    return rule.told is not None


def tip(nights: int, rng: np.random.Generator) -> Iterator[Cover]:
    """Nights of 20,000 curves whose noise wanders, and runs in which it doubles."""
    from daemon.guard.tip import BLOCK, _Gauge

    for spread, lag in ((0.1, 0.2), (0.16, 0.3), (0.3, 0.3), (0.16, 0.56), (0.12, 0.5), (0.2, 0.9)):
        wrong = late = 0
        for _ in progress(range(nights), f"tip, sd {spread:g}", nights):
            blocks = _medians(20_000, BLOCK, spread, lag, rng)
            wrong += _is_told(_Gauge(), blocks)
            doubled = _medians(1_300, BLOCK, spread, lag, rng)
            doubled[20:] += math.log(2)
            late += not _is_told(_Gauge(), doubled)
        yield Cover(f"tip: sd {spread:g}, lag-1 {lag:g}, unchanged for 20,000 curves", nights, wrong, 0.01)
        yield Cover(f"tip: sd {spread:g}, lag-1 {lag:g}, doubled noise not told in 300", nights, late, math.nan)


def _medians(curves: int, block: int, spread: float, lag: float, rng: np.random.Generator) -> Floats:
    from scipy.signal import lfilter

    white = rng.normal(0.0, spread, curves + 200)
    wander = lfilter([math.sqrt(1 - lag * lag)], [1.0, -lag], white)[200:]
    return np.asarray(np.median(wander.reshape(-1, block), axis=1))


def _is_told(gauge: _Gauge, blocks: Floats) -> bool:
    told = False
    for number, value in enumerate(blocks.tolist()):
        gauge.observe(value, float(number))
        told |= gauge.is_told
    return told
