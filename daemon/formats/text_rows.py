"""Which rows of a table belong to which side of which curve."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby, pairwise

import numpy as np

from daemon.formats import columns, limits, shape, text_branch, text_cycles
from daemon.formats.text_sheet import Part, Sheet
from models.curve import Samples

_MOST_SEGMENTS = 64
_SHORTEST = 32  # rows of a curve, on average


def by_rows(sheet: Sheet, part: Part) -> list[Part]:
    """The part cut by columns that tell its rows apart, else by the distance that goes and returns again and again."""
    return _by_labels(sheet, part) or by_cycle(part)


def _by_labels(sheet: Sheet, part: Part) -> list[Part]:
    """Cut by a column of segments (words that name sides, or numbers that change) and by one that counts the curves.

    Empty without such columns.
    """
    segments, curves = _segment_labels(sheet), _curve_labels(sheet)
    if segments is None and curves is None:
        return []
    plain = [""] * sheet.rows.shape[0]
    runs, at = [], 0
    for label, same in groupby(zip(curves or plain, segments or plain, strict=True)):
        count = len(list(same))
        runs.append((label[1], slice(at, at + count)))
        at += count
    if len(runs) > 2 * limits.TEXT_CURVES:
        return []
    if segments is None and part.distance is not None and _run_on([part.distance[rows] for _, rows in runs]):
        return []  # a label within one curve: of a peak, of a speed
    sides = {label: columns.side_of(label) for label, _ in runs}
    is_said = "retract" in sides.values()
    parts = [
        replace(
            part,
            force=part.force[rows],
            distance=None if part.distance is None else part.distance[rows],
            side=sides[label] if is_said else None,
        )
        for label, rows in runs
    ]
    if is_said or curves is not None:
        return parts
    return parts if 1 < len(parts) <= _MOST_SEGMENTS and part.distance is not None else []


def _run_on(stretches: list[Samples]) -> bool:
    """Whether the distance goes on over most borders as if there were none."""
    borders = [shape.runs_on(before, after) for before, after in pairwise(stretches)]
    return 2 * sum(borders) > len(borders)


def by_cycle(part: Part) -> list[Part]:
    """Cut where the distance goes and returns again and again; the part alone where it does not."""
    if part.side is not None:
        return [part]
    rows, is_sure = text_cycles.cycles(part.force, part.distance)
    return [
        replace(
            part,
            force=part.force[one],
            distance=None if part.distance is None else part.distance[one],
            is_assumed=part.is_assumed or not is_sure,
        )
        for one in rows
    ] or [part]


def _segment_labels(sheet: Sheet) -> list[str] | None:
    for at in sheet.of("segment"):
        if at in sheet.words:
            return sheet.words[at]
        column = sheet.rows[:, at]
        if np.isfinite(column).all() and np.unique(column).size <= _MOST_SEGMENTS:
            return [f"{value:g}" for value in column]
    for words in sheet.words.values():
        if len(distinct := set(words)) <= 16 and "retract" in map(columns.side_of, distinct):
            return words
    return None


def _curve_labels(sheet: Sheet) -> list[str] | None:
    """A column that has the same number or word in all rows of a curve, and another one in the next curve's."""
    for at in (*sheet.of("curve", "file", "index", "other"), *sheet.unknown(), *sheet.words):
        words = sheet.words.get(at)
        if words is None:
            column = sheet.rows[:, at]
            if not np.isfinite(column).all() or np.any(column != np.rint(column)):
                continue
            words = [f"{value:g}" for value in column]
        runs = 1 + sum(before != after for before, after in pairwise(words))
        if 1 < runs <= len(words) // _SHORTEST and len(set(words)) == runs:
            return words
    return None


def retracts(parts: list[Part]) -> list[Part]:
    """The parts that are retracts, or hold one, each with the approach before it."""
    if any(part.side for part in parts):
        found: list[Part] = []
        approach = None
        for part in parts:
            if part.side == "approach":
                approach = part.force
            elif part.side == "retract" and approach is None and found and _continues(found[-1], part):
                found[-1] = _together(found[-1], part)
            elif part.side == "retract":
                before = part.approach if part.approach is not None else approach
                found.append(replace(part, approach=before))
                approach = None
            elif part.side is None:
                found.append(part)
        return found
    moving = _moving(parts)
    found, at = [], 0
    while at < len(moving):
        here = moving[at]
        after = moving[at + 1] if at + 1 < len(moving) else None
        if (
            after is not None
            and here.distance is not None
            and after.distance is not None
            and text_branch.opposite(here.distance, after.distance)
        ):
            found.append(replace(after, side="retract", approach=here.force))
            at += 2
        else:
            found.append(replace(here, is_assumed=here.is_assumed or len(moving) == 2))
            at += 1
    return found


def _continues(before: Part, part: Part) -> bool:
    """Whether a retract was written in two segments, as with two speeds."""
    if before.side != "retract" or before.distance is None or part.distance is None or part.approach is not None:
        return False
    return before.distance.size > 1 < part.distance.size and shape.runs_on(before.distance, part.distance)


def _together(before: Part, part: Part) -> Part:
    assert before.distance is not None
    assert part.distance is not None
    distance = np.concatenate([before.distance, part.distance])
    return replace(before, force=np.concatenate([before.force, part.force]), distance=distance)


def _moving(parts: list[Part]) -> list[Part]:
    """Without the pauses, in which the distance hardly changes."""
    if len(parts) < 2 or any(part.distance is None for part in parts):
        return parts
    spans = [0.0 if part.distance is None or not part.distance.size else float(np.ptp(part.distance)) for part in parts]
    return [part for part, span in zip(parts, spans, strict=True) if span > 0.1 * max(spans)]
