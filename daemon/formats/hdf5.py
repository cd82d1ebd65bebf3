"""HDF5 files of afmformats: one group a curve, one dataset a column.

h5py is loaded when the first such file comes and works on the bytes in memory, so nothing is locked.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from daemon.formats import afmformats_table, limits, shape
from daemon.formats.blob import Blob
from daemon.reading import Unfinished, Unreadable
from models.curve import Curve

_MAGIC = b"\x89HDF\r\n\x1a\n"
_SUFFIXES = (".h5", ".hdf5")
_COLUMNS = ("force", "height (measured)", "height (piezo)", "segment")


class Hdf5Reader:
    name = "hdf5"
    quiet_s = 0.5

    def claims(self, name: str, head: bytes) -> bool:
        return head.startswith(_MAGIC) or (name.lower().endswith(_SUFFIXES) and not any(head[:8]))

    def open(self, blob: Blob, name: str, companion: Blob | None = None) -> Hdf5File:
        import h5py

        try:
            file = h5py.File(io.BytesIO(blob.whole()), "r")
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise Unfinished("truncated") from error  # h5py says "truncated file" among much else
        return Hdf5File(file)


class Hdf5File:
    """The curves of one file, by group number."""

    def __init__(self, file: Any) -> None:
        self._file = file
        try:
            self._groups = sorted((key for key in file if "force" in file[key]), key=lambda k: (len(k), k))
        except Exception as error:  # h5py passes on whatever the damaged file makes HDF5 say
            raise Unreadable("unreadable") from error
        if not self._groups:
            raise Unreadable("no_force_channel")
        if len(self._groups) > limits.CURVES:
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
