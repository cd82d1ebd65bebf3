"""Tables in the vocabulary of afmformats (https://afmformats.readthedocs.io): its ``.tab`` text and its HDF5 files.

Columns ``force`` (N), ``height (measured)`` (m, away from the surface), ``segment`` (0 approach, 1 retract, from 2 on
pauses). Raw sign: repulsion positive.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from daemon.formats import limits, samples
from daemon.formats.errors import Unfinished, Unreadable
from daemon.formats.table import rows_of
from models.curve import Curve, Samples

_RETRACT, _APPROACH = 1, 0
_HEIGHTS = ("height (measured)", "height (piezo)")


def is_export(text: str) -> bool:
    """Told by more than one mark, for one may be damaged."""
    start = text[:4096].lstrip("\ufeff \r\n")
    return start.startswith("# afmformats") or "\n# END METADATA" in start


def read(text: str) -> list[Curve]:
    """The one curve of a ``.tab`` file."""
    comments = [line[1:].strip() for line in text.splitlines() if line.startswith("#")]
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    metadata = _metadata(comments)
    promised = _number(metadata, "point count")
    if not lines or (promised is not None and len(lines) < promised):
        raise Unfinished("truncated")
    names = [word.strip() for word in comments[-1].split("\t")] if comments else []
    rows = rows_of([line.replace("True", "1").replace("False", "0") for line in lines])
    if len(names) < rows.shape[1]:
        raise Unreadable("unreadable")
    # Version 0.13.3 forgot the line break after the names: its first row stands there too and is lost.
    return [curve(dict(zip(names, rows.T, strict=False)), metadata)]


def curve(columns: Mapping[str, Samples], metadata: Mapping[str, Any]) -> Curve:
    """One retract from columns of equal length (n,)."""
    if "force" not in columns:
        raise Unreadable("no_force_channel")
    force = columns["force"]
    samples.check_points(force.shape[0])
    height = next((columns[name] for name in _HEIGHTS if name in columns), None)
    segment = columns.get("segment")
    if any(column.shape != force.shape for column in (height, segment) if column is not None):
        raise Unreadable("unreadable")
    retract = np.ones(force.shape, bool) if segment is None else segment == _RETRACT
    approach = np.zeros(force.shape, bool) if segment is None else segment == _APPROACH
    if not retract.any():
        raise Unreadable("no_retract")
    rate = _number(metadata, "rate retract")
    return Curve(
        force=-force[retract],
        force_unit="N",
        distance=None if height is None else samples.outward(height[retract]),
        distance_kind=None if height is None else "piezo",
        approach_force=-force[approach] if approach.any() else None,
        spring_constant_n_per_m=limits.plausible_spring_constant(_number(metadata, "spring constant")),
        sensitivity_m_per_v=limits.plausible_sensitivity(_number(metadata, "sensitivity")),
        duration_s=float(retract.sum()) / rate if rate else None,
    )


def _metadata(comments: list[str]) -> dict[str, Any]:
    """The JSON between the marks; nothing where it cannot be read."""
    try:
        start, stop = comments.index("BEGIN METADATA"), comments.index("END METADATA")
        found = json.loads("\n".join(comments[start + 1 : stop]))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _number(metadata: Mapping[str, Any], key: str) -> float | None:
    try:
        return float(metadata[key])
    except (KeyError, TypeError, ValueError):
        return None
