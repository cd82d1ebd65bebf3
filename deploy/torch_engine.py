"""The torch engine: always there, and the reference that every other engine is compared with.

Batch norm is folded, memory is channels-last, and precision is single unless another is asked for, as for every engine
on the processor (deploy/decisions/0010). One core is left to the acquisition software.

Beside other busy programs the waiting threads of OpenMP turn 16 ms into 150 ms, unless they are told not to spin before
torch is first imported (daemon/cli.py does).
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from deploy.classifier import EngineId, Precision
from deploy.cpu import PictureClassifier, default_threads
from models.bundle import Bundle
from models.network import ResNet18, fold, load


def bf16_in_hardware() -> bool:
    """Whether bf16 is computed and not emulated; torch 2.11 can not say, and gets False."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    known: dict[str, Any] = capabilities() if capabilities is not None else {}
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


class TorchClassifier(PictureClassifier):
    """A :class:`deploy.classifier.Classifier` by torch on the CPU."""

    def __init__(self, bundle: Bundle, precision: Precision = "fp32", threads: int | None = None) -> None:
        super().__init__(bundle, EngineId("torch", "cpu", precision))
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        torch.set_num_threads(threads or default_threads())
        weights = {name: torch.from_numpy(tensor) for name, tensor in bundle.weights.items()}
        network = fold(load(bundle.width, weights))
        self._head = network.fc.weight[0].detach().double(), network.fc.bias.detach().double()
        # torch's own stub of Module.to does not list memory_format
        self._network = cast(ResNet18, cast(Any, network).to(self._dtype, memory_format=torch.channels_last))
        self.warm_up()

    def _forward(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        if len(images) == 1 and self._dtype == torch.float32:
            # a lone picture is summed in another order, and a live verdict could differ from a later one
            return self._forward(np.concatenate((images, images)))[:1]
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(images)).to(self._dtype)
            features = self._network.forward_features(x.contiguous(memory_format=torch.channels_last))
            # the last layer row by row in double: a matrix product rounds differently with the number of rows
            weight, bias = self._head
            logits = (features.float().mean((2, 3)).double() * weight).sum(1) + bias
            return cast(NDArray[np.float64], logits.numpy())
