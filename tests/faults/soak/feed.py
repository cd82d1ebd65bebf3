"""What the instruments of a soak write and send, and the oracle: every curve that must be decided, path and index."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zmq

from tests.faults.harness import CURVES
from tests.makers import a_retract, make_jpk, make_jpk_map

MAP_CURVES = 100
_A_FOLDER = 500  # files; an instrument begins a new folder for each sample
_AGAIN_EACH = 100
_ANSWER_S = 3.0  # an ingest message without an answer is sent again

#: (path, curve) -> the content that it was made from; equal contents must be judged alike
Oracle = dict[tuple[str, int], str]


@dataclass(frozen=True, slots=True)
class Share:
    """One kind of instrument: its share of all curves, and how many curves each thing that it writes holds."""

    name: str
    part: float
    each: int = 1


SHARES = (
    Share("jpk", 0.30),
    Share("map", 0.42, MAP_CURVES),
    Share("text", 0.06),
    Share("far", 0.02),
    Share("far-map", 0.06, MAP_CURVES),
    Share("sent", 0.14),
)


class Contents:
    """Bytes of files and frames of messages, made once; each use gets an identity of its own."""

    def __init__(self, seed: int) -> None:
        made = {f"made{i}": make_jpk(*a_retract(2048, seed + i, _peak_pn(i))) for i in range(24)}
        real = {path.stem.replace("-", ""): path.read_bytes() for path in sorted(CURVES.glob("*.jpk-force"))}
        self.jpk = made | real
        self.map = {
            f"map{i}": make_jpk_map(MAP_CURVES, 512, seed=seed + 100 * i, peak_pn=_peak_pn(i)) for i in range(6)
        }
        self.text = {path.stem.replace("_", ""): path.read_bytes() for path in sorted(CURVES.glob("waite_*.txt"))}
        self.sent = {f"sent{i}": a_retract(1000, seed + 9000 + i, _peak_pn(i)) for i in range(24)}


def _peak_pn(number: int) -> float:
    """One in six has an event, as on a good day."""
    return 150.0 if number % 6 == 5 else 0.0


def commented(archive: bytes, number: int) -> bytes:
    """The same zip with an identity of its own: its end record is the last 22 bytes and takes a comment."""
    comment = f"curve {number}".encode()
    return archive[:-2] + len(comment).to_bytes(2, "little") + comment


def renumbered(text: bytes, number: int) -> bytes:
    """The same columns but for the tenth and later digits of the last value."""
    head, dot, _ = text.rstrip(b"\n").rpartition(b".")
    return head + dot + b"7819999%011de+02\n" % number


class Feed(threading.Thread):
    """Writes its share of the curves on the clock, whatever becomes of the service; ``oracle`` says what it wrote."""

    def __init__(self, share: Share, curves: int, seconds: float, write: Callable[[int], Iterator[tuple[str, str]]]):
        super().__init__(name=f"feed {share.name}", daemon=True)
        self._share, self._write = share, write
        self._things = max(round(curves * share.part / share.each), 1)
        self._pause_s = seconds / self._things
        self.oracle: Oracle = {}
        self.wrong: BaseException | None = None

    def run(self) -> None:
        begun_s = time.monotonic()
        try:
            for number in range(self._things):
                time.sleep(max(begun_s + number * self._pause_s - time.monotonic(), 0.0))
                for path, content in self._write(number):
                    self.oracle.update(((path, curve), content) for curve in range(self._share.each))
        except BaseException as error:  # a feed that ends early would make the soak easier than it says
            self.wrong = error
            raise


def into_folder(
    folder: Path, name: str, suffix: str, contents: dict[str, bytes], own: Callable[[bytes, int], bytes]
) -> Callable[[int], Iterator[tuple[str, str]]]:
    """In three styles: in one go, in two steps, and by renaming what was written under another name."""
    pool = sorted(contents)

    def write(number: int) -> Iterator[tuple[str, str]]:
        which = pool[number % len(pool)]
        relative = Path(f"{name}{number // _A_FOLDER:03d}") / f"{name}-{number:06d}-{which}{suffix}"
        path, content = folder / relative, own(contents[which], number)
        path.parent.mkdir(exist_ok=True)
        if number % 3 == 0:
            hidden = path.with_name(f".{path.name}.tmp")
            hidden.write_bytes(content)
            hidden.rename(path)
        else:
            with path.open("wb") as file:
                file.write(content[: len(content) // 2])
                if number % 3 == 1:
                    file.flush()
                    time.sleep(0.05)
                file.write(content[len(content) // 2 :])
        yield str(relative), which

    return write


class Sender:
    """A script that sends curves over ZeroMQ and believes only an answer; what has none is sent again."""

    def __init__(self, endpoint: str, contents: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:  # type: ignore[type-arg]
        self._pool, self._contents = sorted(contents), contents
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(endpoint)
        self._run = secrets.token_hex(4)
        self._open: dict[str, tuple[float, str, list[bytes]]] = {}  # id -> when it was sent, content, frames
        self.again = 0

    def write(self, number: int) -> Iterator[tuple[str, str]]:
        """One more; and now and then an old one again, as a script that was started anew: it must be decided once."""
        self._send_one(number)
        if number % _AGAIN_EACH == _AGAIN_EACH - 1:
            self._send_one(number - _AGAIN_EACH // 2)
        yield from self.answered()

    def _send_one(self, number: int) -> None:
        which = self._pool[number % len(self._pool)]
        name = f"sent/sent-{number:06d}-{which}"
        header = {
            "id": f"{self._run}-{name}",
            "name": name,
            "dtype": "<f4",
            "force_unit": "N",
            "pulling": "positive",
            "distance_grows": "away",
        }
        force, distance = (samples.astype("<f4").tobytes() for samples in self._contents[which])
        self._send(header["id"], which, [json.dumps(header).encode(), force, distance])

    def drain(self, timeout_s: float) -> Iterator[tuple[str, str]]:
        """What is answered until nothing is open any more; TimeoutError where that takes too long."""
        deadline_s = time.monotonic() + timeout_s
        while self._open:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{len(self._open)} curves that were sent have no answer")
            time.sleep(0.05)
            yield from self.answered()

    def answered(self) -> Iterator[tuple[str, str]]:
        """What is on the service's disk by its own word; what is overdue or was refused goes again."""
        while self._socket.poll(0):
            said = json.loads(self._socket.recv_multipart()[-1])
            if said["status"] == "accepted" and (found := self._open.pop(said["id"], None)):
                yield said["id"].split("-", 1)[1], found[1]
        now_s = time.monotonic()
        for identity, (sent_s, which, frames) in list(self._open.items()):
            if now_s - sent_s > _ANSWER_S:
                self.again += 1
                self._send(identity, which, frames)

    def _send(self, identity: str, which: str, frames: list[bytes]) -> None:
        self._open[identity] = (time.monotonic(), which, frames)
        try:
            self._socket.send_multipart(frames, zmq.DONTWAIT)
        except zmq.Again:
            return  # the service is down, and its queue full: when it is overdue

    def close(self) -> None:
        self._socket.close()
