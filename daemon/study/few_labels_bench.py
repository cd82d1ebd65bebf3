"""The bench: what every rival of `study few-labels` works with, made once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from daemon.common.progress import progress
from daemon.study.collection import Collection
from deploy.torch_engine import bf16_in_hardware
from models.bundle import Bundle
from models.heads import Vectors, embed
from models.network import ResNet18, load
from models.simulate import simulate
from models.train import Examples, Recipe, Run, gather, infer

UNLABELLED_SEED = 3_000_000  # added to the seed: curves that no training has drawn
BATCH = 16
TUNED_PICTURES, SCRATCH_PICTURES = 480, 960  # shown to a network: enough for the loss to settle on 16 to 64 curves


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """N real curves as envelopes and embedded, and simulated ones embedded."""

    bundle: Bundle
    edges: NDArray[np.float32]  # (N, 2, W)
    events: NDArray[np.bool_]  # (N,)
    vectors: Vectors  # (N, D)
    simulated: Vectors  # (M, D)
    seed: int

    def network(self) -> ResNet18:
        """The model's, a fresh copy."""
        return load(self.bundle.width, {name: torch.from_numpy(one) for name, one in self.bundle.weights.items()})

    def logits(self) -> NDArray[np.float64]:
        """(N,) of the model as it is."""
        head = self.network().fc
        weight, bias = head.weight.detach().double().numpy(), head.bias.detach().double().numpy()
        return np.asarray(self.vectors @ weight[0] + bias[0], np.float64)

    def train(
        self, labelled: NDArray[np.int64], tested: NDArray[np.int64], seed: int, scratch: bool
    ) -> NDArray[np.float64]:
        """All weights, from the model's or from none, on these labels alone -> logits of the tested curves."""
        examples = Examples(self.edges[labelled], self.events[labelled].astype(np.float32))
        pictures = SCRATCH_PICTURES if scratch else TUNED_PICTURES
        batch = min(BATCH, len(examples))
        recipe = Recipe(
            width=self.bundle.width,
            epochs=-(-pictures // (len(examples) // batch * batch)),
            batch=batch,
            rate=2e-3 if scratch else 2e-4,
            seed=seed,
            bf16=bf16_in_hardware(),
        )
        run = Run(examples, self.bundle.profile, recipe, None if scratch else self.network())
        for _ in run:
            pass
        return infer(run.network, self.edges[tested], self.bundle.profile)


def make_bench(bundle: Bundle, collection: Collection, simulated: int, seed: int) -> Bench:
    """Embed the collection, and ``simulated`` curves that stand for unlabelled ones."""
    torch.set_num_threads(1)
    weights = {name: torch.from_numpy(tensor) for name, tensor in bundle.weights.items()}
    network = load(bundle.width, weights)
    curves = progress(simulate(simulated, seed + UNLABELLED_SEED, 0.5), "simulating", simulated)
    drawn = gather(((item.curve, item.label == "keep") for item in curves), bundle.profile)
    return Bench(
        bundle=bundle,
        edges=collection.edges,
        events=collection.events,
        vectors=embed(network, collection.edges, bundle.profile).astype(np.float64),
        simulated=embed(network, drawn.edges, bundle.profile).astype(np.float64),
        seed=seed,
    )
