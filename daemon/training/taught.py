"""The curves that a network was taught with, known by their samples: evidence about it has to be others.

A copy under another name, or in another folder, is the same curve. The names of folders and the SHA-256 of their
labels.csv speak for models that were trained before the curves themselves were noted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from models.curve import Curve

_DIGITS = 12  # 48 bits: ten thousand curves on either side meet by chance once in three million


def identity_of(curve: Curve) -> str:
    """Twelve hexadecimal digits of the retract's samples."""
    return hashlib.sha256(curve.force.astype("<f8").tobytes()).hexdigest()[:_DIGITS]


@dataclass(frozen=True, slots=True)
class Taught:
    """What a model and those it came from were trained on."""

    tables: Mapping[str, str]  # folder -> SHA-256 of its labels.csv
    curves: frozenset[str]

    @classmethod
    def of(cls, manifest: Mapping[str, Any] | None) -> Taught:
        """What a manifest notes; nothing without one."""
        training = manifest["training"] if manifest else {}
        return cls(dict(training.get("labelled") or {}), frozenset(str(training.get("curves") or "").split()))

    def with_more(self, tables: Mapping[str, str], curves: Iterable[str]) -> Taught:
        """This and what a child of the model was trained on."""
        mine = {name if name not in tables else f"{name} (earlier)": digest for name, digest in self.tables.items()}
        return Taught({**mine, **tables}, self.curves.union(curves))

    def for_manifest(self) -> dict[str, Any]:
        """The entries of ``training``; :meth:`of` reads them again."""
        return {"labelled": dict(self.tables), "curves": " ".join(sorted(self.curves))}

    def holds(self, curve: Curve, table_sha256: str) -> bool:
        """Whether the network has learnt from this curve of this table."""
        return table_sha256 in self.tables.values() or identity_of(curve) in self.curves
