"""Columns: rows of cells as lines for a terminal, each column as wide as its widest cell."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def align(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """A line a row; the columns of ``left`` begin at their left edge, numbers end at their right one."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    justified = (
        [cell.ljust(width) if place in left else cell.rjust(width) for place, (cell, width) in enumerate(pairs)]
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    )
    return ["  ".join(cells).rstrip() for cells in justified]
