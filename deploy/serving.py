"""The model in service: from curves to scores, the one way that the service, `score` and `evaluate` all take.

That they share it is what makes a live verdict equal to a later one. Engines round differently; so a logit that lies
closer to a threshold than its engine may be off is computed again in single precision, and every engine gives the same
verdicts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deploy.classifier import Classifier, EngineFault, Seen, Signals
from deploy.engines import ANY, Engine, NoEngine, Wish, candidates
from deploy.registry import resolve
from deploy.selftest import SelfTestFailed, compare, known_curves, tolerance_of
from models.bundle import Bundle, read
from models.curve import Curve
from models.frontend import Prepared, prepare
from models.raster import previews

Build = Callable[[Engine, Bundle, Wish], Classifier]


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
    engine: str | None = None  # that made the score; a fallback's where the usual one failed


def in_process(engine: Engine, bundle: Bundle, wish: Wish) -> Classifier:
    """Build an engine here; for what runs on a GPU the service has a way that survives its faults."""
    return engine.build(bundle, wish)


class Model:
    """A bundle and the classifier that runs it.

    ``reference`` computes in single precision what lies near a threshold; None where the classifier does so itself.
    ``passed_over`` says which better engines could not serve, and why.
    """

    def __init__(
        self,
        bundle: Bundle,
        classifier: Classifier,
        reference: Classifier | None = None,
        passed_over: Sequence[str] = (),
    ) -> None:
        self.bundle, self.classifier, self.reference = bundle, classifier, reference
        self.passed_over = tuple(passed_over)

    @classmethod
    def load(
        cls,
        name: str | Path = "shipped",
        wish: Wish = ANY,
        models: Path | None = None,
        build: Build = in_process,
    ) -> Model:
        """Read a model by name or folder, then as :meth:`of`. Raises BadBundle for a folder that is no model."""
        return cls.of(read(resolve(name, models)), wish, build)

    @classmethod
    def of(cls, bundle: Bundle, wish: Wish = ANY, build: Build = in_process) -> Model:
        """The best engine that proves itself on known curves serves.

        Raises NoEngine where nothing here can serve the wish, SelfTestFailed where all that could computed wrongly.
        """
        failures: list[str] = []
        is_wrong = False
        for engine in candidates(wish):
            try:
                model = cls(bundle, build(engine, bundle, wish), passed_over=failures)
                model.selftest()
            except (SelfTestFailed, EngineFault, NoEngine) as error:
                failures.append(f"{engine.name}: {error}")
                is_wrong = is_wrong or not isinstance(error, NoEngine)
                continue
            if not model.engine.endswith("-fp32"):
                exact = replace(wish, device="cpu", precision="fp32", engine="auto")
                maker = engine if engine.device == "cpu" else next(candidates(exact))
                model.reference = maker.build(bundle, exact)
            return model
        raise (SelfTestFailed if is_wrong else NoEngine)("; ".join(failures))

    @property
    def id(self) -> str:
        return self.bundle.id

    @property
    def pipeline(self) -> str:
        return self.bundle.pipeline

    @property
    def engine(self) -> str:
        return self.classifier.engine

    @property
    def is_exact(self) -> bool:
        """Whether a certificate holds: its verdicts are those of single precision, in which evidence is counted.

        Of int8 that is seen on curves and not bounded: far from its ranges an error has no limit.
        """
        return self.engine.endswith("-fp32") or (self.reference is not None and not self.engine.endswith("-int8"))

    def selftest(self) -> None:
        """Judge the known curves; SelfTestFailed when a logit is off."""
        signals = [item.signal for item in prepare(known_curves(), self.bundle.profile) if item.signal is not None]
        seen = self.classifier.classify(signals)
        compare(self.engine, [float(logit) for logit in seen.logits], self.bundle.manifest["selftest"]["logits"])

    def judge(self, curves: Sequence[Curve], thresholds: Sequence[float] | None = None) -> list[Scored]:
        """B curves -> B scores, in order; each is what the curve would get alone.

        ``thresholds`` are the scores at which the verdict changes, the model's own unless given.
        """
        begun_s = time.perf_counter()
        prepared = prepare(curves, self.bundle.profile)
        share_s = (time.perf_counter() - begun_s) / max(len(curves), 1)
        return [replace(one, raster_s=one.raster_s + share_s) for one in self.judge_prepared(prepared, thresholds)]

    def judge_prepared(self, prepared: Sequence[Prepared], thresholds: Sequence[float] | None = None) -> list[Scored]:
        """As :meth:`judge`, from where the front-end of this model's profile has been."""
        able = [index for index, item in enumerate(prepared) if item.signal is not None]
        begun_s = time.perf_counter()
        engine = self.engine  # a guarded one may be another after a fault
        seen = self.classify([item.signal for item in prepared if item.signal is not None], thresholds)
        raster_s = seen.raster_s / max(len(able), 1)
        infer_s = (time.perf_counter() - begun_s) / max(len(able), 1) - raster_s
        scored = [Scored(None, item.reasons, prepared=item) for item in prepared]
        scores = self.scores_of(seen)
        drawings = previews(seen.edges, self.bundle.profile)
        for place, index in enumerate(able):
            item, score = prepared[index], scores[place]
            scored[index] = Scored(
                score=score,
                reasons=(*item.reasons, "no_score") if score is None else item.reasons,
                logit=None if score is None else float(seen.logits[place]),
                preview=drawings[place],
                prepared=item,
                raster_s=raster_s,
                infer_s=infer_s,
                engine=seen.engine or engine,
            )
        return scored

    def scores_of(self, seen: Seen) -> list[float | None]:
        """Probabilities; None where the engine failed on one curve, which must not be discarded for it."""
        scores = self.bundle.calibration.score(seen.logits).tolist()
        return [score if finite else None for score, finite in zip(scores, np.isfinite(seen.logits), strict=True)]

    def margin_of(self, seen: Seen) -> float:
        """How close to a threshold a logit is looked at again; 0 where the classifier itself is the reference."""
        if self.reference is None:
            return 0.0
        return tolerance_of(seen.engine or self.engine) if seen.margin is None else seen.margin

    def classify(self, signals: Signals, thresholds: Sequence[float] | None = None) -> Seen:
        """B signals -> their logits, those near a threshold in single precision."""
        seen = self.classifier.classify(signals)
        if self.reference is None:
            return seen
        calibration = self.bundle.calibration
        limits = np.array([calibration.logit(score) for score in thresholds]) if thresholds else self.bundle.limits
        near = np.flatnonzero(np.abs(seen.logits[:, None] - limits).min(axis=1) < self.margin_of(seen))
        if near.size:
            logits = seen.logits.copy()
            logits[near] = self.reference.classify([signals[int(index)] for index in near]).logits
            seen = replace(seen, logits=logits)
        return seen
