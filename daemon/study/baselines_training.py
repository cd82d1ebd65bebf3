"""Two recipes, one set of simulated curves: the published one and ours, each from scratch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daemon.common.progress import progress
from daemon.study.collection import Collection
from deploy.torch_engine import bf16_in_hardware
from models.curve import Curve
from models.profile import RasterProfile
from models.published import SIDE, Pictures, PublishedRun, Settings, draw
from models.simulate import Simulated, simulate
from models.train import Recipe, Run, gather, infer

CONTEST_SEED = 3_000_000  # added to the seed: curves that no other part has drawn


@dataclass(frozen=True, slots=True)
class Contest:
    """What both recipes are given; everything long is kept in ``work``."""

    profile: RasterProfile
    simulated: int
    epochs: int
    seed: int
    threads: int
    work: Path

    def published(self, collection: Collection) -> NDArray[np.float64]:
        """(N,) logits of the published recipe."""
        events = np.array([item.label == "keep" for item in self._curves()])
        pictures = self._pictures((item.curve for item in self._curves()), self.simulated, "drawing simulated curves")
        settings = Settings(epochs=self.epochs, seed=self.seed, threads=self.threads, bf16=bf16_in_hardware())
        run = PublishedRun(pictures, events, settings, self.work / "published")
        for _ in progress(run, "the published recipe", len(run)):
            pass
        return run.score(np.stack(list(progress(draw(collection.curves), "drawing real curves", len(collection)))))

    def ours(self, collection: Collection) -> NDArray[np.float64]:
        """(N,) logits of our recipe, on those of the same curves that can be scored."""
        examples = gather(((item.curve, item.label == "keep") for item in self._curves()), self.profile)
        recipe = Recipe(epochs=self.epochs, seed=self.seed, threads=self.threads, bf16=bf16_in_hardware())
        run = Run(examples, self.profile, recipe, checkpoint=self.work / "ours")
        for _ in progress(run, "our recipe on the same curves", len(run)):
            pass
        return infer(run.network, collection.edges, self.profile)

    def _curves(self) -> Iterable[Simulated]:
        return simulate(self.simulated, self.seed + CONTEST_SEED, 0.5)

    def _pictures(self, curves: Iterable[Curve], count: int, what: str) -> Pictures:
        """Drawn once: 50 kB a picture."""
        kept = self.work / "pictures.npy"
        if not kept.is_file():
            pictures = np.zeros((count, SIDE, SIDE), np.uint8)
            for place, picture in enumerate(progress(draw(curves), what, count)):
                pictures[place] = picture
            fresh = kept.with_name(".pictures.new.npy")
            np.save(fresh, pictures, allow_pickle=False)
            fresh.replace(kept)
        return np.asarray(np.load(kept, allow_pickle=False))
