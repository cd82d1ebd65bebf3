"""Questions whose answer is known: they say how far a rater's words can be trusted, and are asked in silence.

A *golden* question is a curve on which at least two others agree, and that this rater has never seen; a *repeat* is one
that the rater has judged before, at least thirty curves ago. One of each stands somewhere among every twenty curves, at
a place that nobody can guess. Their answers are stored apart: they neither add to the labels nor replace one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["plain", "golden", "repeat"]
#: 5 % golden questions and 5 % repeats: one of each in so many curves.
BLOCK = 20
#: A curve comes back to its rater after this many others at the earliest.
REPEAT_AFTER = 30


@dataclass(frozen=True, slots=True)
class Slot:
    """One place in what a rater is shown: a curve, and why it stands there."""

    seq: int
    kind: Kind


def mix(
    plain: Sequence[int], *, rater: str, asked: int, golden: Sequence[int], repeats: Sequence[int], limit: int
) -> list[Slot]:
    """``plain`` in its order, with the questions at their places, at most ``limit`` in all.

    ``asked`` counts the curves on which this rater has answered so far, questions among them. It fixes the places: the
    same list comes again until another answer is given, whenever it is asked for. ``golden`` and ``repeats`` are those
    that may be asked now, in any order. Where there is none its place holds the next plain curve; behind the last
    plain curve nothing is asked.
    """
    pools: dict[Kind, list[int]] = {
        "golden": sorted(golden, key=lambda seq: _draw(rater, "golden", seq)),
        "repeat": sorted(repeats, key=lambda seq: _draw(rater, "repeat", seq)),
    }
    left, slots, taken = list(reversed(plain)), list[Slot](), set[int]()
    while left and len(slots) < limit:
        kind = kind_at(rater, asked + len(slots))
        pool = pools.get(kind, [])
        slot = Slot(pool.pop(0), kind) if pool else Slot(left.pop(), "plain")
        if slot.seq not in taken:  # a golden curve may stand among the plain ones too
            slots.append(slot)
            taken.add(slot.seq)
    return slots


def kind_at(rater: str, number: int) -> Kind:
    """What stands at a place in all that a rater is ever shown, counted from 0."""
    block, place = divmod(number, BLOCK)
    drawn = _draw(rater, "places", block)
    golden = drawn % BLOCK
    repeat = (golden + 1 + drawn // BLOCK % (BLOCK - 1)) % BLOCK  # any of the other places
    return "golden" if place == golden else "repeat" if place == repeat else "plain"


def _draw(rater: str, what: str, number: int) -> int:
    digest = hashlib.blake2b(f"{what} {number} {rater}".encode("utf-8", "backslashreplace"), digest_size=8)
    return int.from_bytes(digest.digest(), "big")
