"""Recording and publishing: what the ledger and the publisher cost for each curve of a batch."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import zmq

from daemon.common.sockets import await_input, open_socket
from daemon.formats.afmcurve import keepsake_of
from daemon.judging import Decision, FileMark, identity_of
from daemon.ledger import Ledger
from daemon.publish import Publisher
from daemon.reading import Reading

_BATCHES = 24
_ANY = "tcp://127.0.0.1:*"
_PATIENCE_S = 5.0


def record_ms(readings: Sequence[Reading], decisions: Sequence[Decision], folder: Path) -> tuple[float, float, float]:
    """Milliseconds a curve: CPU of the commit, its wall time (the disk included), CPU of the publication.

    As in the pipeline: known identities are looked up, a curve for review is kept in a compact copy, the marks of
    finished files go into the same transaction. The ledger is made in ``folder``.
    """
    ledger = Ledger(folder / "ledger.sqlite", "bench")
    cpu_s: list[float] = []
    wall_s: list[float] = []
    sent_s: list[float] = []
    with _publisher(ledger) as (publisher, socket):
        for number in range(_BATCHES):
            fresh = [replace(one, identity=f"{number:032d}{place:032d}#0") for place, one in enumerate(decisions)]
            begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
            ledger.known([one.identity for one in fresh])
            kept = [_with_keepsake(one, reading) for one, reading in zip(fresh, readings, strict=True)]
            ledger.record(kept, [_mark(reading) for reading in readings])
            cpu_s.append(time.process_time() - begun_cpu_s)
            wall_s.append(time.perf_counter() - begun_s)
            sent_s.append(_publish_s(publisher, socket, len(fresh)))
    ledger.close()
    commit, wall, publish = (1000.0 * statistics.median(taken) / len(decisions) for taken in (cpu_s, wall_s, sent_s))
    return commit, wall, publish


def _publish_s(publisher: Publisher, socket: zmq.Socket[bytes], count: int) -> float:
    """CPU time of everything but the listening thread, which is this one."""
    begun_s = time.process_time() - time.thread_time()
    publisher.poke()
    heard = 0
    while heard < count:
        if not await_input(socket, _PATIENCE_S):
            raise TimeoutError("the publisher is silent")
        heard += b".decision." in socket.recv_multipart(zmq.DONTWAIT)[0]
    return time.process_time() - time.thread_time() - begun_s


@contextmanager
def _publisher(ledger: Ledger) -> Iterator[tuple[Publisher, zmq.Socket[bytes]]]:
    """One that serves, and a subscriber that it has greeted."""
    publisher = Publisher(ledger.path, "bench", publish=_ANY, replay=_ANY, heartbeat_s=60.0)
    publisher.start()
    try:
        with open_socket(zmq.SUB) as socket:
            socket.subscribe(b"")
            socket.connect(publisher.publish_endpoint)
            if not await_input(socket, _PATIENCE_S):
                raise TimeoutError("the publisher is silent")
            yield publisher, socket
    finally:
        publisher.stop()


def _with_keepsake(decision: Decision, reading: Reading) -> Decision:
    if decision.verdict != "review" or reading.curve is None:
        return decision
    return replace(decision, keepsake=keepsake_of(reading.curve))


_fresh = itertools.count()


def _mark(reading: Reading) -> FileMark:
    """Of a file of its own each time: a new row."""
    arrival = reading.arrival
    return FileMark(f"{next(_fresh)}/{arrival.path}", arrival.size_bytes, arrival.mtime_ns, identity_of(reading), 1)
