"""Many curves, and what the service's memory does meanwhile; `python -m tests.faults.soak --curves 20000` prints it."""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

from daemon.client.temporary_service import TemporaryService
from tests.faults.harness import Producer, history, judge, scrape


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
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def run(curves: int) -> tuple[int, int, int, float]:
    """Memory when ready, at its peak and at the end (bytes), and curves decided a second."""
    with tempfile.TemporaryDirectory() as folder, TemporaryService(Path(folder)) as trial:
        assert trial.process is not None
        producer = Producer(trial.watch)
        at_start = peak = pss_bytes(trial.process.pid)
        begun_s = time.monotonic()
        writer = threading.Thread(target=lambda: [producer.write() for _ in range(curves)])
        writer.start()
        decided = 0.0
        while decided < curves:
            time.sleep(0.5)
            peak = max(peak, pss_bytes(trial.process.pid))
            numbers = scrape(trial)
            decided = sum(value for key, value in numbers.items() if key.startswith("afm_triage_decisions_total"))
        rate = curves / (time.monotonic() - begun_s)
        writer.join()
        findings = judge(producer.written, history(trial))
        assert (findings.lost, findings.doubled, findings.gaps) == ([], [], [])
        return at_start, peak, pss_bytes(trial.process.pid), rate


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--curves", type=int, default=20_000)
    args = parser.parse_args()
    at_start, peak, at_end, rate = run(args.curves)
    print(
        f"{args.curves} curves at {rate:.0f} a second: memory {at_start / 1e6:.0f} MB when ready, "
        f"{peak / 1e6:.0f} MB at its peak, {at_end / 1e6:.0f} MB at the end (PSS, all processes)"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
