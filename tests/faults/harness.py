"""Producer and judge: curves with known names go into a folder; the ledger's history must tell of each exactly once."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import zmq

from daemon.client.feed import EventListener
from daemon.client.service_file import TemporaryService
from daemon.ledger import events, wire

CURVES = Path(__file__).resolve().parents[2] / "daemon" / "curves"


class Producer:
    """Writes JPK files as an instrument does: some in one go, some in two steps, some by renaming."""

    def __init__(self, folder: Path, prefix: str = "curve") -> None:
        self._folder, self._prefix = folder, prefix
        self._content = (CURVES / "fmt-jpk-fd_spot3-0192.jpk-force").read_bytes()
        self.written: list[str] = []

    def write(self) -> Path:
        number = len(self.written)
        name = f"{self._prefix}-{number:06d}.jpk-force"
        content = fresh(self._content, f"{self._prefix} {number}")
        path = self._folder / name
        if number % 3 == 0:
            hidden = self._folder / f".{name}.tmp"
            hidden.write_bytes(content)
            os.rename(hidden, path)
        else:
            with path.open("wb") as file:
                file.write(content[: len(content) // 2])
                if number % 3 == 1:
                    file.flush()
                file.write(content[len(content) // 2 :])
        self.written.append(name)
        return path


def fresh(archive: bytes, number: int | str) -> bytes:
    """The same curve with an identity of its own: a comment at the end of the zip."""
    content = io.BytesIO(archive)
    with zipfile.ZipFile(content, "a") as zip_file:
        zip_file.comment = f"curve {number}".encode()
    return content.getvalue()


@dataclass
class Findings:
    """What the judge found; everything that must be empty is."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    gaps: list[int] = field(default_factory=list)
    decided: int = 0


def history(trial: TemporaryService) -> list[dict]:  # type: ignore[type-arg]
    """Every decision that the service has ever announced, asked for as a late subscriber would."""
    events: list[dict] = []  # type: ignore[type-arg]
    with zmq.Context() as context, context.socket(zmq.DEALER) as asker:
        asker.linger = 0
        asker.connect(trial.replay)
        while True:
            asker.send_multipart([b"since", str(events[-1]["seq"] if events else 0).encode()])
            if not asker.poll(10_000):
                raise TimeoutError("the service did not answer")
            bodies = [json.loads(body) for body in asker.recv_multipart() if body]
            if not bodies:
                return events
            events += bodies


def judge(written: list[str], events: list[dict]) -> Findings:  # type: ignore[type-arg]
    """Each written curve once, seq from 1 without a gap."""
    paths = [event["data"]["path"] for event in events]
    seqs = [event["seq"] for event in events]
    return Findings(
        lost=sorted(set(written) - set(paths)),
        doubled=sorted(path for path, times in Counter(paths).items() if times > 1),
        gaps=[seq for seq, expected in zip(seqs, range(1, len(seqs) + 1), strict=True) if seq != expected],
        decided=len(events),
    )


def scrape(trial: TemporaryService) -> dict[str, float]:
    """The numbers of one scrape: metric with labels -> value."""
    with urlopen(f"http://127.0.0.1:{trial.metrics_port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


def identity_holds(numbers: dict[str, float]) -> bool:
    """seen = decided + duplicate + backlog, in one scrape."""

    def total(name: str) -> float:
        return sum(value for key, value in numbers.items() if key.split("{")[0] == f"afm_triage_{name}")

    accounted = total("decisions_total") + total("curves_duplicate_total") + total("backlog_curves")
    return total("curves_seen_total") == accounted


class NoticeListener(EventListener):
    """Keeps what is told of one kind."""

    def __init__(self, kind: str, endpoint: str) -> None:
        super().__init__(endpoint)
        self.told: list[dict[str, Any]] = []
        self._kind = kind

    def _note(self, body: bytes) -> None:
        super()._note(body)
        event = wire.decode(body)
        if events.kind_of(event) == self._kind:
            self.told.append(event["data"])
