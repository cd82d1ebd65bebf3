"""The simulated loss: the share of simulated events that a discard cut gives up, stated beside every moved cut.

Fresh curves of the simulator, judged once by a network and kept in the state: every cut of that network is read from
the same logits. It states what the cut costs on known physics, and is no bar: a laboratory's events may be others.
Those of the shipped model lie beside its weights; after a new one was trained ``count`` makes them there, with its
folder as the state.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daemon.common.progress import progress
from daemon.judging.judge import load_model
from deploy.classifier import EngineRequest
from models.bundle import SHIPPED, Bundle
from models.files import write_whole
from models.reasons import DOUBTS
from models.simulate import simulate

EVENTS = 1_000
SEED = 59_000_000  # far from those of training, held-out curves and canaries
_BATCH = 64
#: `flipped` follows from the thresholds, and other ones are to be told of.
_DOUBTS = DOUBTS - {"flipped"}


@dataclass(frozen=True, slots=True, eq=False)
class Logits:
    """Of simulated events, (n,); infinite where a doubt, or no score, keeps the curve from being discarded."""

    values: NDArray[np.float64]

    def at(self, cut: float) -> float:
        """The share that is discarded at this cut, a logit."""
        return float((self.values <= cut).mean())


@dataclass(frozen=True, slots=True)
class SimulatedLoss:
    """Of the network and calibration of ``base``; what is counted once stays in ``state``."""

    state: Path
    base: Bundle
    events: int = field(default=EVENTS)

    @property
    def file(self) -> Path:
        return self.state / f"simulated-{self.base.weights_sha256[:12]}.json"

    def counted(self) -> Logits | None:
        """None where it has not been counted yet."""
        for file in (self.file, SHIPPED / self.file.name):
            with suppress(OSError, ValueError, KeyError, TypeError):
                said = json.loads(file.read_bytes())
                values = [np.inf if one is None else float(one) for one in said["logits"]]
                if values and said["raster"] == self.base.profile.id:
                    return Logits(np.array(values, np.float64))
        return None

    def count(self) -> Logits:
        """Counted already, or now: some seconds. UserError as ``load_model``; OSError where the state takes no file."""
        if (known := self.counted()) is not None:
            return known
        model = load_model(str(self.base.folder), EngineRequest("cpu", precision="fp32"))
        curves = iter(progress(simulate(self.events, SEED, 1.0), "simulated events", self.events))
        logits: list[float | None] = []
        while batch := [one.curve for one in islice(curves, _BATCH)]:
            for scored in model.judge(batch):
                is_open = scored.logit is None or _DOUBTS.intersection(scored.reasons)
                logits.append(None if is_open or scored.logit is None else round(scored.logit, 4))
        said = {"raster": self.base.profile.id, "seed": SEED, "logits": logits}
        write_whole(self.file, json.dumps(said).encode(), is_synced=True)
        return Logits(np.array([np.inf if one is None else one for one in logits], np.float64))
