"""Every kind of file the program can read, and the one way to read it.

``open_file`` is for tests and scripts; the service reads in a child process (``daemon.reading.worker``), as a file can
be made to do anything to its reader.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from daemon.formats.afmcurve import PackedReader
from daemon.formats.asylum import AsylumReader
from daemon.formats.base import CurveFile, Reader
from daemon.formats.blob import Blob
from daemon.formats.errors import NotACurve, Unfinished, Unreadable
from daemon.formats.hdf5 import SUFFIXES as HDF5_SUFFIXES
from daemon.formats.hdf5 import Hdf5Reader
from daemon.formats.jpk import JpkReader
from daemon.formats.names import claim, find_other, is_first_half, is_likely, is_second_half, may_be_text
from daemon.formats.nanoscope import NanoscopeReader
from daemon.formats.nid import NidReader
from daemon.formats.park import ParkReader
from daemon.formats.text import TextReader
from daemon.formats.text_rule import TextRule
from models.curve import Curve

#: In the order they are asked. TIFF comes first: pictures lie under many names. Text comes last: it takes whatever has
#: numbers in it.
READERS: tuple[Reader, ...] = (
    ParkReader(),
    JpkReader(),
    NanoscopeReader(),
    AsylumReader(),
    NidReader(),
    Hdf5Reader(),
    PackedReader(),
    TextReader(),
)


def find_reader(name: str, blob: Blob, rule: TextRule | None = None) -> Reader | None:
    """The reader of a file, or None when nobody wants it; ``rule``: what the laboratory says of it, if it is text.

    Raises ``Unfinished("empty")`` for an empty file that looks like a curve to come.
    """
    if claim(name) is False:
        return None
    if blob.size_bytes == 0:
        if is_likely(name):
            raise Unfinished("empty")
        return None
    head = blob.head
    found = next((reader for reader in READERS if reader.claims(name, head)), None)
    return replace(found, rule=rule) if rule is not None and isinstance(found, TextReader) else found


def quiet_s(name: str) -> float:
    """How long a file of this name must rest before it is worth opening: text does not show its own end."""
    if name.lower().endswith(HDF5_SUFFIXES):
        return Hdf5Reader.quiet_s
    return TextReader.quiet_s if may_be_text(name) else 0.0


def open_file(path: Path | str, companion: Path | str | None = None) -> list[Curve]:
    """All curves of one file, read in this process.

    Raises ``Unfinished``, ``Unreadable``; ``Unreadable("unreadable")`` also where no reader wants the file, or knows
    that it is no curve.
    """
    path = Path(path)
    if companion is None and is_first_half(path.name):
        companion = find_other(path)
    try:
        blob = Blob(path, is_final=True)
        reader = find_reader(path.name, blob)
        if reader is None:
            raise Unreadable("unreadable")
        file = reader.open(blob, path.name, Blob(Path(companion)) if companion else None)
        return [file.curve(index) for index in range(len(file))]
    except NotACurve as error:
        raise Unreadable("unreadable") from error
    except (ValueError, TypeError, LookupError, ArithmeticError, MemoryError) as error:
        raise Unreadable("unreadable") from error  # a damaged number deep inside a header


__all__ = [
    "READERS",
    "Blob",
    "CurveFile",
    "NotACurve",
    "Reader",
    "Unfinished",
    "Unreadable",
    "claim",
    "find_other",
    "find_reader",
    "is_first_half",
    "is_second_half",
    "open_file",
    "quiet_s",
]
