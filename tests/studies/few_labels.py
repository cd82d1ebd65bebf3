"""`make study TOPIC=few-labels`: what a few dozen labels of a laboratory's own curves add to a model, and by which way.

Learning curves over the number of labelled curves (the model as it is, fine-tuned, trained on the labels alone, and
heads on features of its embedding), and over the number of unlabelled ones that the features were learned from. Labels
and tests come once from different experiments, and once from one. Ways marked * are those of `train --head`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from daemon.common.errors import BAD_DATA, USAGE, UserError
from daemon.common.options import Option
from daemon.common.text import align
from tests.studies.few_labels_trial import ALL, AS_IS, LOOKED_AT, RIVALS, SCRATCH, TUNED, Result, Setting

LABELS, UNLABELLED, TUNED_AT = (8, 16, 32, 64, 128), (0, 50, 100, 1000), (16, 32, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The defaults take ten minutes of one core on six hundred curves."""

    folders: Annotated[tuple[Path, ...], Option("labels.csv with a column experiment", "DIR", is_positional=True)]
    model: Annotated[str, Option("whose embedding is used and who is fine-tuned")] = "shipped"
    apart: Annotated[tuple[str, ...], Option("experiments that only teach and test each other", "GLOB")] = ()
    repeats: Annotated[int, Option("splits of each kind", "N")] = 10
    tuned_repeats: Annotated[int, Option("of them with networks trained", "N")] = 5
    simulate: Annotated[int, Option("simulated unlabelled curves", "N")] = 1000
    seed: Annotated[int, Option("", "N")] = 1
    out: Annotated[Path | None, Option("also what the table was made from", "FILE.json")] = None


def run(options: Options) -> int:
    """Exit 0 with the tables, 65 for labels that make no sense or are too few to split, 69 without scikit-learn."""
    if not (options.repeats >= 2 and options.tuned_repeats >= 0 and options.simulate >= 2):
        raise UserError(USAGE, "--repeats and --simulate are 2 or more, --tuned-repeats 0 or more")
    from daemon.common.stdio import progress
    from daemon.learn.evidence import collect
    from daemon.learn.head import parent_of, require_sklearn
    from tests.studies.few_labels_trial import make_bench, settings, try_out

    require_sklearn()
    bundle, begun_s = parent_of(options.model), time.process_time()
    collection = collect(options.folders, bundle.profile, "experiment")
    split = settings(collection.systems, collection.labels, options.apart, options.repeats, options.seed)
    if not split:
        raise UserError(
            BAD_DATA, "no experiment holds enough curves of both kinds to learn from some and test on others"
        )
    bench = make_bench(bundle, collection, options.simulate, options.seed)
    tries = [(setting, repeat) for setting in split for repeat in range(len(setting.splits))]
    results = [
        result
        for setting, repeat in progress(tries, "comparing", len(tries))
        for result in try_out(
            bench, setting, repeat, LABELS, UNLABELLED, TUNED_AT if repeat < options.tuned_repeats else ()
        )
    ]
    found = {
        "model": bundle.id,
        "seed": options.seed,
        "curves": len(collection),
        "cpu_s": round(time.process_time() - begun_s),
        "settings": summarise(split, results),
    }
    print(write_text(found))
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


# The tables of `make study TOPIC=few-labels`: each rival by the number of labelled, and of unlabelled curves.

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
