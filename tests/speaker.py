"""A service's voice without its pipeline: a real ledger, a real publisher, and whereabouts that lead to them."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from daemon import __version__
from daemon.client.service_file import forget, leave
from daemon.labels.sessions import answers_of
from daemon.ledger import Ledger, events
from daemon.publish import Publisher
from daemon.sources import SourceHealth
from models.clock import utc_now
from models.goal import WANTED, told
from tests.ledgerhelp import decision, status

ANY = "tcp://127.0.0.1:0"


def preview(rupture: int = 120, columns: int = 128) -> str:
    """A curve of one stretch and rupture, as an event carries it."""
    middle = np.full(columns, 80.0)
    middle[:8] = np.linspace(0, 80, 8)
    middle[20:40] += rupture * np.linspace(0, 1, 20) ** 3
    edges = np.stack([middle - 4, middle + 4]).clip(0, 255).astype(np.uint8)
    return base64.b64encode(edges.tobytes()).decode()


class Speaker:
    """Speaks for ``state`` from a thread of this process; ``health`` is what its status will say."""

    def __init__(self, state: Path, instrument: str = "afm1", pid: int | None = None) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self.state, self.instrument, self.pid = state, instrument, pid or os.getpid()
        self.health: list[events.Health] = []
        self.ledger = Ledger(state / "ledger.sqlite", instrument)
        self.recorded = self.ledger.last_seq
        self.speak()

    def speak(self, publish: str = ANY, replay: str = ANY) -> None:
        path = self.ledger.path
        self.publisher = Publisher(
            path,
            self.instrument,
            publish=publish,
            replay=replay,
            status=self.status,
            heartbeat_s=0.2,
            told=answers_of(self.state / "labels.sqlite"),
        )
        self.publish, self.replay = self.publisher.publish_endpoint, self.publisher.replay_endpoint
        leave(self.state, self.publish, self.replay, utc_now())
        self.publisher.start()

    def record(self, count: int, **changes: Any) -> None:
        """``count`` more decisions: keep, discard and review in turn, each with a drawing."""
        numbers = range(self.recorded + 1, self.recorded + count + 1)
        self.ledger.record([decision(number, preview=preview(), **changes) for number in numbers])
        self.recorded += count
        self.publisher.poke()

    def status(self) -> events.Status:
        with self.ledger.view() as view:
            counts, queue, stream, last_seq = view.verdict_counts(), view.review_count(), view.stream, view.last_seq
        return status(
            instrument=self.instrument,
            stream=stream,
            pid=self.pid,
            version=__version__,
            state="degraded" if self.health else "ready",
            health=self.health,
            sources=[SourceHealth("/data/afm1", True, "inotify + scan every 30 s", 2)],
            counts=counts,
            session={"seen": last_seq, "decided": last_seq, "duplicate": 0, "backlog": 0, "ignored": 1},
            review_queue=queue,
            latency_s={"p50": 0.018, "p99": 0.041},
            watch=["/data/afm1"],
            publish=self.publish,
            replay=self.replay,
            goal=told(counts["keep"], WANTED),
        )

    def fall_silent(self) -> None:
        """As after kill -9: the ledger stays, and so do the whereabouts."""
        self.publisher.stop()

    def close(self) -> None:
        self.publisher.stop()
        self.ledger.close()
        forget(self.state)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
