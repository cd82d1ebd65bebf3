"""The raters: how well people agree with each other, with themselves and with what is known.

Agreement between two raters is Cohen's kappa over the curves that both have labelled; `unsure` counts as a word. From
30 shared curves on a kappa below 0.6 bars the labels from moving a cut: where people call the same curve by different
names there is no number that statistics could be about. Shares of hidden questions come with exact intervals.

A hidden question is asked in silence, and its answer is known. A *golden* one is a curve on which at least two others
agree, and that this rater has never seen; a *repeat* is one that the rater has judged before, at least thirty curves
ago, and one of thirty such. One of each stands somewhere among every twenty curves, at a place that nobody can guess.
Their answers are stored apart: they neither add to the labels nor replace one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from itertools import combinations, islice

from daemon.common.text import clean
from daemon.judging import Verdict
from daemon.labels import Kind, Label, Labels, Shown, Word, unanimous
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


#: 5 % golden questions and 5 % repeats: one of each in so many curves.
BLOCK = 20
#: A curve comes back to its rater after this many others at the earliest, and as one of at least as many.
REPEAT_AFTER = 30
_DRAWN = 64  # curves out of which questions, and those that raters share, are chosen
_RECENT = 2_000  # the last curves that anybody labelled, among which those are
#: What each rater says of each decision that has a label.
Words = dict[int, dict[str, Word]]


@dataclass(frozen=True, slots=True)
class Slot:
    """One place in what a rater is shown: a curve, and why it stands there."""

    seq: int
    kind: Kind


def mix(
    plain: Sequence[int], *, rater: str, asked: int, golden: Iterable[int], repeats: Iterable[int], limit: int
) -> list[Slot]:
    """``plain`` in its order, with the questions at their places, at most ``limit`` in all.

    ``asked`` counts the curves on which this rater has answered so far, questions among them. It fixes the places: the
    same list comes again until another answer is given, whenever it is asked for. ``golden`` and ``repeats`` are those
    that may be asked now, the next one first. Where there is none its place holds the next plain curve; behind the last
    plain curve nothing is asked.
    """
    pools: dict[Kind, list[int]] = {"golden": list(golden), "repeat": list(repeats)}
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
    drawn = _seed(f"places {block} {rater}")
    golden = drawn % BLOCK
    repeat = (golden + 1 + drawn // BLOCK % (BLOCK - 1)) % BLOCK  # any of the other places
    return "golden" if place == golden else "repeat" if place == repeat else "plain"


def shuffled(seqs: Iterable[int], name: str) -> list[int]:
    """In an order that tells nothing of them, the same for the same name; what is added or taken moves no other."""
    seed = _seed(name)
    return sorted(seqs, key=lambda seq: hash((seed, seq)))  # of whole numbers: the same in every process


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """What a rater has answered so far, and what others have said."""

    labels: Labels
    rater: str
    words: Words
    seen: Set[int]  # labelled, asked, or passed over
    skipped: Sequence[int]  # the longest ago first
    own: Sequence[int]  # labelled
    asked: int  # curves answered, questions among them

    @classmethod
    def of(cls, labels: Labels, rater: str) -> Past:
        """Raises UserError 74."""
        words = labels.words()
        own = [seq for seq, said in words.items() if rater in said]
        shown = labels.select("select seq, kind from shown where rater = ? and stream = ?", rater, labels.stream or "")
        questions = sum(kind in ("golden", "repeat") for _, kind in shown)
        seen = {*own, *(seq for seq, _ in shown)}
        return cls(labels, rater, words, seen, labels.skipped_by(rater), own, len(own) + questions)

    def golden(self, verdict: Verdict | None) -> list[int]:
        """Curves on which at least two others agree, and that this rater has not seen; the next one first.

        ``verdict``: only of this one, where it is shown.
        """
        agreed = [
            seq
            for seq in self._recent()
            if len(said := self.words[seq]) > 1 and seq not in self.seen and unanimous(said.values()) != "unsure"
        ]
        return self._of_verdict(agreed, "golden", verdict)

    def repeats(self, verdict: Verdict | None) -> list[int]:
        """Curves that this rater has labelled a while ago, and not been asked again; the next one first."""
        query = "select seq from labels where rater = ? order by number desc limit ?"
        lately = [row[0] for row in self.labels.select(query, self.rater, 4 * REPEAT_AFTER)]
        too_soon = {*list(dict.fromkeys(lately))[:REPEAT_AFTER]}
        too_soon |= {one.seq for one in self.labels.shown(self.rater, "repeat")}
        pool = [seq for seq in self.own[-_RECENT:] if seq not in too_soon]
        return self._of_verdict(pool, "repeat", verdict) if len(pool) >= REPEAT_AFTER else []

    def to_share(self, verdict: Verdict) -> list[int]:
        """Curves of one other that this rater should see too, so that the two can be compared; empty when they can.

        Keeps, discards and doubts in turn: among hundreds of discards agreement would be a matter of course.
        """
        shared: dict[str, Counter[Word]] = {}  # with whom, by what the other said
        for seq in self.own[-_RECENT:]:
            for other, word in self.words[seq].items():
                if other != self.rater:
                    shared.setdefault(other, Counter())[word] += 1
        if any(count.total() >= SHARED for count in shared.values()):
            return []
        said: dict[str, dict[Word, list[int]]] = {}
        for seq in self._recent():
            if seq not in self.seen:
                for other, word in self.words[seq].items():
                    said.setdefault(other, {}).setdefault(word, []).append(seq)
        if not said:
            return []
        other = max(said, key=lambda one: (shared.get(one, Counter()).total(), sum(map(len, said[one].values())), one))
        left = {word: self._of_verdict(seqs, "shared", verdict)[::-1] for word, seqs in said[other].items()}
        count, found = Counter(shared.get(other)), list[int]()
        while words := [word for word in sorted(left) if left[word]]:
            word = min(words, key=lambda one: count[one])
            found.append(left[word].pop())
            count[word] += 1
        return found

    def _recent(self) -> Sequence[int]:
        return list(islice(reversed(self.words), _RECENT))

    def _of_verdict(self, seqs: Iterable[int], name: str, verdict: Verdict | None) -> list[int]:
        some = shuffled(seqs, f"{name} {self.rater}")[:_DRAWN]
        if verdict is None:
            return some
        labelled = self.labels.labelled(some)
        return [seq for seq in some if any(one.verdict == verdict for one in labelled.get(seq, ()))]


def _seed(name: str) -> int:
    digest = hashlib.blake2b(name.encode("utf-8", "backslashreplace"), digest_size=7)
    return int.from_bytes(digest.digest())
