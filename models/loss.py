"""The losses: how wrong a logit is, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

Loss = Callable[[Tensor, Tensor], Tensor]

GAMMA = 2.0  # Lin et al. 2017, arXiv 1708.02002
ALPHA = 0.5  # classes are balanced by drawing, so alpha stays neutral


def bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy: (B,) logits and (B,) labels in 0…1 -> mean."""
    return binary_cross_entropy_with_logits(logits, labels)


def focal(logits: Tensor, labels: Tensor) -> Tensor:
    """Focal loss: the easy curves of a rare-event stream stop counting, so the hard ones are learned."""
    entropy = binary_cross_entropy_with_logits(logits, labels, reduction="none")
    p = torch.sigmoid(logits)
    wrong = labels * (1 - p) + (1 - labels) * p  # chance given to the other class
    weight = ALPHA * labels + (1 - ALPHA) * (1 - labels)
    return (weight * wrong**GAMMA * entropy).mean() * 4  # scaled to the size of bce, so one learning rate serves both


def dice(logits: Tensor, labels: Tensor) -> Tensor:
    """Soft Dice plus cross entropy: counts overlap with the events of the batch, whatever their share."""
    p = torch.sigmoid(logits)
    overlap = (2 * (p * labels).sum() + 1) / (p.sum() + labels.sum() + 1)
    return 1 - overlap + binary_cross_entropy_with_logits(logits, labels)


LOSSES: dict[str, Loss] = {"focal": focal, "bce": bce, "dice": dice}
