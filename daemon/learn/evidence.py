"""The evidence: what a calibration does to the labelled curves, and what it is worth on experiments it has not seen."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.common.progress import progress
from daemon.common.text import clean
from daemon.judging import Thresholds, verdict_of
from daemon.learn.labelled import LabelledCurve, LabelledFolder, refuse
from daemon.learn.taught import Taught, identity_of
from deploy.serving import Model
from models.calibrate import choose_discard, score_apart
from models.certificate import discard_limit
from models.metrics import Prior, brier_skill, calibration_error, clopper_pearson, reliability_slope

# ---- The exhibits: labelled curves that may speak for a model, judged by it, and what was set aside.
#
# What the network was taught with, what `simulate` wrote and what stands there twice says nothing about events to
# come. A curve without a score is never discarded: leaving it out makes a promise no bolder than it is.

BATCH = 64

#: Why a curve does not count, in the order that is asked.
UNSURE, SIMULATED, TAUGHT, COPY, NO_SCORE = (
    "labelled unsure",
    "simulated",
    "of the model's own training",
    "copies of others",
    "without a score",
)


@dataclass(frozen=True, slots=True, eq=False)
class Exhibits:
    """N curves that count."""

    logits: NDArray[np.float64]  # (N,)
    events: NDArray[np.bool_]  # (N,)
    experiments: NDArray[np.str_]  # (N,) names
    reasons: tuple[tuple[str, ...], ...]  # what the front-end says of each
    tables: Mapping[str, str]  # experiment -> SHA-256 of the labels.csv that names its curves
    set_aside: Mapping[str, int]  # why -> curves

    def __len__(self) -> int:
        return len(self.reasons)


def exhibit(folders: Sequence[LabelledFolder], model: Model) -> Exhibits:
    """Open and judge every labelled curve. UserError (65), one line a row, for what cannot be read or contradicts."""
    docket = _Docket(Taught.of(model.bundle.manifest))
    rows = sum(len(folder.rows) for folder in folders)
    admitted = progress(docket.admit(folders), "calibrating", rows)
    found = [one for batch in _batches(admitted) for one in _judge(batch, model)]
    refuse(docket.problems)
    scored = [(name, item, logit, reasons) for name, item, logit, reasons in found if logit is not None]
    docket.set_aside[NO_SCORE] += len(found) - len(scored)
    return Exhibits(
        logits=np.array([logit for _, _, logit, _ in scored], np.float64),
        events=np.array([item.event for _, item, _, _ in scored], np.bool_),
        experiments=np.array([name for name, _, _, _ in scored], np.str_),
        reasons=tuple(reasons for _, _, _, reasons in scored),
        tables=docket.tables,
        set_aside={why: count for why, count in docket.set_aside.items() if count},
    )


class _Docket:
    """Which curves are heard, which not and why, and what makes no sense."""

    def __init__(self, taught: Taught) -> None:
        self.problems: list[str] = []
        self.set_aside: Counter[str] = Counter()
        self.tables: dict[str, str] = {}
        self._taught = taught
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
        identity, place = identity_of(item.curve), f"{folder / 'labels.csv'} row {item.row.number}"
        is_copy = identity in self._heard
        label, earlier = self._heard.setdefault(identity, (item.row.label, place))
        if label != item.row.label:
            text = f"{item.row.path} is the curve of {earlier}, which is labelled {label}; decide for one"
            self.problems.append(clean(f"{place}: {text}"))
        if item.row.label == "unsure":
            return UNSURE
        if self._taught.holds(item.curve, digest):
            return TAUGHT
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


# ---- The evidence: what a calibration does to the labelled curves, and what it is worth on unseen experiments.


def count_verdicts(exhibits: Exhibits, scores: NDArray[np.float64], thresholds: Thresholds) -> dict[str, Any]:
    """What happens to these very curves, floors included, with exact intervals."""
    verdicts = [verdict_of(float(s), why, thresholds) for s, why in zip(scores, exhibits.reasons, strict=True)]
    events = exhibits.events
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


def judge_probabilities(exhibits: Exhibits, prevalence: float, prior: Prior) -> Mapping[str, float | None]:
    """Each experiment's scores by a fit on the others; None where there is no such fit, or no finite figure."""
    figures = {"ece": calibration_error, "brier_skill": brier_skill, "reliability_slope": reliability_slope}
    apart = score_apart(exhibits.logits, exhibits.events, exhibits.experiments, prevalence, prior)
    if apart is None:
        return dict.fromkeys(figures)
    found = {name: float(figure(apart, exhibits.events, prevalence)) for name, figure in figures.items()}
    return {name: value if np.isfinite(value) else None for name, value in found.items()}


def judge_across(exhibits: Exhibits, max_miss: float, confidence: float) -> Mapping[str, int] | None:
    """Events of each experiment that a threshold certified on the others alone would have missed.

    It is no part of the promise, which names its experiments; it tells what to expect of the next one. Experiments
    without which the promise cannot be made are left out; None where that is all of them.
    """
    logits, events = exhibits.logits, exhibits.events
    missed = tried = 0
    for name in np.unique(exhibits.experiments[events]):
        here = exhibits.experiments == name
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
