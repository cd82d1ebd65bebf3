"""Decisions to record and a reader of sockets: what the tests of ledger, publisher and feed share."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import zmq

from daemon.judging import Decision, Judge, Thresholds
from daemon.ledger import Ledger, events
from deploy.classifier import EngineId

JUDGE = Judge(
    "shipped", "raster:v1|model:abc", EngineId("torch", "cpu", "bf16"), Thresholds(0.04, 0.62), "simulation", 0.02
)


def decision(number: int, **changes: Any) -> Decision:
    """Curve 0 of file ``number``; every third is a review with a compact copy."""
    verdict = ("keep", "discard", "review")[number % 3]
    made = Decision(
        identity=f"{number:064x}#0",
        source="watch",
        path=f"run7/curve-{number:04d}.jpk-force",
        curve=0,
        sha256=f"{number:064x}",
        verdict=verdict,  # type: ignore[arg-type]
        score=0.25,
        reasons=("score",),
        judge=JUDGE,
        force_unit="N",
        noticed_s=time.monotonic(),
        latency_s={"read": 0.002, "raster": 0.001, "infer": 0.012},
        compact_copy=b"a curve" if verdict == "review" else None,
    )
    return replace(made, **changes)


def decisions(start: int, stop: int) -> list[Decision]:
    return [decision(number) for number in range(start, stop)]


def ledger_with(path: Path, count: int) -> Ledger:
    """A ledger in which decisions 1 … count are recorded."""
    ledger = Ledger(path, "afm1")
    for start in range(1, count + 1, 500):
        ledger.record(decisions(start, min(start + 500, count + 1)))
    return ledger


def as_version_2(path: Path) -> None:
    """The ledger as a service of the version before left it: nothing in it says what may be looked at."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(
            "drop table times; drop table draws; drop table audits; drop table looks; delete from chores;"
            "pragma user_version = 2;"
        )


def status(**changes: Any) -> events.Status:
    """What an idle service says of itself."""
    said: dict[str, Any] = {
        "instrument": "afm1",
        "stream": "s",
        "pid": 1,
        "version": "0",
        "started_at": "2026-11-20T12:00:00.123Z",
        "uptime_s": 8000.0,
        "state": "ready",
        "health": [],
        "sources": [],
        "counts": {"keep": 0, "review": 0, "discard": 0},
        "session": {"seen": 0, "decided": 0, "duplicate": 0, "backlog": 0, "ignored": 0},
        "ignored": {},
        "review_queue": 0,
        "model": events.ServingModel(
            JUDGE.model, JUDGE.score_basis, JUDGE.thresholds, JUDGE.prevalence, None, JUDGE.cut
        ),
        "engine": str(JUDGE.engine),
        "device": JUDGE.engine.device,
        "engine_reasons": (),
        "latency_s": {"p50": None, "p99": None},
        "rate_per_s": 0.5,
        "watch": [],
        "metrics_port": 9795,
        "publish": "tcp://127.0.0.1:9796",
        "replay": "tcp://127.0.0.1:9797",
    }
    return events.Status(**said | changes)


def alarm(name: str, text: str, *, ok: bool = False) -> events.Alarm:
    return events.Alarm(name=name, level="ok" if ok else "alarm", text=text, since="2026-11-20T12:00:00.123Z", ok=ok)


class Clients:
    """Connected sockets, closed together at the end of a test."""

    def __init__(self) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []

    def connect(self, kind: int, endpoint: str, topic: bytes = b"", high_water: int = 1000) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self.context.socket(kind)
        self._sockets.append(socket)
        socket.set_hwm(high_water)
        socket.rcvtimeo = 5000
        if kind == zmq.SUB:
            socket.subscribe(topic)
        socket.connect(endpoint)
        return socket

    def close(self) -> None:
        for socket in self._sockets:
            socket.close(linger=0)
        self.context.term()


def next_of(subscriber: zmq.Socket[bytes], kind: str) -> dict[str, Any]:
    """The next event of this kind; zmq.Again after 5 s without any event at all."""
    deadline_s = time.monotonic() + 5
    while time.monotonic() < deadline_s:
        event: dict[str, Any] = json.loads(subscriber.recv_multipart()[1])
        if event["type"] == f"org.afmtriage.{kind}.v1":
            return event
    raise AssertionError(f"no {kind} within 5 s")
