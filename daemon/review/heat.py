"""The heat: where the network that judged a curve looked on it, from models that are kept warm.

The network needs torch, which takes seconds to load and hundreds of megabytes: nothing of it before a person has opened
the page.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from daemon.judging.registry import Registry
from daemon.review.security import Refused
from models.bundle import BadBundle, Bundle, read
from models.curve import Curve, Prepared, Samples
from models.frontend import OPEN, prepare, turned
from models.raster import coverage, envelope

if TYPE_CHECKING:
    from models.network import ResNet18

_WARM = 3  # models; a night has one, and two where the cut has moved


@dataclass(frozen=True, slots=True, eq=False)
class _Warm:
    bundle: Bundle
    network: ResNet18


class Heats:
    """Methods may be called from any thread; one heat is computed at a time."""

    def __init__(self, state: Path) -> None:
        self._registry = Registry(state / "models")
        self._models: OrderedDict[str, _Warm] = OrderedDict()
        self._lock = threading.Lock()
        self._warming: threading.Thread | None = None

    def warm(self, model: str) -> None:
        """Load this model in the background, once; that it cannot be found is told to who asks for a heat."""
        if self._warming is None:
            self._warming = threading.Thread(target=self._load, args=(model,), name="heat", daemon=True)
            self._warming.start()

    def of(self, curve: Curve, model: str) -> Samples:
        """(n,) one value a sample of the retract, 0 to 1; NaN where the picture does not show it.

        Raises Refused 404 where no score could be made of the curve, or the model is gone.
        """
        with self._lock:
            warm = self._warm(model)
            from models.gradcam import look, place_of

            ways = [curve, turned(curve)] if OPEN in curve.notes else [curve]
            seen: list[tuple[float, Curve, Prepared, Samples]] = []
            for way in ways:
                (prepared,) = prepare([way], warm.bundle.profile)
                if prepared.signal is not None:
                    heat = look(
                        warm.network, coverage(envelope([prepared.signal], warm.bundle.profile), warm.bundle.profile)
                    )
                    seen.append((float(heat.logits[0]), way, prepared, heat.along[0].astype(np.float64)))
        if not seen:
            raise Refused(404, "no score could be made of this curve: the network has not seen it")
        _, way, prepared, along = max(seen, key=lambda one: one[0])
        return place_of(way, prepared, warm.bundle.profile).spread(along)

    def _load(self, model: str) -> None:
        with self._lock, suppress(Refused):
            self._warm(model)

    def _warm(self, model: str) -> _Warm:
        if model not in self._models:
            import torch

            from models.network import load

            try:
                bundle = read(self._registry.find(model))
            except BadBundle as error:
                raise Refused(404, f"the model that judged this curve cannot be read: {error}") from None
            weights = {name: torch.from_numpy(tensor) for name, tensor in bundle.weights.items()}
            self._models[model] = _Warm(bundle, load(bundle.width, weights))
            while len(self._models) > _WARM:
                self._models.popitem(last=False)
        self._models.move_to_end(model)
        return self._models[model]
