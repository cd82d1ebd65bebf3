"""The assembly: a trained network becomes a model folder, calibrated, with thresholds, self-test and card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from deploy import serving
from models.bundle import Bundle, Manifest, Network, SelfTest, Weights, write
from models.calibrate import choose_cut, fit_platt
from models.card import describe
from models.clock import utc_now
from models.frontend import prepare
from models.network import ResNet18, load
from models.raster import RasterProfile, envelope
from models.train import Examples, infer


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model comes from; goes into its manifest as it is."""

    name: str
    code_version: str
    training: Mapping[str, Any]
    score_basis: Literal["simulation", "labels"] = "simulation"
    parent: str | None = None


def assemble(
    folder: Path,
    network: ResNet18,
    profile: RasterProfile,
    heldout: Examples,
    origin: Origin,
    prevalence: float = 0.02,
    most_missed: float = 0.01,
    most_kept: float = 0.002,
) -> Bundle:
    """Calibrate on ``heldout`` (never trained on), then write the whole folder as one act."""
    weights = half(network)
    rounded = load(network.width, {name: torch.from_numpy(tensor) for name, tensor in weights.items()})
    logits, labels = infer(rounded, heldout.edges, profile), heldout.labels > 0.5
    calibration = fit_platt(logits, labels, prevalence)
    cut = choose_cut(calibration, logits, labels, most_missed, most_kept)
    manifest = Manifest(
        name=origin.name,
        created=utc_now("seconds"),
        parent=origin.parent,
        code_version=origin.code_version,
        profile=profile,
        network=Network(network.width),
        calibration=replace(calibration, basis=cut.evidence["basis"]),
        thresholds=cut,
        score_basis=origin.score_basis,
        certificate=None,
        training=dict(origin.training),
        selftest=SelfTest(serving.VERSION, known_logits(rounded, profile)),
    )
    return write(folder, weights, manifest, describe(manifest))


def half(network: ResNet18) -> Weights:
    """The tensors as a weight file holds them: half precision, without the counters that only training needs.

    Contiguous, because safetensors writes an array's memory as it lies, and a network in channels_last lies otherwise.
    """
    state = {n: t.detach().float().numpy() for n, t in network.state_dict().items() if not n.endswith("tracked")}
    return {name: np.ascontiguousarray(tensor.astype(np.float16)) for name, tensor in state.items()}


def known_logits(network: ResNet18, profile: RasterProfile) -> list[float]:
    """What the self-test must find at every start."""
    signals = [item.signal for item in prepare(serving.known_curves(), profile) if item.signal is not None]
    return [round(float(logit), 6) for logit in infer(network, envelope(signals, profile), profile)]
