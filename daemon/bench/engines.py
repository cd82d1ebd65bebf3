"""The engines, each by itself in a process of its own, with as many threads as the service gives it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from daemon.bench.child import ChildFailed, call
from daemon.bench.harness import REPEAT_S, Plan, compare
from daemon.common.progress import progress
from daemon.config import INSTRUMENT
from daemon.config.conflicts import default_state
from daemon.learn.int8 import Curves, gather
from deploy.engines import ENGINES, Wish
from deploy.registry import resolve
from models.bundle import Bundle, read

REFERENCE = "torch-cpu-fp32"


def measure(plan: Plan, seconds: float = REPEAT_S) -> dict[str, Any]:
    """``{"curves", "thresholds", "engines": [{"engine", "batches", …} or {"engine", "failed"}], "missing": {…}}``."""
    bundle = read(resolve(plan.model))
    curves = gather(plan.folders, plan.simulated, plan.seed, bundle.profile)
    with tempfile.TemporaryDirectory(prefix="afm-triage-") as folder:
        signals = Path(folder) / "signals.npz"
        curves.save(signals)
        built = str(default_state(INSTRUMENT, serves=False) / "engines")  # with a laboratory's own ranges for int8
        wishes = [asdict(wish) | {"cache": built if wish.precision == "int8" else folder} for wish in _wishes()]
        request = plan.request(signals=str(signals), compare=True, seconds=seconds)
        engines = [_run({**request, "wish": wish}) for wish in progress(wishes, "engines", len(wishes))]
    return {
        "curves": {"real": curves.real, "simulated": len(curves.names) - curves.real},
        "thresholds": {"discard": bundle.discard, "keep": bundle.keep},
        "engines": _compared(engines, curves, bundle),
        "missing": {engine.name: why for engine in ENGINES if (why := engine.missing()) is not None},
    }


def bare(plan: Plan) -> dict[str, Any]:
    """Only the engine that serves, and only its speed. Raises ChildFailed."""
    bundle = read(resolve(plan.model))
    with tempfile.TemporaryDirectory(prefix="afm-triage-") as folder:
        signals = Path(folder) / "signals.npz"
        gather(plan.folders[:1], 0, plan.seed, bundle.profile).save(signals)
        return call("engine", plan.request(signals=str(signals), compare=False, wish=asdict(plan.wish)))


def _wishes() -> Iterator[Wish]:
    """Every precision of every engine that can be used here; torch in single precision is always one of them."""
    for engine in ENGINES:
        if engine.missing() is None:
            for precision in engine.precisions:
                yield Wish(engine.device, engine.name, precision)


def _run(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return call("engine", request)
    except ChildFailed as error:
        wish = request["wish"]
        return {"engine": f"{wish['engine']}-{wish['device']}-{wish['precision']}", "failed": str(error)}


def _compared(engines: list[dict[str, Any]], curves: Curves, bundle: Bundle) -> list[dict[str, Any]]:
    """Logits give way to what they say against the reference."""
    wanted = next((one["logits"] for one in engines if one["engine"] == REFERENCE and "logits" in one), None)
    for one in engines:
        raw, final = one.pop("logits", None), one.pop("final", None)
        if wanted is not None and raw is not None:
            one["alone"] = compare(curves, bundle, wanted, raw)
        if wanted is not None and final is not None:
            one["in_service"] = compare(curves, bundle, wanted, final)
    return engines
