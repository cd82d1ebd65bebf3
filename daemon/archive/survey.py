"""The survey: what HDF5 says about an archive. Only worker processes call it, for a damaged file may end them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from daemon.archive.layout import ATTRIBUTE, COLUMNS, MOST_PARTS, PARTS, VERSION, BadArchive


def survey(path: Path) -> dict[str, Any]:
    """``{"curves": n, "parts": [header of a Part]}``, unchecked as to sizes and places. Raises BadArchive, OSError."""
    import h5py

    with path.open("rb"):  # says in its own words what the system has against it
        pass
    try:
        with h5py.File(path, "r", locking=False) as file:
            version = int(file.attrs.get(ATTRIBUTE, 0))
            if version != VERSION:
                raise BadArchive(
                    f"an archive of version {version}, this program reads {VERSION}"
                    if version
                    else f"HDF5, but no archive (the root has no attribute {ATTRIBUTE})"
                )
            parts = file[PARTS]
            names = [f"{number:06d}" for number in range(len(parts))]
            if not len(names) <= MOST_PARTS:
                raise BadArchive(f"{len(names)} parts")
            return {"curves": int(file.attrs["curves"]), "parts": [_part(parts, name) for name in names]}
    except BadArchive:
        raise
    except Exception as error:  # h5py passes on whatever the damaged file makes HDF5 say
        raise BadArchive("damaged: " + str(error).split("(")[0].strip(" '\"")) from error


def _part(parts: Any, name: str) -> dict[str, Any]:
    import h5py

    if not isinstance(parts.get(name, getlink=True), h5py.HardLink):
        raise BadArchive(f"part {name} is missing")
    group = parts[name]
    columns = {}
    for column in COLUMNS:
        if isinstance(group.get(column, getlink=True), h5py.HardLink):
            columns[column] = _extent(group[column], column)
    return {"curves": int(group.attrs["curves"]), "columns": columns}


def _extent(dataset: Any, name: str) -> list[Any]:
    """Place, length and type of a dataset that lies in this file in one piece."""
    import h5py

    plain = (
        isinstance(dataset, h5py.Dataset)
        and dataset.ndim == 1
        and dataset.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
        and not dataset.external
        and dataset.dtype.kind in "fiS"
    )
    if not plain:
        raise BadArchive(f"the column {name} is not one contiguous piece")
    return [dataset.id.get_offset() or 0, int(dataset.shape[0]), dataset.dtype.str]
