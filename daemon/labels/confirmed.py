"""Confirmed events: curves whose labels all say keep, what was decided on each, and what a network says of it.

Two numbers are kept apart. *Live* is the verdict of the moment, which no later model can change: an event was *shown*
when it was kept or sent to review, and lost when it was discarded. *Now* is what the network and the cut that serve say
of the same curves: by the score of the decision where this network and calibration
made it, else by one that was made later, from the copy that the ledger keeps.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from daemon.formats.afmcurve import unpack
from daemon.formats.base import Unfinished, Unreadable
from daemon.judging import Thresholds, Verdict, verdict_of
from daemon.judging.judge import load_model
from daemon.labels import Labels, Word
from daemon.labels.sessions import Session
from daemon.ledger.numbers import OneSession, YourEvents
from daemon.ledger.view import LedgerView
from deploy.classifier import EngineId, EngineRequest
from deploy.serving import TOLERANCE
from models.bundle import Bundle
from models.certificate import between
from models.metrics import clopper_pearson

_AT_ONCE = 500  # events in memory, of which each takes some kilobytes
_SUREST = 1 - 1e-15  # a score of 1 has no logit


@dataclass(frozen=True, slots=True)
class Confirmed:
    """An event that a person has confirmed. ``margin``: how far its logit may be off, by the engine that made it."""

    seq: int
    logit: float
    margin: float = 0.0


@dataclass(frozen=True, slots=True)
class Said:
    """What a network says of a curve: its score, None where it made none, and the reasons beside it."""

    score: float | None
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AsDecided:
    """A confirmed event as it was decided. ``margin``: how far its logit may be off."""

    seq: int
    verdict: Verdict
    network: str  # as network_of tells it
    said: Said
    margin: float


def network_of(pipeline: str) -> str:
    """Raster, weights and calibration: what a score depends on. Thresholds stand behind."""
    return "|".join(pipeline.split("|")[:3])


def missing_of(have: int, needed: int) -> str | None:
    """How many confirmed events are missing until the network has something to learn, in words; None where none is."""
    return f"{have:,} of {needed:,} confirmed events: {needed - have:,} more" if have < needed else None


def events_of(labels: Labels) -> set[int]:
    """``seq`` of the confirmed events of this ledger. Raises UserError 74 as the labels do."""
    return {seq for seq, said in labels.words().items() if is_event(said.values())}


def is_event(words: Iterable[Word]) -> bool:
    """Whether the words of all raters on a curve confirm an event."""
    return all(word == "keep" for word in words)


def as_decided(view: LedgerView, seqs: Collection[int]) -> list[AsDecided]:
    """The decisions on them, oldest first. Raises UserError 74 where one is damaged."""
    wanted, found = sorted(seqs), []
    for start in range(0, len(wanted), _AT_ONCE):
        for seq, event in sorted(view.decisions(wanted[start : start + _AT_ONCE]).items()):
            data = event["data"]
            said = Said(data["score"], tuple(sys.intern(reason) for reason in data["reasons"]))
            network = sys.intern(network_of(data["pipeline"]))
            found.append(AsDecided(seq, data["verdict"], network, said, _margin(data["engine"])))
    return found


def logits_of(view: LedgerView, seqs: Collection[int], network: Bundle) -> tuple[tuple[Confirmed, ...], int]:
    """The logits of confirmed events by this network, the lowest first, and of how many there is none."""
    name, found, strange = network_of(network.pipeline), [], []
    for one in as_decided(view, seqs):
        if one.network != name:
            strange.append(one.seq)
        elif one.said.score is not None:
            logit = network.calibration.logit(min(one.said.score, _SUREST))
            found.append(Confirmed(one.seq, logit, one.margin))
    anew, unscored = _scored_anew(view, strange, network) if strange else ([], 0)
    return tuple(sorted([*found, *anew], key=lambda one: one.logit)), unscored


def your_events(
    decided: Collection[AsDecided],
    pipeline: str,
    thresholds: Thresholds,
    session: Session | None = None,
    later: Mapping[int, Said] | None = None,
) -> YourEvents:
    """The two numbers, live and now, with exact intervals.

    ``pipeline`` and ``thresholds`` are those that serve; ``later``: what its network said of curves that another one
    decided; ``session``: the one that goes on.
    """
    network, later = network_of(pipeline), later or {}
    now = [one.said if one.network == network else later.get(one.seq) for one in decided]
    scores = [said for said in now if said is not None]
    found = sum(verdict_of(said.score, said.reasons, thresholds) != "discard" for said in scores)
    kept = sum(one.verdict == "keep" for one in decided)
    shown = sum(one.verdict != "discard" for one in decided)
    shown_within, kept_within = _interval(shown, len(decided)), _interval(kept, len(decided))
    low, high = _interval(found, len(scores))
    return YourEvents(
        confirmed=len(decided),
        kept_live=kept,
        shown_live=shown,
        shown_low=shown_within[0],
        shown_high=shown_within[1],
        live_low=kept_within[0],
        live_high=kept_within[1],
        scored_now=len(scores),
        found_now=found,
        low=low,
        high=high,
        session=None if session is None else _of_session(decided, session),
        text=_text(kept, shown, len(decided)),
    )


def _of_session(decided: Iterable[AsDecided], session: Session) -> OneSession:
    its = [one.verdict for one in decided if session.holds(one.seq)]
    low, high = _interval(its.count("keep"), len(its))
    shown = len(its) - its.count("discard")
    return OneSession(confirmed=len(its), shown_live=shown, kept_live=its.count("keep"), low=low, high=high)


def _interval(hits: int, of: int) -> tuple[float | None, float | None]:
    return clopper_pearson(hits, of) if of else (None, None)


def _text(kept: int, shown: int, confirmed: int) -> str:
    if not confirmed:
        return "nobody has confirmed an event yet: label some kept and flagged curves on the review page"
    was = "confirmed event was" if confirmed == 1 else "confirmed events were"
    return (
        f"{shown:,} of {confirmed:,} {was} shown to you live ({between(*clopper_pearson(shown, confirmed))}): "
        f"{kept:,} kept ({between(*clopper_pearson(kept, confirmed))}), {shown - kept:,} for review, "
        f"{confirmed - shown:,} discarded"
    )


def _margin(engine: str) -> float:
    try:
        precision = EngineId.parse(engine).precision
    except ValueError:
        return max(TOLERANCE.values())
    return 0.0 if precision == "fp32" else TOLERANCE[precision]


def _scored_anew(view: LedgerView, seqs: Sequence[int], network: Bundle) -> tuple[list[Confirmed], int]:
    """Events that another model judged, by this one and in single precision, from the ledger's copies."""
    curves = {}
    for seq in seqs:
        copy = view.compact_copy(seq)
        try:
            curves[seq] = unpack(copy or b"")[0]
        except (Unfinished, Unreadable):
            continue
    if not curves:
        return [], len(seqs)
    model = load_model(str(network.folder), EngineRequest("cpu", precision="fp32"))
    found = model.judge(list(curves.values()))
    logits = [Confirmed(seq, one.logit) for seq, one in zip(curves, found, strict=True) if one.logit is not None]
    return logits, len(seqs) - len(curves)
