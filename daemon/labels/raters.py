"""The raters: how well people agree with each other, with themselves and with what is known.

Agreement between two raters is Cohen's kappa over the curves that both have labelled; `unsure` counts as a word. From
30 shared curves on a kappa below 0.6 bars the labels from moving a cut: where people call the same curve by different
names there is no number that statistics could be about. Shares of hidden questions come with exact intervals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from daemon.common.text import clean
from daemon.labels import Label, Labels, Shown, Word
from daemon.labels.table import by_curve
from models.metrics import clopper_pearson

#: Two raters who share fewer curves have no kappa.
SHARED = 30
#: Below it no label moves a cut.
BAR = 0.6
#: After so many labels a rater sees their own figures: earlier they would learn which curves are questions.
OWN_FIGURES = 200
_ALL_PAIRS = 100


@dataclass(frozen=True, slots=True)
class Share:
    """``count`` of ``of``, and between what the true share lies, 95 % sure (0 … 1)."""

    count: int
    of: int
    low: float
    high: float

    @classmethod
    def of_answers(cls, answers: Iterable[bool]) -> Share:
        counted = list(answers)
        low, high = clopper_pearson(sum(counted), len(counted)) if counted else (0.0, 1.0)
        return cls(sum(counted), len(counted), low, high)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of two raters over the curves that both have labelled."""

    raters: tuple[str, str]
    shared: int
    agreed: int
    kappa: float | None  # None below 30 shared curves

    def words(self) -> str:
        """One sentence without its full stop."""
        both = f"{self.raters[0]} and {self.raters[1]}"
        if self.kappa is None:
            curves = "1 curve" if self.shared == 1 else f"{self.shared} curves"
            return clean(
                f"{both} agree on {self.agreed} of {curves} that both have labelled; it counts from {SHARED} on"
            )
        return clean(f"{both} agree on {self.agreed} of {self.shared} shared curves (kappa {self.kappa:.2f})")


@dataclass(frozen=True, slots=True)
class Bar:
    """Whether the raters differ so much that no label may move a cut, and that in words."""

    blocks: bool
    text: str


@dataclass(frozen=True, slots=True)
class Figures:
    """One rater's own."""

    rater: str
    labels: int  # that hold
    agreed_with_self: Share  # silent repeats
    right: Share  # known curves
    missed: Share  # of the known events, those not called one
    is_shown: bool  # the rater has labelled enough to see them


def kappa(pairs: Sequence[tuple[Word, Word]]) -> float:
    """Cohen's kappa, -1 … 1; of raters who used one word alone, and the same, 1. ValueError for no pairs."""
    if not pairs:
        raise ValueError("no curve that both have labelled")
    count = len(pairs)
    first, second = Counter(one for one, _ in pairs), Counter(other for _, other in pairs)
    by_chance = sum(first[word] * second[word] for word in first) / count**2
    agreed = sum(one == other for one, other in pairs) / count
    return 1.0 if by_chance == 1.0 else (agreed - by_chance) / (1.0 - by_chance)


def agreements(labels: Iterable[Label]) -> list[Agreement]:
    """Of every two raters who share a curve, those who share most first.

    Where more than a hundred have labelled, only of those with labels enough for a kappa: pairs grow with their square.
    """
    given = list(labels)
    counts = Counter(one.rater for one in given)
    if len(counts) > _ALL_PAIRS:
        given = [one for one in given if counts[one.rater] >= SHARED]
    said: dict[tuple[str, str], list[tuple[Word, Word]]] = {}
    for group in by_curve(given).values():
        for one, other in combinations(sorted(group, key=lambda label: label.rater), 2):
            said.setdefault((one.rater, other.rater), []).append((one.label, other.label))
    found = [
        Agreement(
            raters,
            len(pairs),
            sum(one == other for one, other in pairs),
            kappa(pairs) if len(pairs) >= SHARED else None,
        )
        for raters, pairs in said.items()
    ]
    return sorted(found, key=lambda one: (-one.shared, one.raters))


def bar(labels: Labels) -> Bar:
    """Whether the labels may move a cut, as far as their raters are concerned."""
    current = list(labels.current())
    raters = sorted({one.rater for one in current})
    if len(raters) < 2:
        whose = f"all labels are {clean(raters[0])}'s" if raters else "nobody has labelled a curve"
        return Bar(False, f"{whose}: no second rater, so how far people agree is not known, and the cut may move")
    found = agreements(current)
    counted = [one for one in found if one.kappa is not None]
    if not counted:
        told = found[0].words() if found else "no two raters have labelled the same curve"
        return Bar(False, f"{told}; until then the cut may move")
    worst = min(counted, key=lambda one: one.kappa or 0.0)
    if (worst.kappa or 0.0) < BAR:
        remedy = "talk over `labels disagree`, and label those curves again"
        return Bar(True, f"{worst.words()}: below {BAR:g} no label moves a cut; {remedy}")
    return Bar(False, f"{worst.words()}: {BAR:g} is enough")


def figures(labels: Labels, rater: str) -> Figures:
    """One rater's own figures; whoever shows them asks ``is_shown`` first."""
    golden = [one for one in labels.shown(rater, "golden") if one.answer and one.expected]
    repeats = [one for one in labels.shown(rater, "repeat") if one.answer and one.expected]
    count = sum(one.rater == rater for one in labels.current())
    return Figures(
        rater,
        count,
        _right(repeats),
        _right(golden),
        Share.of_answers(one.answer != "keep" for one in golden if one.expected == "keep"),
        count >= OWN_FIGURES,
    )


def _right(answers: Iterable[Shown]) -> Share:
    return Share.of_answers(one.answer == one.expected for one in answers)
