"""The self-test: known curves through the whole way, from force to logit, before anything is judged.

The curves are made here from formulas and counted random bits, the same on every machine; a model's manifest holds
the logits that they had when it was trained. A broken build of the mathematics, a damaged weight or a changed front-end
shows up at start, not in a lab's data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.curve import Curve, Samples

VERSION = 1
#: The largest difference of a logit from that of single precision, per precision of the engine; bf16 carries 8 bits.
#: A logit closer to a threshold than this is computed again in single precision (deploy.serving).
TOLERANCE = {"fp32": 0.01, "fp16": 0.03, "bf16": 0.1, "int8": 0.5}


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


def tolerance_of(engine: str) -> float:
    """What an engine's logits may be off; its name ends in its precision."""
    return TOLERANCE[engine.rsplit("-", 1)[-1]]


def compare(engine: str, logits: Sequence[float], expected: Sequence[float]) -> None:
    """SelfTestFailed unless every logit is within the tolerance of the engine's precision."""
    tolerance = tolerance_of(engine)
    found, wanted = np.asarray(logits, np.float64), np.asarray(expected, np.float64)
    if found.shape != wanted.shape or not np.isfinite(found).all():
        raise SelfTestFailed(f"{engine}: the self-test gave {found.shape[0]} logits, not all finite")
    worst = float(np.abs(found - wanted).max(initial=0.0))
    if worst > tolerance:
        raise SelfTestFailed(f"{engine}: a known curve is {worst:.3f} off its logit (tolerance {tolerance})")
