"""The bootstrap: how far a figure of a set would move had other curves been measured (Efron & Tibshirani 1993, ch. 13).

Curves are drawn again within events and event-free curves apart, so that no draw lacks one kind; two methods are
compared on the same draws, which takes away what they share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.metrics import auc, average_precision, clopper_pearson, discarded_at

Statistic = Callable[[NDArray[np.float64], NDArray[np.bool_]], float | None]

#: What the studies state of a ranking, by name.
STATISTICS: dict[str, Statistic] = {"auc": auc, "ap": average_precision, "discarded": discarded_at}


def redraw(events: NDArray[np.bool_], draws: int, seed: int) -> NDArray[np.int64]:
    """(N,) -> (draws, N) places, each row with as many events and event-free curves as the set has."""
    rng = np.random.default_rng(seed)
    kinds = [np.flatnonzero(events), np.flatnonzero(~events)]
    return np.concatenate([rng.choice(kind, (draws, kind.size)) for kind in kinds if kind.size], axis=1)


def interval(values: NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    """The middle ``confidence`` of some draws."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def spread(
    statistic: Statistic, scores: NDArray[np.float64], events: NDArray[np.bool_], draws: int = 1000, seed: int = 1
) -> tuple[float, float] | None:
    """The percentile interval of a statistic of (N,) scores; None where the statistic is."""
    if statistic(scores, events) is None:
        return None
    return interval(np.array([statistic(scores[p], events[p]) for p in redraw(events, draws, seed)], np.float64))


def difference(
    statistic: Statistic,
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    events: NDArray[np.bool_],
    draws: int = 1000,
    seed: int = 1,
) -> tuple[float, float, float] | None:
    """(difference, low, high) of ``first`` less ``second``, paired: both see the same draws."""
    one, other = statistic(first, events), statistic(second, events)
    if one is None or other is None:
        return None
    places = redraw(events, draws, seed)
    gaps = [(statistic(first[p], events[p]) or 0.0) - (statistic(second[p], events[p]) or 0.0) for p in places]
    return one - other, *interval(np.array(gaps))


# Paired comparison of trainings over curves *and* seeds, in the mix of a stream.
#
# A difference between two losses has two sources of chance: which curves were there to judge, and which first
# weights and order the training was given. Both are drawn again together (bootstrap, Efron & Tibshirani 1993, ch.
# 8 and 13): every draw takes curves with replacement, events and event-free ones apart, and seeds with
# replacement, and shows the same draw to every loss. With three seeds such an interval is never narrower than the
# span of the three differences (one seed three times has 1 chance in 27, more than the 2.5 % of a tail), so it
# says little with confidence that only one seed says.
#
# A stream's rare events are put on by weights: the curves of a pool count so that ``share`` of the whole are
# events.

Floats = NDArray[np.float64]
VERDICTS = ("keep", "review", "discard")
#: Columns of every array of figures here. Shares are of the whole stream, but for recall and cut.
FIGURES = ("ap", "recall", "cut", "review", "keep")


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """N curves from the highest score down, equal scores as one step."""

    order: NDArray[np.int64]  # (N,)
    ends: NDArray[np.int64]  # last place of each group of equal scores

    @classmethod
    def of(cls, scores: Floats) -> Ranking:
        order = np.argsort(-scores, kind="stable")
        return cls(order, np.append(np.flatnonzero(np.diff(scores[order])), scores.size - 1))

    def average_precision(self, weights: Floats, events: NDArray[np.bool_]) -> float:
        """Precision over recall as a step function; ``weights`` are counts of each curve and need not be whole."""
        found = np.cumsum((weights * events)[self.order])[self.ends]
        taken = np.cumsum(weights[self.order])[self.ends]
        gained = np.diff(found, prepend=0.0) / found[-1]
        return float((gained * found / np.maximum(taken, 1e-300)).sum())


class Outcome:
    """What the S trainings of one loss made of N curves; sorted once, weighed often."""

    def __init__(
        self, scores: Floats, verdicts: NDArray[np.str_], events: NDArray[np.bool_], share: float | None = None
    ) -> None:
        """(S, N) scores and verdicts, (N,) events of both kinds. ``share`` None leaves the mix as it is."""
        self.scores, self.events, self.share = scores, events, share
        self._rankings = [Ranking.of(row) for row in scores]
        self._given = np.stack([verdicts == verdict for verdict in VERDICTS], axis=1).astype(np.float64)  # (S, 3, N)

    def figures(self, counts: Floats) -> Floats:
        """(N,) how often each curve counts -> (S, 5), see :data:`FIGURES`."""
        weights = in_mix(counts, self.events, self.share)
        tables, events = self.tables(counts), float(weights[self.events].sum())
        ap = [ranking.average_precision(weights, self.events) for ranking in self._rankings]
        recall, cut = 1 - tables[:, 2, 0] / events, tables[:, 2, 1] / (1 - events)
        return np.stack((ap, recall, cut, tables[:, 1].sum(1), tables[:, 0].sum(1)), axis=1)

    def tables(self, counts: Floats) -> Floats:
        """(N,) -> (S, 3, 2): shares of the stream, verdicts by event and none."""
        weights = in_mix(counts, self.events, self.share)
        sides = np.stack((weights * self.events, weights * ~self.events), axis=1)  # (N, 2)
        return np.asarray(self._given @ sides, np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """(5,) each, see :data:`FIGURES`: the mean over seeds, and its difference to the reference with intervals."""

    mean: Floats
    difference: Floats
    low: Floats
    high: Floats
    strict_low: Floats  # as low, at a confidence that all comparisons together keep (Bonferroni)
    strict_high: Floats
    by_seed: Floats  # (S, 5) differences


def in_mix(counts: Floats, events: NDArray[np.bool_], share: float | None) -> Floats:
    """(N,) -> (N,) weights that add up to 1, ``share`` of them on events."""
    if share is None:
        return np.asarray(counts / counts.sum(), np.float64)
    one, other = counts * events, counts * ~events
    return np.asarray(share * one / one.sum() + (1 - share) * other / other.sum(), np.float64)


def draw(events: NDArray[np.bool_], seeds: int, times: int, seed: int) -> Iterator[tuple[Floats, Floats]]:
    """``times`` pairs of (N,) counts of the curves and (S,) shares of the seeds."""
    rng = np.random.default_rng(seed)
    kinds = [np.flatnonzero(events), np.flatnonzero(~events)]
    for _ in range(times):
        counts = np.zeros(events.size)
        for kind in kinds:
            counts[kind] = np.bincount(rng.integers(0, kind.size, kind.size), minlength=kind.size)
        yield counts, np.bincount(rng.integers(0, seeds, seeds), minlength=seeds) / seeds


def compare(
    outcomes: Sequence[Outcome], times: int = 1000, seed: int = 1, confidence: float = 0.95
) -> list[Comparison]:
    """Each outcome against the first. ValueError when there are no curves of both kinds, or other curves in one."""
    events, seeds = outcomes[0].events, outcomes[0].scores.shape[0]
    if not events.any() or events.all():
        raise ValueError("a comparison needs curves with and without an event")
    if any(o.scores.shape != outcomes[0].scores.shape or (o.events != events).any() for o in outcomes):
        raise ValueError("paired means: the same curves and the same number of seeds")
    whole = np.stack([outcome.figures(np.ones(events.size)) for outcome in outcomes])  # (L, S, 5)
    drawn = np.array([_gaps(outcomes, counts, shares) for counts, shares in draw(events, seeds, times, seed)])
    tails = [(1 - confidence) / 2, (1 - confidence) / 2 / max(len(outcomes) - 1, 1)]
    low, strict_low, high, strict_high = np.quantile(drawn, [*tails, *(1 - tail for tail in tails)], axis=0)
    return [
        Comparison(
            mean=whole[place].mean(0),
            difference=(whole[place] - whole[0]).mean(0),
            low=low[place],
            high=high[place],
            strict_low=strict_low[place],
            strict_high=strict_high[place],
            by_seed=whole[place] - whole[0],
        )
        for place in range(len(outcomes))
    ]


def _gaps(outcomes: Sequence[Outcome], counts: Floats, shares: Floats) -> Floats:
    """(L, 5) differences to the first outcome in one draw."""
    values = np.stack([shares @ outcome.figures(counts) for outcome in outcomes])
    return np.asarray(values - values[0], np.float64)


# Rare streams: runs of which a few curves hold an event, counted stream by stream.
#
# The measure is the one stream whose results are published: 13 events among 970 curves, 12 found, 89 flagged
# (arXiv 2606.09541). One stream of 13 says little (12 of 13 is 64 to 99.8 %), so many are drawn.
Verdicts = NDArray[np.str_]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """S streams: how many curves of each got which verdict, in the order of :data:`VERDICTS`."""

    events: Counts  # (S, 3)
    event_free: Counts  # (S, 3)

    def summarise(self) -> dict[str, float]:
        """Means over streams as shares of the stream, and the worst stream of each; recall is of the events."""
        recall = 1 - self.events[:, 2] / self.events.sum(1)
        whole = self.events + self.event_free
        kept, review, discarded = (whole / whole.sum(1, keepdims=True)).T
        return {
            "recall": float(recall.mean()),
            "recall_worst": float(recall.min()),
            "streams_without_miss": float((recall == 1).mean()),
            "events_kept": float((self.events[:, 0] / self.events.sum(1)).mean()),
            "review": float(review.mean()),
            "review_worst": float(review.max()),
            "kept": float(kept.mean()),
            "not_discarded": float(1 - discarded.mean()),
        }


def count(verdicts: Verdicts) -> Counts:
    """(…, n) -> (…, 3)."""
    return np.stack([(verdicts == verdict).sum(-1) for verdict in VERDICTS], axis=-1).astype(np.int64)


def deal(verdicts: Verdicts, each: int) -> Counts:
    """(S * each,) -> (S, 3): every curve in one stream and one only. ValueError when it does not come out even."""
    if verdicts.size % each:
        raise ValueError(f"{verdicts.size} curves are not whole streams of {each}")
    return count(verdicts.reshape(-1, each))


def redraw_streams(pools: Sequence[Verdicts], wanted: Sequence[int], streams: int, seed: int) -> Counts:
    """``wanted[k]`` curves of ``pools[k]`` for each stream -> (S, 3): a curve may stand in many streams.

    It stands in one stream once, unless a pool is smaller than what a stream takes of it.
    """
    rng = np.random.default_rng(seed)
    drawn = [
        np.stack([count(rng.choice(pool, each, replace=pool.size < each)) for _ in range(streams)])
        for pool, each in zip(pools, wanted, strict=True)
    ]
    return np.asarray(np.sum(drawn, axis=0), np.int64)


def share(verdicts: Verdicts, *which: str) -> dict[str, float | int | list[float]]:
    """How many of these distinct curves got one of ``which``, with the exact 95 % interval."""
    hits = int(np.isin(verdicts, which).sum())
    low, high = clopper_pearson(hits, verdicts.size)
    return {"hits": hits, "of": int(verdicts.size), "share": hits / max(verdicts.size, 1), "interval": [low, high]}


def best_cut(scores: NDArray[np.float64], event_free: NDArray[np.float64], recall: float) -> tuple[float, float]:
    """(highest discard threshold that saves ``recall`` of the events, share of the others that it then discards).

    Chosen and judged on the same curves, so no promise: it says what the ranking would allow. A score of infinity
    stands for a curve that may not be discarded.
    """
    saved = np.sort(scores)[int((1 - recall) * scores.size + 1e-9)]
    return float(np.nextafter(saved, -np.inf)), float((event_free < saved).mean())
