"""Curves written while the service is killed again and again; `python -m tests.faults.kills` prints the figures."""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from pathlib import Path

from daemon.client.service_file import TemporaryService
from tests.faults.harness import Findings, Producer, history, judge
from tests.faults.lab import Lab, Share, share


def run(curves: int, kills: int, seed: int, rate: float) -> Findings:
    """Write ``curves`` at ``rate`` a second; kill -9 at random moments, also while it starts and while it works."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        trial = TemporaryService(Path(folder))
        producer = Producer(trial.watch)
        writer = threading.Thread(target=lambda: [(producer.write(), time.sleep(1 / rate)) for _ in range(curves)])
        trial.start()
        writer.start()
        try:
            for _ in range(kills):
                if rng.random() < 0.8:
                    trial.wait_ready()
                time.sleep(rng.uniform(0.0, 0.5))
                trial.kill()
                trial.start()
            writer.join()
            trial.wait_ready()
            return wait_until_judged(trial, producer)
        finally:
            trial.stop()


def run_on_shares(folder: Path, far: Share, curves: int, kills: int, rate: float) -> Findings:
    """The same with a second folder on a share that is stalled and freed meanwhile, each curve in one of the two."""
    rng = random.Random(1)
    trial = Lab(folder / "lab", also=[far.point])
    producers = Producer(trial.watch), Producer(far.remote, "far")
    stop = threading.Event()

    def write() -> None:
        for number in range(curves):
            producers[number % 2].write()
            time.sleep(1 / rate)

    def stall() -> None:
        while not stop.wait(rng.uniform(0.2, 4.0)):
            far.stall()
            stop.wait(rng.uniform(0.2, 9.0))
            far.resume()

    threads = threading.Thread(target=write), threading.Thread(target=stall)
    trial.start()
    try:
        for thread in threads:
            thread.start()
        for _ in range(kills):
            if rng.random() < 0.8:
                trial.wait_ready()
            time.sleep(rng.uniform(0.0, 0.5))
            trial.kill()
            trial.start()
        threads[0].join(curves / rate * 3 + 60)
        stop.set()
        threads[1].join(20)
        trial.wait_ready()
        trial_written = Producer(trial.watch)
        trial_written.written = [*producers[0].written, *producers[1].written]
        return wait_until_judged(trial, trial_written)
    finally:
        stop.set()
        far.resume()
        trial.stop()


def wait_until_judged(trial: TemporaryService, producer: Producer, timeout_s: float = 120.0) -> Findings:
    """The findings once everything is decided, or after the time-out."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        findings = judge(producer.written, history(trial))
        if not findings.lost or time.monotonic() > deadline_s:
            return findings
        time.sleep(0.5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--curves", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=40.0)
    parser.add_argument("--share", action="store_true", help="half of them on a share that stalls meanwhile")
    args = parser.parse_args()
    if args.share:
        with tempfile.TemporaryDirectory() as folder, share(Path(folder)) as far:
            found = run_on_shares(Path(folder), far, args.curves, args.kills, args.rate)
    else:
        found = run(args.curves, args.kills, args.seed, args.rate)
    print(
        f"{args.curves} curves, {args.kills} kills: decided {found.decided}, lost {len(found.lost)}, "
        f"doubled {len(found.doubled)}, gaps in seq {len(found.gaps)}"
    )
    return 1 if found.lost or found.doubled or found.gaps else 0


if __name__ == "__main__":
    raise SystemExit(main())
