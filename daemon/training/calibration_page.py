"""A calibration in words: what is promised and by which curves, what it costs, and what was set aside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from daemon.training.calibration import Outcome
from models.certificate import Certificate, miss_bound, percent_up
from models.metrics import clopper_pearson
from models.thresholds import HIGHEST


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
