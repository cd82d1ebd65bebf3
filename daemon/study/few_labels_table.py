"""The tables of `study few-labels`: each rival by the number of labelled, and of unlabelled curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.common.text import align
from daemon.study.few_labels_splits import Setting
from daemon.study.few_labels_trial import ALL, AS_IS, LOOKED_AT, RIVALS, SCRATCH, TUNED, Result

_FIGURES = ("auc", "ap")
_NOTE = """The first row is the mean over repeats, each with other curves labelled and tested; the others are
differences to it on the same tested curves, paired. ± is half of the 95 % interval of a mean (Student's t): how
much hangs on the draw of these curves, not how another laboratory would fare. > better, < worse: the interval
leaves 0 out. (n): of n repeats only. A star marks what `train --head` makes a model of; rivals without one only
rank. AP is in the mix of each set."""


def summarise(settings: Sequence[Setting], results: Sequence[Result]) -> list[dict[str, Any]]:
    """One entry a setting, with every rival's figures by ``labelled`` and ``unlabelled``."""
    found = []
    for setting in settings:
        mine = [one for one in results if one.setting == setting.name]
        base = {one.repeat: one for one in mine if one.rival == AS_IS}
        groups: dict[tuple[str, int, str], list[Result]] = {}
        for one in mine:
            groups.setdefault((one.rival, one.labelled, one.unlabelled), []).append(one)
        found.append(
            {
                "name": setting.name,
                "tested": [int(one.test.size) for one in setting.splits],
                "pool": [int(one.pool.size) for one in setting.splits],
                "unlabelled": [int(one.unlabelled.size) for one in setting.splits],
                "rivals": [_row(*key, group, base) for key, group in groups.items()],
            }
        )
    return found


def _row(
    rival: str, labelled: int, unlabelled: str, group: Sequence[Result], base: Mapping[int, Result]
) -> dict[str, Any]:
    row: dict[str, Any] = {"rival": rival, "labelled": labelled, "unlabelled": unlabelled, "repeats": len(group)}
    for name in _FIGURES:
        values = np.array([getattr(one, name) for one in group])
        gaps = values - np.array([getattr(base[one.repeat], name) for one in group])
        row[name] = {"mean": float(values.mean()), "half": half_width(values)}
        row[name] |= {"gap": float(gaps.mean()), "gap_half": half_width(gaps)}
    return row


def half_width(values: NDArray[np.float64], confidence: float = 0.95) -> float | None:
    """Half of the interval of the mean of n independent values by Student's t; None for fewer than two."""
    from scipy.stats import t  # comes with scikit-learn

    if values.size < 2:
        return None
    return float(t.ppf((1 + confidence) / 2, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size))


def write_text(found: Mapping[str, Any]) -> str:
    """Lines for a terminal: three tables a setting."""
    head = f"{found['model']}, {found['curves']} curves, seed {found['seed']}, {found['cpu_s']} s of one core"
    return "\n".join([head, "", _NOTE, *(line for one in found["settings"] for line in _lines(one))])


def _lines(setting: Mapping[str, Any]) -> list[str]:
    pool, tested, others = (_range(setting[name]) for name in ("pool", "tested", "unlabelled"))
    sizes = f"labels drawn from {pool} curves, {tested} tested, features learned from {others} unlabelled"
    lines = ["", f"## {setting['name']}", f"{sizes}; {setting['rivals'][0]['repeats']} repeats"]
    rows = setting["rivals"]
    labelled = sorted({one["labelled"] for one in rows if one["labelled"]})
    learned = list(dict.fromkeys(one["unlabelled"] for one in rows if one["unlabelled"] not in ("", ALL)))
    for figure in _FIGURES:
        lines += ["", f"{figure.upper()} by labelled curves"]
        wanted = [(str(count), {"labelled": count, "unlabelled": ("", ALL)}) for count in labelled]
        lines += _table(rows, [AS_IS, TUNED, SCRATCH, *RIVALS], wanted, figure)
    if learned:
        lines += ["", f"AUC by unlabelled curves, {LOOKED_AT} labelled"]
        wanted = [(name, {"labelled": LOOKED_AT, "unlabelled": (name,)}) for name in (*learned, ALL)]
        lines += _table(rows, list(RIVALS), wanted, "auc")
    return lines


def _table(
    rows: Sequence[Mapping[str, Any]],
    rivals: Sequence[str],
    columns: Sequence[tuple[str, Mapping[str, Any]]],
    figure: str,
) -> list[str]:
    """Nothing for a rival that was not tried."""
    base, cells = rows[0], [["", *(name for name, _ in columns)]]
    for rival in rivals:
        mine = [one for one in rows if one["rival"] == rival]
        cells.append([rival, *(_cell(base, mine, wanted, figure) for _, wanted in columns)])
    cells = [row for row in cells if any(cell != "-" for cell in row[1:])]
    return align(cells)


def _cell(base: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], wanted: Mapping[str, Any], figure: str) -> str:
    for one in rows:
        if one is base:
            return _spread(f"{one[figure]['mean']:.3f}", one[figure]["half"]) + "  "
        if one["labelled"] == wanted["labelled"] and one["unlabelled"] in wanted["unlabelled"]:
            fewer = f"({one['repeats']}) " if one["repeats"] < base["repeats"] else ""
            return fewer + _difference(one[figure]["gap"], one[figure]["gap_half"])
    return "-"


def _difference(gap: float, half: float | None) -> str:
    mark = " " if half is None or abs(gap) <= half else (">" if gap > 0 else "<")
    return f"{_spread(f'{gap:+.3f}', half)} {mark}"


def _spread(mean: str, half: float | None) -> str:
    return mean if half is None else f"{mean} ±{half:.3f}"


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
