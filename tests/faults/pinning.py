"""What pinned threads cost beside busy processes; `python -m tests.faults.pinning` prints it.

One curve every few milliseconds, as in service: the tail of OpenVINO's answers with its own default, which pins its
threads to cores, and as deploy.openvino_engine sets it, idle and beside processes that do nothing but compute.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from daemon.bench import spread_ms
from daemon.bench.machine import neighbours
from deploy.openvino_engine import HINTS, Graph, openvino
from models.anatomy import fold
from models.bundle import SHIPPED, read

PAUSE_S = 0.005


def tail_ms(pinned: bool, threads: int, precision: str, curves: int) -> dict[str, float]:
    """p50, p99 and largest."""
    bundle = read(SHIPPED)
    shape = (1, bundle.profile.rows, bundle.profile.columns)
    settings = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": pinned,
    }
    model = Graph(bundle.width, fold(bundle.width, bundle.weights), shape).model()
    request = openvino().Core().compile_model(model, "CPU", settings).create_infer_request()
    picture, taken_s = np.zeros((1, *shape), np.float32), []
    for _ in range(curves):
        begun_s = time.perf_counter()
        request.infer([picture], share_inputs=True)
        taken_s.append(time.perf_counter() - begun_s)
        time.sleep(PAUSE_S)
    return spread_ms(taken_s[10:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--curves", type=int, default=1000)
    parser.add_argument("--precision", default="fp32", choices=HINTS)
    args = parser.parse_args()
    for busy in (0, 2):
        with neighbours(busy):
            for threads in (1, 2):
                for pinned in (True, False):
                    found = tail_ms(pinned, threads, args.precision, args.curves)
                    words = f"{busy} busy, {threads} threads, {'pinned' if pinned else 'free  '}"
                    print(f"{words}  p50 {found['p50']:6.2f} ms  p99 {found['p99']:6.2f}  max {found['max']:6.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
