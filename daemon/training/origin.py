"""Whether a model knows these labels already: an evaluation on curves that it learned from flatters it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.training.labelled import LabelledCurve
from daemon.training.taught import Taught, identity_of

_LEARNT = "its figures here say nothing about new curves"
_CUT = "calibrated on these labels: thresholds and probabilities look better here than on new curves"
#: Parts of a manifest, and what it means that the digest of a labels.csv stands in them.
_PARTS = {
    "training": f"trained on these labels: {_LEARNT}",
    "calibration": _CUT,
    "thresholds": _CUT,
    "certificate": _CUT,
}


@dataclass(slots=True)
class Acquaintance:
    """What a manifest gives away about the curves that pass."""

    manifest: Mapping[str, Any]
    curves: int = 0
    known: int = 0  # of these, by their samples

    def watch(self, curves: Iterable[LabelledCurve]) -> Iterator[LabelledCurve]:
        """Pass curves through, and count those that the model was trained on under whatever name."""
        taught = Taught.of(self.manifest)
        for item in curves:
            self.curves += 1
            self.known += identity_of(item.curve) in taught.curves
            yield item

    def warnings(self, folders: Sequence[Path]) -> list[str]:
        """One line for each folder whose labels.csv, by its SHA-256, the manifest names, and one for known curves."""
        lines = []
        for folder in folders:
            digest = hashlib.sha256((folder / "labels.csv").read_bytes()).hexdigest()
            found = next((text for part, text in _PARTS.items() if digest in json.dumps(self.manifest.get(part))), None)
            lines += [f"{folder}: the model was {found}"] if found else []
        if self.known:
            lines.append(f"the model was trained on {self.known} of these {self.curves} curves: {_LEARNT}")
        return lines
