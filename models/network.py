"""The network: ResNet18 (He et al. 2016, arXiv 1512.03385) on one channel, with one logit.

Standard topology and torchvision's parameter names, so that published weights can be read in; ``width`` is the number
of channels after the stem (64 is the standard) and everything else follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


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


def load(width: int, weights: Mapping[str, Tensor]) -> ResNet18:
    """A network in evaluation mode, in float32, from half or single precision weights."""
    network = ResNet18(width)
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, strict=False)
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
