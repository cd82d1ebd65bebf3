"""The OpenVINO runtime, told to be silent and to keep to its place on a machine that belongs to an instrument.

``import openvino`` reports itself to its maker's analytics, without asking, and leaves a number for this machine in
``~/intel``. A laboratory's computer must not: here the package that does so cannot be found, and openvino goes on
without it, as it is made to. Nobody else imports openvino (a test holds it).
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

from deploy.cpu import default_threads

_REPORTER = "openvino_telemetry"
HINTS = {"fp32": "f32", "bf16": "bf16"}


def openvino() -> Any:
    """The module. Raises ImportError where it is not installed."""
    sys.modules.setdefault(_REPORTER, None)  # type: ignore[arg-type]  # None: its import fails, from now on
    import openvino as runtime

    return runtime


@cache
def core() -> Any:
    """The ``openvino.Core``, one for the life of the process.

    Its making sets the alternate signal stack of the thread it is made in, its end frees that memory; ended in another
    thread, as when a model is replaced, it leaves a stack that is gone, and the next signal kills the process.
    """
    return openvino().Core()


def has_bf16() -> bool:
    """Whether this processor computes bf16 itself.

    OpenVINO offers it wherever it knows AVX-512, and emulates it there at a third of the speed of single precision.
    """
    offered = "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return offered and ("avx512_bf16" in flags or "amx_bf16" in flags)


def compiled(model: Any, precision: str, threads: int | None = None) -> Any:
    """An ``openvino.Model`` -> an infer request on the CPU. ``precision``: of HINTS.

    Threads are not pinned to cores, where the acquisition software could not make them move over, and precision is
    never left to OpenVINO: it takes bf16 where it can, and machines would disagree by 1 % of a logit.
    """
    settings = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": threads or default_threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    return core().compile_model(model, "CPU", settings).create_infer_request()
