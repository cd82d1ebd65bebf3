"""What nobody sees: how many events lie among the discards, and how many both the network and the second opinion miss.

Both are read from what people say of curves that chance put before them. Discards are drawn when they are decided, each
with a chance that is stored (daemon.judging.audit); the page shows the drawn ones in an order that tells nothing, so
that those looked at are as good as drawn once more. How far they were looked at differs, by night, by session and by
what had come when somebody looked; so each stretch of one and the same looking is counted by its own share. What
nobody looked into, or hardly, counts whole: every discard of it may be an event. Which stretches those are is chosen
by how far they were looked at and never by what was found, so that a look which finds nothing makes no bound worse.

A word that came by another way, somebody's choice or another queue, may have been given because of what the curve
shows. It counts as the known event that it may be, and never as a look by chance. Labels that are imported say by which
way their curves came, and are believed: they may be a copy that is put back. Whoever passes a curve over may do so
because of what it shows as well: until somebody has answered, it counts as looked at and in doubt.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import groupby
from typing import NamedTuple

from daemon.common.text import many
from daemon.judging.audit import BAND_CURVES, BAND_SHARE, LEAST, Stratum
from daemon.judging.sentinel import LEVEL
from daemon.labels import Label, Labels, unanimous
from daemon.labels.sessions import Sessions
from daemon.ledger.numbers import SecondOpinion, Unseen
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import Audited, Draw
from models.anytime import least_events, lost_bound
from models.certificate import lost_estimate
from models.clock import night_of, since_1970

#: Ways on which a curve comes before a rater by chance.
_BY_CHANCE = frozenset({"discards", "band", "sheet"})
#: The disputed are shown there too, in the same order as among the discards.
_DISPUTES = "disagreements"
#: Decisions since the last draw that are looked through at the most.
_FAR = 2_000


@dataclass(frozen=True, slots=True)
class _Look:
    """Somebody saw a drawn discard without its score. ``event``: whether it is one; None: in doubt."""

    time_s: float
    event: bool | None


@dataclass(frozen=True, slots=True)
class _Part:
    """Discards in a row of one night, session and stratum, whose draws were looked at to one and the same extent."""

    discards: int
    chance: float  # the least with which any of them came to be looked at
    looked: tuple[tuple[float, bool | None], ...]  # that chance of each that was, and whether it is an event


def unseen(view: LedgerView, labels: Labels | None, pipeline: str, nights: Container[str] | None = None) -> Unseen:
    """Events among the discards of one model and cut, over all its nights; what it looks at is indexed.

    ``labels``: None where nobody has said anything yet. ``nights``: only of these, as models.clock.night_of writes
    them; whoever names them does not choose by what was found. Raises what the ledger and the labels raise.
    """
    every = [one for one in view.audits(pipeline) if one.discards or one.in_band]
    audits = [one for one in every if nights is None or one.night in nights]
    draws = view.draws(one.number for one in audits)
    said = labels.labelled([one.seq for one in draws]) if labels else {}
    looks = _looks(draws, said, labels) if labels else {}
    sessions = [one.first_seq for one in Sessions(labels).all() if one.stream == view.stream] if labels else []
    of_audit = {number: list(some) for number, some in groupby(sorted(draws), key=lambda one: one.audit)}
    parts: list[_Part] = []
    banded = 0
    for audit in every:
        banded += audit.in_band
        if nights is None or audit.night in nights:
            parts += _parts(view, pipeline, audit, of_audit.get(audit.number, []), looks, sessions, banded)
    return _tell(
        sorted(parts, key=lambda one: -one.chance),
        discards=sum(one.discards for one in audits),
        drawn=len(draws),
        nights=sum(one.discards > 0 for one in audits),
        known=sum(unanimous(one.label for one in some) == "keep" for some in said.values()),
    )


def _looks(draws: Iterable[Draw], said: Mapping[int, list[Label]], labels: Labels) -> dict[int, _Look]:
    """Of the drawn, by ``seq``: when each was first seen by chance, and what holds of it now."""
    passed = {one.seq: one.time for one in labels.shown(kind="skip") if one.queue in _BY_CHANCE}
    found = {}
    for one in draws:
        words = said.get(one.seq, [])
        is_disputed = one.stratum == "steps"
        times = [
            label.time for label in words if label.queue in _BY_CHANCE or (is_disputed and label.queue == _DISPUTES)
        ]
        if not words and one.seq in passed:
            times = [passed[one.seq]]
        if times:
            found[one.seq] = _Look(since_1970(min(times)), _is_event(words))
    return found


def _parts(
    view: LedgerView,
    pipeline: str,
    audit: Audited,
    draws: Sequence[Draw],
    looks: Mapping[int, _Look],
    sessions: Sequence[int],
    banded: int,
) -> Iterator[_Part]:
    """What somebody looked into of one night; the rest of it is in no part.

    ``sessions``: the first ``seq`` of each, as people look at one session at a time; ``banded``: how many discards of
    its pipeline lay in the band up to its end.
    """
    strata: Mapping[Stratum, tuple[int, float]] = {  # discards, and the least chance to be drawn that any had
        "score": (audit.discards - audit.in_band - audit.disputed, LEAST),
        "band": (audit.in_band, BAND_SHARE if banded <= BAND_CURVES else LEAST),
        "steps": (audit.disputed, 1.0),
    }
    decided_s = cache(lambda one: _decided_s(view, one.seq))
    for stratum, (discards, least) in strata.items():
        drawn = [one for one in draws if one.stratum == stratum]
        if not any(one.seq in looks for one in drawn):
            continue
        come, is_over, seen = 0, False, list[_Seen]()
        for time_s, place in sorted(
            (looks[one.seq].time_s, place) for place, one in enumerate(drawn) if one.seq in looks
        ):
            is_over = night_of(time_s) > audit.night
            some = len(drawn) if is_over else bisect_right(drawn, time_s, lo=come, key=decided_s)
            come = max(come, some, place + 1)
            seen.append(_Seen(place, come, time_s))
        end = 0
        for stretch in _stretches(seen, [bisect_right(sessions, one.seq) for one in drawn]):
            first, last = stretch.first, stretch.last
            since, until = max(end, drawn[first - 1].place if first else 0), drawn[last - 1].place
            if is_over and last == len(drawn):
                until = discards
            elif stratum == "score" and not audit.in_band and stretch.seen_s is not None:
                until += _discarded(view, view.stream, pipeline, drawn[last - 1].seq, stretch.seen_s)
            end = until
            its = [(one.probability, looks[one.seq].event) for one in drawn[first:last] if one.seq in looks]
            share = len(its) / (last - first)
            yield _Part(until - since, least * share, tuple((share * chance, event) for chance, event in its))


def _decided_s(view: LedgerView, seq: int) -> float:
    return since_1970(view.decisions([seq])[seq]["time"])


@lru_cache(maxsize=4_096)
def _discarded(view: LedgerView, stream: str, pipeline: str, after: int, seen_s: float) -> int:
    """How many had been discarded by then and since a draw, none of them drawn; of what is past it never changes."""
    later = range(after + 1, min(after + _FAR, view.last_seq) + 1)
    until = after + bisect_right(later, seen_s, key=lambda seq: _decided_s(view, seq))
    found = view.stream_scores(after, until)
    some = (found.verdicts == "discard") & (found.pipelines == pipeline)
    return int(some.sum()) - len(view.disputed(after, until))


class _Seen(NamedTuple):
    """A look: the place of its draw, how many had been drawn by then, and when it was."""

    place: int
    come: int
    time_s: float


class _Stretch(NamedTuple):
    """Draws in a row, [first, last), of which ``looks`` were looked at.

    ``seen_s``: when somebody looked, and all of these had come and none behind them; None where none can say.
    """

    first: int
    last: int
    looks: int
    seen_s: float | None


def _stretches(seen: Iterable[_Seen], sessions: Sequence[int]) -> list[_Stretch]:
    """Draws that were looked at to one extent; ``seen`` in order of time, ``sessions``: of every draw.

    What has come since belongs to the stretch before it as long as that does not lower the share that was looked at
    there, else to one of its own. So one look more never takes anything from what is known.
    """
    found: dict[int, list[_Stretch]] = {}
    ends = {session: place + 1 for place, session in enumerate(sessions)}
    for place, come, time_s in seen:
        session = sessions[place]
        its = found.setdefault(session, [])
        start = bisect_left(sessions, session)
        first, last, looks, _ = its[-1] if its else (start, start, 0, None)
        until = min(come, ends[session])
        seen_s = time_s if until == come else None
        if place < last:
            at = next(number for number, one in enumerate(its) if place < one.last)
            its[at] = its[at]._replace(looks=its[at].looks + 1)
        elif its and looks * (until - last) <= last - first:
            its[-1] = _Stretch(first, until, looks + 1, seen_s)
        else:
            its.append(_Stretch(last, until, 1, seen_s))
    return sorted(one for its in found.values() for one in its)


def _is_event(labels: Iterable[Label]) -> bool | None:
    word = unanimous([one.label for one in labels] or ["unsure"])
    return None if word == "unsure" else word == "keep"


def _bound(parts: Sequence[_Part], found: Sequence[bool], beyond: int = 0) -> int:
    """How many events lie among these at the most; ``found``: whether each that was looked at is to count as one.

    ``beyond``: events found elsewhere. Whoever stops at the first event of a night leaves those without one to be
    looked at to the end; so they count as if they had been found here.
    """
    rest: dict[float, int] = {}
    for one in parts:
        rest[one.chance] = rest.get(one.chance, 0) + one.discards - len(one.looked)
    chances = [chance for one in parts for chance, _ in one.looked]
    chances += [min(chances)] * beyond
    discards = sum(one.discards for one in parts)
    return lost_bound(discards + beyond, chances, [*found, *[True] * beyond], rest=rest) - beyond


def _told_by_looks(parts: Sequence[_Part]) -> int:
    """Of how many of the parts, those looked at furthest first, the bound tells; the others count whole.

    So that the two together would be smallest if nothing had been found.
    """
    whole, best, chosen = 0, sum(one.discards for one in parts), len(parts)
    for count in range(len(parts), 0, -1):
        if count == len(parts) or parts[count].chance < parts[count - 1].chance:
            if whole >= best:
                break
            told = parts[:count]
            bound = whole + _bound(told, [False] * sum(len(one.looked) for one in told))
            if bound < best:
                best, chosen = bound, count
        whole += parts[count - 1].discards
    return chosen


def _tell(parts: Sequence[_Part], *, discards: int, drawn: int, nights: int, known: int) -> Unseen:
    """The numbers.

    ``parts``: the largest chance first; ``discards`` and ``drawn``: in all nights; ``known``: drawn ones that are
    confirmed, however looked at.
    """
    looked = [one for part in parts for one in part.looked]
    weights = [1 / chance for chance, event in looked if event]
    estimate, at_most, whole, hardly = None, None, discards, 0
    if looked:
        told = parts[: _told_by_looks(parts)]
        lost = [event is not False for part in told for _, event in part.looked]
        whole -= sum(one.discards for one in told)
        hardly = len(looked) - len(lost)
        beyond = sum(event is not False for _, event in looked[len(lost) :])
        estimate = lost_estimate(weights)[0]
        at_most = max(_bound(told, lost, beyond) + whole, known)
    found, doubts = len(weights), sum(event is None for _, event in looked)
    return Unseen(
        discards=discards,
        drawn=drawn,
        looked_at=len(looked),
        found=found,
        estimate=estimate,
        at_most=at_most,
        nights=nights,
        text=_sentence(discards, drawn, len(looked), found, doubts, estimate, at_most, whole, hardly),
    )


def _sentence(
    discards: int,
    drawn: int,
    looked: int,
    found: int,
    doubts: int,
    estimate: float | None,
    at_most: int | None,
    whole: int,
    hardly: int,
) -> str:
    """``whole``: discards that count whole, into which ``hardly`` any looks went."""
    if not discards:
        return "no discard of this model and cut is counted yet"
    if at_most is None or estimate is None:
        was = "was" if drawn == 1 else "were"  # how many of these wait for whom the queue itself says
        waiting = f"{drawn:,} of them {was} drawn for the queue of discards" if drawn else "none of them was drawn yet"
        return f"nobody has looked blind at any of {many(discards, 'discard')}, so no bound on what is lost; {waiting}"
    told = (
        f"of {many(discards, 'discard')} of this model and cut at most {many(at_most, 'event')} "
        f"{'was' if at_most == 1 else 'were'} lost ({looked:,} of {drawn:,} drawn looked at, 95 %)"
    )
    more = [told]
    if found:
        stands = f", which {'stands' if found == 1 else 'stand'} for about {estimate:,.0f}"
        more.append(f"{many(found, 'event')} found{stands if round(estimate) > found else ''}")
    if doubts:
        more.append(f"{many(doubts, 'curve')} in doubt {'is' if doubts == 1 else 'are'} counted as lost in “at most”")
    if whole:
        who, counts = "hardly anybody" if hardly else "nobody", "counts" if whole == 1 else "count"
        more.append(f"{who} has looked into {whole:,} of them, which {counts} whole")
    return "; ".join(more)


def second(view: LedgerView, labels: Labels | None) -> SecondOpinion:
    """What people confirm of the curves that the step detector disputes, and how many events both must be missing.

    Over all nights since there is a second opinion. Where it sees a rupture is told by the level that a dispute begins
    with: of kept curves by that alone, of discards by the dispute. Raises what the ledger and the labels raise.
    """
    audits = view.audits()
    disputed = view.disputed()
    words = {seq: unanimous(said.values()) for seq, said in labels.words().items()} if labels else {}
    confirmed = [seq for seq, word in words.items() if word == "keep"]
    is_disputed = frozenset(disputed)
    both, only_network, only_steps, neither = 0, 0, 0, 0
    for seq, (verdict, steps) in view.steps(confirmed).items():
        if steps is None:
            continue
        if verdict == "discard":
            only_steps += seq in is_disputed
            neither += seq not in is_disputed
        elif steps > LEVEL:
            both += 1
        else:
            only_network += 1
    seen, looked = sum(one.steps for one in audits), sum(seq in words for seq in disputed)
    in_all = least_events(both, only_network, only_steps) if only_steps and both + only_network else None
    caught = both + only_network + only_steps
    if in_all is not None:
        in_all = max(in_all, caught + neither)
    return SecondOpinion(
        seen=seen,
        disputed=len(disputed),
        looked_at=looked,
        confirmed=only_steps,
        least_in_all=in_all,
        least_missed=None if in_all is None else in_all - caught,
        text=_opinion(len(disputed), looked, only_steps, in_all, None if in_all is None else in_all - caught),
    )


def _opinion(disputed: int, looked: int, found: int, in_all: int | None, missed: int | None) -> str:
    if not disputed:
        return "the second opinion disputes no discard"
    told = f"the second opinion disputes {many(disputed, 'discard')}; {looked:,} looked at, {found:,} confirmed"
    if not in_all or not missed:
        return told
    return f"{told}; there are at least {many(in_all, 'event')}, and both miss at least {missed:,} of them (90 %)"
