"""The calibration on labels of real curves: probabilities, both thresholds, and the certificate that they earn.

Why the promise holds although the same labels serve for all of it (deploy/decisions, "What a certificate promises"):
discarded is what lies below a logit that exact counting allows on events the network was not taught with. Temperature,
bias and keep threshold do not change which curves those are, and a lower threshold only discards fewer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from daemon import __version__
from daemon.common.errors import BAD_DATA, UserError
from daemon.judging import Thresholds
from daemon.learn.evidence import UNSURE, Exhibits, count_verdicts, judge_across, judge_probabilities
from models.bundle import Bundle, Calibration, Weights, write
from models.calibrate import HIGHEST, KeepRule, choose_discard, choose_keep, fit_platt, prior_of, share_between
from models.card import describe
from models.certificate import (
    Certificate,
    Experiment,
    discard_limit,
    events_needed,
    miss_bound,
    misses_allowed,
    percent_up,
    round_up,
)
from models.metrics import auc, clopper_pearson


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for."""

    max_miss: float = 0.05
    confidence: float = 0.95
    prevalence: float | None = None  # of events in the stream; None: as the model has it
    keep: KeepRule = field(default_factory=KeepRule)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the labels have earned."""

    calibration: Calibration
    thresholds: Thresholds
    certificate: Certificate
    evidence: Mapping[str, Any]


def calibrate(exhibits: Exhibits, bundle: Bundle, engine: str, wish: Wish) -> Outcome:
    """UserError (65) when one class is missing, or when these events do not allow the promise."""
    limit = _limit(exhibits, wish)
    prevalence = wish.prevalence or bundle.calibration.prevalence
    prior = prior_of(bundle.calibration)
    calibration = fit_platt(exhibits.logits, exhibits.events, prevalence, prior)
    scores = calibration.score(exhibits.logits)
    lowest_saved = float(calibration.score(np.array([limit]))[0])
    discard = choose_discard(scores, exhibits.events, lowest_saved)
    keep = choose_keep(scores, exhibits.events, prevalence, discard, wish.keep)
    certificate = _certify(exhibits, scores <= discard, limit, bundle, engine, wish)
    thresholds = Thresholds(discard, keep)
    as_it_was = bundle.calibration.score(exhibits.logits) <= bundle.discard
    evidence = {
        **count_verdicts(exhibits, scores, thresholds),
        "basis": f"labels of {len(certificate.experiments)} experiments",
        "discard_rule": f"missing at most {percent_up(certificate.bound)}, {100 * wish.confidence:.6g} % sure",
        "keep_rule": wish.keep.words(prevalence),
        "review_share": share_between(scores, exhibits.events, prevalence, discard, keep),
        "auc": auc(scores, exhibits.events),
        "set_aside": dict(exhibits.set_aside),
        "discarded_before": int(as_it_was.sum()),
        "across": judge_across(exhibits, wish.max_miss, wish.confidence),
        **judge_probabilities(exhibits, prevalence, prior),
    }
    return Outcome(calibration, thresholds, certificate, evidence)


def write_model(folder: Path, bundle: Bundle, outcome: Outcome) -> Bundle:
    """The same weights with what the labels have earned, as one act; its parent is the model that was calibrated."""
    manifest = {name: value for name, value in bundle.manifest.items() if name not in ("format", "sha256")}
    calibration = outcome.calibration
    manifest |= {
        "name": folder.name,
        "created": outcome.certificate.made,
        "parent": bundle.id,
        "code_version": __version__,
        "calibration": {
            "temperature": calibration.temperature,
            "bias": calibration.bias,
            "prevalence": calibration.prevalence,
            "basis": outcome.evidence["basis"],
        },
        "thresholds": {
            "discard": outcome.thresholds.discard,
            "keep": outcome.thresholds.keep,
            "evidence": dict(outcome.evidence),
        },
        "score_basis": "labels",
        "certificate": outcome.certificate.to_mapping(),
    }
    weights: Weights = bundle.weights
    return write(folder, weights, manifest, describe(manifest))


def _limit(exhibits: Exhibits, wish: Wish) -> float:
    """The logit that everything discarded stays below; UserError where the labels allow no such promise."""
    limit = discard_limit(exhibits.logits[exhibits.events], wish.max_miss, wish.confidence)
    if limit is None or exhibits.events.all():
        raise UserError(BAD_DATA, f"{_refusal(exhibits, wish, is_earned=limit is not None)}; nothing was written")
    return limit


def _refusal(exhibits: Exhibits, wish: Wish, *, is_earned: bool) -> str:
    """What is missing, and what could be promised instead."""
    count = int(exhibits.events.sum())
    aside = ", ".join(f"{number} {why}" for why, number in exhibits.set_aside.items() if why != UNSURE)
    labels = f"the labels hold {count} events that count" + (f" (not counted: {aside})" if aside else "")
    asked = f"at most {100 * wish.max_miss:g} % missed, {100 * wish.confidence:.6g} % sure"
    if is_earned:
        missing = "but probabilities and the keep threshold need curves of both kinds; label event-free ones too"
        return f"{labels} and no curve labelled discard: {asked} could be promised, {missing}"
    needed = f"{asked} needs {events_needed(wish.max_miss, wish.confidence)} events; {labels}"
    bound = miss_bound(count, 0, wish.confidence)
    return (
        f"{needed}: they can promise at most {percent_up(bound)} (--max-miss {round_up(bound):g})" if count else needed
    )


def _certify(exhibits: Exhibits, is_below: Any, limit: float, bundle: Bundle, engine: str, wish: Wish) -> Certificate:
    """Floors are not counted in the promise's favour: an event below the threshold is missed, whatever its reasons."""
    events, missed = exhibits.events, exhibits.events & is_below
    count = int(events.sum())
    allowed = misses_allowed(count, wish.max_miss, wish.confidence) or 0
    experiments = {
        str(name): Experiment(
            events=int((events & (exhibits.experiments == name)).sum()),
            missed=int((missed & (exhibits.experiments == name)).sum()),
            labels_sha256=exhibits.tables[str(name)],
        )
        for name in np.unique(exhibits.experiments[events])
    }
    return Certificate(
        max_miss=wish.max_miss,
        confidence=wish.confidence,
        bound=miss_bound(count, allowed, wish.confidence),
        events=count,
        missed=int(missed.sum()),
        allowed=allowed,
        limit_logit=limit,
        experiments=experiments,
        weights_sha256=bundle.manifest["sha256"]["weights.safetensors"],
        engine=engine,
        made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


# ---- A calibration in words: what is promised and by which curves, what it costs, and what was set aside.


def write_text(outcome: Outcome) -> str:
    """Lines for a terminal."""
    return "\n".join([*_promise(outcome.certificate), *_doubt(outcome), *_cost(outcome)])


def _promise(certificate: Certificate) -> Iterator[str]:
    yield certificate.sentence()
    yield "it holds for curves like those of the experiments named here:"
    width = max(map(len, certificate.experiments))
    for name, part in sorted(certificate.experiments.items()):
        alone = percent_up(miss_bound(part.events, part.missed, certificate.confidence))
        yield f"  {name:<{width}}  {part.events} events, {part.missed} missed; by themselves at most {alone}"
        surely = clopper_pearson(part.missed, part.events, 2 * certificate.confidence - 1)[0]
        if surely > certificate.bound:
            yield f"  ▲ {name} is worse than promised for all: at least {surely:.1%} are missed there"


def _doubt(outcome: Outcome) -> Iterator[str]:
    """Who labels only what a model has flagged never sees the events that it discarded."""
    if not outcome.evidence["discarded_before"]:
        yield "▲ none of these curves would have been discarded by the model as it was: if only flagged curves were"
        yield "  labelled, the promise does not hold; label curves that were drawn without a look at the verdict"


def _cost(outcome: Outcome) -> Iterator[str]:
    evidence, thresholds, calibration = outcome.evidence, outcome.thresholds, outcome.calibration
    free, gone = evidence["event_free"], evidence["event_free_discarded"]
    low, high = evidence["event_free_discarded_interval"]
    share = f"{gone / free:.1%}, exact 95 % interval {low:.1%} to {high:.1%}"
    yield f"discard up to {thresholds.discard:.4g}: {gone} of {free} event-free curves are discarded ({share})"
    low, high = evidence["event_free_kept_interval"]
    taken = f"{evidence['event_free_kept']} of {free} event-free curves are kept (exact 95 % interval up to {high:.1%})"
    if thresholds.keep >= HIGHEST:
        yield "keep: no score is that sure; what is not discarded goes to review"
    else:
        yield f"keep from {thresholds.keep:.4g}: by these labels {evidence['keep_rule']}; {taken}"
    yield _of_events(evidence)
    yield f"of a stream with {100 * calibration.prevalence:g} % events {evidence['review_share']:.1%} goes to review"
    worth = f"temperature {calibration.temperature:.4g}, bias {calibration.bias:.4g}"
    if evidence["ece"] is None:
        yield f"probabilities: {worth}; how good they are on another experiment cannot be told from these labels"
    else:
        skill = evidence["brier_skill"]
        yield (
            f"probabilities: {worth}; each experiment judged by a fit on the others: calibration error"
            f" {evidence['ece']:.4f}, Brier skill {skill:.2f}"
        )
    if across := evidence["across"]:
        tried = f"{across['missed']} of {across['events']} events would be missed"
        yield f"for a next experiment: certified on the other experiments alone, {tried}"
    if aside := evidence["set_aside"]:
        yield "not counted: " + ", ".join(f"{count} {why}" for why, count in aside.items())


def _of_events(evidence: Mapping[str, Any]) -> str:
    events, kept, gone = (int(evidence[name]) for name in ("events", "events_kept", "events_discarded"))
    looked_at = events - kept - gone
    advice = "; --precision lower keeps more of them" if looked_at > kept else ""
    return f"of these {events} events {kept} are kept, {looked_at} go to review, {gone} are discarded{advice}"
