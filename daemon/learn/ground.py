"""The ground that a cut stands on: confirmed events, the stream that it would thin, and what is in force now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon import __version__
from daemon.common.errors import BAD_DATA, UserError
from daemon.config import Config
from daemon.judging.judge import base_name, choose
from daemon.judging.registry import Promotion, Registry
from daemon.labels import Label, Labels
from daemon.labels.confirmed import Confirmed, is_event, logits_of, network_of
from daemon.labels.raters import Bar, bar
from daemon.labels.sessions import Sessions, Stretches, is_within
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import Event
from models.bundle import BadBundle, Bundle, read
from models.certificate import Certificate
from models.reasons import DOUBTS

#: Decisions of the group that the pile is counted on, the latest ones.
STREAM = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """What the group's latest K decisions would do at any cut; those of another network or calibration are left out."""

    seqs: NDArray[np.int64]  # (K,)
    scores: NDArray[np.float64]  # (K,), NaN where there is none
    is_doubtful: NDArray[np.bool_]  # (K,): reviewed however low it scores
    keep: float

    def __len__(self) -> int:
        return int(self.seqs.size)

    def is_piled(self, cut: float) -> NDArray[np.bool_]:
        """(K,): whether each goes to review at this discard cut, a score."""
        low = (self.scores <= cut) & ~self.is_doubtful
        return np.asarray(~low & ~(self.scores >= self.keep), np.bool_)

    def pile(self, cut: float) -> float:
        """The share that goes to review at this discard cut, a score; 0 of nothing."""
        return float(self.is_piled(cut).mean()) if len(self) else 0.0

    def between(self, old: float, new: float) -> NDArray[np.int64]:
        """``seq`` of those that are reviewed at the old cut and discarded at the new one, the highest score first."""
        inside = (self.scores > old) & (self.scores <= new) & ~self.is_doubtful
        return self.seqs[inside][np.argsort(-self.scores[inside], kind="stable")]


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """All that a proposal rests on."""

    base: Bundle  # the configured model, in whose place a cut is promoted
    network: Bundle  # whose scores these are: the base, or what was promoted with other weights or calibration
    promotion: Promotion | None  # what holds in the place of the base
    own: float  # the discard cut of the network by itself
    old: float  # the one in force
    group: str
    words: Mapping[int, Sequence[Label]]  # of this group's decisions
    events: tuple[Confirmed, ...]  # of this group, whatever cut they lie at
    unscored: int  # confirmed events that this network has not scored, and whose copies are gone
    bar: Bar
    goes_on: bool  # whether the curves that come now are of this group; else its session has ended
    withdrawn: tuple[int, ...]  # events that the cut in force rests on, and that people do not confirm any more
    passed_over: str | None  # why something that was promoted does not serve
    waiting: tuple[int, ...] = ()  # curves to be looked at first, of the cut in force, on which nobody has said a word

    def logit(self, cut: float) -> float:
        return self.network.calibration.logit(cut)

    @property
    def above(self) -> tuple[Confirmed, ...]:
        """Confirmed events that the cut in force does not discard."""
        return tuple(one for one in self.events if one.logit > self.logit(self.old))

    @property
    def in_band(self) -> tuple[Confirmed, ...]:
        """Confirmed events that the network by itself would have shown to a person, and the cut in force discards."""
        return tuple(one for one in self.events if self.logit(self.own) < one.logit <= self.logit(self.old))

    @property
    def below(self) -> tuple[Confirmed, ...]:
        """Confirmed events that the network by itself discards."""
        return tuple(one for one in self.events if one.logit <= self.logit(self.own))


def survey(config: Config, view: LedgerView, labels: Labels) -> Ground:
    """What is known of the present session group. Raises UserError 65 where a model, 74 where labels cannot be read."""
    registry, sessions = Registry(config.state / "models"), Sessions(labels)
    group = sessions.group(sessions.present())
    name = base_name(config)
    try:
        base = read(registry.find(name))
        chosen = choose(name, registry.models, config.thresholds, group)
        if chosen.is_broken:
            raise BadBundle(f"{chosen.passed_over}; take it back with: models rollback")
    except BadBundle as error:
        raise UserError(BAD_DATA, f"model {name}: {error}") from error
    promotion, held = chosen.promotion, chosen.bundle or base
    network, own = base, base.discard
    if (band := held.manifest.thresholds.band) is not None:
        own = band[0]
    elif promotion is not None:  # by hand, with a cut that is its maker's
        own = held.discard
    if network_of(held.pipeline) != network_of(base.pipeline):
        network = held
    within = sessions.seqs_of(group)
    words = {seq: said for seq, said in labels.labelled().items() if is_within(seq, within)}
    sure = {seq for seq, said in words.items() if is_event(one.label for one in said)}
    events, unscored = logits_of(view, sure, network)
    evidence = held.manifest.thresholds.evidence
    is_ours = evidence.get("ledger") == view.stream
    withdrawn = tuple(seq for seq in evidence.get("confirmed", ()) if seq not in sure) if is_ours else ()
    waiting = tuple(seq for seq in evidence.get("look_first", ()) if seq not in words) if is_ours else ()
    return Ground(
        base=base,
        network=network,
        promotion=promotion,
        own=own,
        old=held.discard,
        group=group,
        words=words,
        events=events,
        unscored=unscored,
        bar=bar(labels),
        goes_on=sessions.group(sessions.current()) == group,
        withdrawn=withdrawn,
        passed_over=chosen.passed_over,
        waiting=waiting,
    )


def let_serve(
    registry: Registry,
    ground: Ground,
    name: str,
    cut: float,
    evidence: Mapping[str, Any],
    *,
    why: str,
    by: str,
    certificate: Certificate | None = None,
) -> Promotion:
    """Let a child model of the network, with this cut and its evidence, serve the group that the ground is of.

    ``name`` follows from what it is: who is killed before the promotion finds it made already. Raises UserError 65, and
    nothing has moved, where it may not serve; OSError where the state takes no file.
    """
    try:
        try:
            read(registry.models / name)
        except BadBundle:
            registry.write_cut(ground.network, name, cut, evidence, certificate, code_version=__version__)
    except BadBundle as error:
        raise UserError(BAD_DATA, f"{error}; nothing was moved") from error
    return promote(registry, ground, name, why=why, by=by)


def promote(registry: Registry, ground: Ground, model: str | Bundle, *, why: str, by: str) -> Promotion:
    """Let a model, by name or as it was read, serve the group that the ground is of.

    Raises UserError 65, and nothing has moved, where it may not serve, or where the folder of a model that was read
    holds another one by now; OSError where the state takes no file.
    """
    try:
        name = registry.keep(model) if isinstance(model, Bundle) else model
        promotion = registry.promote(name, base=ground.base, group=ground.group, why=why, by=by)
        if ground.goes_on and registry.group() != ground.group:  # no service has seen the session begin
            registry.turn_to(ground.group, by=by)
    except BadBundle as error:
        raise UserError(BAD_DATA, f"{error}; nothing was moved") from error
    return promotion


def overridden(config: Config, last: Sequence[Event]) -> str | None:
    """Whether the laboratory has fixed the cut itself, in words; None where it has not.

    What was not told of a configuration asks the last decision, of which ``last`` consists.
    """
    fixed, origins = config.thresholds.discard, [one["data"].get("cut", {}).get("origin") for one in last]
    if fixed is not None:
        where = f"[thresholds] discard = {fixed:g} of the configuration"
    elif config.file is None and origins == ["configured"]:
        where = "the running service is configured with a [thresholds] discard, which"
    else:
        return None
    return f"{where} overrides every cut: remove it, then come again"


def taken_back(registry: Registry, group: str) -> str | None:
    """How the last promotion of a group was taken back, where nothing was promoted since: a timer leaves it so."""
    last = registry.taken_back(group)
    return f"{last.by} took the last promotion back, {last.why}" if last else None


def stream_of(view: LedgerView, within: Stretches, network: Bundle, keep: float, highest: float) -> Stream:
    """The latest decisions of these sessions by this network; doubts are looked up of what scores up to ``highest``."""
    name, parts, left = network_of(network.pipeline), [], STREAM
    for first, last in reversed(within):
        if left > 0:
            parts.append(view.stream_scores(first - 1, last, left))
            left -= len(parts[-1].seqs)
    if not parts:
        return Stream(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.bool_), keep)
    seqs, scores, verdicts, pipelines = (np.concatenate([part[place] for part in parts]) for place in range(4))
    ours = np.array([network_of(one) == name for one in pipelines], np.bool_)
    seqs, scores = seqs[ours], scores[ours]
    is_doubtful = np.array(verdicts[ours] == "review", np.bool_) & (scores <= highest)
    asked = seqs[is_doubtful].tolist()
    told = view.decisions(asked)
    is_doubtful[is_doubtful] = [bool(DOUBTS.intersection(told[seq]["data"]["reasons"])) for seq in asked]
    return Stream(seqs, scores, is_doubtful, keep)
