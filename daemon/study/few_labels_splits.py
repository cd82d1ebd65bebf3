"""Splits: which curves may be labelled and which are tested on, by whole experiments or within one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
Names = NDArray[np.str_]

LEAST = 9  # curves of each kind on both sides of a split by experiments
LEAST_WITHIN, LEAST_SIZE = 4, 30  # curves of each kind, and of both, in an experiment that is split within itself
TESTED = 1 / 3  # of an experiment that is split within itself
_DRAWS = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Places of curves; no curve stands on both sides."""

    pool: Places  # those that labels may be drawn from
    test: Places
    unlabelled: Places  # all that are not on the side of the test, the unsure ones too


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """One way to split, and its repeats."""

    name: str
    splits: tuple[Split, ...]


def settings(experiments: Names, labels: Names, apart: Sequence[str], repeats: int, seed: int) -> list[Setting]:
    """Every setting that (N,) experiments and labels (keep, discard, unsure) allow.

    Across experiments, once for all that no glob of ``apart`` names and once for each glob; then within each experiment
    that has enough of both kinds.
    """
    named = [np.array([fnmatchcase(str(name), glob) for name in experiments]) for glob in apart]
    rest = ~np.any(named, axis=0) if named else np.ones(len(experiments), bool)
    found: list[Setting] = []
    for words, mask in (("", rest), *((f" {glob}", mask) for glob, mask in zip(apart, named, strict=True))):
        rng = np.random.default_rng((seed, len(found)))
        splits = [one for _ in range(repeats) if (one := _across(experiments, labels, mask, rng)) is not None]
        if len(splits) == repeats:
            found.append(Setting(f"other experiments{words}", tuple(splits)))
    for name in np.unique(experiments):
        mask = experiments == name
        counts = [int((mask & (labels == kind)).sum()) for kind in ("keep", "discard")]
        if min(counts) >= LEAST_WITHIN and sum(counts) >= LEAST_SIZE:
            rng = np.random.default_rng((seed, 1000 + len(found)))
            found.append(Setting(f"within {name}", tuple(_within(labels, mask, rng) for _ in range(repeats))))
    return found


def _across(experiments: Names, labels: Names, mask: NDArray[np.bool_], rng: np.random.Generator) -> Split | None:
    """Each experiment wholly on one side, at random; None where no draw leaves enough of both kinds on both."""
    names = np.unique(experiments[mask])
    for _ in range(_DRAWS):
        tested = mask & np.isin(experiments, names[rng.random(names.size) < 0.5])
        sides = (tested, mask & ~tested)
        if min(int((side & (labels == kind)).sum()) for side in sides for kind in ("keep", "discard")) >= LEAST:
            return _split(labels, mask, tested)
    return None


def _within(labels: Names, mask: NDArray[np.bool_], rng: np.random.Generator) -> Split:
    """A third of each label is tested on."""
    tested = np.zeros(len(labels), bool)
    for label in np.unique(labels[mask]):
        places = np.flatnonzero(mask & (labels == label))
        tested[rng.permutation(places)[: max(round(TESTED * places.size), 1)]] = True
    return _split(labels, mask, tested)


def _split(labels: Names, mask: NDArray[np.bool_], tested: NDArray[np.bool_]) -> Split:
    sure = labels != "unsure"
    sides = (mask & ~tested & sure, tested & sure, mask & ~tested)
    pool, test, unlabelled = (np.flatnonzero(side).astype(np.int64) for side in sides)
    return Split(pool, test, unlabelled)


def draw(pool: Places, events: NDArray[np.bool_], count: int, seed: int) -> Places | None:
    """``count`` curves of the pool to label, None when there are not as many; larger draws hold the smaller ones.

    As mixed as the pool, but a quarter of each kind where it has that many: a lab labels until it has some of both.
    """
    if count > pool.size:
        return None
    rng = np.random.default_rng(seed)
    with_event, without = (rng.permutation(pool[events[pool] == wanted]) for wanted in (True, False))
    wanted = round(count * with_event.size / pool.size)
    wanted = min(max(wanted, -(-count // 4)), count - -(-count // 4))
    wanted = min(max(wanted, count - without.size), with_event.size)
    return np.concatenate((with_event[:wanted], without[: count - wanted]))
