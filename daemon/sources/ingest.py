"""The ingest source: a ZeroMQ ROUTER that answers "accepted" once a curve is on disk, and not before."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import zmq

from daemon.common.allowed import Allowed
from daemon.common.errors import UserError
from daemon.common.sockets import bind, open_envelope, open_socket, receive
from daemon.formats.afmcurve import SUFFIX
from daemon.sources import Arrival, SourceHealth
from daemon.sources.message import (
    LARGEST_FRAME_BYTES,
    Message,
    Refused,
    check_same,
    content_of,
    digest_of,
    name_and_id,
    parse,
)
from models.clock import today
from models.files import UNFINISHED, append_line, sync_folder, write_whole

_log = logging.getLogger(__name__)
_POLL_S = 0.1
_LINGER_MS = 200  # after the end, for the last answers
_CLOSED_S = 5.0  # that the address of a socket we have closed may stay taken
_BATCH, _BATCH_BYTES = 32, 64 << 20  # messages put on disk before their senders are answered
_MOST_FRAMES = 8  # more than the two of an envelope and the three of a curve, so that a fourth is seen
_HIGH_WATER = 16  # messages waiting a sender: up to 128 MiB each
_RETRY_S, _TRIES = 0.5, 4  # a spooled curve is whole, so a reader that says otherwise is asked only a few times more
_DECIDED, _PRUNED = "decided.txt", "pruned.txt"


class Spool:
    """Curves that came over the network, each a file of its own, on disk before anybody is told.

    ``<folder>/YYYY-MM-DD/<first half of the SHA-256 of the id>.afmcurve``, and in each day's folder a list of the
    decided ones. The list may lag behind: a curve offered twice is decided once, by its id. Written by one thread.
    Raises OSError where the disk does not take a curve.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, str] = {}  # file name without suffix -> day

    def open(self) -> list[Path]:
        """Take stock; returns the files that are not known to be decided, oldest first."""
        self._folder.mkdir(parents=True, exist_ok=True)
        waiting: list[Path] = []
        for day in sorted(entry.name for entry in os.scandir(self._folder) if entry.is_dir()):
            waiting += self._open_day(day)
        return waiting

    def _open_day(self, day: str) -> Iterator[Path]:
        folder = self._folder / day
        decided = folder / _DECIDED
        done = set(decided.read_text("ascii", "replace").split()) if decided.exists() else set()
        found = sorted((entry.stat().st_mtime_ns, entry.name) for entry in os.scandir(folder))
        for _, name in found:
            if name.endswith(UNFINISHED):  # the sender was never answered, and sends it again
                (folder / name).unlink(missing_ok=True)
            elif name.endswith(SUFFIX):
                stem = name.removesuffix(SUFFIX)
                self._names[stem] = day
                if stem not in done:
                    yield folder / name
        with contextlib.suppress(FileNotFoundError):
            gone = (folder / _PRUNED).read_text("ascii", "replace").splitlines()
            self._names |= {line.partition(" ")[0]: day for line in gone}

    def find(self, identity: str) -> Path | None:
        """The file of this id's curve, decided or not, pruned or there; None for an id that is new."""
        stem = _stem(identity)
        day = self._names.get(stem)
        return None if day is None else self._folder / day / (stem + SUFFIX)

    def write(self, identity: str, content: bytes) -> Path:
        """Put one curve on disk, for good only after ``sync``."""
        day = today()
        folder = self._folder / day
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            sync_folder(self._folder)
        stem = _stem(identity)
        path = folder / (stem + SUFFIX)
        write_whole(path, content, is_synced=True)
        self._names[stem] = day
        return path

    def forget(self, identity: str) -> None:
        """It may not be on disk after all: take it anew when it is sent again."""
        self._names.pop(_stem(identity), None)

    def sync(self, paths: list[Path]) -> None:
        """Make the names of ``paths`` last."""
        for folder in {path.parent for path in paths}:
            sync_folder(folder)

    def settle(self, paths: list[Path]) -> None:
        """Remember that these are decided."""
        days: dict[Path, list[str]] = {}
        for path in paths:
            days.setdefault(path.parent, []).append(path.name.removesuffix(SUFFIX))
        for folder, stems in days.items():
            with open(folder / _DECIDED, "a", encoding="ascii") as file:
                file.write("".join(stem + "\n" for stem in stems))


def prune(paths: Sequence[Path]) -> None:
    """Files of one day whose curves are decided go; what each curve was is noted first, so that an id stays taken.

    Beside the running source, from any thread or process. OSError.
    """
    note = paths[0].with_name(_PRUNED)
    append_line(note, "\n".join(f"{path.name.removesuffix(SUFFIX)} {digest_of(path)}" for path in paths).encode())
    for path in paths:
        path.unlink(missing_ok=True)


def digest_noted(path: Path) -> str | None:
    """What the curve of a file that was pruned was; None where it was not."""
    with contextlib.suppress(FileNotFoundError):
        for line in path.with_name(_PRUNED).read_text("ascii", "replace").splitlines():
            stem, _, digest = line.partition(" ")
            if stem == path.name.removesuffix(SUFFIX):
                return digest
    return None


def _stem(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class _Later:
    due_s: float
    arrival: Arrival
    tries: int


class IngestSource:
    """Implements ``daemon.sources.Source`` for curves that a script sends.

    ``seen(1)`` is called for each curve before it can be taken, ``refused(reason)`` for each message that was none;
    these and ``wake`` from the thread of this source. ``allowed`` says who may send from other machines.
    """

    name = "ingest"

    def __init__(
        self,
        endpoint: str,
        folder: Path,
        *,
        wake: Callable[[], None],
        seen: Callable[[int], None] = lambda count: None,
        refused: Callable[[str], None] = lambda reason: None,
        allowed: Allowed | None = None,
    ) -> None:
        self.endpoint = endpoint  # after start: the address in fact
        self._spool = Spool(folder)
        self._wake, self._seen, self._refused, self._allowed = wake, seen, refused, allowed
        self._revocations = 0
        self._ready: deque[Arrival] = deque()
        self._inbox: queue.SimpleQueue[Path | _Later] = queue.SimpleQueue()
        self._later: list[_Later] = []
        self._tries: dict[Path, int] = {}
        self._pending: dict[Path, float] = {}  # file -> when it came (time.monotonic())
        self._last_curve_s: float | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)
        self._accepted = self._refusals = 0
        self._trouble = ""

    def start(self) -> None:
        """Bind, offer what an earlier run left undecided, and listen. Raises UserError when it cannot bind."""
        self._bind()
        for path in self._spool.open():
            self._offer(self._recall(path))
        self._thread.start()

    def _bind(self, patience_s: float = 0.0) -> None:
        """Raises UserError, with a closed socket."""
        allowed = self._allowed
        secure, revocations = (None, 0) if allowed is None else (allowed.secure, allowed.revocations)
        self._socket = open_socket(zmq.ROUTER, _LINGER_MS)
        try:
            self._socket.setsockopt(zmq.RCVHWM, _HIGH_WATER)
            self.endpoint = bind(self._socket, self.endpoint, "ingest", LARGEST_FRAME_BYTES, secure, patience_s)
        except UserError:
            self._socket.close()
            raise
        self._revocations = revocations

    def take(self, limit: int, large: int) -> list[Arrival]:
        """At most ``limit`` curves, in the order they came. Each fits into one message, so none is ``large``."""
        taken: list[Arrival] = []
        with contextlib.suppress(IndexError):
            while len(taken) < limit:
                taken.append(self._ready.popleft())
        return taken

    def _answered(self, arrival: Arrival, is_done: bool, reason: str | None) -> None:
        """Done: never offered again, also after a restart. Else again in half a second; the fourth time is the last.

        What was packed here is a curve; should a reader say otherwise, it is done with.
        """
        if not is_done:
            tries = self._tries[arrival.file] = self._tries.get(arrival.file, 0) + 1
            self._inbox.put(_Later(time.monotonic() + _RETRY_S, arrival, tries))
            return
        if reason is not None:
            self._refused(reason)
        self._tries.pop(arrival.file, None)
        self._pending.pop(arrival.file, None)
        self._inbox.put(arrival.file)

    def ready(self) -> int:
        """How many curves wait to be taken."""
        return len(self._ready)

    def oldest_pending_s(self) -> float | None:
        """Age of the curve that has waited longest for its decision; None when none waits."""
        noticed_s = min(list(self._pending.values()), default=None)
        return None if noticed_s is None else time.monotonic() - noticed_s

    def health(self) -> list[SourceHealth]:
        """One entry: the socket."""
        detail = self._trouble or f"{self._accepted} accepted, {self._refusals} refused since start"
        return [
            SourceHealth(self.endpoint, not self._trouble, detail, len(self._later), last_curve_s=self._last_curve_s)
        ]

    def stop(self) -> None:
        """End the thread; what is on disk is offered at the next start."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    if self._allowed is not None and self._allowed.revocations != self._revocations:
                        self._hang_up()
                    if self._socket.poll(int(_POLL_S * 1000)):
                        self._receive()
                    self._settle_and_retry()
                except (zmq.ZMQError, OSError, UserError) as error:
                    _log.warning("ingest: %s, going on", error)
                    self._stopping.wait(_POLL_S)
            self._settle_and_retry()
        finally:
            self._socket.close()

    def _hang_up(self) -> None:
        """On everybody, as somebody was revoked; what has come is answered, and what was not is sent again."""
        if not self._socket.closed:  # else the address could not be had back at once
            self._receive()
            self._socket.close()
        self._bind(_CLOSED_S)

    def _receive(self) -> None:
        """Everything that has come, in portions: write all, make them last together, then answer."""
        came: list[list[bytes]] = []
        came_bytes = 0
        while len(came) < _BATCH and came_bytes < _BATCH_BYTES and self._socket.poll(0):
            came.append(receive(self._socket, _MOST_FRAMES))
            came_bytes += sum(map(len, came[-1]))
        arrivals: dict[str, Arrival] = {}
        answers = []
        for frames in came:
            envelope, body = open_envelope(frames)
            answers.append((envelope, *self._store(body, arrivals)))
        lost = self._make_last(arrivals)
        for envelope, identity, reason in answers:
            self._answer(envelope, identity, lost if identity in arrivals and lost else reason)

    def _make_last(self, arrivals: Mapping[str, Arrival]) -> str | None:
        """Sync what was written and offer it; the reason when the disk failed at the last moment."""
        if not arrivals:
            return None
        try:
            self._spool.sync([arrival.file for arrival in arrivals.values()])
        except OSError as error:
            for identity in arrivals:
                self._spool.forget(identity)
            return self._cannot_store(error)
        for arrival in arrivals.values():
            self._offer(arrival)
        self._wake()
        return None

    def _store(self, body: list[bytes], arrivals: dict[str, Arrival]) -> tuple[str | None, str | None]:
        """(id, None) when the curve is on disk, else (id if known, reason)."""
        noticed_s = time.monotonic()
        try:
            message = parse(body)
            if (path := self._spool.find(message.id)) is None:
                arrivals[message.id] = self._write(message, noticed_s)
            else:
                check_same(message, path, partial(digest_noted, path))
        except Refused as refusal:
            return refusal.id, str(refusal)
        except OSError as error:
            return message.id, self._cannot_store(error)
        self._trouble = ""
        return message.id, None

    def _cannot_store(self, error: OSError) -> str:
        self._trouble = f"curves cannot be stored: {error.strerror}"
        _log.error("ingest: %s", self._trouble)
        return f"cannot be stored now ({error.strerror}); send it again"

    def _write(self, message: Message, noticed_s: float) -> Arrival:
        path = self._spool.write(message.id, content_of(message))
        return _arrival(path, message.name, message.id, noticed_s)

    def _offer(self, arrival: Arrival) -> None:
        self._seen(1)
        self._pending[arrival.file], self._last_curve_s = arrival.noticed_s, time.time()
        self._ready.append(replace(arrival, answer=self._answered))

    def _recall(self, path: Path) -> Arrival:
        """What an earlier run accepted; a file that rotted is offered too, for its reason."""
        try:
            name, identity = name_and_id(path)
        except Exception as error:  # whatever is in the file, the service must start
            _log.warning("ingest: %s cannot be read (%s)", path, error)
            return _arrival(path, path.name, None, time.monotonic())
        return _arrival(path, name, identity, time.monotonic())

    def _answer(self, envelope: list[bytes], identity: str | None, reason: str | None) -> None:
        if reason is None:
            self._accepted += 1
        else:
            self._refusals += 1
            self._refused("refused")
        body = {"id": identity, "status": "accepted" if reason is None else "refused", "reason": reason}
        with contextlib.suppress(zmq.ZMQError):  # the sender is gone, and will ask again with the same id
            self._socket.send_multipart([*envelope, json.dumps(body).encode()], zmq.DONTWAIT)

    def _settle_and_retry(self) -> None:
        decided: list[Path] = []
        with contextlib.suppress(queue.Empty):
            while True:
                item = self._inbox.get_nowait()
                if isinstance(item, Path):
                    decided.append(item)
                else:
                    self._later.append(item)
        if decided:
            self._spool.settle(decided)
        due = [later for later in self._later if later.due_s <= time.monotonic()]
        if due:
            self._later = [later for later in self._later if later not in due]
            self._ready.extend(replace(later.arrival, final=later.tries >= _TRIES - 1) for later in due)
            self._wake()


def _arrival(path: Path, name: str, identity: str | None, noticed_s: float) -> Arrival:
    found = os.stat(path)
    return Arrival(
        source="ingest",
        path=name,
        file=path,
        size_bytes=found.st_size,
        mtime_ns=found.st_mtime_ns,
        noticed_s=noticed_s,
        known_curve=identity,
    )
