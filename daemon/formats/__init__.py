"""Every kind of file the program can read, and the one way to read it.

To add a format: a module with its reader, which declares the ``Format``, and a line in ``READERS``. The table in
deploy/docs/files.md and a sample are asked for by ``tests/test_daemon_formats_declared.py``.

``open_file`` is for tests and scripts; the service reads in a child process (``daemon.reading.worker``), as a file can
be made to do anything to its reader.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from daemon.formats.afmcurve import PackedReader
from daemon.formats.asylum import AsylumReader
from daemon.formats.base import Blob, CurveFile, Format, NotACurve, Reader, Unfinished, Unreadable
from daemon.formats.hdf5 import Hdf5Reader
from daemon.formats.jpk import JpkReader
from daemon.formats.names import Names
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
FORMATS: tuple[Format, ...] = tuple(reader.format for reader in READERS)
NAMES = Names(FORMATS)


def find_reader(name: str, blob: Blob, rule: TextRule | None = None) -> Reader | None:
    """The reader of a file, or None when nobody wants it; ``rule``: what the laboratory says of it, if it is text.

    Raises ``Unfinished("empty")`` for an empty file that looks like a curve to come.
    """
    if NAMES.claim(name) is False:
        return None
    if blob.size_bytes == 0:
        if NAMES.is_likely(name):
            raise Unfinished("empty")
        return None
    head = blob.head
    found = next((reader for reader in READERS if reader.claims(name, head)), None)
    return replace(found, rule=rule) if rule is not None and isinstance(found, TextReader) else found


def open_file(path: Path | str, companion: Path | str | None = None) -> list[Curve]:
    """All curves of one file, read in this process.

    Raises ``Unfinished``, ``Unreadable``; ``Unreadable("unreadable")`` also where no reader wants the file, or knows
    that it is no curve.
    """
    path = Path(path)
    if companion is None and NAMES.is_first_half(path.name):
        companion = NAMES.find_other(path)
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
    "FORMATS",
    "NAMES",
    "READERS",
    "Blob",
    "CurveFile",
    "Format",
    "NotACurve",
    "Reader",
    "Unfinished",
    "Unreadable",
    "find_reader",
    "open_file",
]
