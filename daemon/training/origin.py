"""Whether a model knows these labels already: an evaluation on curves that it learned from flatters it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: Parts of a manifest, and what it means that the digest of a labels.csv stands in them.
_PARTS = {
    "training": "trained on these labels: its figures here say nothing about new curves",
    "calibration": "calibrated on these labels: thresholds and probabilities look better here than on new curves",
    "thresholds": "calibrated on these labels: thresholds and probabilities look better here than on new curves",
    "certificate": "calibrated on these labels: thresholds and probabilities look better here than on new curves",
}


def warn(manifest: Mapping[str, Any], folders: Sequence[Path]) -> list[str]:
    """One line for each folder whose labels.csv, by its SHA-256, the manifest names."""
    lines = []
    for folder in folders:
        digest = hashlib.sha256((folder / "labels.csv").read_bytes()).hexdigest()
        found = (text for part, text in _PARTS.items() if digest in json.dumps(manifest.get(part)))
        lines += [f"{folder}: the model was {text}" for text in [next(found, None)] if text]
    return lines
