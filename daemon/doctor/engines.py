"""The engines: what could run the network here, what would, and whether it computes rightly."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from daemon.clean import clean
from daemon.config import Config
from daemon.doctor.finding import Finding
from daemon.errors import UNREACHABLE, UserError

_DRIVER = Path("/proc/driver/nvidia/version")


def engines(config: Config) -> Iterator[Finding]:
    """The whole way: every hash of the model, the best engine for it, and known curves judged right."""
    yield _gpu()
    try:
        from daemon.judging.judge import load_model, release, wish_of

        wish = wish_of(config)
        yield _catalogue()
        begun_s = time.monotonic()
        model = load_model(config.model, wish, config.state / "models")
    except (UserError, ImportError) as error:
        if isinstance(error, UserError) and error.exit_code == UNREACHABLE:
            yield Finding("engine", "problem", clean(str(error)), _instead(config))
            return
        yield Finding("model", "problem", clean(str(error)), "name another with --model, or install afm-triage again")
        return
    release(model)
    yield Finding("model", "ok", f"{model.id}: every hash is right ({time.monotonic() - begun_s:.1f} s to load)")
    for why in model.passed_over:
        advice = "see that nothing else uses the device; without it the next engine serves, with the same verdicts"
        yield Finding("engine", "problem", clean(why), advice)
    cores = len(os.sched_getaffinity(0))
    yield Finding("engine", "ok", f"{model.engine} would serve, on {cores} cores; known curves are judged right")


def _instead(config: Config) -> str:
    """What to do where nothing here can serve what the configuration asks for."""
    from deploy.int8 import how

    wanted = {
        "device": config.device,
        "[engine] name": config.engine.name,
        "[engine] precision": config.engine.precision,
    }
    asked = [key for key, value in wanted.items() if value != "auto"]
    leave = f"leave {' and '.join(asked)} out, and the best engine that is here judges"
    if config.engine.precision != "int8":
        return leave
    return f"{how(config.model, config.state / 'engines')} (DIR: at least 100 curves of your own), or {leave}"


def _catalogue() -> Finding:
    from deploy.engines import ANY, ENGINES

    refusals = {engine.name: engine.refuses(ANY) for engine in ENGINES}
    usable = [name for name, why in refusals.items() if why is None]
    others = [f"{name}: {why}" for name, why in refusals.items() if why is not None]
    return Finding("engines", "ok", "; ".join([f"{', '.join(usable)} can be used", *others]))


def _gpu() -> Finding:
    if not _DRIVER.exists():
        return Finding("gpu", "ok", "no NVIDIA driver; the processor judges")
    found = _DRIVER.read_text(errors="replace").splitlines()[0]
    try:
        is_cpu_build = "+cpu" in version("torch")
    except PackageNotFoundError:
        is_cpu_build = False
    if is_cpu_build:
        return Finding("gpu", "note", f"{found}, but torch is its CPU build (README, Engines); the processor judges")
    return Finding("gpu", "ok", found)
