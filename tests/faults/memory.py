"""Many curves, and what the service does meanwhile; `python -m tests.faults.memory --curves 20000` prints its memory.

With ``--rate 50`` the curves are those of one simulated laboratory (tests.studies.misread) in which nothing ever goes
wrong, as many a second: no alarm may ring. ``--cuts 10`` moves the discard cut as often on the way, as `adapt` does.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.client.feed import ask
from daemon.client.service_file import TemporaryService
from daemon.instrument import pack
from daemon.judging.registry import Registry
from daemon.ledger import wire
from models.bundle import CONFIRMED, SHIPPED, Bundle, read
from tests.faults.harness import NoticeListener, Producer, history, judge, scrape
from tests.studies.misread import FAULTS, Laboratory


def processes_of(pid: int) -> list[int]:
    """The process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    threads = Path(f"/proc/{pid}/task").iterdir()
    for thread in threads:
        children += (thread / "children").read_text().split()
    return [pid, *sorted({int(child) for child in children})]


def pss_bytes(pid: int) -> int:
    """Proportional set size of the service, all its processes together."""
    total = 0
    for process in processes_of(pid):
        with suppress(ProcessLookupError, FileNotFoundError):  # one of them has just ended
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


@dataclass(slots=True)
class Soaked:
    """Memory in bytes, when ready, at its peak and at the end; curves decided a second; and what was told."""

    at_start: int
    peak: int = 0
    at_end: int = 0
    rate: float = 0.0
    told: list[dict[str, Any]] = field(default_factory=list)
    guard: dict[str, Any] = field(default_factory=dict)


def run(curves: int, rate: float | None = None, cuts: int = 0) -> Soaked:
    """As fast as they are written, or ``rate`` a second of a laboratory; ``cuts`` are moved on the way."""
    with (
        tempfile.TemporaryDirectory() as folder,
        TemporaryService(Path(folder)) as trial,
        NoticeListener("alarm", trial.publish) as listener,
    ):
        assert trial.process is not None
        producer = Producer(trial.watch)
        found = Soaked(pss_bytes(trial.process.pid))
        begun_s = time.monotonic()
        write = producer.write if rate is None else _of_laboratory(trial.watch, producer, rate)
        writer = threading.Thread(target=lambda: [write() for _ in range(curves)])
        writer.start()
        decided, moved = 0.0, 0
        while decided < curves:
            time.sleep(0.5)
            found.peak = max(found.peak, pss_bytes(trial.process.pid))
            numbers = scrape(trial)
            decided = sum(value for key, value in numbers.items() if key.startswith("afm_triage_decisions_total"))
            if moved < min(cuts, int(decided * (cuts + 1) / curves)):
                _move_cut(Registry(trial.state / "models"), read(SHIPPED), moved)
                moved += 1
        found.rate = curves / (time.monotonic() - begun_s)
        writer.join()
        assert moved == cuts
        judged = judge(producer.written, history(trial))
        assert (judged.lost, judged.doubled, judged.gaps) == ([], [], [])
        found.at_end = pss_bytes(trial.process.pid)
        answer = ask(trial.replay, b"status", timeout_s=10.0)
        found.guard = {} if answer is None else wire.decode(answer[-1])["data"].get("guard") or {}
        found.told = listener.told
        return found


def _of_laboratory(folder: Path, producer: Producer, rate: float) -> Callable[[], object]:
    """Writes the next curve of an unchanged laboratory when its time has come."""
    laboratory, begun_s = Laboratory(20_000), time.monotonic()

    def write() -> None:
        number = len(producer.written)
        content = pack(laboratory.curve(number, FAULTS["nothing"]))
        time.sleep(max(begun_s + number / rate - time.monotonic(), 0.0))
        name = f"curve-{number:06d}.jpk-force"
        (folder / name).write_bytes(content)
        producer.written.append(name)

    return write


def _move_cut(registry: Registry, base: Bundle, number: int) -> None:
    """As `adapt` does once a person has accepted; up, and down again."""
    share = (0.05, 0.10, 0.15, 0.20, 0.25)[number % 5]
    discard = base.discard + share * (base.keep - base.discard)
    evidence = {"basis": CONFIRMED, "events": 7, "band": [base.discard, discard], "group": ""}
    bundle = registry.write_cut(base, f"cut-{number}", discard, evidence)
    registry.promote(bundle.id, base=base, group="", why="seven confirmed events", by="soak")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--curves", type=int, default=20_000)
    parser.add_argument("--rate", type=float, help="curves a second of a laboratory in which nothing goes wrong")
    parser.add_argument("--cuts", type=int, default=0, help="discard cuts that are moved on the way")
    args = parser.parse_args()
    found = run(args.curves, args.rate, args.cuts)
    print(
        f"{args.curves} curves at {found.rate:.0f} a second: memory {found.at_start / 1e6:.0f} MB when ready, "
        f"{found.peak / 1e6:.0f} MB at its peak, {found.at_end / 1e6:.0f} MB at the end (PSS, all processes)"
    )
    bad = [one for one in found.told if not one["ok"]]
    print(f"{args.cuts} cuts moved; {len(bad)} alarms", *(f"{one['name']}: {one['text']}" for one in bad), sep="\n  ")
    for name, one in found.guard.items():
        if one and "text" in one:
            print(f"{name}: {one['text']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
