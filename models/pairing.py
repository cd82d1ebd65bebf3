"""Paired comparison of trainings over curves *and* seeds, in the mix of a stream.

A difference between two losses has two sources of chance: which curves were there to judge, and which first weights and
order the training was given. Both are drawn again together (bootstrap, Efron & Tibshirani 1993, ch. 8 and 13): every
draw takes curves with replacement, events and event-free ones apart, and seeds with replacement, and shows the same
draw to every loss. With three seeds such an interval is never narrower than the span of the three differences
(one seed three times has 1 chance in 27, more than the 2.5 % of a tail), so it says little with confidence that only
one seed says.

A stream's rare events are put on by weights: the curves of a pool count so that ``share`` of the whole are events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
