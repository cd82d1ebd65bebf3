"""Cost: speed, tail, start and memory of each engine on a CPU, each in a process of its own, and its installed size."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from daemon.bench.child import ChildFailed, call
from daemon.bench.machine import neighbours
from daemon.common.progress import progress
from daemon.learn.int8 import Curves
from daemon.study.engines_agreement import cpu_wishes
from deploy.cpu import usable_cores

NEIGHBOURS = (0, 2)  # an acquisition program may keep every core of a small computer busy
THREADS = (1, 2)
_PACKAGES = {"openvino": ("openvino", "openvino-telemetry"), "torch": ("torch", "sympy", "networkx", "mpmath")}


def cost(model: str, curves: Curves, cache: Path, with_int8: bool, seconds: float) -> list[dict[str, Any]]:
    """One entry an engine, number of threads and neighbourhood."""
    signals = cache / "signals.npz"
    curves.save(signals)
    threads = [count for count in THREADS if count <= usable_cores()]
    plans = [
        (replace(wish, threads=count), busy)
        for busy in NEIGHBOURS
        for wish in cpu_wishes(cache, with_int8)
        for count in threads
    ]
    found = []
    for wish, busy in progress(plans, "speed", len(plans)):
        request = {"model": model, "signals": str(signals), "compare": False, "seconds": seconds}
        told = {**asdict(wish), "cache": str(cache)}
        with neighbours(busy), suppress(ChildFailed):  # what does not run here is told of where verdicts are compared
            answer = call("engine", {**request, "wish": told}, GOMP_SPINCOUNT="0")
            found.append({"threads": wish.threads, "neighbours": busy, **answer})
    return found


def installed_bytes() -> dict[str, int]:
    """Files of the packages that an engine brings."""
    return {name: sum(map(_size_bytes, packages)) for name, packages in _PACKAGES.items()}


def _size_bytes(package: str) -> int:
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        return 0
    paths = (Path(str(file.locate())) for file in files)
    return sum(path.stat().st_size for path in paths if path.is_file())
