"""The proof: known curves with known answers, by which a device shows that it computes what it should.

The answers are those of the model's manifest for its six curves, and for ten variants of them those of single
precision on this machine's processor. The same few milliseconds of work serve at every start and, every so often, as
a canary in the stream: a device that computes wrongly without an error is the worst of all faults.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.classifier import EngineFault, EngineId, EngineRequest, Seen, Signals
from deploy.engines import named
from deploy.serving import SelfTestFailed, compare, known_curves
from models.bundle import Bundle
from models.curve import Curve
from models.frontend import prepare
from models.raster import envelope

_ENVELOPE_TOLERANCE = 1e-4  # of a row's height; engines are bit-equal, and a device in error is far off


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """Signals and what they must give."""

    signals: Signals
    logits: NDArray[np.float64]  # (S,)
    edges: NDArray[np.float32]  # (S, 2, W)

    @classmethod
    def of(cls, bundle: Bundle) -> Proof:
        """For the model of ``bundle``; 0.1 s on one core. Raises SelfTestFailed when the processor itself is off."""
        known = known_curves()
        further = [_variant(curve, turn) for turn in (0.6, 1.7) for curve in known[:5]]
        prepared = prepare([*known, *further], bundle.profile)
        signals = [item.signal for item in prepared if item.signal is not None]
        exact = named("torch").build(bundle, EngineRequest(device="cpu", precision="fp32"))
        seen = exact.classify(signals)
        wanted = bundle.manifest.selftest.logits
        compare(exact.engine, [float(logit) for logit in seen.logits[: len(wanted)]], wanted)
        logits = seen.logits.copy()
        logits[: len(wanted)] = wanted
        return cls(signals, logits, envelope(signals, bundle.profile))

    def demand(self, engine: EngineId, classify: Callable[[Signals], Seen]) -> None:
        """All at once, and the first alone, must come back right; EngineFault("wrong") otherwise."""
        for count in (len(self.signals), 1):
            seen = classify(self.signals[:count])
            try:
                compare(engine, [float(logit) for logit in seen.logits], [float(one) for one in self.logits[:count]])
            except SelfTestFailed as error:
                raise EngineFault("wrong", str(error)) from None
            if seen.edges.shape != self.edges[:count].shape:
                raise EngineFault("wrong", f"{engine}: pictures of another size: {seen.edges.shape}")
            if not np.allclose(seen.edges, self.edges[:count], rtol=0.0, atol=_ENVELOPE_TOLERANCE):
                raise EngineFault("wrong", f"{engine}: known curves are drawn differently")


def _variant(curve: Curve, factor: float) -> Curve:
    """The curve of a softer or stiffer day."""
    return Curve(force=curve.force * factor, force_unit=curve.force_unit)
