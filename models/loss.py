"""The losses: how wrong a logit is. Each is a frozen value with its parameters named, selectable as text.

``select("focal")`` or ``select("asymmetric_focal:gamma_none=3,alpha_event=0.7")``. Every loss takes (B,) logits and
(B,) labels in 0…1, of which soft ones (label smoothing) are in order, and returns the mean. They are scaled to about
the size of cross entropy, so that one learning rate and one clipping of gradients serve all.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


class Loss(Protocol):
    """(B,) logits, (B,) labels -> a scalar with a gradient."""

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """Binary cross entropy."""

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(logits, labels)


@dataclass(frozen=True, slots=True)
class WeightedCrossEntropy:
    """Cross entropy in which one class counts more; by default an event counts like three event-free curves."""

    weight_event: float = 1.5
    weight_none: float = 0.5

    def __post_init__(self) -> None:
        _check(self, weight_event=_WEIGHT, weight_none=_WEIGHT)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        weight = self.weight_event * labels + self.weight_none * (1 - labels)
        return (weight * _entropy(logits, labels)).mean()


@dataclass(frozen=True, slots=True)
class Focal:
    """Focal loss (Lin et al. 2017, arXiv 1708.02002): easy curves stop counting, so the hard ones are learned.

    ``alpha`` is the share of events in the weights; classes are balanced by drawing, so it stays neutral.
    """

    alpha: float = 0.5
    gamma: float = 2.0

    def __post_init__(self) -> None:
        _check(self, alpha=_SHARE, gamma=_GAMMA)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        entropy = _entropy(logits, labels)
        weight = self.alpha * labels + (1 - self.alpha) * (1 - labels)
        return (weight * _wrong(logits, labels) ** self.gamma * entropy).mean() * _FOCAL_SCALE


@dataclass(frozen=True, slots=True)
class AsymmetricFocal:
    """Focal loss with alpha *and* gamma of each class.

    Class-wise alpha as in Lin et al. 2017; class-wise gamma, 1 for events and 4 for the others, as in the asymmetric
    loss of Ridnik et al. 2021 (ICCV, arXiv 2009.14119; without its shift of probabilities): easy event-free curves
    fall silent sooner than easy events. With both alphas 0.5 and one gamma it is :class:`Focal`.
    """

    alpha_event: float = 0.75
    alpha_none: float = 0.25
    gamma_event: float = 1.0
    gamma_none: float = 4.0

    def __post_init__(self) -> None:
        _check(self, alpha_event=_WEIGHT, alpha_none=_WEIGHT, gamma_event=_GAMMA, gamma_none=_GAMMA)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        weight = self.alpha_event * labels + self.alpha_none * (1 - labels)
        gamma = self.gamma_event * labels + self.gamma_none * (1 - labels)
        # a power between 0 and 1, which soft labels can make, has no gradient at exactly 0
        wrong = _wrong(logits, labels).clamp_min(1e-6)
        return (weight * wrong**gamma * _entropy(logits, labels)).mean() * _FOCAL_SCALE


@dataclass(frozen=True, slots=True)
class Dice:
    """Soft Dice of the batch (Milletari et al. 2016, arXiv 1606.04797): overlap with its events, whatever their share.

    ``smooth`` keeps a batch without events defined.
    """

    smooth: float = 1.0

    def __post_init__(self) -> None:
        _check(self, smooth=_WEIGHT)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        p = torch.sigmoid(logits)
        shared, either = (p * labels).sum(), (p * p).sum() + (labels * labels).sum()
        return 1 - (2 * shared + self.smooth) / (either + self.smooth)


@dataclass(frozen=True, slots=True)
class FocalDice:
    """Focal plus Dice (as Zhu et al. 2019, AnatomyNet, arXiv 1808.05238): hard curves, and the batch as a whole."""

    weight_focal: float = 1.0
    weight_dice: float = 1.0
    alpha: float = 0.5
    gamma: float = 2.0

    def __post_init__(self) -> None:
        _check(self, weight_focal=_WEIGHT, weight_dice=_WEIGHT, alpha=_SHARE, gamma=_GAMMA)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        focal = Focal(self.alpha, self.gamma)(logits, labels)
        return self.weight_focal * focal + self.weight_dice * Dice()(logits, labels)


@dataclass(frozen=True, slots=True)
class MultiLoss:
    """The weighted sum of cross entropy, focal and Dice: each corrects where another falls flat."""

    weight_bce: float = 1.0
    weight_focal: float = 1.0
    weight_dice: float = 1.0

    def __post_init__(self) -> None:
        _check(self, weight_bce=_WEIGHT, weight_focal=_WEIGHT, weight_dice=_WEIGHT)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        parts = ((self.weight_bce, CrossEntropy()), (self.weight_focal, Focal()), (self.weight_dice, Dice()))
        return torch.stack([weight * loss(logits, labels) for weight, loss in parts]).sum()


LOSSES: dict[str, type[Loss]] = {
    "focal": Focal,
    "bce": CrossEntropy,
    "weighted_bce": WeightedCrossEntropy,
    "asymmetric_focal": AsymmetricFocal,
    "dice": Dice,
    "focal_dice": FocalDice,
    "multi": MultiLoss,
}


def select(text: str) -> Loss:
    """``NAME`` or ``NAME:parameter=value,…`` -> the loss; ValueError, in words, for anything else."""
    name, _, rest = text.partition(":")
    if name not in LOSSES:
        raise ValueError(f"loss {name!r} is none of {', '.join(LOSSES)}")
    known = parameters(name)
    values: dict[str, float] = {}
    for part in filter(None, rest.split(",")):
        key, _, number = part.partition("=")
        if key not in known:
            raise ValueError(f"loss {name} has no parameter {key!r}; it has {', '.join(known) or 'none'}")
        if key in values:
            raise ValueError(f"loss {name}: {key} stands twice")
        try:
            values[key] = float(number)
        except ValueError:
            raise ValueError(f"loss {name}: {key}={number} is no number") from None
    return LOSSES[name](**values)


def parameters(name: str) -> tuple[str, ...]:
    """What may follow the colon."""
    kind: Any = LOSSES[name]
    return tuple(field.name for field in fields(kind))


def describe(text: str) -> dict[str, Any]:
    """Name and every parameter, defaults too: what a manifest says of the loss."""
    loss: Any = select(text)
    return {"name": text.partition(":")[0], **asdict(loss)}


_FOCAL_SCALE = 4  # brings a focal loss of gamma 2 to about the size of cross entropy
_WEIGHT, _SHARE, _GAMMA = "from 0 to 100", "from 0 to 1", "0, or from 1 to 10"
_RANGES = {_WEIGHT: (0.0, 100.0), _SHARE: (0.0, 1.0), _GAMMA: (1.0, 10.0)}


def _check(loss: object, **ranges: str) -> None:
    """A gamma between 0 and 1 has an infinite gradient where a prediction is exactly right."""
    for name, words in ranges.items():
        value, (low, high) = getattr(loss, name), _RANGES[words]
        zero_is_well = words == _GAMMA and value == 0
        if not (math.isfinite(value) and (low <= value <= high or zero_is_well)):
            raise ValueError(f"loss parameter {name} is {value:g}; it is {words}")


def _entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(logits, labels, reduction="none")


def _wrong(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) chance given to the other class."""
    p = torch.sigmoid(logits)
    return labels * (1 - p) + (1 - labels) * p
