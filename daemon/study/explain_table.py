"""The table of `study explain`: how often the warmest place is a rupture, a family a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daemon.common.text import align
from daemon.study.shares import percent


def write_text(found: Mapping[str, Any]) -> str:
    """Lines for a terminal."""
    head = ["family", "kept", "warmest place", "at random", "highest point"]
    groups = {**found["families"], "all": found["all"]}
    rows = [head, *(_cells(name, row) for name, row in groups.items())]
    parts = [
        f"{found['model']} by {found['engine']}: {found['all']['kept']} of {found['curves']} simulated events kept,"
        f" seed {found['seed']}",
        "share within 5 % of the ramp of a true rupture, with the exact 95 % interval:",
        "",
        *align(rows),
    ]
    if len(found["lenses"]) > 1:
        lenses = [[name, percent(one)] for name, one in found["lenses"].items()]
        parts += ["", *align([["how the heat is made", "all kept"], *lenses])]
    return "\n".join(parts)


def _cells(name: str, row: Mapping[str, Any]) -> list[str]:
    return [name, str(row["kept"]), percent(row["heat"]), f"{100 * row['chance']:.1f} %", percent(row["highest"])]
