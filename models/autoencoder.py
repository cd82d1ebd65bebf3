"""The autoencoder: a small network that says an embedded curve in few numbers so that it can say it back.

Two layers in, two out, trained on curves that nobody has labelled. Its code is no linear function of a curve, so it
ranks curves and becomes no model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.features import Linear, Vectors, standardise

HIDDEN = 64
STEPS, BATCH, RATE = 400, 64, 2e-3


class Autoencoder(nn.Module):
    """(N, D) embedded curves -> (N, K) codes by ``apply``."""

    def __init__(self, inputs: int, codes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, codes))
        self.decoder = nn.Sequential(nn.Linear(codes, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, inputs))
        self.matrix, self.offset, self.centre, self.scale = (
            nn.Parameter(torch.zeros(shape), requires_grad=False)
            for shape in ((inputs, inputs), (inputs,), (codes,), (1,))
        )  # what the vectors are standardised with before, and the codes after

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) standardised -> (B, D) said back."""
        return self.decoder(self.encoder(x))  # type: ignore[no-any-return]

    def apply(self, vectors: Vectors) -> Vectors:  # type: ignore[override]
        """(N, D) -> (N, K), of mean squared length 1 on the curves that it was fitted on."""
        with torch.inference_mode():
            codes = (self.encoder(self._standard(vectors)) - self.centre) / self.scale
        return codes.double().numpy()  # type: ignore[no-any-return]

    def _standard(self, vectors: Vectors) -> Tensor:
        return torch.from_numpy(vectors).float() @ self.matrix.T + self.offset

    def save(self, file: Path) -> None:
        """As safetensors."""
        save_file(self.state_dict(), file)

    @classmethod
    def load(cls, file: Path) -> Autoencoder:
        """The inverse of :meth:`save`; SafetensorError, KeyError or RuntimeError for a file that is none."""
        tensors = load_file(file)
        codes, inputs = tensors["centre"].numel(), tensors["offset"].numel()
        made = cls(inputs, codes)
        made.load_state_dict(tensors)
        return made


def encode(vectors: Vectors, codes: int = 16, seed: int = 1) -> Autoencoder:
    """Fit on (N, D) by AdamW; the same vectors and seed give the same network, and no other randomness is touched."""
    standard = standardise(vectors)
    wide = Linear(standard.matrix * np.sqrt(vectors.shape[1]), standard.offset * np.sqrt(vectors.shape[1]))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = Autoencoder(vectors.shape[1], codes)
        with torch.no_grad():
            made.matrix.copy_(torch.from_numpy(wide.matrix))
            made.offset.copy_(torch.from_numpy(wide.offset))
        _train(made, made._standard(vectors))
    with torch.no_grad():
        found = made.encoder(made._standard(vectors))
        made.centre.copy_(found.mean(0))
        made.scale.copy_((found - made.centre).square().sum(1).mean().sqrt().clamp_min(1e-6))
    return made


def _train(made: Autoencoder, x: Tensor) -> None:
    learned = [parameter for parameter in made.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learned, RATE, weight_decay=1e-2)
    for _ in range(STEPS):
        chosen = x[torch.randint(len(x), (min(BATCH, len(x)),))]
        loss = (made(chosen) - chosen).square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
