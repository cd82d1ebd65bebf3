"""Unlabelled folders: thousands of curves that nobody has looked at, read by the same readers as in service."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daemon.errors import BAD_DATA, UserError
from daemon.formats.walk import find
from daemon.progress import progress
from daemon.reader import read_files
from daemon.training.taught import identity_of
from models.curve import Curve
from models.data import gather
from models.profile import RasterProfile

_WORDS = "reading unlabelled curves"


def read_unlabelled(folders: Sequence[Path], profile: RasterProfile, identities: set[str]) -> NDArray[np.float32]:
    """(N, 2, W) envelopes of every curve that can get a score; what cannot be read is counted on standard error.

    The curves' names for :class:`daemon.training.taught.Taught` go to ``identities``.
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
        identities.add(identity_of(curve))
        yield curve


def _curves(folders: Sequence[Path], skipped: list[str]) -> Iterator[Curve]:
    for file in read_files(find(folders)):
        for reading in file.readings:
            if reading.curve is None:
                skipped.append(f"{reading.arrival.path} ({reading.reason})")
            else:
                yield reading.curve
