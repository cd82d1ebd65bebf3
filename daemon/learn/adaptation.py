"""The adaptation: confirmed events move the discard cut of a session group, under the ladder's guards (models.cut).

``propose`` looks and moves nothing; ``accept`` makes a child model of the base, with its own cut, and promotes it;
``audit`` takes a cut back that discards an event which a person has confirmed. The cut only rises here; that it should
fall is said in words.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from daemon.common.errors import BAD_DATA, UserError
from daemon.common.text import many
from daemon.config import Config
from daemon.judging import audit as discards
from daemon.judging.loss import SimulatedLoss
from daemon.judging.registry import SERVING, Promotion, Registry
from daemon.labels import Labels
from daemon.labels.sessions import Sessions
from daemon.learn.ground import Ground, Stream, let_serve, overridden, stream_of, survey
from daemon.ledger.view import LedgerView
from models.bundle import CONFIRMED, BadBundle
from models.calibrate import score_up_to
from models.certificate import CONFIDENCE, MAX_MISS, percent_up
from models.cut import FEWEST, LEAST_GAIN, MISSES, Rung, Step, climb

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
    view = closing.enter_context(LedgerView(config.state / "ledger.sqlite"))
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
        is_theirs = ground.old > ground.own
        where = "is where these events put it" if is_theirs else "is as high as these events allow"
        yield f"the cut in force {where}"
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
