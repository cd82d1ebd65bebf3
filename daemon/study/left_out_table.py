"""The table of `study left-out`: each system as the model as it is, without and with labels of the others judges it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.common.text import align
from daemon.study.collection import Collection
from daemon.study.tuning import Answers
from models.metrics import auc, clopper_pearson
from models.statistics import Statistic, difference, spread

_FIGURES = ("auc", "recall", "discarded")


def report(
    collection: Collection, answers: Mapping[str, Answers], apart: Sequence[str], seed: int
) -> dict[str, dict[str, Any]]:
    """``{"groups": {name: {"events", "event_free", "unsure", "arms": {…}}}, "differences": {name: {…}}}``."""
    everything = np.ones(len(collection), bool)
    groups = {str(name): collection.systems == name for name in np.unique(collection.systems)}
    pooled = {"pooled": everything}
    if apart:
        chosen = np.array([any(fnmatchcase(str(name), glob) for glob in apart) for name in collection.systems])
        pooled = {f"pooled, without {', '.join(apart)}": ~chosen, **pooled}
    return {
        "groups": {name: _group(collection, answers, mask) for name, mask in {**groups, **pooled}.items()},
        "differences": {name: _gaps(collection, answers, mask, seed) for name, mask in pooled.items()},
    }


def _group(collection: Collection, answers: Mapping[str, Answers], mask: NDArray[np.bool_]) -> dict[str, Any]:
    events, free = mask & collection.events, mask & collection.sure & ~collection.events
    unsure = mask & ~collection.sure
    return {
        "events": int(events.sum()),
        "event_free": int(free.sum()),
        "unsure": int(unsure.sum()),
        "arms": {name: _figures(one, events, free, unsure) for name, one in answers.items()},
    }


def _figures(
    one: Answers, events: NDArray[np.bool_], free: NDArray[np.bool_], unsure: NDArray[np.bool_]
) -> dict[str, Any]:
    sure, below = events | free, one.verdicts == "discard"
    lost, cut, count, others = int(below[events].sum()), int(below[free].sum()), int(events.sum()), int(free.sum())
    return {
        "auc": auc(one.scores[sure], events[sure]),
        "auc_interval": spread(auc, one.scores[sure], events[sure]),
        "recall": (count - lost) / count if count else None,
        "recall_interval": clopper_pearson(count - lost, count),
        "discarded": cut / others if others else None,
        "discarded_interval": clopper_pearson(cut, others),
        "unsure_discarded": int(below[unsure].sum()),
    }


def _mean_of(wanted: bool) -> Statistic:
    """Mean of what a method says of the events, or of the event-free curves."""

    def statistic(values: NDArray[np.float64], events: NDArray[np.bool_]) -> float | None:
        chosen = values[events == wanted]
        return float(chosen.mean()) if chosen.size else None

    return statistic


def _gaps(collection: Collection, answers: Mapping[str, Answers], mask: NDArray[np.bool_], seed: int) -> dict[str, Any]:
    """With labels less without, paired over curves."""
    sure = mask & collection.sure
    events = collection.events[sure]
    first, second = answers["labels"], answers["no labels"]
    saved = [(one.verdicts[sure] != "discard").astype(float) for one in (first, second)]
    return {
        "auc": difference(auc, first.scores[sure], second.scores[sure], events, seed=seed),
        "recall": difference(_mean_of(True), saved[0], saved[1], events, seed=seed),
        "discarded": difference(_mean_of(False), 1 - saved[0], 1 - saved[1], events, seed=seed),
    }


def write_text(found: Mapping[str, Any]) -> str:
    """Lines for a terminal: one a system, three figures an arm."""
    arms = list(next(iter(found["groups"].values()))["arms"])
    rows = [["", "", "", *(part for arm in arms for part in (arm, "", ""))]]
    rows.append(["system", "events", "free", *(("AUC", "recall", "cut") * len(arms))])
    for name, group in found["groups"].items():
        cells = [_number(group["arms"][arm][figure]) for arm in arms for figure in _FIGURES]
        rows.append([name, str(group["events"]), str(group["event_free"]), *cells])
    lines = align(rows)
    notes = [
        f"{found['model']}; recall: events not discarded, cut: event-free curves discarded",
        *(line for name, gaps in found["differences"].items() for line in _lines(name, gaps)),
        *(
            f"{name}: unsure discarded "
            + ", ".join(f"{one['unsure_discarded']} ({arm})" for arm, one in group["arms"].items())
            + f" of {group['unsure']}"
            for name, group in found["groups"].items()
            if name.startswith("pooled")
        ),
    ]
    return "\n".join([*lines, "", *notes])


def _lines(name: str, gaps: Mapping[str, Sequence[float] | None]) -> list[str]:
    told = {figure: gap for figure, gap in gaps.items() if gap is not None}
    parts = [f"{figure} {gap[0]:+.3f} [{gap[1]:+.3f}, {gap[2]:+.3f}]" for figure, gap in told.items()]
    return [f"{name}: labels less no labels: {', '.join(parts)}"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
