"""Small models and curves for tests: real ones, only narrow and untrained, so that they are made in milliseconds."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

import numpy as np
import torch

from daemon.learn.training import Origin, assemble
from deploy.serving import known_curves
from models.bundle import Bundle
from models.curve import Curve
from models.network import ResNet18
from models.raster import RasterProfile
from models.train import Examples, gather

SMALL = RasterProfile(columns=64, rows=64)
SHARED = Path(__file__).resolve().parents[2] / "shared"


def noisy(curve: Curve, seed: int, noise: float = 5e-12) -> Curve:
    """The same curve on another day."""
    rng = np.random.default_rng(seed)
    return Curve(force=curve.force + rng.normal(0.0, noise, len(curve)), force_unit=curve.force_unit)


@cache
def some_examples(profile: RasterProfile = SMALL, each: int = 8) -> Examples:
    """The known curves with fresh noise, and whether they hold an event."""
    truth = (False, False, True, True, True, False)
    pairs = [
        (noisy(curve, seed), event) for seed in range(each) for curve, event in zip(known_curves(), truth, strict=True)
    ]
    return gather(pairs, profile)


@cache
def untrained(width: int = 4, seed: int = 0) -> ResNet18:
    torch.manual_seed(seed)
    network = ResNet18(width)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # as after training: nothing is at its default
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
    return network.eval()


def make_model(folder: Path, name: str = "small", parent: str | None = None) -> Bundle:
    """A whole model folder that loads, serves and passes its self-test; its verdicts mean nothing."""
    origin = Origin(name, "0", {"simulated": 0}, parent=parent)
    return assemble(folder, untrained(), SMALL, some_examples(), origin)


#: labels.csv of a folder that write_folder makes
GOOD = [
    ("a.txt", 0, "discard"),
    ("b.txt", 0, "discard"),
    ("c.txt", 0, "keep"),
    ("d.txt", 0, "KEEP"),
    ("e.txt", 0, "ambiguous"),
    ("f.txt", 0, "unsure"),
]


def write_folder(folder: Path, rows: list[tuple], header: tuple = ("path", "curve_index", "label")) -> Path:
    """A labelled folder of two-column text files, distance and force, as many programs export them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, curve in zip("abcdef", known_curves(), strict=True):
        distance = np.arange(len(curve)) * 0.25e-9
        lines = "".join(f"{z:.6e}\t{f:.6e}\n" for z, f in zip(distance, curve.force, strict=True))
        (folder / f"{name}.txt").write_text("distance [m]\tforce [N]\n" + lines)
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return folder
