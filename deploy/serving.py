"""The model in service: from curves to scores, the one way that the service, `score` and `evaluate` all take.

That they share it is what makes a live verdict equal to a later one. Engines round differently; so a logit that lies
closer to a threshold than its engine may be off is computed again in single precision, and every engine gives the same
verdicts.

A curve whose sign is open is judged both ways, and what holds is the way that scores higher. What is about to be
discarded by a stated sign is judged upside down where its front-end says so: a keep there makes doubt, no other score.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from deploy.classifier import (
    ANY,
    Classifier,
    EngineFault,
    EngineId,
    EngineRequest,
    NoEngine,
    Precision,
    Seen,
    Signals,
)
from deploy.engines import Engine, candidates
from models.bundle import Bundle, read, resolve
from models.curve import Curve, Prepared, Samples
from models.frontend import OPEN, prepare, prepare_to_judge
from models.raster import RasterProfile, previews
from models.reasons import DOUBTS

# The self-test: known curves through the whole way, from force to logit, before anything is judged.
#
# The curves are made here from formulas and counted random bits, the same on every machine; a model's manifest
# holds the logits that they had when it was trained. A broken build of the mathematics, a damaged weight or a
# changed front-end shows up at start, not in a lab's data.

VERSION = 1
#: The largest difference of a logit from that of single precision, per precision of the engine; bf16 carries 8 bits.
#: A logit closer to a threshold than this is computed again in single precision (deploy.serving).
TOLERANCE: Mapping[Precision, float] = {"fp32": 0.01, "fp16": 0.03, "bf16": 0.1, "int8": 0.5}


class SelfTestFailed(Exception):
    """The engine does not compute what the model was trained to; it must not judge."""


def known_curves() -> list[Curve]:
    """Six retracts of 2,000 points: nothing, adhesion, one rupture, a sawtooth, a plateau step, no contact."""
    x: Samples = np.arange(2000, dtype=np.float64) * 0.25e-9  # 500 nm
    push = -np.clip(20e-9 - x, 0.0, None) * 0.05  # 50 pN/nm, 1 nN
    snap = np.where((x > 20e-9) & (x < 28e-9), (x - 20e-9) * 0.03, 0.0)
    shapes = [
        push,
        push + snap,
        push + snap + _chain(x, 30e-9, 200e-9),
        push + snap + np.sum([_chain(x, 30e-9 + 28e-9 * i, 90e-9 + 28e-9 * i) for i in range(6)], axis=0),
        push + snap + np.where((x > 30e-9) & (x < 320e-9), 80e-12, 0.0),
        np.zeros_like(x),
    ]
    return [Curve(force=shape + _noise(x.size, seed), force_unit="N") for seed, shape in enumerate(shapes)]


def _chain(x: Samples, start: float, contour: float) -> Samples:
    """A worm-like chain (Bustamante et al. 1994; persistence 0.4 nm) that lets go at 85 % of its contour."""
    share = np.clip((x - start) / (contour - start), 0.0, 0.85)
    force = 4.11e-21 / 0.4e-9 * (0.25 / (1 - share) ** 2 - 0.25 + share)
    return np.where((x > start) & (share < 0.85), force, 0.0)


def _noise(count: int, seed: int) -> Samples:
    """10 pN of noise from raw bits: numpy may change its normal generator between versions, its bits never."""
    raw = np.random.PCG64(seed).random_raw(count * 12).reshape(count, 12)
    uniform: Samples = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    noise: Samples = uniform.sum(axis=1) * 10e-12 - 60e-12
    return noise


def compare(engine: EngineId, logits: Sequence[float], expected: Sequence[float]) -> None:
    """SelfTestFailed unless every logit is within the tolerance of the engine's precision."""
    tolerance = TOLERANCE[engine.precision]
    found, wanted = np.asarray(logits, np.float64), np.asarray(expected, np.float64)
    if found.shape != wanted.shape or not np.isfinite(found).all():
        raise SelfTestFailed(f"{engine}: the self-test gave {found.shape[0]} logits, not all finite")
    worst = float(np.abs(found - wanted).max(initial=0.0))
    if worst > tolerance:
        raise SelfTestFailed(f"{engine}: a known curve is {worst:.3f} off its logit (tolerance {tolerance})")


# The model in service: from curves to scores, the one way that the service, `score` and `evaluate` all take.


Build = Callable[[Engine, Bundle, EngineRequest], Classifier]


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What the model says about one curve; ``score`` is None when none could be made, and reasons say why."""

    score: float | None
    reasons: tuple[str, ...]
    logit: float | None = None
    preview: str | None = None  # base64 of uint8 (2, W)
    prepared: Prepared | None = None  # of the way that holds,
    profile: RasterProfile | None = None  # for this profile
    raster_s: float = 0.0  # this curve's share of its batch
    infer_s: float = 0.0
    engine: EngineId | None = None  # that made the score; a fallback's where the usual one failed

    @property
    def is_turned(self) -> bool:
        """Whether what holds is the curve upside down: its sign was open, and that way it scored higher."""
        return "sign_turned" in self.reasons

    def falls(self, discard: float) -> bool:
        """Whether it would be discarded at this threshold."""
        return self.score is not None and is_discard(self.score, self.reasons, discard)


def in_process(engine: Engine, bundle: Bundle, wish: EngineRequest) -> Classifier:
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
        wish: EngineRequest = ANY,
        models: Path | None = None,
        build: Build = in_process,
    ) -> Model:
        """Read a model by name or folder, then as :meth:`of`. Raises BadBundle for a folder that is no model."""
        return cls.of(read(resolve(name, models)), wish, build)

    @classmethod
    def of(cls, bundle: Bundle, wish: EngineRequest = ANY, build: Build = in_process) -> Model:
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
            if model.engine.precision != "fp32":
                exact = replace(wish, device="cpu", precision="fp32", engine="auto")
                maker = engine if engine.device == "cpu" else next(candidates(exact))
                model.reference = maker.build(bundle, exact)
            return model
        raise (SelfTestFailed if is_wrong else NoEngine)("; ".join(failures))

    def is_network_of(self, bundle: Bundle) -> bool:
        """Whether that model is the same network on the same raster: what differs lies behind the logit.

        And states the same logits of the known curves, so that what has proved this one proves that one.
        """
        return _network_of(bundle) == _network_of(self.bundle)

    def with_bundle(self, bundle: Bundle) -> Model:
        """Another model of the same network, on the same engine, which has proved itself already."""
        return Model(bundle, self.classifier, self.reference, self.passed_over)

    @property
    def id(self) -> str:
        return self.bundle.id

    @property
    def pipeline(self) -> str:
        return self.bundle.pipeline

    @property
    def engine(self) -> EngineId:
        return self.classifier.engine

    @property
    def is_exact(self) -> bool:
        """Whether a certificate holds: its verdicts are those of single precision, in which evidence is counted.

        Of int8 that is seen on curves and not bounded: far from its ranges an error has no limit.
        """
        precision = self.engine.precision
        return precision == "fp32" or (self.reference is not None and precision != "int8")

    def selftest(self) -> None:
        """Judge the known curves; SelfTestFailed when a logit is off."""
        signals = [item.signal for item in prepare(known_curves(), self.bundle.profile) if item.signal is not None]
        seen = self.classifier.classify(signals)
        compare(self.engine, [float(logit) for logit in seen.logits], self.bundle.manifest.selftest.logits)

    def judge(self, curves: Sequence[Curve], thresholds: Sequence[float] | None = None) -> list[Scored]:
        """B curves -> B scores, in order; each is what the curve would get alone.

        ``thresholds``, of discard and keep, are the model's own unless given.
        """
        begun_s = time.perf_counter()
        prepared = prepare_to_judge(curves, self.bundle.profile)
        share_s = (time.perf_counter() - begun_s) / max(len(curves), 1)
        return [replace(one, raster_s=one.raster_s + share_s) for one in self.judge_prepared(prepared, thresholds)]

    def judge_prepared(
        self, prepared: Sequence[Prepared], thresholds: Sequence[float] | None = None, *, drawn: bool = True
    ) -> list[Scored]:
        """As :meth:`judge`, from where the front-end of this model's profile has been; previews where ``drawn``."""
        discard, keep = thresholds or (self.bundle.discard, self.bundle.keep)
        ways = [_ways_of(item) for item in prepared]
        answers = iter(self._score([way for some in ways for way in some], (discard, keep), drawn=drawn))
        scored = [_stronger([next(answers) for _ in some]) for some in ways]
        checked = {
            place: item.flipped
            for place, item in enumerate(prepared)
            if item.flipped is not None and not _is_open(item) and scored[place].falls(discard)
        }
        flips = self._score(list(checked.values()), (discard, keep), drawn=False) if checked else []
        for place, flip in zip(checked, flips, strict=True):
            scored[place] = _checked(scored[place], flip, keep)
        return scored

    def _score(self, prepared: Sequence[Prepared], thresholds: Sequence[float], *, drawn: bool) -> list[Scored]:
        """Each as it stands, whatever it may be the other way round."""
        able = [index for index, item in enumerate(prepared) if item.signal is not None]
        rivals = [at for at, (one, other) in enumerate(pairwise(able)) if prepared[one].flipped is prepared[other]]
        begun_s = time.perf_counter()
        engine = self.engine  # a guarded one may be another after a fault
        seen = self.classify([item.signal for item in prepared if item.signal is not None], thresholds, rivals)
        raster_s = seen.raster_s / max(len(able), 1)
        infer_s = (time.perf_counter() - begun_s) / max(len(able), 1) - raster_s
        scored = [Scored(None, item.reasons, prepared=item) for item in prepared]
        scores = self.scores_of(seen)
        drawings = previews(seen.edges, self.bundle.profile) if drawn else [None] * len(able)
        for place, index in enumerate(able):
            item, score = prepared[index], scores[place]
            scored[index] = Scored(
                score=score,
                reasons=(*item.reasons, "no_score") if score is None else item.reasons,
                logit=None if score is None else float(seen.logits[place]),
                preview=drawings[place],
                prepared=item,
                profile=self.bundle.profile,
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
        return TOLERANCE[(seen.engine or self.engine).precision] if seen.margin is None else seen.margin

    def classify(self, signals: Signals, thresholds: Sequence[float] | None = None, rivals: Sequence[int] = ()) -> Seen:
        """B signals -> their logits, those near a threshold in single precision.

        So are those of ``rivals``, each to be compared with the signal after it, that lie near each other.
        """
        seen = self.classifier.classify(signals)
        if self.reference is None:
            return seen
        calibration = self.bundle.calibration
        limits = np.array([calibration.logit(score) for score in thresholds]) if thresholds else self.bundle.limits
        margin = self.margin_of(seen)
        is_near = np.abs(seen.logits[:, None] - limits).min(axis=1) < margin
        for one in rivals:
            if abs(seen.logits[one] - seen.logits[one + 1]) < 2 * margin:
                is_near[one : one + 2] = True
        near = np.flatnonzero(is_near)
        if near.size:
            logits = seen.logits.copy()
            logits[near] = self.reference.classify([signals[int(index)] for index in near]).logits
            seen = replace(seen, logits=logits)
        return seen


def _network_of(bundle: Bundle) -> tuple[object, ...]:
    return bundle.weights_sha256, bundle.profile, bundle.manifest.network, bundle.manifest.selftest


def _is_open(item: Prepared) -> bool:
    return OPEN in item.reasons


def _ways_of(item: Prepared) -> tuple[Prepared, ...]:
    """What is to be scored of a curve before anything is known of it: as its reader believes, then the other way."""
    return (item, item.flipped) if _is_open(item) and item.flipped is not None else (item,)


def is_discard(score: float, reasons: Sequence[str], discard: float) -> bool:
    """Whether a curve falls: what is in doubt does not, however low its score."""
    return score <= discard and not DOUBTS.intersection(reasons)


def _stronger(ways: Sequence[Scored]) -> Scored:
    """Of a curve as its reader believes and the other way round, the one that scores higher, with all that is in doubt.

    What is doubtful of the curve as its reader believes stays so. The other way may have no score, being none that a
    curve can be; but not because the engine failed on it.
    """
    believed, *others = ways
    if not others:
        return believed
    (other,) = others
    raster_s, infer_s = believed.raster_s + other.raster_s, believed.infer_s + other.infer_s
    is_turned = other.logit is not None and (believed.logit is None or other.logit > believed.logit)
    if is_turned:
        best, at = other, other.reasons.index(OPEN) + 1
        doubts = [reason for reason in believed.reasons if reason in DOUBTS and reason not in other.reasons]
        reasons = (*other.reasons[:at], "sign_turned", *other.reasons[at:], *doubts)
    else:
        best, reasons = believed, believed.reasons
        if "no_score" in other.reasons and "no_score" not in reasons:
            reasons = (*reasons, "no_score")
    return replace(best, reasons=reasons, raster_s=raster_s, infer_s=infer_s)


def _checked(one: Scored, flip: Scored, keep: float) -> Scored:
    """A would-be discard beside what the curve scores upside down: an event there is a doubt about the sign."""
    is_event = flip.score is not None and flip.score >= keep
    reasons = (*one.reasons, "flipped") if is_event else one.reasons
    return replace(one, reasons=reasons, raster_s=one.raster_s + flip.raster_s, infer_s=one.infer_s + flip.infer_s)
