"""The training record: the curves that a network was trained on, known by their samples. Evidence must be others.

A copy under another name, in another folder, or as the ledger keeps and exports it, is the same curve. The names of
folders and the SHA-256 of their labels.csv speak for models that were trained before the curves themselves were noted.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.common.errors import BAD_DATA, UserError
from daemon.common.progress import progress
from daemon.formats.afmcurve import compact
from daemon.learn.labelled import LabelledCurve
from daemon.reading.ahead import read_curves
from daemon.sources.existing import find
from models.curve import Curve
from models.raster import RasterProfile
from models.train import gather

_DIGITS = 12  # 48 bits: ten thousand curves on either side meet by chance once in three million


def fingerprint_of(curve: Curve) -> str:
    """Twelve hexadecimal digits of the retract's samples, in the resolution of a compact copy."""
    with np.errstate(over="ignore", invalid="ignore"):  # tails may hold anything
        samples = compact(curve.force).astype("<f4")
    return hashlib.sha256(samples.tobytes()).hexdigest()[:_DIGITS]


def tell_apart(name: str, taken: Container[str]) -> str:
    """The name, or, where something else is called so already, the name with the first free number."""
    names = (name, *(f"{name} ({number})" for number in range(2, 1 << 20)))
    return next(one for one in names if one not in taken)


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """What a model and those it came from were trained on."""

    tables: Mapping[str, str]  # folder -> SHA-256 of its labels.csv
    curves: frozenset[str]
    unlabelled: frozenset[str] = frozenset()  # whose look alone has shaped features, and so the ranking

    @classmethod
    def of(cls, training: Mapping[str, Any]) -> TrainingRecord:
        """What ``training`` of a manifest notes."""
        curves, unlabelled = (str(training.get(name) or "").split() for name in ("curves", "unlabelled_curves"))
        return cls(dict(training.get("labelled") or {}), frozenset(curves), frozenset(unlabelled))

    def with_more(
        self, tables: Mapping[str, str], curves: Iterable[str], unlabelled: Iterable[str] = ()
    ) -> TrainingRecord:
        """This and what a child of the model was trained on."""
        all_tables = dict(tables)
        for name, digest in self.tables.items():
            all_tables[name if tables.get(name) == digest else tell_apart(name, all_tables)] = digest
        return TrainingRecord(all_tables, self.curves.union(curves), self.unlabelled.union(unlabelled))

    def for_manifest(self) -> dict[str, Any]:
        """The entries of ``training``; :meth:`of` reads them again."""
        noted = {"labelled": dict(self.tables), "curves": " ".join(sorted(self.curves))}
        return noted | ({"unlabelled_curves": " ".join(sorted(self.unlabelled))} if self.unlabelled else {})

    def holds(self, curve: Curve, table_sha256: str) -> bool:
        """Whether the network was trained on this curve, or on this table."""
        return table_sha256 in self.tables.values() or fingerprint_of(curve) in self.curves | self.unlabelled


# Whether a model knows these labels already: an evaluation on curves that it learned from flatters it.

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
class KnownCurves:
    """What a manifest gives away about the curves that pass."""

    manifest: Mapping[str, Any]  # as it is stored: digests are looked for wherever they stand
    curves: int = 0
    known: int = 0  # of these, by their samples

    def watch(self, curves: Iterable[LabelledCurve]) -> Iterator[LabelledCurve]:
        """Pass curves through, and count those that the model was trained on under whatever name."""
        record = TrainingRecord.of(self.manifest["training"])
        for item in curves:
            self.curves += 1
            self.known += fingerprint_of(item.curve) in record.curves
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


# Unlabelled folders: thousands of curves that nobody has looked at, read by the same readers as in service.

_WORDS = "reading unlabelled curves"


def read_unlabelled(folders: Sequence[Path], profile: RasterProfile, identities: set[str]) -> NDArray[np.float32]:
    """(N, 2, W) envelopes of every curve that can get a score; what cannot be read is counted on standard error.

    The curves' names for :class:`daemon.learn.training_record.TrainingRecord` go to ``identities``.
    UserError (65) for a folder that is not there, and when none of them holds a curve.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(BAD_DATA, f"--unlabelled {folder}: no such folder")
    skipped: list[str] = []
    curves = ((curve, False) for curve in _note(progress(_curves(folders, skipped), _WORDS), identities))
    edges = gather(curves, profile).edges
    if not len(edges):
        raise UserError(BAD_DATA, f"--unlabelled {folders[0]}: holds no curve that can be scored")
    if skipped:
        print(f"left out, because they cannot be read: {len(skipped)}, the first {skipped[0]}", file=sys.stderr)
    return edges


def _note(curves: Iterable[Curve], identities: set[str]) -> Iterator[Curve]:
    for curve in curves:
        identities.add(fingerprint_of(curve))
        yield curve


def _curves(folders: Sequence[Path], skipped: list[str]) -> Iterator[Curve]:
    for reading in read_curves(find(folders)):
        if reading.curve is None:
            skipped.append(f"{reading.arrival.path} ({reading.reason})")
        else:
            yield reading.curve
