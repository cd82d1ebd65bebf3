"""The order of the pile: which flagged curves a head on the labels so far would have looked at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daemon.ledger.wire import Look

#: Labelled curves from which on a head orders the pile, of both kinds.
FEWEST = 8


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """What a head on ``labels`` labelled curves thinks of K curves."""

    seqs: NDArray[np.int64]  # (K,), ascending
    scores: NDArray[np.float64]  # (K,), the greater the more like an event; no probabilities
    labels: int

    def order(self, looks: Sequence[Look]) -> list[Look]:
        """The same curves, given with the highest score of the network first, in the order of the head.

        A curve that the head does not know yet has as many of the known ones before it as the network puts before it.
        Those without a score come last, in their order.
        """
        scored = [look for look in looks if look.score is not None]
        seqs = np.array([look.seq for look in scored], np.int64)
        places = np.searchsorted(self.seqs, seqs)
        is_known = places < self.seqs.size
        is_known[is_known] = self.seqs[places[is_known]] == seqs[is_known]
        known = np.flatnonzero(is_known)
        rank = np.cumsum(is_known) - 0.5  # of an unknown one: just before the known one of this number
        rank[known[np.argsort(-self.scores[places[known]], kind="stable")]] = np.arange(known.size)
        first = [scored[place] for place in np.argsort(rank, kind="stable")]
        return first + [look for look in looks if look.score is None]
