"""A table whose columns are known, and the parts that curves are made of."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.formats.columns import Column, Side
from daemon.formats.table import Table
from models.curve import Samples


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Rows of one force column with their distance: a side, or the whole of a curve."""

    force: Samples
    force_column: Column
    distance: Samples | None
    distance_column: Column | None
    side: Side | None = None
    approach: Samples | None = None  # of a part that is known to be the retract
    is_shared: bool = False  # one distance for both sides: rows are in the order of the distance, not of time
    is_assumed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """A block with what is known of its columns."""

    columns: list[Column]
    rows: Table
    words: dict[int, list[str]]
    side: Side | None
    is_assumed: bool

    def of(self, *quantities: str) -> list[int]:
        return [at for at, column in enumerate(self.columns) if column.quantity in quantities]

    def unknown(self) -> list[int]:
        """Columns of numbers whose names say no quantity."""
        return [at for at, column in enumerate(self.columns) if column.quantity is None and at not in self.words]
