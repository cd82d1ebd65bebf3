"""The network: ResNet18 (He et al. 2016, arXiv 1512.03385) on one channel, with one logit.

Standard topology and torchvision's parameter names, so that published weights can be read in; ``width`` is the number
of channels after the stem (64 is the standard) and everything else follows from it.

Where in its picture the network saw what speaks for an event, Grad-CAM says (Selvaraju et al. 2017, arXiv 1610.02391).
Its last layer alone is eight columns wide, finer ones alone follow the ink rather than the event. So the maps of two
layers are multiplied: what the last one, which knows what an event is, and the one before it, which knows where, agree
on. ``deploy/measurements`` has the comparison behind that choice, on curves whose ruptures are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.curve import Curve, Prepared, Samples
from models.frontend import first_shown
from models.raster import RasterProfile


class Block(nn.Module):
    """Two 3x3 convolutions and the shortcut around them."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2: nn.Module = nn.BatchNorm2d(channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels_in != channels:
            shortcut = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNet18(nn.Module):
    """(B, 1, H, W) -> (B,) logits; H and W are free, multiples of 32 waste nothing."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.width = width
        self.conv1 = nn.Conv2d(1, width, 7, 2, 3, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Block(width, width, 1), Block(width, width, 1))
        self.layer2 = nn.Sequential(Block(width, 2 * width, 2), Block(2 * width, 2 * width, 1))
        self.layer3 = nn.Sequential(Block(2 * width, 4 * width, 2), Block(4 * width, 4 * width, 1))
        self.layer4 = nn.Sequential(Block(4 * width, 8 * width, 2), Block(8 * width, 8 * width, 1))
        self.fc = nn.Linear(8 * width, 1)
        _initialise(self)

    def forward_trunk(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, 4 width, H/16, W/16): what no fine-tuning changes."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        return cast(Tensor, self.layer3(self.layer2(self.layer1(x))))

    def forward_tail(self, trunk: Tensor) -> Tensor:
        """(B, 4 width, h, w) -> (B,): layer4 and the last layer."""
        return self.forward_head(self.layer4(trunk))

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, 8 width, H/32, W/32): what Grad-CAM and embeddings look at."""
        return cast(Tensor, self.layer4(self.forward_trunk(x)))

    def forward_head(self, features: Tensor) -> Tensor:
        """(B, 8 width, h, w) -> (B,)."""
        return cast(Tensor, self.fc(features.mean((2, 3)))[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _initialise(network: ResNet18) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, Block):
            # each block starts as its shortcut, which trains faster (Goyal et al. 2017, arXiv 1706.02677)
            nn.init.zeros_(cast(nn.BatchNorm2d, module.bn2).weight)


def load(width: int, weights: Mapping[str, Tensor] | Mapping[str, NDArray[Any]]) -> ResNet18:
    """A network in evaluation mode, in float32, from half or single precision weights."""
    network = ResNet18(width)
    network.load_state_dict({name: torch.as_tensor(one).float() for name, one in weights.items()}, strict=False)
    return network.eval()


def fold(network: ResNet18) -> ResNet18:
    """The same function with every batch norm folded into its convolution; changes ``network`` and returns it."""
    network.eval()
    _fold_pair(network, "conv1", "bn1")
    for module in network.modules():
        if isinstance(module, Block):
            _fold_pair(module, "conv1", "bn1")
            _fold_pair(module, "conv2", "bn2")
            if module.downsample is not None:
                _fold_pair(module.downsample, "0", "1")
    return network


def _fold_pair(parent: nn.Module, convolution: str, norm: str) -> None:
    conv, bn = cast(nn.Conv2d, parent.get_submodule(convolution)), cast(nn.BatchNorm2d, parent.get_submodule(norm))
    setattr(parent, convolution, fuse_conv_bn_eval(conv, bn))
    setattr(parent, norm, nn.Identity())


LAYERS = ("layer1", "layer2", "layer3", "layer4")
CHUNK = 64  # pictures at a time: bounds memory
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Lens:
    """How to look: which layers' maps are multiplied, how each is made, and whether only ink may be warm.

    ``rule``: "gradcam" weights each channel by its mean gradient (Selvaraju et al. 2017), "hirescam" multiplies place
    by place (Draelos & Carin 2020, arXiv 2011.08891), "layercam" does so with the positive gradients only (Jiang et al.
    2021, IEEE TIP 30, 5875).
    """

    layers: tuple[str, ...] = ("layer3", "layer4")
    rule: Literal["gradcam", "hirescam", "layercam"] = "gradcam"
    inked: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Heat:
    """What speaks for an event in B pictures, 0 to 1 in each; all 0 where nothing does."""

    map: Floats  # (B, H, W), before it is laid on the ink
    along: Floats  # (B, W), of the ink in each column
    logits: NDArray[np.float64]  # (B,), in single precision: an engine of half precision says nearly the same

    @property
    def peaks(self) -> NDArray[np.int64]:
        """(B,) the warmest column of each picture; -1 where nothing is warm."""
        return np.where(self.along.max(axis=1) > 0, self.along.argmax(axis=1), -1)


def look(network: ResNet18, images: Floats, lens: Lens = Lens()) -> Heat:
    """(B, 1, H, W) pictures in [0, 1] -> their heat, on the device of ``network``; the same bits every time.

    ValueError when the network is in training mode or not in single precision.
    """
    weight = network.fc.weight
    if network.training or weight.dtype != torch.float32:
        raise ValueError("Grad-CAM wants a network in evaluation mode and single precision")
    parts = []
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        for start in range(0, len(images), CHUNK):
            pictures = torch.from_numpy(np.ascontiguousarray(images[start : start + CHUNK], np.float32))
            parts.append(_look(network, pictures.to(weight.device), lens))
    if not parts:
        height, width = images.shape[2:]
        return Heat(np.zeros((0, height, width), np.float32), np.zeros((0, width), np.float32), np.zeros(0))
    maps, along, logits = (torch.cat(tensors).cpu().numpy() for tensors in zip(*parts, strict=True))
    return Heat(maps, along, logits.astype(np.float64))


def _look(network: ResNet18, pictures: Tensor, lens: Lens) -> tuple[Tensor, Tensor, Tensor]:
    seen, slopes, logits = _trace(network, pictures, lens.layers)
    size = (pictures.shape[2], pictures.shape[3])
    whole = torch.ones_like(pictures[:, 0])
    for features, slope in zip(seen, slopes, strict=True):
        small = _map(features, slope, lens)
        whole = whole * _scaled(interpolate(small[:, None], size, mode="bilinear", align_corners=False)[:, 0])
    along = (whole * pictures[:, 0] if lens.inked else whole).sum(1)
    return _scaled(whole), _scaled(along), logits


def _trace(network: ResNet18, x: Tensor, layers: tuple[str, ...]) -> tuple[list[Tensor], tuple[Tensor, ...], Tensor]:
    """Features (B, C, h, w) of each layer named, the gradients of the logits there, and the logits (B,)."""
    seen: list[Tensor] = []
    with torch.no_grad():
        x = network.maxpool(torch.relu(network.bn1(network.conv1(x))))
    for name in LAYERS:
        with torch.set_grad_enabled(bool(seen)):
            x = network.get_submodule(name)(x)
        if name in layers:
            x = x if seen else x.detach().requires_grad_()
            seen.append(x)
    with torch.enable_grad():
        logits = network.forward_head(x)
    slopes = torch.autograd.grad(logits.sum(), seen)
    return [features.detach() for features in seen], slopes, logits.detach()


def _map(features: Tensor, slope: Tensor, lens: Lens) -> Tensor:
    """(B, C, h, w) twice -> (B, h, w), what raises the logit."""
    if lens.rule == "gradcam":
        slope = slope.mean((2, 3), keepdim=True)
    elif lens.rule == "layercam":
        slope = torch.relu(slope)
    return torch.relu((slope * features).sum(1))


def _scaled(heat: Tensor) -> Tensor:
    """Each to a largest value of 1; what is nowhere above 0 stays 0."""
    largest = heat.flatten(1).max(1).values.clamp(min=1e-30)
    return heat / largest.reshape(-1, *[1] * (heat.dim() - 1))


# The place: which samples of a retract the columns of its picture show.
#
# The front-end leaves out most of the push, then averages what is left (or draws it out) to the samples of the
# signal, which the raster deals out to columns. This is the way back, so that what is found in a picture can be
# shown on the curve it was made from.


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture lies on its retract."""

    first: int  # first sample of the retract that is shown; all from there on are
    shown: int  # samples shown
    signal: int  # samples of the signal they became
    columns: int

    def sample_of(self, columns: ArrayLike) -> Samples:
        """Columns -> the sample of the retract that their middle shows, a fraction where it lies between two."""
        column = np.asarray(columns, np.float64)
        start = np.ceil(column * self.signal / self.columns)
        stop = np.ceil((column + 1) * self.signal / self.columns)
        middle = (start + stop - 1) / 2  # as models.raster.envelope deals samples out
        if self.signal > self.shown:  # drawn out between the two ends
            return np.asarray(self.first + middle * (self.shown - 1) / (self.signal - 1))
        return np.asarray(self.first + (middle + 0.5) * self.shown / self.signal - 0.5)

    def spread(self, values: ArrayLike) -> Samples:
        """(W,) one value a column -> (n,) one a sample of the retract; NaN where the picture does not show it."""
        samples = np.arange(self.first + self.shown, dtype=np.float64)
        along = np.interp(samples, self.sample_of(np.arange(self.columns)), np.asarray(values, np.float64))
        along[: self.first] = np.nan
        return np.asarray(along)


def place_of(curve: Curve, prepared: Prepared, profile: RasterProfile) -> Place:
    """Where the picture of ``prepared``, made of ``curve``, lies; ValueError for a curve that has none."""
    if prepared.signal is None:
        raise ValueError(f"this curve has no picture: {', '.join(prepared.reasons)}")
    first = first_shown(len(curve), prepared.contact or 0.0, profile)
    return Place(first, len(curve) - first, int(prepared.signal.shape[0]), profile.columns)
