"""What a start costs; `python -m tests.faults.start --engine openvino` prints it, until the service answers."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from daemon.bench.machine import TICK_S
from daemon.client.service_file import TemporaryService
from tests.faults.memory import pss_bytes


def start(engine: str) -> tuple[float, float, int]:
    """Seconds until it is ready, seconds of CPU of the service itself, and memory of all its processes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "lab.toml"
        config.write_text(f'[engine]\nname = "{engine}"\n')
        begun_s = time.monotonic()
        with TemporaryService(folder / "trial", options=("--config", str(config))) as trial:
            ready_s = time.monotonic() - begun_s
            assert trial.process is not None
            fields = Path(f"/proc/{trial.process.pid}/stat").read_text().rpartition(")")[2].split()
            return ready_s, TICK_S * sum(map(int, fields[11:13])), pss_bytes(trial.process.pid)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--starts", type=int, default=5)
    args = parser.parse_args()
    found = [start(args.engine) for _ in range(args.starts)]
    ready_s, cpu_s, pss = (sorted(column)[args.starts // 2] for column in zip(*found, strict=True))
    print(f"{args.engine}: ready after {ready_s:.1f} s, {cpu_s:.2f} s of CPU, {pss / 1e6:.0f} MB (PSS, all processes)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
