"""The adaptation: confirmed events move the discard cut of a session group, by the ladder of models.calibrate.

``propose`` looks and moves nothing; ``accept`` makes a child model of the base, with its own cut, and promotes it;
``audit`` takes a cut back that discards an event which a person has confirmed. The cut only rises here; that it should
fall is said in words.

``certify`` makes a child of its own: what the events of a blind sheet promise about all events, put into the model that
serves. A uniform sheet is a fair sample of all that was decided, so its confirmed events are one of all events. The
exact rule of models/certificate.py takes their logits: whatever cut lies below the limit that they set loses at most so
many. It holds for the session group that the sheet was drawn from, and for a cut that is in force already or is raised
later, as long as that lies below the limit.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from daemon.common.errors import BAD_DATA, UserError
from daemon.common.text import many
from daemon.config import Config
from daemon.judging import audit as discards
from daemon.judging.loss import SimulatedLoss
from daemon.judging.registry import SERVING, Promotion, Registry
from daemon.labels import Labels
from daemon.labels.sessions import Sessions
from daemon.labels.sheets import Progress, Sheets
from daemon.learn.ground import Ground, Stream, let_serve, overridden, stream_of, survey
from daemon.ledger.view import LedgerView
from deploy.classifier import EngineId
from models.bundle import CONFIRMED, BadBundle, read
from models.calibrate import FEWEST, MISSES, Rung, Step, climb, score_up_to
from models.certificate import (
    CONFIDENCE,
    MAX_MISS,
    Certificate,
    Experiment,
    discard_limit,
    miss_bound,
    misses_allowed,
    percent_up,
)
from models.clock import utc_now
from models.gate import LEAST_GAIN

#: Curves between the old and the new cut that are looked at first: those most like an event.
LOOK_FIRST = 12
#: As the history of models calls what a cut rests on.
_RULES: Mapping[Rung, str] = {
    "shipped": "too few to move it",
    "provisional": "a forecast from few",
    "exact": "enough for the exact promise",
}


@dataclass(frozen=True, slots=True)
class Proposal:
    """Where the ladder would put the cut now, and what that would do. Cuts are scores, piles shares of the stream."""

    rung: Rung
    group: str  # of the sessions that it is for; "" where none names a sample
    events: int  # confirmed, above the present cut
    needed: int  # more of them earn the next rung
    old: float  # the discard cut in force
    new: float  # the same where nothing moves
    miss: float  # the chance that the next event like these lies below the new cut
    stream: int  # decisions that the piles are counted on
    pile_before: float
    pile_after: float
    between: int  # curves of the stream between both cuts
    look_first: tuple[int, ...]  # seq; nobody has said a word of them. Where nothing moves: those of the cut in force
    confirmed: tuple[int, ...]  # seq of the events that it rests on
    withdrawn: tuple[int, ...]  # seq of events that the cut in force rests on, and that are none any more
    simulated_loss: float | None  # share of simulated events that the new cut discards; None: not counted yet
    missing: tuple[str, ...] = ()  # what is in the way, a sentence each; empty: it may move
    sentences: tuple[str, ...] = ()  # all of it in words

    @property
    def moves(self) -> bool:
        """Whether a person may accept it."""
        return self.new > self.old and not self.missing


def propose(config: Config, miss: float = MISSES[0], *, is_watched: bool = False, counts: bool = False) -> Proposal:
    """What the labels of the state would do to the cut of the present session group. Moves nothing.

    ``miss``: what the provisional rule may lose. ``is_watched``: it is asked again and again, so that an exact promise
    needs more events. ``counts``: the simulated loss of a cut that may move, too, which takes some seconds the first
    time. Raises UserError 69 where there is no ledger, 74 where ledger or labels cannot be read, 65 where the model
    cannot.
    """
    with ExitStack() as closing:
        view, labels = _open(config, closing)
        ground = survey(config, view, labels)
        network, above = ground.network, ground.above
        keep = network.keep if config.thresholds.keep is None else config.thresholds.keep
        ceiling = min([ground.logit(keep), *(one.logit - one.margin for one in above)])
        logits, old = [one.logit for one in above], ground.logit(ground.old)
        step = climb(old, logits, miss, is_watched=is_watched, ceiling=ceiling)
        new = ground.old if step.logit <= old else score_up_to(network.calibration, step.logit, keep)
        stream = stream_of(view, Sessions(labels).seqs_of(ground.group), network, keep, new)
        last = view.last(1)
    between = stream.between(ground.old, new).tolist()
    first = tuple(seq for seq in between[:LOOK_FIRST] if seq not in ground.words)
    proposal = Proposal(
        rung=step.rung,
        group=ground.group,
        events=step.events,
        needed=step.needed,
        old=ground.old,
        new=new,
        miss=MAX_MISS if step.rung == "exact" else miss,
        stream=len(stream),
        pile_before=stream.pile(ground.old),
        pile_after=stream.pile(new),
        between=len(between),
        look_first=first if new > ground.old else ground.waiting,
        confirmed=tuple(sorted(one.seq for one in above)),
        withdrawn=ground.withdrawn,
        simulated_loss=None,
    )
    said = [] if (fixed := overridden(config, last)) is None else [fixed]
    proposal = replace(proposal, missing=(*said, *_objections(proposal, ground)))
    simulated = SimulatedLoss(config.state, network)
    loss = simulated.count() if counts and proposal.moves else simulated.counted()
    before = None if loss is None else loss.at(ground.logit(ground.own))
    proposal = replace(proposal, simulated_loss=None if loss is None else loss.at(ground.logit(new)))
    return replace(proposal, sentences=tuple(_sentences(proposal, ground, step, stream, before)))


def _open(config: Config, closing: ExitStack) -> tuple[LedgerView, Labels]:
    view = closing.enter_context(LedgerView(config.ledger_file))
    return view, closing.enter_context(Labels(config.state / "labels.sqlite"))


def accept(config: Config, proposal: Proposal, by: str) -> Promotion:
    """Make the child model of a proposal and let it serve. Some seconds the first time, for the simulated loss.

    Raises UserError 65, and nothing has moved, where something is in the way, or has changed since it was proposed;
    OSError where the state takes no file.
    """
    if not proposal.moves:
        raise UserError(BAD_DATA, f"the cut stays: {proposal.missing[0] if proposal.missing else 'it is in force'}")
    registry = Registry(config.state / "models")
    with ExitStack() as closing:
        view, labels = _open(config, closing)
        ground, ledger = survey(config, view, labels), view.stream
    crossed = [one for one in ground.events if ground.logit(ground.old) < one.logit <= ground.logit(proposal.new)]
    is_less = not {one.seq for one in ground.events}.issuperset(proposal.confirmed)
    if ground.group != proposal.group or ground.old != proposal.old or crossed or is_less:
        raise UserError(
            BAD_DATA, "the cut stays: labels, cut or session have changed since this was proposed; adapt again"
        )
    network, loss = ground.network, SimulatedLoss(config.state, ground.network).count()
    evidence = {
        "basis": CONFIRMED,
        "events": proposal.events,
        "band": [ground.own, proposal.new],
        "group": proposal.group,
        "rung": proposal.rung,
        "miss": proposal.miss,
        "stream": proposal.stream,
        "pile": [proposal.pile_before, proposal.pile_after],
        "between": proposal.between,
        "simulated_loss": loss.at(ground.logit(proposal.new)),
        "simulated_loss_of_own_cut": loss.at(ground.logit(ground.own)),
        "ledger": ledger,
        "confirmed": list(proposal.confirmed),
        "look_first": list(proposal.look_first),
    }
    what = json.dumps([network.id, proposal.new, proposal.group, proposal.confirmed])
    name = f"cut-{hashlib.sha256(what.encode()).hexdigest()[:8]}"
    why = f"{proposal.events} confirmed events, {_RULES[proposal.rung]}"
    return let_serve(registry, ground, name, proposal.new, evidence, why=why, by=by)


@dataclass(frozen=True, slots=True)
class TakenBack:
    """A cut that did not hold: events were confirmed that it discards."""

    id: str  # of the model that was taken back
    seqs: tuple[int, ...]  # the events
    holds: Promotion | None  # in its place from now on; None: the base
    text: str  # one sentence


def audit(config: Config, by: str = "audit") -> TakenBack | None:
    """Take back what discards an event that a person has confirmed; None where nothing does. Quick where nothing moved.

    Raises as :func:`propose`.
    """
    registry, taken = Registry(config.state / "models"), None
    if not (registry.models / SERVING).is_file():
        return None
    try:
        while True:
            with ExitStack() as closing:
                ground = survey(config, *_open(config, closing))
            found = ground.in_band
            if ground.promotion is None or not found:
                return taken
            numbers = ", ".join(str(one.seq) for one in found[:5])
            what = f"events {numbers} were" if len(found) > 1 else f"event {numbers} was"
            text = f"{what} confirmed between the model's own cut and the raised one, which is taken back"
            held, base_id = ground.promotion.id, ground.base.id
            after = registry.rollback(by, text, group=ground.group, base_id=base_id, only=held)
            taken = TakenBack(held, tuple(one.seq for one in found), after, text)
    except BadBundle as error:
        raise UserError(BAD_DATA, str(error)) from error


# In words.


def _objections(proposal: Proposal, ground: Ground) -> Iterator[str]:
    """What keeps the cut where it is, by the labels and the stream."""
    if ground.bar.blocks:
        yield ground.bar.text
    if proposal.events < FEWEST:
        have = f"{_events(proposal.events, 'lie')} above the cut in force"
        yield f"{have}: {FEWEST} are the fewest that say anything, so {proposal.needed} more"
    elif proposal.new <= proposal.old:
        where = "your confirmed events have put it there" if ground.old > ground.own else "no higher one is safe"
        yield f"{where}: with more left out of review, events as weak as the weakest of yours would be lost"
    elif not proposal.stream:
        yield "this model has decided no curve of this session group yet"
    elif (gain := proposal.pile_before - proposal.pile_after) < LEAST_GAIN - 1e-9:
        at_least = f"for less than {100 * LEAST_GAIN:g} the cut is not moved"
        yield f"only {100 * gain:.1f} points less of all curves would go to review: {at_least}"


def _sentences(p: Proposal, ground: Ground, step: Step, stream: Stream, loss_of_base: float | None) -> Iterator[str]:
    """The forecast, the evidence and what comes after; where nothing moves, why, and what would be."""
    whose = f' of "{p.group}"' if p.group else ""
    yield from (f"the cut stays at {p.old:.4g}{whose}: {why}" for why in p.missing[:1])
    yield from p.missing[1:]
    if p.new > p.old:
        verb = "falls" if p.moves else "would fall"
        looks = f", {len(p.look_first)} to look at first" if p.look_first else ""
        yield (
            f"the pile{whose}, the share that goes to review, {verb} from {100 * p.pile_before:.0f}"
            f" to {100 * p.pile_after:.0f} % of {p.stream:,} curves; {p.between:,} curves between old and new cut"
            f" ({p.old:.4g} and {p.new:.4g}){looks}"
        )
        yield _rule(p, step)
        if p.rung == "exact" and all(one.logit >= ground.logit(ground.network.keep) for one in ground.above):
            yield "all of these events were kept: of weaker ones they say little, so look at curves in review too"
        if p.simulated_loss is not None and loss_of_base is not None:
            own = f"the model's own cut {100 * loss_of_base:.1f} %"
            yield f"of simulated events it discards {100 * p.simulated_loss:.1f} %, {own}: for information only"
        yield (
            f"afterwards {100 * discards.BAND_SHARE:g} % of the first {discards.BAND_CURVES} discards between both cuts"
            " come into the discards queue; an event that is confirmed there takes the cut back"
        )
    if p.rung == "provisional":
        yield next_rung_of(p)
    if not ground.bar.blocks and p.events:
        yield ground.bar.text
    if ground.unscored:
        them = "it" if ground.unscored == 1 else "them"
        yield f"{_events(ground.unscored, 'count')} for nothing: another model judged {them}, and no copy is kept"
    if p.withdrawn:
        yield withdrawn_of(p)
    if ground.passed_over:
        yield ground.passed_over
    yield from _advice(p, ground, stream)


def _events(count: int, verb: str, what: str = "confirmed event") -> str:
    """``1 confirmed event lies``, ``2 confirmed events lie``."""
    return f"{many(count, what)} {verb}" + ("s" if count == 1 else "")


def next_rung_of(proposal: Proposal) -> str:
    """What is to be said of events on the provisional rung: how many more of them earn the exact one."""
    promise = f"the {100 * MAX_MISS:g} % promise for events above the cut in force"
    return f"{_events(proposal.needed, 'earn', 'more confirmed event')} {promise}"


def withdrawn_of(proposal: Proposal) -> str:
    """What is to be said of events that were taken back; the cut itself stays until a person takes it back."""
    numbers = ", ".join(map(str, proposal.withdrawn[:5]))
    is_one = len(proposal.withdrawn) == 1
    lost = f"event {numbers} is" if is_one else f"events {numbers} are"
    return f"the cut in force rests on what is confirmed no more ({lost} taken back): look again, or models rollback"


def _rule(p: Proposal, step: Step) -> str:
    if p.rung == "exact":
        promise = f"at most {percent_up(MAX_MISS)} of the events above the old cut are missed, {CONFIDENCE:.0%} sure"
        below = "weaker ones show only in the discards queue"
        return f"{p.events} confirmed events, none of them below it: {promise}; {below}"
    held = (
        "the lowest of them, or keep, holds it" if step.is_capped else f"{100 * p.miss:g} % of such events lie below it"
    )
    return f"it rests on {p.events} confirmed events; {held}, and none of them is newly lost"


def _advice(p: Proposal, ground: Ground, stream: Stream) -> Iterator[str]:
    """Downwards the cut is a person's to move."""
    lost = ground.below
    if not lost:
        return
    score = float(ground.network.calibration.score(np.array([lost[0].logit]))[0])
    wanted = math.floor(1e6 * score) / 1e6
    cost = stream.pile(wanted) - stream.pile(ground.own)
    yield (
        f"{_events(len(lost), 'lie')} below the model's own cut: [thresholds] discard = {wanted:g} would show all"
        f" such to a person, and {100 * cost:.0f} points more of all curves would go to review"
    )


# The certificate of a blind sheet.


@dataclass(frozen=True, slots=True)
class Certified:
    """What a sheet has come to: ``promotion`` is of the model that carries its certificate; None, and why not."""

    sheet: int
    promotion: Promotion | None
    text: str  # one sentence without its full stop


def certify(config: Config, by: str) -> Certified | None:
    """Put what the last finished sheet of the present group has earned into the model; None where it is there already.

    A certificate that the answers of its sheet do not earn any more is taken back.
    Raises UserError 69 where there is no ledger, 74 where ledger or labels cannot be read, 65 where the model cannot
    or takes no certificate; OSError where the state takes no file.
    """
    registry = Registry(config.state / "models")
    with ExitStack() as closing:
        view = closing.enter_context(LedgerView(config.ledger_file))
        labels = closing.enter_context(Labels(config.state / "labels.sqlite"))
        sheets = Sheets(labels)
        uniform = [one for one in sheets.all() if one.kind == "uniform"]
        if not uniform:
            return None
        ground = survey(config, view, labels)
        of_group = [sheets.progress(one, view) for one in reversed(uniform) if one.sample == ground.group]
        progress = next((one for one in of_group if one.is_done), None)
        held = None if ground.promotion is None else read(registry.folder_of(ground.promotion)).certificate
        carried = next((one for one in of_group if held is not None and _name(one) in held.experiments), None)
        events = view.decisions(progress.confirmed) if progress is not None else {}
        if carried is not None and not ground.bar.blocks:
            why = _earned(carried, ground, view.decisions(carried.confirmed)) if carried.is_done else "it is open again"
            if isinstance(why, str):
                return _taken_back(registry, carried, ground, why, by)
    if progress is None or progress is carried:
        return None
    number = progress.sheet.number
    certificate = _earned(progress, ground, events)
    if isinstance(certificate, str):
        return Certified(number, None, f"{progress.sheet.name} earns no certificate: {certificate}")
    evidence = {
        "basis": CONFIRMED,
        "events": certificate.events,
        "group": ground.group,
        "sheet": number,
        "decided": progress.sheet.decided,
        "confirmed": list(progress.confirmed),
        **({"band": [ground.own, ground.old]} if ground.own < ground.old else {}),
    }
    name, why = _model_name(ground, evidence), certificate.sentence()
    promotion = let_serve(registry, ground, name, ground.old, evidence, why=why, by=by, certificate=certificate)
    return Certified(number, promotion, f"{progress.sheet.name}: {certificate.sentence()}; {promotion.id} carries that")


def _taken_back(registry: Registry, progress: Progress, ground: Ground, why: str, by: str) -> Certified:
    """Answers were changed, and what the sheet has promised is a promise no more."""
    assert ground.promotion is not None  # it carries the certificate
    text = f"the certificate of {progress.sheet.name} is taken back, its answers were changed: {why}"
    try:
        after = registry.rollback(by, text, group=ground.group, base_id=ground.base.id, only=ground.promotion.id)
    except BadBundle as error:
        raise UserError(BAD_DATA, str(error)) from error
    serves = f"{after.id if after else ground.base.id} serves"
    return Certified(progress.sheet.number, None, f"{text}; {serves}")


def _name(progress: Progress) -> str:
    """The experiment that the certificate names."""
    sheet = progress.sheet
    return f"{sheet.sample or 'sessions without a sample'}, sheet {sheet.number}"


def _model_name(ground: Ground, evidence: Mapping[str, Any]) -> str:
    what = json.dumps([ground.network.id, ground.old, evidence])
    return f"sheet-{evidence['sheet']}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"


def _earned(progress: Progress, ground: Ground, events: Mapping[int, Mapping[str, Any]]) -> Certificate | str:
    """The certificate for the cut in force, or why there is none."""
    if ground.bar.blocks:
        return ground.bar.text
    scored = {one.seq: one for one in ground.events}
    # What has no score is looked at, whatever the cut: it is left out, and fewer events promise less.
    lacking = [seq for seq, event in events.items() if seq not in scored and event["data"]["score"] is not None]
    if lacking:
        return f"raters differ on {len(lacking)} of its events, or no copy is left to score them: `labels disagree`"
    logits = [scored[seq].logit - scored[seq].margin for seq in events if seq in scored]
    limit, allowed = discard_limit(logits, MAX_MISS, CONFIDENCE), misses_allowed(len(logits), MAX_MISS, CONFIDENCE)
    if limit is None or allowed is None:
        return f"{len(logits)} events are too few to promise at most {100 * MAX_MISS:g} % missed"
    cut = ground.logit(ground.old)
    if not cut < limit:
        return f"the cut in force discards {sum(one <= cut for one in logits)} of its {len(logits)} events"
    missed = sum(one <= cut for one in logits)
    said = json.dumps([[seq, "keep"] for seq in progress.confirmed])
    engines = [str(event["data"]["engine"]) for event in events.values()]
    return Certificate(
        max_miss=MAX_MISS,
        confidence=CONFIDENCE,
        bound=miss_bound(len(logits), allowed, CONFIDENCE),
        events=len(logits),
        missed=missed,
        allowed=allowed,
        limit_logit=limit,
        experiments={_name(progress): Experiment(len(logits), missed, hashlib.sha256(said.encode()).hexdigest())},
        weights_sha256=ground.network.weights_sha256,
        engine=next((one for one in engines if not _is_exact(one)), engines[0]),
        made=utc_now("seconds"),
    )


def _is_exact(engine: str) -> bool:
    try:
        return EngineId.parse(engine).precision == "fp32"
    except ValueError:
        return False
