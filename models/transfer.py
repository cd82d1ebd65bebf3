"""The transfer: published ResNet18 weights, learned from colour photographs, in the network that sees one channel.

The stem's kernels are summed over their three input channels: a picture in grey has the same value in red, green and
blue, convolution is linear, and so the summed kernel answers exactly as the three did. Before the sum each is divided
by its channel's standard deviation, and what the channel means took away goes into the first batch norm: the network
was taught on (x - mean) / std, and is here shown x in 0…1. What differs is the rim of three pixels that the stem pads:
black here, mid-grey there. The last layer knows a thousand kinds of photograph and none of curve, so it starts at zero.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from models.anatomy import shapes
from models.bundle import MAX_HEADER_BYTES, MAX_WEIGHT_BYTES
from models.network import ResNet18, load

WIDTH = 64  # of every published ResNet18
#: What torchvision's weights expect of red, green and blue in 0…1 (He et al. 2016; torchvision, "IMAGENET1K_V1").
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_CONVERT = (
    "python -c \"import torch; from safetensors.torch import save_file; save_file(torch.load('{name}', "
    "weights_only=True), '{stem}.safetensors')\""
)


class BadWeights(Exception):
    """This file holds no ResNet18 of torchvision; the message is one line and says what to do."""


def read_imagenet(file: Path) -> ResNet18:
    """A network of width 64 with the weights of ``file`` (.safetensors with torchvision's names); fc is zero.

    BadWeights for a pickle (.pth), which could run anything when opened and is never loaded, and for any tensor
    that is missing, of another shape, not finite, or not ResNet18's; the first such is named.
    """
    tensors = _read(file)
    if problem := _difference(tensors):
        raise BadWeights(f"{file}: is no ResNet18 of torchvision: {problem}")
    return adapt(tensors)


def adapt(tensors: Mapping[str, Tensor]) -> ResNet18:
    """Tensors of torchvision (conv1.weight (64, 3, 7, 7)) -> the same function of a picture in grey, without its fc."""
    weights = {name: tensors[name].float() for name in shapes(WIDTH) if not name.startswith("fc.")}
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    stem = weights["conv1.weight"] / std
    weights["conv1.weight"] = stem.sum(1, keepdim=True)
    weights["bn1.running_mean"] = weights["bn1.running_mean"] + (stem * mean).sum((1, 2, 3))
    weights |= {name: torch.zeros(shape) for name, shape in shapes(WIDTH).items() if name.startswith("fc.")}
    return load(WIDTH, weights)


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise BadWeights(f"{file}: no such file; name a .safetensors file with torchvision's ResNet18")
    if file.stat().st_size > MAX_WEIGHT_BYTES:
        raise BadWeights(f"{file}: is larger than any ResNet18 ({MAX_WEIGHT_BYTES >> 20} MB)")
    data = file.read_bytes()
    if data[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):  # zip of a pickle, or a bare one
        convert = _CONVERT.format(name=file.name, stem=file.stem)
        raise BadWeights(f"{file}: is a pickle and is not opened; where you trust it, convert it: {convert}")
    header_bytes = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 1 << 63
    if header_bytes > min(MAX_HEADER_BYTES, len(data)):
        raise BadWeights(f"{file}: is no safetensors file; nothing of it was loaded")
    try:
        return load_tensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BadWeights(f"{file}: is no safetensors file: {error}") from None


def _difference(tensors: Mapping[str, Tensor]) -> str | None:
    """What is first wrong, in the order of the layers; the last layer and the counters of training are free."""
    wanted = {name: shape for name, shape in shapes(WIDTH).items() if not name.startswith("fc.")}
    wanted["conv1.weight"] = (WIDTH, 3, 7, 7)
    for name, shape in wanted.items():
        found = tensors.get(name)
        if found is None:
            return f"{name} is missing"
        if tuple(found.shape) != shape:
            return f"{name} is {tuple(found.shape)}, not {shape}"
        if not found.is_floating_point() or not bool(torch.isfinite(found.float().half()).all()):
            return f"{name} is not finite in half precision, in which models are kept"
        if name.endswith(".running_var") and bool((found.float() < 0).any()):
            return f"{name} is negative, and variances are not"
    others = (name for name in tensors if name not in wanted)
    strange = [name for name in others if not name.startswith("fc.") and not name.endswith(".num_batches_tracked")]
    return f"{strange[0]} does not belong to it" if strange else None
