"""The table of `study stress`: what each strength of each nuisance did to events and to event-free curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from daemon.common.text import align
from daemon.judging import Verdict
from daemon.study.shares import percent, share
from models.metrics import count_table

_NOTE = """
events, event-free: keep/review/discard; lost: events discarded, before: of the same ones without the nuisance;
of visible: lost among the events in which an expert would still see a rupture (models.simulate.background);
cut: event-free curves discarded; exact 95 % intervals.
A nuisance stands where it can be laid on a curve, so counts differ from row to row."""


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """What one strength of one nuisance did to the curves it could be laid on."""

    name: str
    strength: float
    unit: str
    events: tuple[bool, ...]
    visible: tuple[bool, ...] | None  # events an expert would still see; None where nothing can bury them
    verdicts: tuple[Verdict, ...]
    before: tuple[Verdict, ...]  # on the same curves as they were


def report(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """One row a cell: counts, shares, intervals."""
    return [_row(cell) for cell in cells]


def _row(cell: Cell) -> dict[str, Any]:
    table = count_table(cell.verdicts, cell.events)
    row = {"nuisance": cell.name, "strength": cell.strength, "unit": cell.unit, "table": table}
    row["lost"] = share(table["discard"]["event"], sum(cell.events))
    row["before"] = share(count_table(cell.before, cell.events)["discard"]["event"], sum(cell.events))
    row["cut"] = share(table["discard"]["none"], len(cell.events) - sum(cell.events))
    if cell.visible is not None:
        seen = [verdict for verdict, visible in zip(cell.verdicts, cell.visible, strict=True) if visible]
        row["lost_of_visible"] = share(seen.count("discard"), len(seen))
    return row


def write_text(found: Mapping[str, Any]) -> str:
    """Lines for a terminal, a table a group of curves."""
    parts = [f"{found['model']} by {found['engine']}, seed {found['seed']}"]
    for group, rows in found["groups"].items():
        head = ["nuisance", "strength", "", "events", "before", "lost", "of visible", "event-free", "cut"]
        cells = [head, *map(_cells, rows)]
        parts.append(f"\n{group}\n" + "\n".join(align(cells, left=(0, 2))))
    return "\n".join([*parts, _NOTE])


def _cells(row: Mapping[str, Any]) -> list[str]:
    table = row["table"]
    counts = ["/".join(str(table[verdict][kind]) for verdict in table) for kind in ("event", "none")]
    strength = f"{row['strength']:g}" if row["unit"] else ""
    shares = [percent(row.get(name)) for name in ("lost", "lost_of_visible")]
    before = percent(row["before"]).split(" [")[0]
    return [row["nuisance"], strength, row["unit"], counts[0], before, *shares, counts[1], percent(row["cut"])]
