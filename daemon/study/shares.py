"""Shares: hits out of a number, with the exact interval, as studies report and print them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.metrics import clopper_pearson


def share(hits: int, of: int) -> dict[str, Any]:
    """``hits`` of ``of`` with the Clopper-Pearson 95 % interval, ready for JSON."""
    return {"hits": hits, "of": of, "interval": list(clopper_pearson(hits, of))}


def percent(found: Mapping[str, Any] | None) -> str:
    """``3.1 % [2.0, 4.6]``; a dash where there is nothing to share."""
    if found is None or not found["of"]:
        return "-"
    low, high = found["interval"]
    return f"{100 * found['hits'] / found['of']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
