"""The evaluation: a model's verdicts on labelled curves, per system and pooled, with exact intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from daemon.charts import Trace, trace
from daemon.judging import Judge, Verdict, verdict_of
from daemon.learn.labelled import LabelledCurve
from deploy.serving import Model
from models.frontend import turned
from models.metrics import auc, average_precision, calibration_error, clopper_pearson, count_table

BATCH = 64


@dataclass(frozen=True, slots=True)
class Judged:
    """What was said of one labelled curve."""

    system: str
    label: str  # keep, discard, unsure
    verdict: Verdict
    score: float | None
    name: str = ""  # path#index
    reasons: tuple[str, ...] = ()
    trace: Trace | None = None


def judge_all(curves: Iterable[LabelledCurve], model: Model, judge: Judge) -> list[Judged]:
    """The service's own way from curve to verdict, in batches."""
    judged: list[Judged] = []
    batch: list[LabelledCurve] = []
    for item in curves:
        batch.append(item)
        if len(batch) == BATCH:
            judged += _judge(batch, model, judge)
            batch = []
    return judged + _judge(batch, model, judge)


def _judge(batch: Sequence[LabelledCurve], model: Model, judge: Judge) -> list[Judged]:
    if not batch:
        return []
    scored = model.judge([item.curve for item in batch], judge.thresholds.both)
    return [
        Judged(
            system=item.row.system,
            label=item.row.label,
            verdict=verdict_of(one.score, one.reasons, judge.thresholds),
            score=one.score,
            name=f"{item.row.path}#{item.row.index}",
            reasons=one.reasons,
            trace=trace(turned(item.curve) if one.is_turned else item.curve),
        )
        for item, one in zip(batch, scored, strict=True)
    ]


def evaluate(judged: Sequence[Judged], judge: Judge) -> dict[str, Any]:
    """``{"pooled": {…}, "systems": {name: {…}}}``, as ``evaluate --json`` prints it; unsure labels are only counted."""
    systems = sorted({one.system for one in judged})
    return {
        "model": judge.model,
        "engine": str(judge.engine),
        "thresholds": {"discard": judge.thresholds.discard, "keep": judge.thresholds.keep},
        "prevalence": judge.prevalence,
        "pooled": summarise(judged, judge.prevalence),
        "systems": {
            name: summarise([one for one in judged if one.system == name], judge.prevalence) for name in systems
        },
    }


def summarise(judged: Sequence[Judged], prevalence: float) -> dict[str, Any]:
    """The figures of one group. Recall counts an event as found unless it was discarded: review finds it too.

    ``precision`` is the share of events among the kept, in this set's own mix; ``ece`` is weighted to the model's
    prevalence. Curves without a score stand in the table, not in the figures about scores.
    """
    sure = [one for one in judged if one.label != "unsure"]
    events = [one.label == "keep" for one in sure]
    table = count_table([one.verdict for one in sure], events)
    scored = [(one.score, one.label == "keep") for one in sure if one.score is not None]
    scores, labels = [score for score, _ in scored], [label for _, label in scored]
    count, free = sum(events), len(events) - sum(events)
    kept = table["keep"]["event"] + table["keep"]["none"]
    error = calibration_error(scores, labels, prevalence)
    return {
        "events": count,
        "event_free": free,
        "unsure": len(judged) - len(sure),
        "unsure_discarded": sum(one.label == "unsure" and one.verdict == "discard" for one in judged),
        "without_score": len(sure) - len(scored),
        "table": table,
        "auc": auc(scores, labels),
        "ap": average_precision(scores, labels),
        "ece": None if math.isnan(error) else error,
        **_shares(
            recall=(count - table["discard"]["event"], count),
            discarded=(table["discard"]["none"], free),
            precision=(table["keep"]["event"], kept),
        ),
    }


def _shares(**counts: tuple[int, int]) -> dict[str, Any]:
    """Each share by its name, and under ``intervals`` its exact 95 % interval; None where there is nothing to share."""
    values = {name: hits / of if of else None for name, (hits, of) in counts.items()}
    return {**values, "intervals": {name: list(clopper_pearson(*count)) for name, count in counts.items()}}


def worst_first(report: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The systems, those in which most went wrong before the others: events discarded, then the AUC, then the name."""

    def badness(item: tuple[str, dict[str, Any]]) -> tuple[int, float, str]:
        name, figures = item
        return -figures["table"]["discard"]["event"], 2.0 if figures["auc"] is None else figures["auc"], name

    return sorted(report["systems"].items(), key=badness)
