"""`make study TOPIC=sampling`: does a curve keep its verdict when the instrument stores fewer points of it.

Averaging k neighbouring samples is what an instrument does that filters before it stores; taking every k-th does lose
signal against the noise. Curves of which fewer than two samples a column of the picture would be left are not asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from daemon.common.options import Option
from daemon.common.text import align
from models.files import write_whole

if TYPE_CHECKING:
    from daemon.judging import Judge
    from daemon.learn.evidence import LabelledCurve
    from deploy.serving import Model
    from models.curve import Curve

STEPS = (2, 4, 8)
BATCH = 64


@dataclass(frozen=True, slots=True)
class Row:
    """What became of the verdicts of ``curves`` curves, thinned in one way."""

    way: str  # "averaged" or "every k-th"
    step: int
    curves: int
    moved: int  # another verdict than before
    moved_far: int  # from keep to discard or back
    newly_discarded: int  # labelled events, not discarded before


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Labelled folders, because a moved verdict matters most where there is an event."""

    folders: Annotated[tuple[Path, ...], Option("labelled curves (each has a labels.csv)", "DIR", is_positional=True)]
    model: Annotated[str, Option("the model that is asked")] = "shipped"
    out: Annotated[Path | None, Option("the table as JSON", "FILE.json")] = None


def run(options: Options) -> int:
    """Exit 0; UserError 65 for labels without a curve."""
    from daemon.common.stdio import progress
    from daemon.config import ThresholdsConfig
    from daemon.judging.judge import judge_of, load_model
    from daemon.learn.evidence import curves_of, read_labels, refuse

    model = load_model(options.model)
    judge = judge_of(model, ThresholdsConfig())
    folders, problems = read_labels(options.folders), list[str]()
    total = sum(len(folder.rows) for folder in folders)
    items = list(progress(curves_of(folders, problems), "reading", total))
    refuse(problems)
    rows = list(sample(items, model, judge))
    if options.out:
        write_whole(options.out, json.dumps([asdict(row) for row in rows], indent=1).encode() + b"\n")
    print("\n".join(table(rows)))
    return 0


def sample(items: Sequence[LabelledCurve], model: Model, judge: Judge) -> Iterator[Row]:
    """One row a way and step."""
    before = _verdicts([item.curve for item in items], model, judge)
    for way in ("averaged", "every k-th"):
        for step in STEPS:
            asked = [
                place for place, item in enumerate(items) if len(item.curve) // step >= 2 * model.bundle.profile.columns
            ]
            after = _verdicts([thin(items[place].curve, step, way) for place in asked], model, judge)
            pairs = [(items[place], before[place], now) for place, now in zip(asked, after, strict=True)]
            yield Row(
                way,
                step,
                len(pairs),
                sum(old != new for _, old, new in pairs),
                sum({old, new} == {"keep", "discard"} for _, old, new in pairs),
                sum(item.event and new == "discard" != old for item, old, new in pairs),
            )


def thin(curve: Curve, step: int, way: str) -> Curve:
    """The curve with one sample for ``step``."""
    keep = len(curve) // step * step
    grouped = curve.force[:keep].reshape(-1, step)
    force = grouped.mean(axis=1) if way == "averaged" else grouped[:, 0]
    return replace(curve, force=force, distance=None)


def _verdicts(curves: Sequence[Curve], model: Model, judge: Judge) -> list[str]:
    from daemon.judging import verdict_of

    coming, told = iter(curves), list[str]()
    while batch := list(islice(coming, BATCH)):
        told += [verdict_of(one.score, one.reasons, judge.thresholds) for one in model.judge(batch)]
    return told


def table(rows: Sequence[Row]) -> list[str]:
    """The rows in columns."""
    head = ["samples", "k", "curves", "another verdict", "keep <-> discard", "events newly discarded"]
    cells = [
        [row.way, str(row.step), str(row.curves), f"{row.moved} ({row.moved / max(row.curves, 1):.1%})"]
        + [str(count) for count in (row.moved_far, row.newly_discarded)]
        for row in rows
    ]
    return align([head, *cells])
