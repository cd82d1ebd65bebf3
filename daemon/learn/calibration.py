"""The calibration on labels of real curves: probabilities, both thresholds, and the certificate that they earn.

Why the promise holds although the same labels serve for all of it (deploy/decisions, "What a certificate promises"):
discarded is what lies below a logit that exact counting allows on events the network was not trained on. Temperature,
bias and keep threshold do not change which curves those are, and a lower threshold only discards fewer.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from daemon import __version__
from daemon.common.errors import BAD_DATA, UserError
from daemon.common.stdio import progress
from daemon.common.text import clean
from daemon.judging import Thresholds, verdict_of
from daemon.learn.evidence import LabelledCurve, LabelledFolder, TrainingRecord, fingerprint_of, refuse
from deploy.serving import Model
from models.bundle import Bundle, Calibration, Cut, write
from models.calibrate import (
    HIGHEST,
    KeepRule,
    choose_discard,
    choose_keep,
    fit_platt,
    prior_of,
    score_apart,
    share_between,
)
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
from models.clock import utc_now
from models.metrics import Prior, auc, brier_skill, calibration_error, clopper_pearson, reliability_slope

# The eligible curves: labelled curves that may speak for a model, judged by it, and what was set aside.
#
# What the network was trained on, what `simulate` wrote and what stands there twice says nothing about events to
# come. A curve without a score is never discarded: leaving it out makes a promise no bolder than it is.

BATCH = 64

#: Why a curve does not count, in the order that is asked.
UNSURE, SIMULATED, TRAINED_ON, COPY, NO_SCORE = (
    "labelled unsure",
    "simulated",
    "of the model's own training",
    "copies of others",
    "without a score",
)


@dataclass(frozen=True, slots=True, eq=False)
class EligibleCurves:
    """N curves that count."""

    logits: NDArray[np.float64]  # (N,)
    events: NDArray[np.bool_]  # (N,)
    experiments: NDArray[np.str_]  # (N,) names
    reasons: tuple[tuple[str, ...], ...]  # what the front-end says of each
    tables: Mapping[str, str]  # experiment -> SHA-256 of the labels.csv that names its curves
    set_aside: Mapping[str, int]  # why -> curves

    def __len__(self) -> int:
        return len(self.reasons)


def gather_eligible(folders: Sequence[LabelledFolder], model: Model) -> EligibleCurves:
    """Open and judge every labelled curve. UserError (65), one line a row, for what cannot be read or contradicts."""
    gathering = _Gathering(TrainingRecord.of(model.bundle.manifest.training))
    rows = sum(len(folder.rows) for folder in folders)
    admitted = progress(gathering.admit(folders), "calibrating", rows)
    found = [one for batch in _batches(admitted) for one in _judge(batch, model)]
    refuse(gathering.problems)
    scored = [(name, item, logit, reasons) for name, item, logit, reasons in found if logit is not None]
    gathering.set_aside[NO_SCORE] += len(found) - len(scored)
    return EligibleCurves(
        logits=np.array([logit for _, _, logit, _ in scored], np.float64),
        events=np.array([item.event for _, item, _, _ in scored], np.bool_),
        experiments=np.array([name for name, _, _, _ in scored], np.str_),
        reasons=tuple(reasons for _, _, _, reasons in scored),
        tables=gathering.tables,
        set_aside={why: count for why, count in gathering.set_aside.items() if count},
    )


class _Gathering:
    """Which curves count, which do not and why, and what contradicts."""

    def __init__(self, record: TrainingRecord) -> None:
        self.problems: list[str] = []
        self.set_aside: Counter[str] = Counter()
        self.tables: dict[str, str] = {}
        self._record = record
        self._heard: dict[str, tuple[str, str]] = {}  # identity -> label and place of its first row

    def admit(self, folders: Sequence[LabelledFolder]) -> Iterator[tuple[str, LabelledCurve]]:
        """Curves that count, with the name of their experiment."""
        names: dict[str, Path] = {}
        for folder in folders:
            digest = hashlib.sha256((folder.folder / "labels.csv").read_bytes()).hexdigest()
            for item in folder.curves(self.problems):
                why = self._objection(item, folder.folder, digest)
                if why is not None:
                    self.set_aside[why] += 1
                    continue
                name = clean(" ".join(item.row.experiment.replace("|", " ").split()))
                if names.setdefault(name, folder.folder) != folder.folder:
                    name = f"{name} ({folder.folder})"
                self.tables[name] = digest
                yield name, item

    def _objection(self, item: LabelledCurve, folder: Path, digest: str) -> str | None:
        if "simulated" in item.curve.notes:
            return UNSURE if item.row.label == "unsure" else SIMULATED
        identity, place = fingerprint_of(item.curve), f"{folder / 'labels.csv'} row {item.row.number}"
        is_copy = identity in self._heard
        label, earlier = self._heard.setdefault(identity, (item.row.label, place))
        if label != item.row.label:
            text = f"{item.row.path} is the curve of {earlier}, which is labelled {label}; decide for one"
            self.problems.append(clean(f"{place}: {text}"))
        if item.row.label == "unsure":
            return UNSURE
        if self._record.holds(item.curve, digest):
            return TRAINED_ON
        return COPY if is_copy else None


def _judge(
    batch: Sequence[tuple[str, LabelledCurve]], model: Model
) -> Iterator[tuple[str, LabelledCurve, float | None, tuple[str, ...]]]:
    """The service's own way from curve to logit.

    `flipped` is left out: it follows from the thresholds that the model had, and others are to be chosen.
    """
    for (name, item), scored in zip(batch, model.judge([item.curve for _, item in batch]), strict=True):
        yield name, item, scored.logit, tuple(reason for reason in scored.reasons if reason != "flipped")


def _batches(items: Iterable[tuple[str, LabelledCurve]]) -> Iterator[list[tuple[str, LabelledCurve]]]:
    waiting = iter(items)
    while batch := list(islice(waiting, BATCH)):
        yield batch


# The evidence: what a calibration does to the labelled curves, and what it is worth on unseen experiments.


def count_verdicts(curves: EligibleCurves, scores: NDArray[np.float64], thresholds: Thresholds) -> dict[str, Any]:
    """What happens to these very curves, floors included, with exact intervals."""
    verdicts = [verdict_of(float(s), why, thresholds) for s, why in zip(scores, curves.reasons, strict=True)]
    events = curves.events
    discarded, kept = (np.array([one == word for one in verdicts], np.bool_) for word in ("discard", "keep"))
    counts = {
        "events": int(events.sum()),
        "event_free": int((~events).sum()),
        "events_discarded": int((discarded & events).sum()),
        "events_kept": int((kept & events).sum()),
        "event_free_discarded": int((discarded & ~events).sum()),
        "event_free_kept": int((kept & ~events).sum()),
    }
    of = {"events_discarded": "events", "event_free_discarded": "event_free", "event_free_kept": "event_free"}
    return counts | {f"{n}_interval": list(clopper_pearson(counts[n], counts[whole])) for n, whole in of.items()}


def judge_probabilities(curves: EligibleCurves, prevalence: float, prior: Prior) -> Mapping[str, float | None]:
    """Each experiment's scores by a fit on the others; None where there is no such fit, or no finite figure."""
    figures = {"ece": calibration_error, "brier_skill": brier_skill, "reliability_slope": reliability_slope}
    apart = score_apart(curves.logits, curves.events, curves.experiments, prevalence, prior)
    if apart is None:
        return dict.fromkeys(figures)
    found = {name: float(figure(apart, curves.events, prevalence)) for name, figure in figures.items()}
    return {name: value if np.isfinite(value) else None for name, value in found.items()}


def judge_across(curves: EligibleCurves, max_miss: float, confidence: float) -> Mapping[str, int] | None:
    """Events of each experiment that a threshold certified on the others alone would have missed.

    It is no part of the promise, which names its experiments; it tells what to expect of the next one. Experiments
    without which the promise cannot be made are left out; None where that is all of them.
    """
    logits, events = curves.logits, curves.events
    missed = tried = 0
    for name in np.unique(curves.experiments[events]):
        here = curves.experiments == name
        limit = discard_limit(logits[events & ~here], max_miss, confidence)
        if limit is not None:
            cut = _cut(logits[~here], events[~here], limit)
            missed, tried = missed + int((logits[here & events] <= cut).sum()), tried + int((here & events).sum())
    return {"events": tried, "missed": missed} if tried else None


def _cut(logits: NDArray[np.float64], events: NDArray[np.bool_], limit: float) -> float:
    """The discard threshold as a logit, by the rule for scores: a logistic curve keeps the order."""

    def squash(x: NDArray[np.float64] | float) -> Any:
        return 1 / (1 + np.exp(-np.clip(x, -700.0, 700.0)))

    score = choose_discard(squash(logits), events, float(squash(limit)))
    return float(np.log(score) - np.log1p(-score))


@dataclass(frozen=True, slots=True)
class CalibrationTarget:
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


def calibrate(curves: EligibleCurves, bundle: Bundle, engine: str, target: CalibrationTarget) -> Outcome:
    """UserError (65) when one class is missing, or when these events do not allow the promise."""
    limit = _limit(curves, target)
    prevalence = target.prevalence or bundle.calibration.prevalence
    prior = prior_of(bundle.calibration)
    calibration = fit_platt(curves.logits, curves.events, prevalence, prior)
    scores = calibration.score(curves.logits)
    lowest_saved = float(calibration.score(np.array([limit]))[0])
    discard = choose_discard(scores, curves.events, lowest_saved)
    keep = choose_keep(scores, curves.events, prevalence, discard, target.keep)
    certificate = _certify(curves, scores <= discard, limit, bundle, engine, target)
    thresholds = Thresholds(discard, keep)
    as_it_was = bundle.calibration.score(curves.logits) <= bundle.discard
    evidence = {
        **count_verdicts(curves, scores, thresholds),
        "basis": f"labels of {len(certificate.experiments)} experiments",
        "discard_rule": f"missing at most {percent_up(certificate.bound)}, {100 * target.confidence:.6g} % sure",
        "keep_rule": target.keep.words(prevalence),
        "review_share": share_between(scores, curves.events, prevalence, discard, keep),
        "auc": auc(scores, curves.events),
        "set_aside": dict(curves.set_aside),
        "discarded_before": int(as_it_was.sum()),
        "across": judge_across(curves, target.max_miss, target.confidence),
        **judge_probabilities(curves, prevalence, prior),
    }
    return Outcome(calibration, thresholds, certificate, evidence)


def write_model(folder: Path, bundle: Bundle, outcome: Outcome, *, replaces: bool = False) -> Bundle:
    """The same weights with what the labels have earned, as one act; its parent is the model that was calibrated."""
    manifest = msgspec.structs.replace(
        bundle.manifest,
        name=folder.name,
        created=outcome.certificate.made,
        parent=bundle.id,
        code_version=__version__,
        calibration=replace(outcome.calibration, basis=outcome.evidence["basis"]),
        thresholds=Cut(outcome.thresholds.discard, outcome.thresholds.keep, outcome.evidence),
        score_basis="labels",
        certificate=outcome.certificate,
    )
    return write(folder, bundle.weights, manifest, describe(manifest), parent=bundle, replaces=replaces)


def _limit(curves: EligibleCurves, target: CalibrationTarget) -> float:
    """The logit that everything discarded stays below; UserError where the labels allow no such promise."""
    limit = discard_limit(curves.logits[curves.events], target.max_miss, target.confidence)
    if limit is None or curves.events.all():
        raise UserError(BAD_DATA, f"{_refusal(curves, target, is_earned=limit is not None)}; nothing was written")
    return limit


def _refusal(curves: EligibleCurves, target: CalibrationTarget, *, is_earned: bool) -> str:
    """What is missing, and what could be promised instead."""
    count = int(curves.events.sum())
    aside = ", ".join(f"{number} {why}" for why, number in curves.set_aside.items() if why != UNSURE)
    labels = f"the labels hold {count} events that count" + (f" (not counted: {aside})" if aside else "")
    asked = f"at most {100 * target.max_miss:g} % missed, {100 * target.confidence:.6g} % sure"
    if is_earned:
        missing = "but probabilities and the keep threshold need curves of both kinds; label event-free ones too"
        return f"{labels} and no curve labelled discard: {asked} could be promised, {missing}"
    needed = f"{asked} needs {events_needed(target.max_miss, target.confidence)} events; {labels}"
    bound = miss_bound(count, 0, target.confidence)
    return (
        f"{needed}: they can promise at most {percent_up(bound)} (--max-miss {round_up(bound):g})" if count else needed
    )


def _certify(
    curves: EligibleCurves, is_below: Any, limit: float, bundle: Bundle, engine: str, target: CalibrationTarget
) -> Certificate:
    """Floors are not counted in the promise's favour: an event below the threshold is missed, whatever its reasons."""
    events, missed = curves.events, curves.events & is_below
    count = int(events.sum())
    allowed = misses_allowed(count, target.max_miss, target.confidence) or 0
    experiments = {
        str(name): Experiment(
            events=int((events & (curves.experiments == name)).sum()),
            missed=int((missed & (curves.experiments == name)).sum()),
            labels_sha256=curves.tables[str(name)],
        )
        for name in np.unique(curves.experiments[events])
    }
    return Certificate(
        max_miss=target.max_miss,
        confidence=target.confidence,
        bound=miss_bound(count, allowed, target.confidence),
        events=count,
        missed=int(missed.sum()),
        allowed=allowed,
        limit_logit=limit,
        experiments=experiments,
        weights_sha256=bundle.weights_sha256,
        engine=engine,
        made=utc_now("seconds"),
    )


# A calibration in words: what is promised and by which curves, what it costs, and what was set aside.


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
