"""Engines that may fail: those on a GPU run in a process of their own, guarded, with the processor as their fallback.

See deploy/decisions/0008. Engines on the processor run where they are asked for.
"""

from __future__ import annotations

from dataclasses import replace

from daemon.common.text import first_line
from daemon.engine.proof import PATIENT, EngineTimeouts
from daemon.engine.supervisor import EngineStatus, GuardedClassifier
from deploy.classifier import Classifier, EngineFault, EngineRequest, NoEngine
from deploy.engines import Engine
from deploy.serving import Build, Model
from models.bundle import Bundle

__all__ = ["PATIENT", "EngineStatus", "EngineTimeouts", "GuardedClassifier", "builder", "engine_status"]


def builder(patience: EngineTimeouts, command: tuple[str, ...] | None = None) -> Build:
    """What ``Model.load`` builds engines with; ``command`` starts another engine process than ours."""

    def build(engine: Engine, bundle: Bundle, wish: EngineRequest) -> Classifier:
        if engine.device == "cpu":
            return _here(engine, bundle, wish)
        fallback = Model.of(bundle, replace(wish, device="cpu", engine="auto", precision="auto"), _here).classifier
        return GuardedClassifier(engine, bundle, wish, fallback, patience, command)

    return build


def _here(engine: Engine, bundle: Bundle, wish: EngineRequest) -> Classifier:
    """In this process; what its library raises makes the next engine serve, not the service fail."""
    try:
        return engine.build(bundle, wish)
    except (EngineFault, NoEngine):
        raise
    except Exception as error:
        raise EngineFault("died", first_line(error)) from error


def engine_status(model: Model) -> EngineStatus:
    """Who judges for this model now, and why not a better one."""
    classifier = model.classifier
    own = classifier.standing if isinstance(classifier, GuardedClassifier) else EngineStatus(model.engine, (), {})
    return replace(own, troubles=(*model.passed_over, *own.troubles))
