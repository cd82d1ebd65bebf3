"""The adaptation: confirmed events move the discard cut of a session group, under the guards of the ladder (models.cut).

``propose`` looks and moves nothing; ``accept`` makes a child model of the base, with its own cut, and promotes it;
``audit`` takes a cut back of whose band an event has been confirmed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.cut import MISSES, Rung

if TYPE_CHECKING:
    from daemon.config import Config

#: Curves between the old and the new cut that are looked at first: those most like an event.
LOOK_FIRST = 12


@dataclass(frozen=True, slots=True)
class Proposal:
    """Where the ladder would put the cut now, and what that would do. Cuts are scores, piles shares of the stream."""

    rung: Rung
    group: str  # of the sessions that it is for; "" where none names a sample
    events: int  # confirmed, above the present cut
    needed: int  # more of them earn the next rung
    old: float  # the discard cut in force
    new: float  # the same where nothing moves
    stream: int  # decisions that the piles are counted on
    pile_before: float
    pile_after: float
    between: int  # curves of the stream between both cuts
    look_first: tuple[int, ...]  # seq; of these nobody has said a word yet
    missing: tuple[str, ...]  # what is in the way, a sentence each; empty: it may move
    sentences: tuple[str, ...]  # all of it in words
    simulated_loss: float | None = None  # share of simulated events that the new cut discards; None: not counted yet

    @property
    def moves(self) -> bool:
        """Whether a person may accept it."""
        return self.new > self.old and not self.missing


def propose(config: Config, miss: float = MISSES[0], *, is_watched: bool = False) -> Proposal:
    """What the labels of the state would do to the cut of the present session group. Moves nothing.

    Raises UserError 69 where there is no ledger, 74 where ledger or labels cannot be read.
    """
    raise NotImplementedError
