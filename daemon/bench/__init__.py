"""The bench: what this program costs and delivers on this machine, from real files, in one run.

Each part has a module with ``measure``; the table, the bars and the picture are made from what they return. What must
not be disturbed by its neighbour (an engine, the published recipe, the stages) is measured in a process of its own.
"""

from __future__ import annotations

from pathlib import Path

CURVES = Path(__file__).resolve().parents[1] / "curves"
BATCH = 32  # the service's largest, unless configured otherwise
#: In the order they are measured; "swap" and "soak" only where they are asked for.
PARTS = ("stages", "engines", "load", "recipe", "swap", "soak")
STAGES = ("read", "front-end", "raster", "network", "decide", "commit", "publish")
