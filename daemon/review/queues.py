"""What a person is shown next: the queues, each in the order in which looking pays.

*kept*: wanted anyway, and it feeds the cut; newest first. *review*: the highest score first, for an event is likeliest
there; curves without a score behind them, by age. *discards*: the audited ones, drawn when they were decided; blind, in
an order that tells nothing, so that any number of them is a fair sample. *disagreements*: what people, or two models,
see differently.

What a rater has answered is not shown to them again; what they skipped comes back at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from daemon.labels import Labels
from daemon.ledger.view import LedgerView
from daemon.review.questions import Kind

#: ``first``: the curves between the old and the new cut that `adapt` wants looked at, at the head of review.
#: ``band``: audited discards that the old cut would have sent to review, at the head of discards.
QueueName = Literal["kept", "review", "discards", "disagreements", "first", "band"]
QUEUES: tuple[QueueName, ...] = get_args(QueueName)
#: Stretches of decisions, first and last ``seq`` each.
Stretches = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Item:
    """One curve that a rater is asked to look at.

    ``weight``: 1 / the probability with which it was drawn, to be stored with the label. ``kind`` is for the server
    alone: the page must not be able to tell a question from a plain curve.
    """

    seq: int
    id: str  # of its event
    queue: QueueName
    weight: float
    kind: Kind = "plain"


def queue(
    view: LedgerView,
    labels: Labels,
    name: QueueName,
    rater: str,
    limit: int,
    within: Stretches | None = None,
    *,
    first: Sequence[int] = (),
    band: tuple[float, float] | None = None,
) -> list[Item]:
    """The next ``limit`` curves of a queue for this rater; ``within`` None: of all nights.

    ``first``: of `adapt`'s proposal. ``band``: scores between the shipped and a raised cut, whose audit comes first.
    """
    raise NotImplementedError
