"""The exhibits: labelled curves that may speak for a model, judged by it, and what was set aside.

What the network was taught with, what `simulate` wrote and what stands there twice says nothing about events to come.
A curve without a score is never discarded: leaving it out makes a promise no bolder than it is.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daemon.clean import clean
from daemon.progress import progress
from daemon.training.labelled import LabelledCurve, LabelledFolder, refuse
from daemon.training.taught import Taught, identity_of
from deploy.serving import Model

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
