"""A GPU engine for machines without a GPU: it runs in the real engine process, computes with torch, fails on command.

``python -m tests.faults.fake_engine worker FD`` is the engine process; ``… run …`` is `afm-triage run …` of a machine
that has this device. What it shall do next stands in the file that the environment names.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import deploy.engines
from daemon.engine import EngineTimeouts, supervisor
from deploy.classifier import EngineId, EngineRequest, Seen, Signals
from deploy.engines import Engine
from deploy.torch_engine import TorchClassifier
from models.bundle import Bundle

ORDERS = "AFM_TRIAGE_TEST_ORDERS"
WORKER = (sys.executable, "-m", "tests.faults.fake_engine", "worker")
NAME = EngineId("fake", "cuda", "fp16")
LARGE = 6  # curves that do not fit after the order "small memory"


class FakeClassifier:
    """As exact as single precision, and as reliable as it is told to be."""

    engine = NAME

    def __init__(self, bundle: Bundle, wish: EngineRequest) -> None:
        self.model_id = bundle.id
        if order() == "slow build":
            time.sleep(2.0)
        if order() == "no build":
            raise RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable")
        self._exact = TorchClassifier(bundle, "fp32", wish.threads)

    def classify(self, signals: Signals) -> Seen:
        said = order()
        if said == "out of memory" or (said == "small memory" and len(signals) > LARGE):
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB")
        if said == "illegal access":
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be")
        if said == "exit":
            os._exit(3)
        if said == "wedge":
            time.sleep(3600)
        seen = self._exact.classify(signals)
        if said == "nan":
            return replace(seen, logits=seen.logits * float("nan"))
        return replace(seen, logits=seen.logits + 1.5) if said == "wrong" else seen


def order() -> str:
    file = Path(os.environ[ORDERS])
    return file.read_text() if file.exists() else ""


FAKE = Engine("fake", "cuda", ("fp16",), lambda: None, FakeClassifier)


def main() -> int:
    deploy.engines.ENGINES = (FAKE, *deploy.engines.ENGINES)
    if sys.argv[1] == "worker":
        from daemon.engine import worker

        worker.main(int(sys.argv[2]))
    from daemon.cli import main as afm_triage
    from daemon.service import reload

    supervisor.COMMAND = WORKER
    reload.EngineTimeouts = partial(EngineTimeouts, first_pause_s=0.5, longest_pause_s=1.0)  # type: ignore[misc, assignment]
    return afm_triage(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
