"""An engine process whose device truly breaks: `make study TOPIC=gpu` starts it in place of the service's own.

``python -m tests.studies.gpu_faulty FAULT FD`` serves as ``daemon.engine.worker`` does, until a batch begins with a
sample of MAGIC: then it does to the device what a broken program does.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from daemon.engine import worker
from deploy import engines
from deploy.classifier import Classifier, Seen, Signals

MAGIC = 123456.0  # no prepared curve begins with it
CUDA = ("illegal_access", "wedged", "out_of_memory", "assert", "died")  # the likeliest of a night first
CPU = ("died",)  # to try the study: whoever waits for a wedged call waits as long everywhere


def out_of_memory() -> None:
    """More than any device has."""
    import torch

    torch.empty(1 << 50, dtype=torch.uint8, device="cuda")


def illegal_access() -> None:
    """A kernel reads far beyond the end of a tensor: 256 GB that were never taken."""
    import torch

    small = torch.zeros(8, device="cuda")
    claim = {"shape": (1 << 36,), "typestr": "<f4", "data": (small.data_ptr(), False), "version": 3}
    holder = type("Claim", (), {"__cuda_array_interface__": claim})()
    torch.as_tensor(holder, device="cuda").sum().item()


def device_assert() -> None:
    """An index out of bounds, which torch's kernels find themselves."""
    import torch

    torch.zeros(8, device="cuda")[torch.tensor([1 << 40], device="cuda")].sum().item()


def wedged() -> None:
    """A kernel that does not end; without a GPU a sleep."""
    import torch

    if torch.cuda.is_available():
        sleep: Callable[[int], None] = torch.cuda._sleep
        sleep(1 << 44)  # cycles: hours
        torch.cuda.synchronize()
    time.sleep(3600.0)


def died() -> None:
    os.abort()


CAUSES: dict[str, Callable[[], None]] = {
    "out_of_memory": out_of_memory,
    "illegal_access": illegal_access,
    "assert": device_assert,
    "wedged": wedged,
    "died": died,
}


class Faulty:
    """A :class:`deploy.classifier.Classifier` until the magic batch comes."""

    def __init__(self, inner: Classifier, fault: str) -> None:
        self._inner, self._fault = inner, fault
        self.engine, self.model_id = inner.engine, inner.model_id

    def classify(self, signals: Signals) -> Seen:
        if len(signals) and float(signals[0][0]) == MAGIC:
            CAUSES[self._fault]()
        return self._inner.classify(signals)


def main(fault: str, descriptor: int) -> None:
    """As the worker's, with faulty engines."""

    def named(name: str) -> engines.Engine:
        engine = engines.named(name)
        return replace(engine, build=lambda bundle, wish: Faulty(engine.build(bundle, wish), fault))

    setattr(worker, "named", named)  # noqa: B010 - mypy sees no such name, because the worker imports it
    worker.main(descriptor)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
