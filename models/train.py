"""The training: one loop, resumable after every epoch.

AdamW with a short warm-up and a cosine to zero, bf16 arithmetic where the processor has it, pictures drawn from the
envelopes as they are needed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.curve import Curve
from models.files import unfinished, write_whole
from models.frontend import prepare
from models.loss import select
from models.network import ResNet18
from models.raster import Floats, RasterProfile, coverage, envelope

CHUNK = 256
Progress = Callable[[int], None]  # curves done


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what a training run makes of its data."""

    width: int = 16
    epochs: int = 4
    batch: int = 64
    rate: float = 2e-3
    decay: float = 0.02
    warmup: float = 0.05  # share of all steps
    smoothing: float = 0.01  # labels are pulled this far towards the middle: no simulator is certain
    loss: str = "focal"  # as models.loss.select reads it
    seed: int = 1
    threads: int = 1
    bf16: bool = True
    frozen: bool = False  # the last layer alone learns; the rest stays, the statistics of its batch norms too


class Run:
    """A training run: ``for loss in run`` works through what is left of it, then ``run.network`` is trained.

    The same arguments on the same machine give the same network, whether it was interrupted or not.
    """

    def __init__(
        self,
        examples: Examples,
        profile: RasterProfile,
        recipe: Recipe,
        initial: ResNet18 | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        """``checkpoint`` is a folder; a run that it holds is gone on with. ``initial`` is where to start instead."""
        torch.set_num_threads(recipe.threads)
        torch.manual_seed(recipe.seed)
        self.network = ResNet18(recipe.width) if initial is None else initial
        self._layout = layout_of(self.network.width)
        cast(Any, self.network).to(memory_format=self._layout)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(not recipe.frozen or name.startswith("fc."))
        self._examples, self._profile, self._recipe, self._checkpoint = examples, profile, recipe, checkpoint
        self._loss = select(recipe.loss)
        self._optimiser = torch.optim.AdamW(_groups(self.network, recipe.decay), lr=recipe.rate)
        self._done = restore(checkpoint, self.network, self._optimiser) if checkpoint is not None else 0
        self._per_epoch = max(len(examples) // recipe.batch, 1)

    def __len__(self) -> int:
        """Steps that are left."""
        return (self._recipe.epochs - self._done) * self._per_epoch

    def __iter__(self) -> Iterator[float]:
        """Take one step after the other; yields the loss of each."""
        steps = self._recipe.epochs * self._per_epoch
        for epoch in range(self._done, self._recipe.epochs):
            self.network.train(not self._recipe.frozen)
            for place, (images, labels) in enumerate(self._batches(epoch)):
                share = rate_at(epoch * self._per_epoch + place, steps, self._recipe.warmup)
                yield self._step(images, labels, self._recipe.rate * share)
            self._done = epoch + 1
            if self._checkpoint is not None:
                store(self._checkpoint, self.network, self._optimiser, self._done)
        self.network.eval()

    def _batches(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(B, 1, H, W) pictures and (B,) smoothed labels; the incomplete batch at the end is left out."""
        places, size, smoothing = (
            order(self._examples, self._recipe.seed, epoch),
            self._recipe.batch,
            self._recipe.smoothing,
        )
        for step in range(self._per_epoch):
            chosen = places[step * size : (step + 1) * size]
            images = torch.from_numpy(coverage(self._examples.edges[chosen], self._profile))
            labels = torch.from_numpy(self._examples.labels[chosen])
            yield images.contiguous(memory_format=self._layout), labels * (1 - 2 * smoothing) + smoothing

    def _step(self, images: torch.Tensor, labels: torch.Tensor, rate: float) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=self._recipe.bf16):
            logits = self.network(images)
        return descend(self.network, self._optimiser, self._loss(logits.float(), labels), rate)


def layout_of(channels: int) -> torch.memory_format:
    """How pictures of so many channels, or of more, lie in memory while a network learns from them.

    Channels last is quicker. But with fewer than 8 of them oneDNN writes past the end of its memory in the backward
    pass of a convolution of 1 x 1 with stride 2 (torch 2.13, processors with AVX2 and without AVX-512).
    """
    return torch.channels_last if channels >= _LEAST_LAST else torch.contiguous_format


_LEAST_LAST = 8


def descend(network: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor, rate: float) -> float:
    """One step down the gradient of a loss, which is cut off where it is steep; the loss as a number."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
    torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimiser.step()
    return float(loss.detach())


def rate_at(step: int, steps: int, warmup: float) -> float:
    """Share of the full learning rate: a line up, then half a cosine down to zero."""
    rising = max(1.0, warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1.0, steps - rising)))


def _groups(network: ResNet18, decay: float) -> list[dict[str, Any]]:
    """Weights decay; norms and biases do not."""
    learned = [p for p in network.parameters() if p.requires_grad]
    weights = [p for p in learned if p.ndim > 1]
    others = [p for p in learned if p.ndim <= 1]
    return [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def infer(network: ResNet18, edges: Floats, profile: RasterProfile, batch: int = 64) -> NDArray[np.float64]:
    """(N, 2, W) envelopes -> (N,) logits in float32 arithmetic: the reference that engines are held against."""
    network.eval()
    parts = [np.zeros(0, np.float64)]
    with torch.inference_mode():
        for start in range(0, len(edges), batch):
            images = torch.from_numpy(coverage(edges[start : start + batch], profile))
            logits = network(images.contiguous(memory_format=torch.channels_last))
            parts.append(logits.double().numpy())
    return np.concatenate(parts)


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """N curves ready to learn from, as envelopes and labels: all that training needs of them.

    An envelope is 1 kB where a curve is 32 kB, and the picture is drawn from it by the code that serves; so 100,000
    curves fit into memory, and training cannot see another picture than service.
    """

    edges: NDArray[np.float32]  # (N, 2, W) in signal units
    labels: NDArray[np.float32]  # (N,), 1 is an event

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def __add__(self, other: Examples) -> Examples:
        edges = np.concatenate((self.edges, other.edges))
        return Examples(edges, np.concatenate((self.labels, other.labels)))

    def repeat(self, times: int) -> Examples:
        """The same curves ``times`` over: how a few labelled ones are heard among many simulated."""
        return Examples(np.tile(self.edges, (times, 1, 1)), np.tile(self.labels, times))

    def save(self, path: Path) -> None:
        """Two plain numpy arrays side by side, whole or not at all."""
        for name, array in (("edges", self.edges), ("labels", self.labels)):
            with unfinished(path.with_name(f"{path.name}-{name}.npy")) as fresh, fresh.open("wb") as file:
                np.save(file, array, allow_pickle=False)

    @classmethod
    def load(cls, path: Path) -> Examples | None:
        """What :meth:`save` wrote, or None when it is not there whole."""
        files = [path.with_name(f"{path.name}-{name}.npy") for name in ("edges", "labels")]
        if not all(file.is_file() for file in files):
            return None
        try:
            edges, labels = (np.load(file, allow_pickle=False) for file in files)
        except (ValueError, EOFError):  # cut off by a power failure: drawn again
            return None
        return cls(edges, labels) if edges.shape[0] == labels.shape[0] else None


def gather(pairs: Iterable[tuple[Curve, bool]], profile: RasterProfile, progress: Progress | None = None) -> Examples:
    """Curves with their labels -> examples; curves that could get no score are left out, as they are in service."""
    edges, labels = [np.zeros((0, 2, profile.columns), np.float32)], [np.zeros(0, np.float32)]
    for chunk in _chunks(pairs):
        prepared = prepare([curve for curve, _ in chunk], profile)
        able = [(item.signal, event) for item, (_, event) in zip(prepared, chunk, strict=True)]
        kept = [(signal, event) for signal, event in able if signal is not None]
        edges.append(envelope([signal for signal, _ in kept], profile))
        labels.append(np.array([event for _, event in kept], np.float32))
        if progress is not None:
            progress(len(chunk))
    return Examples(np.concatenate(edges), np.concatenate(labels))


def _chunks(pairs: Iterable[tuple[Curve, bool]]) -> Iterator[list[tuple[Curve, bool]]]:
    chunk: list[tuple[Curve, bool]] = []
    for pair in pairs:
        chunk.append(pair)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def order(examples: Examples, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of one epoch; from seed and number alone, so that a resumed run goes on as it would have."""
    shuffled = np.random.default_rng((seed, epoch)).permutation(len(examples))
    return cast(NDArray[np.int64], shuffled.astype(np.int64))


def store(folder: Path, network: nn.Module, optimiser: torch.optim.Optimizer, epochs: int) -> None:
    """Write weights and optimiser as safetensors and JSON, never as a pickle.

    The older checkpoint stays until the new one is whole. OSError for a full disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = optimiser.state_dict()
    tensors = {f"network.{name}": value.contiguous() for name, value in network.state_dict().items()}
    for place, slots in state["state"].items():
        tensors |= {f"optimiser.{place}.{slot}": value.contiguous() for slot, value in slots.items()}
    name = f"epoch-{epochs}.safetensors"
    try:
        with unfinished(folder / name) as fresh:
            save_file(tensors, fresh)
    except SafetensorError as error:  # a full disk, in its words
        raise OSError(f"{folder}: {error}; make room, then go on with the same command") from None
    write_whole(folder / "progress.json", json.dumps({"epochs": epochs, "file": name}).encode())
    for old in folder.glob("epoch-*.safetensors"):
        if old.name != name:
            old.unlink()


def restore(folder: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Load the last checkpoint into both; the number of epochs that it holds, 0 when there is none."""
    try:
        progress = json.loads((folder / "progress.json").read_text())
        tensors = load_file(folder / str(progress["file"]))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return 0
    prefix = "network."
    weights = {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
    wanted = {name: value.shape for name, value in network.state_dict().items()}
    if {name: value.shape for name, value in weights.items()} != wanted:
        return 0
    network.load_state_dict(weights)
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, place, *slot = name.split(".")
        if kind == "optimiser":
            state.setdefault(int(place), {})[slot[0]] = tensor
    groups: list[dict[str, Any]] = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    return int(progress["epochs"])
