"""`make study TOPIC=unseen`: what an audit of discards says of the events among them, and what its draw costs.

*price*: at 100 curves looked at of 2,184 discards, how far the estimate is off and what the bound says, by the part of
the draw that does not ask for the score; once where lost events score as simulated ones do that the model misses, once
where they score as event-free curves do (a misread run). *nights*: the product's own draw, mean and bound, over nights
in which events are lost at random; a bound is right when no more were lost than it says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from daemon.common.options import Option
from daemon.common.text import align
from models.files import write_whole

if TYPE_CHECKING:
    import numpy as np

    from deploy.serving import Model

DISCARDS, LOOKED, LOST = 2_184, 100, 20
UNIFORM = (0.2, 0.35, 0.5, 0.8, 1.0)
DRAWS, BOUNDS = 1_000, 60
#: A night that the product's own functions draw from: batches of some curves, events lost by chance.
NIGHT, BATCH, MOST_LOST = 5_000, 100, 40
_SEED, _EVENT_SEED = 777_001, 777_002


@dataclass(frozen=True, slots=True)
class Price:
    """``error``: root of the mean square of estimate - truth; ``bound`` and ``without``: medians, with what was found
    and with nothing found."""

    lost: str
    uniform: float
    error: float
    bound: float
    without: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of nights; ``bias``: of all estimates together, as a share of the truth, with the standard error that it should
    have by the chances of all lost events: found ones alone would seldom show it."""

    nights: int
    right: int
    bias: float
    bias_error: float
    bound: float  # median


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Simulated curves that the scores are taken from, and nights."""

    curves: Annotated[int, Option("simulated curves, 2 in 100 with an event, and as many with events alone")] = 6_000
    nights: Annotated[int, Option("simulated nights")] = 1_000
    out: Annotated[Path | None, Option("the tables as JSON", "FILE.json")] = None


def run(options: Options) -> int:
    """Exit 0."""
    import numpy as np

    from daemon.judging.judge import load_model
    from deploy.classifier import EngineRequest

    model = load_model("shipped", EngineRequest("cpu"))
    free = np.array([score for score, label in _discards(model, options.curves, _SEED, 0.02) if label == "discard"])
    lost = np.array([score for score, _ in _discards(model, options.curves, _EVENT_SEED, 1.0)])
    print(f"scores of {free.size:,} discards without an event and of {lost.size} with one")
    dice = np.random.default_rng(12)
    prices = list(price(free, {"as simulated misses": lost, "as event-free curves": free}, dice))
    print("\n".join(table(prices)))
    nights = coverage(free, lost, dice, options.nights)
    print(told(nights))
    if options.out:
        write_whole(options.out, json.dumps({"price": [*map(asdict, prices)], "nights": asdict(nights)}).encode())
    return 0


def _discards(model: Model, count: int, seed: int, prevalence: float) -> Iterator[tuple[float, str]]:
    from models.simulate import simulate

    curves = iter(simulate(count, seed, prevalence))
    while batch := list(islice(curves, 64)):
        for one, scored in zip(batch, model.judge([one.curve for one in batch]), strict=True):
            if scored.score is not None and scored.score <= model.bundle.discard:
                yield scored.score, one.label


def price(
    free: np.ndarray, pools: dict[str, np.ndarray], dice: np.random.Generator, draws: int = DRAWS, bounds: int = BOUNDS
) -> Iterator[Price]:
    """``free``: scores of event-free discards; ``pools``: of lost events, by what they look like."""
    import numpy as np

    from models.anytime import lost_bound

    share, mean, is_lost = LOOKED / DISCARDS, free.mean(), np.arange(DISCARDS) < LOST
    for name, pool in pools.items():
        for uniform in UNIFORM:
            estimates, told_of, without = [], [], []
            least = share * (uniform + (1 - uniform) * 0.02 / 1.02)
            for number in range(draws):
                scores = np.concatenate([dice.choice(pool, LOST), dice.choice(free, DISCARDS - LOST)])
                chances = share * (uniform + (1 - uniform) * (scores + 0.02 * mean) / (1.02 * mean))
                chances = np.minimum(chances, 1.0)
                looked = dice.random(DISCARDS) < chances
                estimates.append((is_lost[looked] / chances[looked]).sum())
                if number < bounds:
                    told_of.append(lost_bound(DISCARDS, chances[looked], is_lost[looked], rest=least))
                    nothing = np.zeros(int(looked.sum()), np.bool_)
                    without.append(lost_bound(DISCARDS, chances[looked], nothing, rest=least))
            error = float(np.sqrt(((np.array(estimates) - LOST) ** 2).mean()))
            yield Price(name, uniform, error, float(np.median(told_of)), float(np.median(without)))


def coverage(
    free: np.ndarray, lost: np.ndarray, dice: np.random.Generator, nights: int, discards: int = NIGHT
) -> Coverage:
    """Nights of one pipeline, one after the other, as the ledger draws: by what was discarded before each batch.

    The part that is lost, how the lost events score, and the part of the drawn ones that is looked at differ from
    night to night.
    """
    import numpy as np

    from daemon.judging.audit import LEAST, Past, chance_of, is_drawn
    from models.anytime import lost_bound

    past, right, bounds = Past(), 0, list[int]()
    truths, estimates, variance = list[int](), list[float](), 0.0
    for night in range(nights):
        count, alike = int(dice.integers(1, MOST_LOST)), dice.random()
        scores = dice.choice(free, discards)
        places = dice.choice(discards, count, replace=False)
        scores[places] = np.where(dice.random(count) < alike, dice.choice(lost, count), dice.choice(free, count))
        is_lost = np.zeros(discards, np.bool_)
        is_lost[places] = True
        drawn: list[tuple[float, bool]] = []
        weights = 0.0  # of the lost, drawn or not
        for first in range(0, discards, BATCH):
            batch = scores[first : first + BATCH].tolist()
            for place, score in enumerate(batch, first):
                chance = chance_of(score, None, past)
                weights += is_lost[place] / chance.probability
                if is_drawn(f"{night}-{place}", chance):
                    drawn.append((chance.probability, bool(is_lost[place])))
            past = Past(past.discards + len(batch), past.scores + sum(batch))
        looked = [drawn[place] for place in dice.permutation(len(drawn))[: int(dice.integers(1, len(drawn) + 1))]]
        share = len(looked) / len(drawn)
        chances, found = [share * chance for chance, _ in looked], [event for _, event in looked]
        bounds.append(lost_bound(discards, chances, found, rest=LEAST * share))
        right += bounds[-1] >= count
        truths.append(count)
        variance += weights / share - count
        estimates.append(sum(1 / chance for chance, event in zip(chances, found, strict=True) if event))
    bias, error = sum(estimates) / sum(truths) - 1, float(np.sqrt(variance)) / sum(truths)
    return Coverage(nights, right, bias, error, float(np.median(bounds)))


def table(prices: Sequence[Price]) -> list[str]:
    """For people."""
    rows = [("lost events score", "uniform part", "error of the estimate", "at most", "at most, none found")]
    rows += [
        (one.lost, f"{one.uniform:.2f}", f"{one.error:.1f}", f"{one.bound:,.0f}", f"{one.without:,.0f}")
        for one in prices
    ]
    return [f"of {DISCARDS:,} discards {LOST} events, {LOOKED} looked at:", *align(rows)]


def told(nights: Coverage) -> str:
    """For people."""
    return (
        f"{nights.nights:,} nights of {NIGHT:,} discards: the bound was right in {nights.right:,}, its median "
        f"{nights.bound:,.0f}; the estimate is off by {100 * nights.bias:+.1f} % ({100 * nights.bias_error:.1f})"
    )
