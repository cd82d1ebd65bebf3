"""The model in service: from curves to scores, the one way that the service, `score` and `evaluate` all take.

That they share it is what makes a live verdict equal to a later one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.classifier import Classifier
from deploy.registry import resolve
from deploy.selftest import compare, known_curves
from models.bundle import Bundle, read
from models.curve import Curve
from models.frontend import Prepared, prepare
from models.raster import coverage, envelope, preview

CHUNK = 64  # pictures made at a time: bounds memory, 8 MB at 256 x 128


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What the model says about one curve; ``score`` is None when none could be made, and reasons say why."""

    score: float | None
    reasons: tuple[str, ...]
    logit: float | None = None
    preview: str | None = None  # base64 of uint8 (2, W)
    prepared: Prepared | None = None
    raster_s: float = 0.0  # this curve's share of its batch
    infer_s: float = 0.0


class Model:
    """A bundle and the classifier that runs it."""

    def __init__(self, bundle: Bundle, classifier: Classifier) -> None:
        self.bundle = bundle
        self.classifier = classifier

    @classmethod
    def load(
        cls, name: str | Path = "shipped", device: str = "auto", threads: int | None = None, models: Path | None = None
    ) -> Model:
        """Read a model by name or folder, build its engine, and let it prove itself on known curves.

        Raises BadBundle for a folder that is no model, SelfTestFailed for an engine that computes wrongly,
        ValueError for a device that this version does not have.
        """
        if device not in ("auto", "cpu"):
            raise ValueError(f"device {device!r}: this version computes on the CPU; use auto or cpu")
        from deploy.torch_engine import TorchClassifier  # torch is imported where it is used

        bundle = read(resolve(name, models))
        model = cls(bundle, TorchClassifier(bundle, threads=threads))
        model.selftest()
        return model

    @property
    def id(self) -> str:
        return self.bundle.id

    @property
    def pipeline(self) -> str:
        return self.bundle.pipeline

    @property
    def engine(self) -> str:
        return self.classifier.engine

    def selftest(self) -> None:
        """Judge the known curves; SelfTestFailed when a logit is off."""
        logits = [scored.logit for scored in self.judge(known_curves())]
        found = [logit if logit is not None else float("nan") for logit in logits]
        compare(self.engine, found, self.bundle.manifest["selftest"]["logits"])

    def judge(self, curves: Sequence[Curve]) -> list[Scored]:
        """B curves -> B scores, in order; each is what the curve would get alone."""
        scored: list[Scored] = []
        for start in range(0, len(curves), CHUNK):
            scored += self._judge(curves[start : start + CHUNK])
        return scored

    def _judge(self, curves: Sequence[Curve]) -> list[Scored]:
        begun = time.perf_counter()
        prepared = prepare(curves, self.bundle.profile)
        able = [index for index, item in enumerate(prepared) if item.signal is not None]
        signals = [item.signal for item in prepared if item.signal is not None]
        edges = envelope(signals, self.bundle.profile)  # (b, 2, W), b of them able
        images = coverage(edges, self.bundle.profile)
        drawn = time.perf_counter()
        logits = self.classifier.classify(images)
        raster_s = (drawn - begun) / len(curves)
        infer_s = (time.perf_counter() - drawn) / max(len(able), 1)
        scored = [Scored(None, item.reasons, prepared=item, raster_s=raster_s) for item in prepared]
        scores = self.bundle.calibration.score(logits)
        for place, index in enumerate(able):
            drawing = preview(edges[place], self.bundle.profile)
            score, logit = float(scores[place]), float(logits[place])
            item = prepared[index]
            if not np.isfinite(logit):  # an engine that fails on one curve must not discard it
                scored[index] = Scored(None, (*item.reasons, "no_score"), None, drawing, item, raster_s, infer_s)
            else:
                scored[index] = Scored(score, item.reasons, logit, drawing, item, raster_s, infer_s)
        return scored
