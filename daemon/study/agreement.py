"""The ceiling: where curves were labelled twice, how well one set of labels knows the other.

A method that is judged by labels cannot be shown to be better than they agree among themselves. Read from a column
``source_label`` of ``first=…;final=…``, in which every word but ``none`` is an event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daemon.labels.table import plain_path, read_index, read_sheet
from models.metrics import auc

NO_EVENT = "none"


@dataclass(frozen=True, slots=True, eq=False)
class Twice:
    """N curves that were labelled twice."""

    names: tuple[tuple[str, int], ...]  # path and index
    first: NDArray[np.bool_]  # (N,), event or not
    final: NDArray[np.bool_]


def read_twice(folders: Sequence[Path]) -> Twice:
    """Every row that has both words; none where the column is missing."""
    found: dict[tuple[str, int], tuple[bool, bool]] = {}
    for folder in folders:
        for _, cells in read_sheet((folder / "labels.csv").read_bytes()).rows:
            words = dict(part.split("=", 1) for part in cells.get("source_label", "").split(";") if "=" in part)
            if "first" in words and "final" in words:
                name = (plain_path(cells["path"]), read_index(cells.get("curve_index", "")))
                found[name] = (words["first"] != NO_EVENT, words["final"] != NO_EVENT)
    both = np.array(list(found.values()), bool).reshape(-1, 2)
    return Twice(tuple(found), both[:, 0], both[:, 1])


def compare(twice: Twice, scores: Mapping[str, Mapping[tuple[str, int], float]]) -> dict[str, object] | None:
    """Agreement, Cohen's kappa, and the AUC against ``first`` of knowing ``final``, beside that of each method.

    None where nothing was labelled twice. ``scores``: method -> curve -> score.
    """
    if not twice.names:
        return None
    known = [place for place, name in enumerate(twice.names) if all(name in method for method in scores.values())]
    first, final = twice.first[known], twice.final[known]
    agree = float((first == final).mean())
    chance = float(first.mean() * final.mean() + (1 - first.mean()) * (1 - final.mean()))
    names = [twice.names[place] for place in known]
    methods = {name: [method[curve] for curve in names] for name, method in scores.items()}
    return {
        "curves": len(known),
        "agreement": agree,
        "kappa": (agree - chance) / (1 - chance) if chance < 1 else None,
        "final_knows_first": auc(final.astype(float), first),
        "first_knows_final": auc(first.astype(float), final),
        "methods": {name: {"first": auc(told, first), "final": auc(told, final)} for name, told in methods.items()},
    }
