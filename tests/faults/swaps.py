"""Many swaps, and what they leave in memory; `python -m tests.faults.swaps --swaps 200` prints it.

Each builds the shipped model anew, with its reference, while another thread judges with the one before it.
"""

from __future__ import annotations

import argparse
import threading
from pathlib import Path

from deploy.classifier import EngineRequest
from deploy.serving import Model, known_curves


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def swap(wish: EngineRequest, old: Model) -> Model:
    """The next model, and the old one at work until it is there."""
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            old.judge(known_curves())

    judging = threading.Thread(target=work)
    judging.start()
    try:
        return Model.load(wish=wish)
    finally:
        done.set()
        judging.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--engine", default="auto")
    args = parser.parse_args()
    wish = EngineRequest(engine=args.engine)
    model = Model.load(wish=wish)
    found = []
    for number in range(args.swaps + 1):
        model = swap(wish, model)
        if number % max(args.swaps // 8, 1) == 0:
            found.append(f"{number}: {rss_bytes() / 1e6:.0f} MB")
    print(f"{model.engine}, resident after so many swaps: {', '.join(found)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
