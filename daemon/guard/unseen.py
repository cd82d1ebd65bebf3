"""What nobody sees: how many events lie among the discards, and how many both the network and the second opinion miss.

Both are read from what people say of curves that chance put before them. Discards are drawn when they are decided, each
with a chance that is stored (daemon.judging.audit); the page shows the drawn ones in an order that tells nothing, so
that those looked at are as good as drawn once more. How far they were looked at differs from night to night, so it is
counted night by night, up to the moment of the last answer; a night that is hardly looked at yet is left out, and told.

A word that came by another way, an import or somebody's choice, may have been given because of what the curve shows. It
counts as the known event that it may be, and never as a look by chance. Whoever passes a curve over may do so because
of what it shows as well: until somebody has answered, it counts as looked at and in doubt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from daemon.common.text import many
from daemon.judging.audit import BAND_CURVES, BAND_SHARE, LEAST, Stratum
from daemon.judging.sentinel import LEVEL
from daemon.labels import Label, Labels, unanimous
from daemon.ledger.numbers import SecondOpinion, Unseen
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import Audited, Draw
from models.anytime import least_events, lost_bound
from models.certificate import lost_estimate
from models.clock import night_of

#: Ways on which a curve comes before a rater by chance.
_BY_CHANCE = frozenset({"discards", "band", "sheet"})
#: The disputed are shown there too, in the same order as among the discards.
_DISPUTES = "disagreements"
#: A night counts as soon as this part of what the best night has was looked at: the least chance of any curve decides
#: how much all that was looked at can say.
_AS_GOOD = 0.5


@dataclass(frozen=True, slots=True)
class _Stratum:
    """The discards of one night that had their chances for one reason, up to the last answer."""

    discards: int
    drawn: int
    least: float  # the least chance to be drawn that any of them had
    looked: tuple[tuple[float, bool | None], ...]  # chance to be drawn, and whether it is an event; None: in doubt

    @property
    def share(self) -> float:
        """Of the drawn how many were looked at."""
        return len(self.looked) / self.drawn if self.drawn else 0.0


def unseen(view: LedgerView, labels: Labels | None, pipeline: str) -> Unseen:
    """Events among the discards of one model and cut, over all its nights; 300,000 decisions take some 30 ms.

    ``labels``: None where nobody has said anything yet. Raises what the ledger and the labels raise.
    """
    audits = [one for one in view.audits(pipeline) if one.discards or one.in_band]
    draws = view.draws(one.number for one in audits)
    said = labels.labelled([one.seq for one in draws]) if labels else {}
    passed = {one.seq: one.time for one in labels.shown(kind="skip") if one.queue in _BY_CHANCE} if labels else {}
    of_audit = {number: list(some) for number, some in groupby(sorted(draws), key=lambda one: one.audit)}
    nights: list[list[_Stratum]] = []
    banded = 0
    for audit in audits:
        banded += audit.in_band
        if audit.discards:
            nights.append(_strata(view, audit, of_audit.get(audit.number, []), said, passed, banded))
    counted, beyond = _counted(nights)
    strata = [stratum for night in counted for stratum in night]
    total = sum(audit.discards for audit in audits)
    known = sum(unanimous(one.label for one in said[seq]) == "keep" for seq in said)
    return _tell(strata, total, len(nights), known, beyond)


def _counted(nights: Sequence[Sequence[_Stratum]]) -> tuple[list[Sequence[_Stratum]], int]:
    """The nights that were looked at far enough, and how many events were found, or are in doubt, in the others.

    Whoever stops at the first event of a night leaves nights without one behind, in which all was looked at. So what
    was found elsewhere counts as if it had been found in these.
    """
    best = max((_looked_share(one) for one in nights), default=0.0)
    counted = [one for one in nights if _looked_share(one) >= _AS_GOOD * best]
    others = [stratum for one in nights if _looked_share(one) < _AS_GOOD * best for stratum in one]
    return counted, sum(event is not False for stratum in others for _, event in stratum.looked)


def _strata(
    view: LedgerView,
    audit: Audited,
    draws: Sequence[Draw],
    said: Mapping[int, list[Label]],
    passed: Mapping[int, str],
    banded: int,
) -> list[_Stratum]:
    """Of one night.

    ``passed``: curve -> when it was passed over; ``banded``: how many discards of its pipeline lay in the band up to
    its end.
    """
    by_chance = {one.seq for one in draws if one.seq in said and _is_by_chance(said[one.seq], one.stratum)}
    times = [label.time for seq in by_chance for label in said[seq]]
    in_doubt = {one.seq for one in draws if one.seq in passed and one.seq not in said}
    by_chance |= in_doubt
    times += [passed[seq] for seq in in_doubt]
    until = _last_before(view, draws, max(times), audit.night) if times else None
    counts: Mapping[Stratum, int] = {
        "score": audit.discards - audit.in_band - audit.disputed,
        "band": audit.in_band,
        "steps": audit.disputed,
    }
    least: Mapping[Stratum, float] = {
        "score": LEAST,
        "band": BAND_SHARE if banded <= BAND_CURVES else LEAST,
        "steps": 1.0,
    }
    found = []
    for name in counts:
        some = [one for one in draws if one.stratum == name and (until is None or one.seq <= until)]
        count = counts[name] if until is None else max((one.place for one in some), default=0)
        looked = tuple((one.probability, _is_event(said.get(one.seq, ()))) for one in some if one.seq in by_chance)
        found.append(_Stratum(count, len(some), least[name], looked))
    return found


def _is_by_chance(labels: Iterable[Label], stratum: Stratum) -> bool:
    return any(one.queue in _BY_CHANCE or (stratum == "steps" and one.queue == _DISPUTES) for one in labels)


def _is_event(labels: Iterable[Label]) -> bool | None:
    word = unanimous([one.label for one in labels] or ["unsure"])
    return None if word == "unsure" else word == "keep"


def _last_before(view: LedgerView, draws: Sequence[Draw], answered: str, night: str) -> int | None:
    """The last draw that was decided when the last answer was given; None where the night was over by then."""
    answered_s = datetime.fromisoformat(answered).timestamp()
    if night_of(answered_s) > night:
        return None
    seqs = sorted(one.seq for one in draws)
    low, high = 0, len(seqs)  # so many are certainly decided by then, so many are not
    while low < high:
        middle = (low + high) // 2
        event = view.decisions([seqs[middle]])[seqs[middle]]
        if datetime.fromisoformat(event["time"]).timestamp() <= answered_s:
            low = middle + 1
        else:
            high = middle
    return None if low == len(seqs) else (seqs[low - 1] if low else 0)


def _looked_share(night: Iterable[_Stratum]) -> float:
    """Of the drawn of a night, but for the disputed: they are looked at in their own time."""
    strata = [one for one in night if one.least < 1] or list(night)
    drawn = sum(one.drawn for one in strata)
    return sum(len(one.looked) for one in strata) / drawn if drawn else 0.0


def _tell(strata: Sequence[_Stratum], total: int, nights: int, known: int, beyond: int = 0) -> Unseen:
    """The numbers.

    ``total``: discards of all nights; ``known``: drawn ones that are confirmed, however looked at; ``beyond``: what was
    found in nights that do not count.
    """
    discards = sum(one.discards for one in strata)
    drawn = sum(one.drawn for one in strata)
    looked = [(chance * one.share, event) for one in strata for chance, event in one.looked]
    weights = [1 / chance for chance, event in looked if event]
    estimate, at_most = None, None
    if looked:
        rest: dict[float, int] = {}
        for one in strata:
            chance = one.least * one.share
            rest[chance] = rest.get(chance, 0) + one.discards - len(one.looked)
        chances, lost = [chance for chance, _ in looked], [event is not False for _, event in looked]
        estimate = lost_estimate(weights)[0]
        chances += [min(chances)] * beyond
        lost += [True] * beyond
        at_most = max(lost_bound(discards + beyond, chances, lost, rest=rest) - beyond, known)
    found, doubts = len(weights), sum(event is None for _, event in looked)
    return Unseen(
        discards=discards,
        drawn=drawn,
        looked_at=len(looked),
        found=found,
        estimate=estimate,
        at_most=at_most,
        nights=nights,
        text=_sentence(discards, drawn, len(looked), found, doubts, estimate, at_most, total - discards),
    )


def _sentence(
    discards: int,
    drawn: int,
    looked: int,
    found: int,
    doubts: int,
    estimate: float | None,
    at_most: int | None,
    left: int,
) -> str:
    if not discards:
        return "no discard of this model and cut is counted yet"
    if at_most is None or estimate is None:
        wait = "waits" if drawn == 1 else "wait"
        waiting = f"{drawn:,} of them {wait} in the queue of discards" if drawn else "none of them was drawn yet"
        return (
            f"nobody has looked at any of {many(discards, 'discard')}, so nothing is known of what is lost; {waiting}"
        )
    told = f"of {many(discards, 'discard')} at most {many(at_most, 'event')} {'was' if at_most == 1 else 'were'} lost"
    how = f"{looked:,} of {drawn:,} drawn looked at, 95 %"
    more = f"; {many(found, 'event')} found, which {'stands' if found == 1 else 'stand'} for about {estimate:,.0f}"
    doubt = f"; {many(doubts, 'curve')} in doubt {'is' if doubts == 1 else 'are'} counted as lost in “at most”"
    rest = (
        f"; {many(left, 'more discard')} {'is' if left == 1 else 'are'} not counted, as hardly any were looked at yet"
    )
    return f"{told} ({how}){more if found else ''}{doubt if doubts else ''}{rest if left else ''}"


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
    if in_all is None or missed is None:
        return told
    return f"{told}; there are at least {many(in_all, 'event')}, and both miss at least {missed:,} of them (90 %)"
