"""What a person is shown next: the queues, each in the order in which looking pays.

*kept*: wanted anyway, and it feeds the cut; newest first. *review*: in the order of a head on the labels, once there is
one, else the highest score first, for an event is likeliest there; curves without a score behind them, by age.
*discards*: the audited ones, drawn when they were decided; blind, in an order that tells nothing, so that any number of
them from the front is a fair sample. Where a night is young and few are audited, others stand in behind them, twenty in
all: worth a look, without a weight, and shown as what they are; how long the queue is, only the drawn ones say.
*disagreements*: what people or two models see differently, and discards in which the second opinion sees a rupture.
Those stand among the audited ones too, in the same order, so that what was looked at of them is a fair sample by either
way.

When the ranking of *review* runs dry, curves drawn by chance take its places, until it may be said that enough was
looked at (models.enough).

The *pile* is what was sent to review; of a portion of it is said whether enough was looked at.

What a rater has answered is not shown to them again; what they skipped comes back at the end. Curves that another rater
has labelled come after all others, but for those that let two raters be compared.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import Any, Literal, get_args

import numpy as np

from daemon.judging import VERDICTS, Thresholds, Verdict, verdict_of
from daemon.judging.audit import Band
from daemon.labels import Kind, Labels, unanimous
from daemon.labels.raters import Past, Slot, mix, shuffled
from daemon.labels.sessions import Sessions, Stretches, is_within
from daemon.labels.sheets import Sheets
from daemon.learn.order import Ranking
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import Event, Look
from models.enough import Looks, Standing, secret_places, stand

#: ``first``: the curves between the old and the new cut that `adapt` wants looked at, at the head of review.
#: ``band``: audited discards that the old cut would have sent to review, at the head of discards.
#: ``sheet``: what is left of the certificate sheet that was drawn last, whatever the stretches.
#: ``drawn``: curves of review by chance, which tell how many events are left in it.
#: ``found``: those of a list that the page was given, as `find` writes one (daemon.review.desk).
QueueName = Literal["kept", "review", "discards", "disagreements", "first", "band", "sheet", "drawn", "found"]
QUEUES: tuple[QueueName, ...] = get_args(QueueName)
#: What the page shows without score and verdict. A sheet is never shown with them, whoever asks.
BLIND: frozenset[QueueName] = frozenset({"discards", "band", "sheet"})
_LEAD_EVERY = 3  # while two raters cannot be compared yet, each third curve is one that the other has labelled
_FEWEST_DISCARDS, _AMONG = 20, 2_000  # to look at, and the last decisions of a session that they come from
ALWAYS: Stretches = ((1, None),)
ALL = 1 << 40
_PAGE = 500  # looks that are fetched at once
_ORDERED = 20_000  # flagged curves that a head orders, those of the highest scores
_BLIND_ORDER = "discards"
_OTHERWISE = 40  # curves of each kind that the model of now would decide otherwise
_VERDICT_OF: Mapping[str, Verdict] = {
    **{"kept": "keep", "discards": "discard", "band": "discard"},
    **dict.fromkeys(("review", "first", "drawn"), "review"),
}


@dataclass(frozen=True, slots=True)
class Item:
    """One curve that a rater is asked to look at.

    ``weight``: 1 / the probability with which it was drawn, to be stored with the label; None for a question, whose
    answer is none, and for what a person chose. ``queue`` and ``kind`` are for the server alone: where curves are shown
    blind, the page must be able to tell neither a question from a plain curve nor the band from other discards.
    ``is_drawn``: by chance or by the order of its queue; of a question what is true of the curves around it.
    """

    seq: int
    id: str  # of its event
    queue: QueueName
    weight: float | None
    kind: Kind = "plain"
    is_drawn: bool = True


@dataclass(frozen=True, slots=True)
class Aims:
    """What the cut wants looked at before anything else, and how the pile is ordered."""

    first: Sequence[int] = ()  # the curves that `adapt` names
    band: Band | None = None
    ranking: Ranking | None = None  # None: by score
    serving: tuple[str, Thresholds] | None = None  # pipeline and thresholds of the model that judges now


NO_AIMS = Aims()


def stretches(sessions: Sessions, which: int | Literal["all", "current"] = "current") -> Stretches | None:
    """The decisions of one session, by its number; None, which means all, where none goes on. LookupError: no such."""
    if which == "all":
        return None
    if which == "current":
        chosen = sessions.present()
    elif (chosen := next((one for one in sessions.all() if one.number == which), None)) is None:
        raise LookupError(f"there is no session {which}")
    return None if chosen is None else [(chosen.first_seq, chosen.last_seq)]


def queue(
    view: LedgerView,
    labels: Labels,
    name: QueueName,
    rater: str,
    limit: int,
    within: Stretches | None = None,
    aims: Aims = NO_AIMS,
    *,
    is_blind: bool = False,
    is_dealt: bool = False,
) -> list[Item]:
    """The next ``limit`` curves of a queue for this rater ("": for nobody in particular); ``within`` None: all nights.

    ``is_blind``: verdict and score are not shown, so that a question may be a curve of any verdict. ``is_dealt``: they
    will not be looked at in this order, so that none is drawn. Raises what the ledger and the labels raise.
    """
    if name == "disagreements":
        seqs = _disagreements(view, labels, rater, within or ALWAYS, aims)[:limit]
        return _items(view, [Slot(seq, "plain") for seq in seqs], {}, name)
    past = Past.of(labels, rater)
    if name == "sheet":
        return _of_sheet(view, labels, past, limit)
    fresh, late, back = dict[int, _Place](), dict[int, _Place](), dict[int, _Place]()
    skipped = set(past.skipped)
    done = past.seen - skipped
    is_mixed = name == "drawn" or (name == "review" and bool(rater) and not is_dealt)
    part = portion(view, labels, within) if is_mixed else None
    for seq, place in _candidates(view, name, within or ALWAYS, aims, done, part):
        if seq in skipped:
            back[seq] = place
        else:
            (late if seq in past.words else fresh)[seq] = place
        if len(fresh) >= limit:
            break
    verdict = _VERDICT_OF[name]
    shared, golden, repeats = list[int](), list[int](), list[int]()
    if rater:  # nobody in particular is led, and asked nothing
        shared = [seq for seq in past.to_share(verdict) if is_within(seq, within or ALWAYS)]
        shown = None if is_blind else verdict
        golden, repeats = past.golden(shown), past.repeats(shown)
    last = [seq for seq in past.skipped if seq in back]
    places = late | back | fresh
    plain = list(dict.fromkeys([*_led(list(fresh), shared, past.asked), *late, *last]))
    plain.sort(key=lambda seq: seq in places and _stands_in(places[seq]))
    slots = mix(plain, rater=rater, asked=past.asked, golden=golden, repeats=repeats, limit=limit)
    return _items(view, slots, places, name)


def lengths(
    view: LedgerView, labels: Labels, rater: str | None, within: Stretches | None = None, aims: Aims = NO_AIMS
) -> dict[str, int]:
    """How many curves of each queue this rater has not answered; without a rater, nobody has. Raises as ``queue``."""
    if rater is None:
        done: Set[int] = labels.words().keys()
    else:
        past = Past.of(labels, rater)
        done = past.seen - set(past.skipped)
    left: dict[str, int] = {}
    for name in ("kept", "review"):
        left[name] = sum(
            look.seq not in done
            for first, last in within or ALWAYS
            for look in view.looks(_VERDICT_OF[name], after=first - 1, until=last, order="seq", limit=ALL)
        )
    left["discards"] = sum(look.seq not in done for look in _drawn(view, within or ALWAYS, None))
    left["disagreements"] = len(_disagreements(view, labels, rater or "", within or ALWAYS, aims))
    return left


#: Through which queue a curve comes, and its weight.
_Place = tuple[QueueName, float]


def _stands_in(place: _Place) -> bool:
    return place[1] == 0


def _items(view: LedgerView, slots: Sequence[Slot], places: Mapping[int, _Place], name: QueueName) -> list[Item]:
    """The curves of the slots, but those that nobody could look at any more."""
    events = view.decisions([slot.seq for slot in slots])
    found = []
    first = next((places[slot.seq] for slot in slots if slot.kind == "plain" and slot.seq in places), None)
    is_drawn = first is None or not _stands_in(first)
    for slot in slots:
        place = places.get(slot.seq) or next(((name, 1 / look.probability) for look in _look(view, slot.seq)), None)
        if place is not None and slot.seq in events:
            queue, weight = place
            if slot.kind == "plain":
                is_drawn = not _stands_in(place)
            stored = weight if slot.kind == "plain" else None
            found.append(Item(slot.seq, events[slot.seq]["id"], queue, stored, slot.kind, is_drawn))
    return found


def _of_sheet(view: LedgerView, labels: Labels, past: Past, limit: int) -> list[Item]:
    """Blind, and whoever has labelled a curve of it before, with its score in sight, is asked again."""
    sheets = Sheets(labels)
    sheet = sheets.current()
    if sheet is None or sheets.progress(sheet, view).is_done:
        return []
    skips = {one.seq for one in labels.shown(past.rater, "skip") if one.queue == "sheet"}
    drawn = sheets.left(sheet, limit + len(skips), past.rater)
    drawn.sort(key=lambda one: one.seq in skips)
    places: dict[int, _Place] = {one.seq: ("sheet", 1 / one.chance) for one in drawn}
    golden, repeats = ([seq for seq in pool if seq not in places] for pool in (past.golden(None), past.repeats(None)))
    plain = [one.seq for one in drawn]
    slots = mix(plain, rater=past.rater, asked=past.asked, golden=golden, repeats=repeats, limit=limit)
    return _items(view, slots, places, "sheet")


def _led(fresh: Sequence[int], shared: Sequence[int], asked: int) -> list[int]:
    """The fresh curves, each third place taken by one that another rater has labelled."""
    if not shared:
        return list(fresh)
    ours, theirs, found = list(reversed(fresh)), list(reversed(shared)), list[int]()
    while ours or theirs:
        is_theirs = bool(theirs) and (not ours or (asked + len(found)) % _LEAD_EVERY == _LEAD_EVERY - 1)
        found.append((theirs if is_theirs else ours).pop())
    return found


def _candidates(
    view: LedgerView, name: QueueName, within: Stretches, aims: Aims, done: Set[int], part: Portion | None
) -> Iterator[tuple[int, _Place]]:
    """Every curve of a queue in its order, but those that the rater is done with; each once."""
    given = set(done)
    for looks, queue in _in_order(view, name, within, aims, part, given):
        for look in looks:
            if look.seq not in given:
                given.add(look.seq)
                yield look.seq, (queue, 1 / look.probability)


def _in_order(
    view: LedgerView, name: QueueName, within: Stretches, aims: Aims, part: Portion | None, given: Set[int]
) -> Iterator[tuple[Iterable[Look], QueueName]]:
    if name == "kept":
        for first, last in reversed(within):
            yield pages(view, "keep", first, last, "newest"), name
    elif name in ("review", "first"):
        yield chain.from_iterable(_look(view, seq) for seq in aims.first), "first"
        if name == "review":
            ranked = (look for look in pile(view, within, aims.ranking) if look.seq not in given)
            if part is not None and part.standing.drawn_share == 1:
                yield part.drawn, "drawn"
            elif part is not None and part.standing.drawn_share > 0:
                for by_chance, by_rank in zip(part.drawn, ranked, strict=False):
                    yield [by_rank], name
                    yield [by_chance], "drawn"
            yield ranked, name
    elif name == "drawn" and part is not None:
        yield part.drawn, name
    elif name in ("discards", "band"):
        if aims.band is not None:
            yield _drawn(view, within, aims.band), "band"
        if name == "discards":
            drawn = _drawn(view, within, None)
            yield drawn, name
            yield _standing_in(view, within, drawn), name


def _look(view: LedgerView, seq: int) -> Iterator[Look]:
    """The one curve, if it may be looked at."""
    for verdict in VERDICTS:
        yield from view.looks(verdict, after=seq - 1, until=seq, order="seq")  # by its index, at once


def _drawn(view: LedgerView, within: Stretches, band: Band | None) -> list[Look]:
    """The audited discards, in an order that tells nothing."""
    looks = {
        look.seq: look
        for first, last in within
        for look in view.looks("discard", after=first - 1, until=last, order="seq", between=band, limit=ALL)
    }
    return [looks[seq] for seq in shuffled(looks, _BLIND_ORDER)]


def _standing_in(view: LedgerView, within: Stretches, drawn: Sequence[Look]) -> list[Look]:
    """Discards that nobody drew, where few were drawn; as if they had been for certain not, so that they weigh 0."""
    room, seqs = _FEWEST_DISCARDS - len(drawn), list[int]()
    if room <= 0:
        return []
    for first, last in reversed(within):
        stream = view.stream_scores(first - 1, last, _AMONG)
        seqs += stream.seqs[stream.verdicts == "discard"].tolist()
    others = shuffled(set(seqs).difference(look.seq for look in drawn), _BLIND_ORDER)
    return [Look(seq, "discard", None, math.inf) for seq in others[:room]]


def _disagreements(view: LedgerView, labels: Labels, rater: str, within: Stretches, aims: Aims) -> list[int]:
    """What people see differently, the latest first; discards that are disputed; what would be decided otherwise now.

    A rater is asked until they have spoken last: who was contradicted may look again, and who spoke last has done so.
    """
    words = labels.words()
    differ = labels.labelled([seq for seq, said in words.items() if len(set(said.values())) > 1])
    spoken = sorted(differ.items(), key=lambda one: (one[1][-1].time, one[0]), reverse=True)
    found = [seq for seq, said in spoken if said[-1].rater != rater and is_within(seq, within)]
    disputed = [seq for first, last in within for seq in view.disputed(first - 1, last) if seq not in words]
    found += shuffled(disputed, _BLIND_ORDER)
    if aims.serving is not None:
        found += _decided_otherwise(view, *aims.serving, within, {*words, *disputed})
    skips = [one for one in labels.shown(rater, "skip") if one.queue == "disagreements"]
    last = [
        one.seq for one in skips if one.seq in found and all(said.time < one.time for said in differ.get(one.seq, ()))
    ]
    return [seq for seq in found if seq not in last] + last


def _decided_otherwise(
    view: LedgerView, pipeline: str, now: Thresholds, within: Stretches, labelled: set[int]
) -> list[int]:
    """Unlabelled curves whose score the thresholds of now would give another verdict; only scores of the same scale."""
    below_keep = math.nextafter(now.keep, -math.inf)
    asked: tuple[tuple[Verdict, float, float], ...] = (
        ("review", below_keep, math.inf),
        ("review", -math.inf, now.discard),
        ("keep", -math.inf, below_keep),
        ("discard", now.discard, math.inf),
    )
    looks: list[Look] = []
    for verdict, low, high in asked:
        parts = (pages(view, verdict, first, last, "score", (low, high)) for first, last in within)
        unlabelled = (look for look in chain.from_iterable(parts) if look.seq not in labelled)
        looks += islice(unlabelled, _OTHERWISE)
    events = view.decisions([look.seq for look in looks])
    return [
        seq
        for seq, event in events.items()
        if event["data"]["reasons"] == ["score"] and _scale(event["data"]["pipeline"]) == _scale(pipeline)
    ]


_SENT: Mapping[Verdict, str] = {"keep": "kept", "review": "sent to review", "discard": "discarded"}
_WOULD: Mapping[Verdict, str] = {"keep": "keep it", "review": "send it to review", "discard": "discard it"}


def otherwise(event: Event, aims: Aims) -> str | None:
    """In words, what the cut in force would make of a curve that was decided by another; None where it is the same."""
    data = event["data"]
    if aims.serving is None or data["score"] is None or data["reasons"] != ["score"]:
        return None
    pipeline, now = aims.serving
    if _scale(data["pipeline"]) != _scale(pipeline):
        return None
    verdict = verdict_of(data["score"], data["reasons"], now)
    if verdict == data["verdict"]:
        return None
    return f"the cut in force would {_WOULD[verdict]} now; it was {_SENT[data['verdict']]}"


def _scale(pipeline: str) -> str:
    """What makes two scores comparable: all of a pipeline but its thresholds."""
    return pipeline.partition("|thresholds:")[0]


def pile(view: LedgerView, within: Stretches, ranking: Ranking | None) -> Iterator[Look]:
    """The flagged curves, the likest to be an event first."""
    parts = [pages(view, "review", first, last, "score") for first, last in within]
    looks = parts[0] if len(parts) == 1 else heapq.merge(*parts, key=_by_score)
    if ranking is not None:
        yield from ranking.order(list(islice(looks, _ORDERED)))
    yield from looks


@dataclass(frozen=True, slots=True)
class Portion:
    """The part of a pile that a promise is about: what lay there when the first curve of it was drawn.

    What comes later is not added: it is the next portion, once enough of this one was looked at.
    """

    standing: Standing
    drawn: Sequence[Look]  # what nobody has looked at, in the order of their secret places
    later: int  # curves that have come since
    before: Standing | None  # of the portion before this one

    def plain(self) -> dict[str, Any]:
        """For JSON, with ``text`` in words."""
        said = self.standing.text if self.before is None else f"{self.before.text}; since then {self.standing.text}"
        return asdict(self.standing) | {"text": f"{said}; {self.later:,} came later" if self.later else said}


def portion(view: LedgerView, labels: Labels, within: Stretches | None = None) -> Portion:
    """Where the pile stands, whoever has looked at it. Raises what the ledger and the labels raise."""
    looks = [
        look
        for first, last in within or ALWAYS
        for look in view.looks("review", after=first - 1, until=last, order="seq", limit=ALL)
    ]
    numbers, words = np.array([look.seq for look in looks], np.int64), labels.words()
    place = dict(zip(numbers.tolist(), secret_places(view.stream, numbers).tolist(), strict=True))
    firsts: dict[int, tuple[str, str]] = {}
    query = "select seq, queue, time from labels where stream = ? and removed_by is null order by number"
    for seq, queue, time in labels.select(query, view.stream):
        firsts.setdefault(seq, (queue, time))
    drawn = {seq for seq, (queue, _) in firsts.items() if queue == "drawn"}
    looked, begin, before = [seq for seq in words if seq in place], 0, None
    while True:
        first = next((seq for seq in looked if seq > begin and seq in drawn), None)
        end = view.last_seq if first is None else max(_decided_by(view, firsts[first][1]), first)
        its = [seq for seq in looked if begin < seq <= end]
        said = np.array([unanimous(words[seq].values()) for seq in its], object)
        places = np.array([place[seq] for seq in its], np.float64)
        left = [look for look in looks if begin < look.seq <= end and look.seq not in words]
        left.sort(key=lambda look: place[look.seq])
        told = Looks(places, np.isin(its, list(drawn)), said != "discard", said == "keep")
        standing = stand(told, [place[look.seq] for look in left])
        later = int((numbers > end).sum())
        if first is None or not standing.is_enough or not later:
            return Portion(standing, left, later, before)
        begin, before = end, standing


def _decided_by(view: LedgerView, time: str) -> int:
    """The last decision before a moment; decisions are in the order of time."""
    low, high = 0, view.last_seq + 1
    while high - low > 1:
        middle = (low + high) // 2
        found = view.decisions([middle]).get(middle)
        low, high = (middle, high) if found is not None and found["time"] <= time else (low, middle)
    return low


def pages(
    view: LedgerView,
    verdict: Verdict,
    first: int,
    last: int | None,
    order: Literal["score", "newest"],
    between: tuple[float, float] | None = None,
) -> Iterator[Look]:
    """Page by page, each larger than the one before: most of what comes first may be done."""
    offset, size, after = 0, _PAGE, first - 1
    while page := view.looks(verdict, after=after, until=last, order=order, between=between, limit=size, offset=offset):
        yield from page
        offset, size = offset + len(page), 4 * size


def _by_score(look: Look) -> tuple[float, int]:
    return (math.inf if look.score is None else -look.score, look.seq)
