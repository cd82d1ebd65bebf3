"""HDF5 files: those of afmformats (one group a curve, one dataset a column), and of others by the names in them.

h5py is loaded when the first such file comes and works on the bytes in memory, so nothing is locked. Nothing that lies
in another file is ever opened.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from daemon.formats import afmformats_table, limits, shape
from daemon.formats.base import CurveFile
from daemon.formats.blob import Blob
from daemon.formats.hdf5_foreign import ForeignFile
from daemon.reading import NotACurve, Unfinished, Unreadable
from models.curve import Curve

_MAGIC = b"\x89HDF\r\n\x1a\n"
SUFFIXES = (".h5", ".hdf5")
_IMAGE_SUFFIX = ".h5-jpk"
_COLUMNS = ("force", "height (measured)", "height (piezo)", "segment")
_METADATA = ("spring constant", "sensitivity", "rate retract", "speed retract", "point count", "curve id")


class Hdf5Reader:
    name = "hdf5"
    quiet_s = 0.5

    def claims(self, name: str, head: bytes) -> bool:
        return head.startswith(_MAGIC) or (
            name.lower().endswith((*SUFFIXES, _IMAGE_SUFFIX)) and not any(head[: len(_MAGIC)])
        )

    def open(self, blob: Blob, name: str, companion: Blob | None = None) -> CurveFile:
        if name.lower().endswith(_IMAGE_SUFFIX):
            raise NotACurve("image")
        import h5py

        try:
            file = h5py.File(io.BytesIO(blob.whole()), "r")
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise Unfinished("truncated") from error  # h5py says "truncated file" among much else
        groups = _groups_of_afmformats(file)
        return Hdf5File(file, groups) if groups else ForeignFile(file)


def _groups_of_afmformats(file: Any) -> list[str]:
    """The groups that hold a curve in the vocabulary of afmformats, by number; empty where a file has none."""
    try:
        with_force = [key for key in file if "force" in file[key]]
        if not any(_is_of_afmformats(file[key]) for key in with_force):
            return []
    except Exception:  # h5py passes on whatever the damaged file makes HDF5 say
        return []
    return sorted(with_force, key=lambda key: (len(key), key))


def _is_of_afmformats(group: Any) -> bool:
    """Whether a group with a force has a further column, or a figure about it, in that vocabulary."""
    return any(name in group for name in _COLUMNS[1:]) or any(name in group.attrs for name in _METADATA)


class Hdf5File:
    """The curves of one file of afmformats, by group number."""

    def __init__(self, file: Any, groups: list[str]) -> None:
        self._file, self._groups = file, groups
        if len(groups) > limits.CURVES:
            raise Unreadable("bomb")

    def __len__(self) -> int:
        return len(self._groups)

    def curve(self, index: int) -> Curve:
        try:
            group = self._file[self._groups[index]]
            for name in _COLUMNS:
                if name in group:
                    _check_dataset(group[name])
            columns = {name: np.asarray(group[name][()], dtype=np.float64) for name in _COLUMNS if name in group}
            metadata = dict(group.attrs)
        except Unreadable:
            raise
        except Exception as error:
            raise Unreadable("unreadable") from error
        curve = afmformats_table.curve(columns, metadata)
        shape.check_written(curve.force)
        return curve


def _check_dataset(dataset: Any) -> None:
    """One column of sane length, whose samples lie in this file and not, by reference, in another."""
    if dataset.ndim != 1 or dataset.external or dataset.is_virtual:
        raise Unreadable("unreadable")
    shape.check_points(dataset.shape[0])
