"""The curves that a network was taught with, known by their samples: evidence about it has to be others.

A copy under another name, in another folder, or as the ledger keeps and exports it, is the same curve. The names of
folders and the SHA-256 of their labels.csv speak for models that were trained before the curves themselves were noted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from daemon.ledger.keepsake import compact
from models.curve import Curve

_DIGITS = 12  # 48 bits: ten thousand curves on either side meet by chance once in three million


def identity_of(curve: Curve) -> str:
    """Twelve hexadecimal digits of the retract's samples, in the resolution that a keepsake has of them."""
    with np.errstate(over="ignore", invalid="ignore"):  # tails may hold anything
        samples = compact(curve.force).astype("<f4")
    return hashlib.sha256(samples.tobytes()).hexdigest()[:_DIGITS]


def tell_apart(name: str, taken: Container[str]) -> str:
    """The name, or, where something else is called so already, the name with the first free number."""
    names = (name, *(f"{name} ({number})" for number in range(2, 1 << 20)))
    return next(one for one in names if one not in taken)


@dataclass(frozen=True, slots=True)
class Taught:
    """What a model and those it came from were trained on."""

    tables: Mapping[str, str]  # folder -> SHA-256 of its labels.csv
    curves: frozenset[str]
    unlabelled: frozenset[str] = frozenset()  # whose look alone has shaped features, and so the ranking

    @classmethod
    def of(cls, manifest: Mapping[str, Any] | None) -> Taught:
        """What a manifest notes; nothing without one."""
        training = manifest["training"] if manifest else {}
        curves, unlabelled = (str(training.get(name) or "").split() for name in ("curves", "unlabelled_curves"))
        return cls(dict(training.get("labelled") or {}), frozenset(curves), frozenset(unlabelled))

    def with_more(self, tables: Mapping[str, str], curves: Iterable[str], unlabelled: Iterable[str] = ()) -> Taught:
        """This and what a child of the model was trained on."""
        all_tables = dict(tables)
        for name, digest in self.tables.items():
            all_tables[name if tables.get(name) == digest else tell_apart(name, all_tables)] = digest
        return Taught(all_tables, self.curves.union(curves), self.unlabelled.union(unlabelled))

    def for_manifest(self) -> dict[str, Any]:
        """The entries of ``training``; :meth:`of` reads them again."""
        noted = {"labelled": dict(self.tables), "curves": " ".join(sorted(self.curves))}
        return noted | ({"unlabelled_curves": " ".join(sorted(self.unlabelled))} if self.unlabelled else {})

    def holds(self, curve: Curve, table_sha256: str) -> bool:
        """Whether the network has learnt from this curve of this table."""
        return table_sha256 in self.tables.values() or identity_of(curve) in self.curves | self.unlabelled
