"""Who computes: whether it is the engine that should, and if not, why; told to health, metrics and report."""

from __future__ import annotations

from collections import Counter

from daemon.engine import Standing, device_of, standing_of
from daemon.judging import Judge
from daemon.metrics import Metrics
from daemon.service.health import Health
from deploy.serving import Model


class EngineWatch:
    """Looked at after every turn: an engine may fail within a batch, and come back between two."""

    def __init__(self, health: Health, metrics: Metrics) -> None:
        self._health, self._metrics = health, metrics
        self._model: Model | None = None
        self._judge: Judge | None = None
        self._standing: Standing | None = None
        self._counted: Counter[str] = Counter()

    def observe(self, model: Model, judge: Judge, is_building: bool = False) -> tuple[str, tuple[str, ...]]:
        """The engine that judges now, and why it is not a better one. Cheap while nothing changes."""
        standing = standing_of(model)
        if model is not self._model:
            self._counted.clear()
        if standing != self._standing or judge is not self._judge:
            self._tell(standing, judge)
        self._model, self._judge, self._standing = model, judge, standing
        building = ("an engine for the GPU is being built",) if is_building else ()
        return standing.engine, (*building, *standing.troubles)

    def _tell(self, standing: Standing, judge: Judge) -> None:
        for kind, count in standing.faults.items():
            self._metrics.engine_faults.labels(kind).inc(count - self._counted[kind])
            self._counted[kind] = count
        self._metrics.serving(judge.on(standing.engine), device_of(standing.engine))
        if standing.troubles:
            text = f"{standing.engine} judges, because {'; '.join(standing.troubles)}"
            self._health.report("engine", "degraded", text)
        else:
            self._health.report("engine", "ok", f"{standing.engine} judges")
