"""What every reader of a format builds on: the bytes of a file, what it raises, and what it declares and opens.

The bytes are read without the instrument noticing: up to 64 MiB a file is read once and closed; a larger one is read in
pieces of that size, opened anew for each, and must still have the size and modification time it had first. Nothing is
locked and no handle is kept. The words for what cannot be read stand in models.reasons, with those of every other
reason.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Protocol

from daemon.formats import limits
from models.curve import Curve
from models.reasons import UNREADABLE

_KEPT_PIECES = 2  # the directory at the end of a zip, and where its members are being read
_CHUNK_BYTES = 1 << 20  # read at a time where nothing is kept: stays in the cache of a core
_READ_BYTES = 4 << 20  # read at a time where it is: between two of them there is a sign of progress
#: What only a share says whose server, or whose client, is gone. Not EIO, which a worn disk says of one file for ever.
_AWAY = frozenset(
    {errno.ENOTCONN, errno.ESTALE, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH}
    | {errno.ETIMEDOUT, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EAGAIN}
)
_PASSING_BYTES = 4 << 30  # what is larger shall not push everything else out of the system's memory


class Blob:
    """Random access to the bytes of one regular file.

    Raises ``Unfinished`` (vanished, no_permission, changed) where waiting may help, ``Unreadable`` where it cannot.
    ``is_final``: whoever offers it has waited long enough, and what is missing at its end will not come.
    ``on_read()`` is called now and then while it is being read.
    """

    def __init__(
        self,
        path: Path,
        *,
        piece_bytes: int = limits.SNAPSHOT_BYTES,
        is_final: bool = False,
        on_read: Callable[[], None] = lambda: None,
    ) -> None:
        self._path, self.is_final, self._on_read = path, is_final, on_read
        self._piece_bytes = piece_bytes
        self._pieces: OrderedDict[int, bytes] = OrderedDict()
        self._all: bytes | None = None  # of a file that is one piece, as nearly every one is
        self._sha256: str | None = None
        self._stamp: tuple[int, int] | None = None
        self._pieces[0] = first = self._open_and_read(0)
        if len(first) == self.size_bytes:
            self._all = first

    @classmethod
    def of(cls, content: bytes, *, is_final: bool = False) -> Blob:
        """Bytes that are already in memory."""
        blob = cls.__new__(cls)
        blob._path, blob._sha256, blob._stamp, blob.is_final = Path(), None, (len(content), 0), is_final
        blob._on_read = lambda: None
        blob._piece_bytes = max(len(content), 1)
        blob._pieces = OrderedDict({0: content})
        blob._all = content
        return blob

    @property
    def size_bytes(self) -> int:
        assert self._stamp is not None
        return self._stamp[0]

    @property
    def head(self) -> bytes:
        return self.read(0, min(self.size_bytes, limits.HEAD_BYTES))

    def read(self, start: int, count: int) -> bytes:
        """Bytes ``start`` to ``start + count``; ``Unfinished("truncated")`` when the file ends before."""
        if start < 0 or count < 0 or start + count > self.size_bytes:
            raise Unfinished("truncated")
        if self._all is not None:
            return self._all[start : start + count]
        number, offset = divmod(start, self._piece_bytes)
        if offset + count <= self._piece_bytes:
            piece = self._piece(number)
            return piece if count == len(piece) else piece[offset : offset + count]
        parts = []
        while count:
            part = self._piece(number)[offset : offset + count]
            parts.append(part)
            count -= len(part)
            number, offset = number + 1, 0
        return b"".join(parts)

    def whole(self) -> bytes:
        """All of it, for formats that cannot be read in part."""
        if self.size_bytes > limits.WHOLE_BYTES:
            raise Unreadable("too_large")
        return self.read(0, self.size_bytes)

    @property
    def sha256(self) -> str:
        """Hex digest of the bytes; reads a large file once from end to end."""
        if self._sha256 is None:
            digest = hashlib.sha256()
            self.feed(digest.update)
            self._sha256 = digest.hexdigest()
        return self._sha256

    def sha256_with(self, companion: Blob) -> str:
        """Hex digest of these bytes followed by the companion's: the identity of an Asylum pair."""
        digest = hashlib.sha256()
        self.feed(digest.update)
        companion.feed(digest.update)
        return digest.hexdigest()

    def feed(self, take: Callable[[bytes | memoryview], object]) -> None:
        """Give every byte, in order, to ``take``, which keeps none of them."""
        for number in range(-(-self.size_bytes // self._piece_bytes)):
            if (piece := self._pieces.get(number)) is not None:
                take(piece)
            else:
                self._pass_on(number * self._piece_bytes, take)

    def _piece(self, number: int) -> bytes:
        piece = self._pieces.get(number)
        if piece is None:
            piece = self._pieces[number] = self._open_and_read(number * self._piece_bytes)
            while len(self._pieces) > _KEPT_PIECES:
                self._pieces.popitem(last=False)
        else:
            self._pieces.move_to_end(number)
        return piece

    def _pass_on(self, start: int, take: Callable[[bytes | memoryview], object]) -> None:
        """The piece from byte ``start`` on, without keeping it."""
        handle = _open_regular(self._path)
        try:
            before = _stamp(handle)
            at, stop = start, min(start + self._piece_bytes, self.size_bytes)
            chunk = memoryview(bytearray(_CHUNK_BYTES))
            while at < stop and (got := os.preadv(handle, [chunk[: stop - at]], at)):
                take(chunk[:got])
                at += got
                self._on_read()
            if before != self._stamp or _stamp(handle) != before or at != stop:
                raise Unfinished("changed")
            if self.size_bytes > _PASSING_BYTES:
                os.posix_fadvise(handle, start, stop - start, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise Unreached(_why(error)) from error
        finally:
            _close(handle)

    def _open_and_read(self, start: int) -> bytes:
        handle = _open_regular(self._path)
        try:
            before = _stamp(handle)
            if self._stamp is None:
                self._stamp = before
            count = max(min(self._piece_bytes, self._stamp[0] - start), 0)
            piece = _read_at(handle, start, count, self._on_read)
            if before != self._stamp or _stamp(handle) != before or len(piece) != count:
                raise Unfinished("changed")
            return piece
        except OSError as error:
            raise Unreached(_why(error)) from error
        finally:
            _close(handle)


def _open_regular(path: Path) -> int:
    """A descriptor of a regular file. Pipes and devices are refused before they are opened, for opening can block."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise Unreadable("unreadable")
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Unreached(_why(error)) from error
    try:
        is_regular = stat.S_ISREG(os.fstat(handle).st_mode)
    except OSError as error:
        _close(handle)
        raise Unreached(_why(error)) from error
    if not is_regular:
        _close(handle)
        raise Unreadable("unreadable")
    return handle


def _close(handle: int) -> None:
    """A share that is away says so even then, when there is nothing more to lose."""
    with contextlib.suppress(OSError):
        os.close(handle)


def _why(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "no_permission"
    if error.errno in _AWAY:
        return AWAY
    return "vanished" if isinstance(error, FileNotFoundError | NotADirectoryError) else "unreadable"


def _stamp(handle: int) -> tuple[int, int]:
    now = os.fstat(handle)
    return now.st_size, now.st_mtime_ns


def _read_at(handle: int, start: int, count: int, on_read: Callable[[], None]) -> bytes:
    first = os.pread(handle, min(count, _READ_BYTES), start)
    if len(first) == count or not first:
        return first
    parts, have = [first], len(first)  # network file systems return less than was asked for
    while have < count:
        on_read()
        part = os.pread(handle, min(count - have, _READ_BYTES), start + have)
        if not part:
            break
        parts.append(part)
        have += len(part)
    return b"".join(parts)


#: Only a reason to wait: text whose last row has no line end may still be in the writing, or never get one. It is read
#: in the end, so nothing is ever unreadable for it.
UNENDED = "unended"
#: Only a reason to wait, as long as it takes: where the file lies does not answer. No patience runs out over that.
AWAY = "away"

#: What a file can be that is nobody's curve though its name might be one's. Labels of afm_triage_files_ignored_total.
NO_CURVES = frozenset(
    {
        "image",  # a scan of the surface, or a picture
        "table",  # numbers over time or temperature
    }
)


class NotACurve(Exception):
    """This file is whole or not, but no force curve: nobody waits for it. ``args[0]`` is one of NO_CURVES."""

    @property
    def reason(self) -> str:
        return self.args[0] if self.args and self.args[0] in NO_CURVES else "unclaimed"


class Unreadable(Exception):
    """This file (or curve) will never be readable as it is. ``args[0]`` is a reason of UNREADABLE."""

    @property
    def reason(self) -> str:
        return self.args[0] if self.args and self.args[0] in UNREADABLE else "unreadable"


class Unfinished(Exception):
    """This file is not whole yet; ``args[0]`` is the reason it gets if it stays so."""

    @property
    def reason(self) -> str:
        return self.args[0] if self.args and self.args[0] in UNREADABLE | {UNENDED, AWAY} else "truncated"


class Unreached(Unfinished):
    """The system gives none of its bytes, now. That says nothing of the file, nor of any of its curves."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One recording in two files, told by the endings of their names; everything hangs on the first.

    What copies such files may change the case of a name, and not of both halves alike. So any mix of case makes a half,
    and what stands before must be the same.
    """

    first: str  # the half that is read, together with
    second: str  # the one that is no curve by itself

    def is_first(self, name: str) -> bool:
        return name.lower().endswith(self.first.lower())

    def is_second(self, name: str) -> bool:
        return name.lower().endswith(self.second.lower())

    def other_names(self, name: str) -> Iterator[str]:
        """Every name that the other half of this one may have, the usual one first; none for what is no half."""
        own = self.first if self.is_first(name) else self.second if self.is_second(name) else ""
        if own:
            other = self.second if own == self.first else self.first
            stem, ending = name[: -len(own)], name[-len(own) :]
            yield from (stem + spelled for spelled in _spellings(other, ending))


@lru_cache(maxsize=512)  # there are 2^7 spellings of Asylum's first half and 2^8 of its second
def _spellings(other: str, ending: str) -> tuple[str, ...]:
    """``other`` as its program writes it, or all in the case of ``ending``; then every other mix."""
    alike = other.lower() if ending.islower() else other.upper() if ending.isupper() else other
    mixes = ("".join(letters) for letters in product(*({letter.lower(), letter.upper()} for letter in other)))
    return tuple(dict.fromkeys((alike, other, other.lower(), other.upper(), *sorted(mixes))))


@dataclass(frozen=True, slots=True)
class Format:
    """What is told of a format, once: whatever watches, walks or counts files asks for it here.

    Suffixes are in lower case; an ``N`` in one is any digit.
    """

    name: str  # in events and metrics
    instrument: str = ""  # the row in deploy/docs/files.md: who writes such files,
    files: str = ""  # and which of them are read
    suffixes: tuple[str, ...] = ()  # nobody else's: such a file is counted as a curve before it is opened
    shared_suffixes: tuple[str, ...] = ()  # of curves, and of images or anything else: the first bytes must tell
    image_suffixes: tuple[str, ...] = ()  # of images as a rule: looked into, but an empty file is no curve to come
    unread_suffixes: tuple[str, ...] = ()  # other formats of the same maker, never opened
    map_suffixes: tuple[str, ...] = ()  # of the above those of many curves, written over minutes
    pair: Pair | None = None
    quiet_s: float = 0.0  # how long a file must rest before it is worth opening; 0 where it shows its own end

    def is_named(self, name: str) -> bool:
        """Whether a file of this name may be of the format, by its suffix."""
        return any_of(self.suffixes + self.shared_suffixes + self.image_suffixes).search(name) is not None

    def is_image(self, name: str) -> bool:
        return any_of(self.image_suffixes).search(name) is not None


@lru_cache(maxsize=256)
def any_of(suffixes: tuple[str, ...]) -> re.Pattern[str]:
    """What is found at the end of a name that has one of these suffixes, in any case."""
    choices = "|".join(re.escape(suffix).replace("N", r"\d") for suffix in suffixes)
    return re.compile(rf"(?:{choices})$" if suffixes else r"(?!)", re.IGNORECASE)


class CurveFile(Protocol):
    """An opened file: curves by number, in stored order, each parsed only when asked for."""

    def __len__(self) -> int:
        """How many retracts the file holds."""

    def curve(self, index: int) -> Curve:
        """One retract; raises ``Unreadable`` or ``Unfinished`` for this curve alone."""


class Reader(Protocol):
    """Reads one format, which it declares."""

    format: Format

    def claims(self, name: str, head: bytes) -> bool:
        """Whether a file of this name that begins with ``head`` is this format's, whole or not."""

    def open(self, blob: Blob, name: str, companion: Blob | None) -> CurveFile:
        """Raises ``Unfinished`` (not whole yet), ``Unreadable`` (never will be) or ``NotACurve`` (nobody's curve)."""
