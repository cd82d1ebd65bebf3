"""Rare streams: runs of which a few curves hold an event, counted stream by stream.

The measure is the one stream whose results are published: 13 events among 970 curves, 12 found, 89 flagged (arXiv
2606.09541). One stream of 13 says little (12 of 13 is 64 to 99.8 %), so many are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.metrics import clopper_pearson

VERDICTS = ("keep", "review", "discard")
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


def redraw(pools: Sequence[Verdicts], wanted: Sequence[int], streams: int, seed: int) -> Counts:
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
