"""The service that is measured: one of its own, with the bench's model and engine, an ear to it and an eye on it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.bench.plan import Plan
from daemon.bench.vitals import Vitals
from daemon.client.feed import Ear
from daemon.client.temporary import Trial


@contextmanager
def serving(plan: Plan, every_s: float = 0.05) -> Iterator[tuple[Trial, Vitals, Ear]]:
    """It has proved itself when the block begins, and is gone with its folder when it ends."""
    with tempfile.TemporaryDirectory(prefix="afm-triage-") as name:
        folder = Path(name)
        config = folder / "bench.toml"
        config.write_text(_toml(plan))
        with Trial(folder, options=("--config", str(config)), instrument="bench") as trial:
            assert trial.process is not None
            with Vitals(trial.process.pid, every_s) as vitals, Ear(trial.publish) as ear:
                yield trial, vitals, ear


def _toml(plan: Plan) -> str:
    """JSON's strings are TOML's."""
    top = {"model": plan.model, "device": plan.device}
    engine = {"name": plan.engine, "precision": plan.precision}
    lines = [f"{key} = {json.dumps(value)}" for key, value in top.items()]
    return "\n".join([*lines, "[engine]", *(f"{key} = {json.dumps(value)}" for key, value in engine.items()), ""])
