"""Other processors, as far as this one can play them; `python -m tests.faults.processors` prints what they compute.

Both libraries can be told to know fewer instructions than there are: OpenVINO's kernels by ONEDNN_MAX_CPU_ISA, numpy's
by NPY_DISABLE_CPU_FEATURES. Speed is CPU time, of kernels that are made for the lesser processor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import numpy as np

PROCESSORS = {
    "this one": {},
    "AVX-512 without VNNI and bf16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "NPY_DISABLE_CPU_FEATURES": "AVX512F,AVX512CD,AVX512_SKX,AVX512_ICL"},
    "SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41", "NPY_DISABLE_CPU_FEATURES": "AVX512F,AVX512CD,AVX512_SKX,AVX512_ICL"},
}
CURVES = 500


def measure() -> dict[str, object]:
    """In a process of its own: logits in single precision, their speed, and what int8 comes to."""
    from daemon.learn.int8 import CannotQuantise, quantise
    from deploy.classifier import EngineRequest
    from deploy.engines import named
    from models.bundle import SHIPPED, read
    from models.frontend import prepare
    from models.simulate import simulate

    bundle = read(SHIPPED)
    prepared = prepare([item.curve for item in simulate(CURVES, 41, 0.3)], bundle.profile)
    signals = [one.signal for one in prepared if one.signal is not None]
    classifier = named("openvino").build(bundle, EngineRequest(precision="fp32", threads=1))
    begun_s = time.process_time()
    seen = classifier.classify(signals)
    per_s = len(signals) / (time.process_time() - begun_s)
    try:
        int8 = f"margin {quantise(bundle, signals, 1).margin:.2f}"
    except CannotQuantise as error:
        int8 = f"refused ({error})"
    return {"logits": seen.logits.tolist(), "per_s": per_s, "int8": int8}


def main() -> int:
    if sys.argv[1:] == ["measure"]:
        print(json.dumps(measure()))
        return 0
    first: list[float] = []
    for name, limits in PROCESSORS.items():
        command = [sys.executable, "-m", "tests.faults.processors", "measure"]
        run = subprocess.run(command, env={**os.environ, **limits}, capture_output=True, text=True, check=True)
        found = json.loads(run.stdout.splitlines()[-1])
        first = first or found["logits"]
        off = float(np.abs(np.subtract(found["logits"], first)).max())
        print(f"{name}: {found['per_s']:.0f} curves/s, logits off by {off:.1e} at most; int8: {found['int8']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
