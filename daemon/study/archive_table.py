"""`study archive`, as text."""

from __future__ import annotations

from typing import Any

from daemon.common.text import align

_CORES, _MILLION = 16, 1_000_000


def write_text(found: dict[str, Any]) -> list[str]:
    """A line a run, and what follows for a million curves on sixteen cores."""
    rows = [("", "curves", "seconds", "curves/s", "main us", "workers us")]
    rows += [
        (
            row["what"],
            str(row["curves"]),
            f"{row['wall_s']:.1f}",
            f"{row['curves'] / row['wall_s']:.0f}",
            f"{row['main_us']:.1f}",
            f"{row['workers_us']:.0f}",
        )
        for row in found["rows"]
    ]
    summary = found["rows"][-1]
    workers_s = summary["workers_us"] * _MILLION / 1e6 / (_CORES - 1)
    main_s = summary["main_us"] * _MILLION / 1e6
    near = ", ".join(f"{precision} {share:.2%}" for precision, share in found["near_threshold"].items())
    return [
        f"{found['cores']} cores; model {found['model']} on {found['engine']}; simulated curves take "
        f"{found['bytes_a_curve'] / 1000:.0f} kB each; us: microseconds of processor time a curve",
        "",
        *align(rows),
        "",
        f"so near a threshold that single precision judges again: {near}",
        f"a million curves, {_CORES} cores, --summary, beside the network: {workers_s:.0f} s of {_CORES - 1} workers, "
        f"{main_s:.0f} s of the main process",
    ]
