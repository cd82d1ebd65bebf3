"""A ledger of many decisions, made within a minute: through SQL, with the product's own schema and encoding."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from daemon.judging import Decision, Judge, Thresholds
from daemon.ledger import Ledger, events, wire
from daemon.ledger.wire import checksum
from deploy.classifier import EngineId

_JUDGE = Judge(
    "shipped", "raster:v1|model:abc", EngineId("openvino", "cpu", "fp32"), Thresholds(0.004, 0.28), "labels", 0.02
)
_AT_ONCE = 5_000
_COPY_BYTES = 9_000  # of a flagged curve; every fiftieth is flagged


def build(path: Path, count: int, folder: str = "/mnt/afm") -> None:
    """``count`` decisions, each on a file of its own below ``folder``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(path, "afm1")
    stream = ledger.stream
    ledger.close()
    tally: Counter[str] = Counter()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript("pragma synchronous = off; pragma cache_size = -200000")
        for start in range(0, count, _AT_ONCE):
            some = list(_decisions(start, min(start + _AT_ONCE, count), folder))
            tally.update(one.verdict for one in some)
            database.execute("begin")
            for seq, one in enumerate(some, start + 1):
                _insert(database, one, seq, stream, folder)
            database.execute("commit")
        database.executemany("update tally set curves = ? where verdict = ?", [(n, word) for word, n in tally.items()])
        database.execute("pragma wal_checkpoint(truncate)")


def _decisions(start: int, stop: int, folder: str) -> Iterator[Decision]:
    preview = base64.b64encode(os.urandom(512)).decode()
    for number in range(start, stop):
        path = f"day{number // 20_000:03d}/run{number // 500:05d}/force-save-{number:07d}.jpk-force"
        sha256 = hashlib.sha256(path.encode()).hexdigest()
        verdict = "review" if number % 50 == 0 else "keep" if number % 70 == 0 else "discard"
        yield Decision(
            identity=f"{sha256}#0",
            source="watch",
            path=path,
            curve=0,
            sha256=sha256,
            verdict=verdict,  # type: ignore[arg-type]  # one of the three
            score=0.001,
            reasons=("score",),
            judge=_JUDGE,
            force_unit="N",
            noticed_s=0.0,
            latency_s={"read": 0.002, "raster": 0.001, "infer": 0.005},
            preview=preview,
            folder=folder,
        )


def _insert(database: sqlite3.Connection, one: Decision, seq: int, stream: str, folder: str) -> None:
    event = events.decision_event(one, instrument="afm1", stream=stream, seq=seq, wall_s=1.78e9 + seq, total_s=0.02)
    body = wire.encode(event)
    row = (seq, one.identity, one.verdict, body, checksum(seq, one.verdict, body))
    database.execute("insert into decisions values (?, ?, ?, ?, ?)", row)
    database.execute("insert into names values (?, ?, ?, ?)", (one.path, 0, seq, folder))
    mark = (folder, one.path, 125_000, 1_700_000_000_000_000_000 + seq, one.sha256, 1)
    columns = "folder, path, size_bytes, mtime_ns, sha256, curves, looked_ns"
    database.execute(f"insert into files ({columns}) values (?, ?, ?, ?, ?, ?, 0)", mark)
    if one.verdict == "review":
        review = (seq, one.path, 0, one.sha256, os.urandom(_COPY_BYTES))
        database.execute("insert into reviews values (?, ?, ?, ?, ?)", review)


def forget_pages(path: Path) -> None:
    """What the page cache holds of a file, as after a reboot."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
