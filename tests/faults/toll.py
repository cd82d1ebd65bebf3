"""What the guard costs a line that is busy: `python -m tests.faults.toll` prints rate, CPU and memory.

Pairs of runs, in turn without canaries and with them; a burst goes on in the whole of each run. With ``--beside DIR``
the service of another checkout stands in for the one without: of a version before the guard, to see all that it costs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from tests.faults.harness import CURVES, fresh, scrape
from tests.faults.lab import Lab


def lab_of(folder: Path, *, canaries: bool, beside: Path | None) -> Lab:
    """A service with canaries, or one without: ours, or that of the checkout ``beside``, as it is."""
    if canaries or beside is None:
        return Lab(folder, toml=f"[guard]\ncanaries = {str(canaries).lower()}\n")
    return Lab(folder, environment={"PYTHONPATH": str(beside)}, popen={"cwd": beside})


def run(lab: Lab, curves: int, settle_s: float) -> tuple[float, float, float, float]:
    """Curves a second, CPU in ms a curve, memory in MB at rest after it, and canaries that came out."""
    content = (CURVES / "fmt-jpk-fd_spot3-0192.jpk-force").read_bytes()
    with lab:
        time.sleep(settle_s)
        before_s, begun_s = lab.cpu_s(), time.monotonic()
        for number in range(curves):
            (lab.watch / f"c{number:06d}.jpk-force").write_bytes(fresh(content, number))
        lab.wait_decided(curves, 600)
        rate, cpu_ms = curves / (time.monotonic() - begun_s), 1e3 * (lab.cpu_s() - before_s) / curves
        came = sum(value for key, value in scrape(lab).items() if key.startswith("afm_triage_canary_total"))
        return rate, cpu_ms, lab.pss_mb(), came


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--curves", type=int, default=2_000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--beside", type=Path, help="another checkout, whose service has no canaries")
    args = parser.parse_args()
    found: dict[bool, list[tuple[float, float, float, float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as name:
        for number in range(2 * args.pairs):
            is_on = number % 2 == 1
            lab = lab_of(Path(name) / str(number), canaries=is_on, beside=args.beside and args.beside.absolute())
            found[is_on].append(run(lab, args.curves, 5.0))
    for runs in found.values():
        rate, cpu_ms, pss_mb, came = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{came:.0f} canaries: {rate:.0f} curves/s, {cpu_ms:.2f} ms of CPU a curve, {pss_mb:.0f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
