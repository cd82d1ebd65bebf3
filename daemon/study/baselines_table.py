"""The table of `study baselines`: each system and all of them, method by method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.common.text import align
from daemon.study.collection import Collection
from models.statistics import STATISTICS, difference, spread

Scores = Mapping[str, NDArray[np.float64]]


def report(collection: Collection, scores: Scores, apart: Sequence[str], seed: int) -> dict[str, Any]:
    """``{group: {"events", "event_free", "methods": {name: {statistic: …}}}}``; ambiguous curves are left aside."""
    chosen = np.array([any(fnmatchcase(str(name), glob) for glob in apart) for name in collection.systems])
    groups = {str(name): collection.systems == name for name in np.unique(collection.systems)}
    if apart:
        groups[f"pooled, without {', '.join(apart)}"] = ~chosen
        groups[f"pooled, {', '.join(apart)} alone"] = chosen
    groups["pooled"] = np.ones(len(collection), bool)
    return {name: _group(collection, scores, mask, seed) for name, mask in groups.items()}


def _group(collection: Collection, scores: Scores, mask: NDArray[np.bool_], seed: int) -> dict[str, Any]:
    mask = mask & collection.sure
    events = collection.events[mask]
    told = {name: method[mask] for name, method in scores.items()}
    first = next(iter(told.values()))
    return {
        "events": int(events.sum()),
        "event_free": int((~events).sum()),
        "methods": {
            method: {
                name: {"value": of(values, events), "interval": spread(of, values, events, seed=seed)}
                | ({} if values is first else {"less_the_model": difference(of, values, first, events, seed=seed)})
                for name, of in STATISTICS.items()
            }
            for method, values in told.items()
        },
    }


def write_text(found: Mapping[str, Any]) -> str:
    """Lines for a terminal: systems with both kinds, one line a method."""
    rows = [["system", "events", "free", "method", "AUC", "", "AP", "", "cut at 98 %", ""]]
    for name, group in found["groups"].items():
        if not group["events"] or not group["event_free"]:
            continue
        for place, (method, figures) in enumerate(group["methods"].items()):
            head = [name, str(group["events"]), str(group["event_free"])] if place == 0 else ["", "", ""]
            rows.append([*head, method, *(cell for figure in figures.values() for cell in _cells(figure))])
    lines = align(rows, left=range(len(rows[0])))
    notes = [
        f"{found['model']}; cut at 98 %: event-free curves below the highest cut that saves 98 % of the events;",
        "brackets: 95 %, bootstrap over curves. Systems of one kind of curve stand in the pooled lines only.",
    ]
    return "\n".join([*lines, "", *notes, *_ceiling(found["labelled_twice"])])


def _ceiling(twice: Mapping[str, Any] | None) -> list[str]:
    if twice is None:
        return []
    lines = [
        "",
        f"labelled twice: {twice['curves']} curves; event or not, the labels agree on {twice['agreement']:.1%}"
        f" (kappa {_number(twice['kappa'])}).",
        f"AUC against the first labels of one who knows the final ones: {_number(twice['final_knows_first'])};"
        f" the other way round {_number(twice['first_knows_final'])}.",
    ]
    for name, told in twice["methods"].items():
        lines.append(f"  {name}: {_number(told['first'])} against the first, {_number(told['final'])} the final")
    return lines


def _cells(figure: Mapping[str, Any]) -> tuple[str, str]:
    limits = figure["interval"]
    return _number(figure["value"]), "" if limits is None else f"[{limits[0]:.3f}, {limits[1]:.3f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
