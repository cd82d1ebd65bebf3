"""The table of `study explain`: how often the warmest place is a rupture, a family a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daemon.columns import align


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
        lenses = [[name, _percent(share)] for name, share in found["lenses"].items()]
        parts += ["", *align([["how the heat is made", "all kept"], *lenses])]
    return "\n".join(parts)


def _cells(name: str, row: Mapping[str, Any]) -> list[str]:
    return [name, str(row["kept"]), _percent(row["heat"]), f"{100 * row['chance']:.1f} %", _percent(row["highest"])]


def _percent(share: Mapping[str, Any]) -> str:
    low, high = share["interval"]
    return f"{100 * share['hits'] / share['of']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
