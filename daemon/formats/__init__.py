"""Every kind of file the program can read, what the name of a file alone says of that, and the one way to read it.

To add a format: a module with its reader, which declares the ``Format``, and a line in ``READERS``. The table in
deploy/docs/files.md and a sample are asked for by ``tests/test_daemon_formats_declared.py``.

``open_file`` is for tests and scripts; the service reads in a child process (``daemon.reading.worker``), as a file can
be made to do anything to its reader.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path

from daemon.formats.afmcurve import PackedReader
from daemon.formats.asylum import AsylumReader
from daemon.formats.base import Blob, CurveFile, Format, NotACurve, Reader, Unfinished, Unreadable, any_of
from daemon.formats.hdf5 import Hdf5Reader
from daemon.formats.jpk import JpkReader
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

#: What begins so is hidden, or kept by an editor for itself.
_HIDDEN = (".", "~")
#: Programs that write under another name first: browsers, rsync, Syncthing, editors, network clients.
_TEMPORARY = re.compile(
    r"^[.~#]|^Thumbs\.db$|^desktop\.ini$|~$|#$|[._]tmp\d*$|\.sb-[0-9a-f]+-\w+$|\.(?:temp|part|partial|crdownload|download|"
    r"filepart|swp|swx|lock|lck|bak|done|sync|ffs_tmp|aria2|opdownload)\d*$",
    re.IGNORECASE,
)
_SENTINEL = ".done"
_LABELS = "labels.csv"
#: Pictures: what a camera, a screen or a scan has made, and what programs for images write.
_PICTURE = re.compile(r"\.(?:png|jpe?g|gif|bmp|svg|gwy)$", re.IGNORECASE)
#: What is never a force curve as text or numbers, and formats of which there is no reader at all.
_FOREIGN = re.compile(
    r"\.(?:pdf|docx?|xlsx|pptx?|odt|ods|md|rst|html?|xml|json|jsonl|ya?ml|toml|ini|cfg|log|py|m|mat|ipynb|exe|dll|so|zip|"
    r"gz|bz2|xz|7z|tar|rar|mp4|avi|mov|db|sqlite(?:-\w+)?|pxp|npy|npz|pt|pth|pkl|pickle|safetensors|mdt|jpk-force-config|"
    r"layout|bak|s\d+p)$",
    re.IGNORECASE,
)
_GZIP = ".gz"
_REMEMBERED = 4096  # names


class Names:
    """The names of files (without folders), by what formats declare of them.

    ``formats`` in the order in which their readers are asked; the last one may have any name. ``text_quiet_s``: how
    long a file of the last one must rest, where that is not to be as declared.
    """

    def __init__(self, formats: Sequence[Format], text_quiet_s: float | None = None) -> None:
        *self._others, text = formats
        self._text_quiet_s = text.quiet_s if text_quiet_s is None else text_quiet_s
        self._curves = any_of(tuple(chain.from_iterable(one.suffixes for one in formats)))
        self._looked_into = any_of(tuple(chain.from_iterable(one.shared_suffixes for one in formats)))
        self._unread = any_of(tuple(chain.from_iterable(one.unread_suffixes for one in formats)))
        self._maps = any_of(tuple(chain.from_iterable(one.map_suffixes for one in formats)))
        self._pairs = [one.pair for one in formats if one.pair is not None]
        self._why_ignored = lru_cache(_REMEMBERED)(self._find_why)  # it is asked half a dozen times of a file

    def claim(self, name: str) -> bool | None:
        """Whether a file of this name is a curve file: True, False, or None: its first bytes must tell.

        The second half of a pair is False: it is read with the first.
        """
        if self.why_ignored(name) is not None:
            return False
        return True if self._curves.search(name) else None

    def why_ignored(self, name: str) -> str | None:
        """Why a file of this name is never opened, one of daemon.sources.REASONS; None for one that may be a curve."""
        return self._why_ignored(name)

    def _find_why(self, name: str) -> str | None:
        by_kind = {
            "sentinel": sentinel_target(name) is not None and not name.startswith(_HIDDEN),
            "temporary": _TEMPORARY.search(name) is not None,
            "companion": self.is_second_half(name),
            "table": name.lower() == _LABELS,
        }
        if (kind := next((kind for kind, holds in by_kind.items() if holds), None)) is not None:
            return kind
        inner = name[: -len(_GZIP)] if name.lower().endswith(_GZIP) else name
        if inner != name and "." in inner:  # text may come compressed
            return "unclaimed" if self._curves.search(inner) or self._is_foreign(inner) else None
        if self._curves.search(name) or not self._is_foreign(name):
            return None
        return "image" if _PICTURE.search(name) else "unclaimed"

    def _is_foreign(self, name: str) -> bool:
        return any(pattern.search(name) for pattern in (_PICTURE, _FOREIGN, self._unread))

    def is_likely(self, name: str) -> bool:
        """Whether an *empty* file of this name is a curve that never came rather than some other program's marker."""
        return any(pattern.search(name) for pattern in (self._curves, self._looked_into))

    def quiet_s(self, name: str) -> float:
        """How long a file of this name must rest before it is worth opening."""
        return next((one.quiet_s for one in self._others if one.is_named(name)), self._text_quiet_s)

    def is_map(self, name: str) -> bool:
        """A file of many curves by its suffix: written over minutes."""
        return self._maps.search(name) is not None

    def is_first_half(self, name: str) -> bool:
        """``Line0000Point0001Defl.ibw``: the half of a pair that is read, with the other one."""
        return any(pair.is_first(name) for pair in self._pairs)

    def is_second_half(self, name: str) -> bool:
        """``Line0000Point0001ZSnsr.ibw``: the half that is read with the first, and is no curve by itself."""
        return any(pair.is_second(name) for pair in self._pairs)

    def other_names(self, name: str) -> Iterator[str]:
        """Every name that the other half of this one may have, the usual one first; none for what is no half."""
        return chain.from_iterable(pair.other_names(name) for pair in self._pairs)

    def pick_other(self, name: str, there: Container[str]) -> str | None:
        """The other half of ``name`` among the names of its folder; of several spellings the usual one."""
        return next((other for other in self.other_names(name) if other in there), None)

    def find_other(self, file: Path) -> Path | None:
        """The other half of a file, where it lies beside it; the folder is only listed when it has no usual name."""
        usual = next(self.other_names(file.name), None)
        if usual is None:
            return None
        if (likely := file.with_name(usual)).exists():
            return likely
        try:
            found = self.pick_other(file.name, frozenset(os.listdir(file.parent)))
        except OSError:
            return None
        return None if found is None else file.with_name(found)


def sentinel_target(name: str) -> str | None:
    """``X.done`` -> ``X``, the file it declares finished; None for any other name."""
    return name[: -len(_SENTINEL)] if name.endswith(_SENTINEL) and len(name) > len(_SENTINEL) else None


def event_path(path: str) -> str:
    """A relative path as events carry it: always valid UTF-8, whatever bytes the name is made of."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


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
    "Names",
    "NotACurve",
    "Reader",
    "Unfinished",
    "Unreadable",
    "event_path",
    "find_reader",
    "open_file",
    "sentinel_target",
]
