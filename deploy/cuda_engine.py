"""The CUDA engine: the network by torch on an NVIDIA GPU, in half precision, one CUDA graph a bucket.

What serves on a GPU where TensorRT is not installed or refuses the card. What half precision does to the verdicts:
deploy/measurements/2026-11-21-engines-on-a-gpu.md.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from deploy.device_classifier import DeviceClassifier, recorded
from deploy.device_faults import device_faults
from deploy.device_network import DeviceNetwork
from models.bundle import Bundle

PRECISIONS = {"fp16": torch.float16, "fp32": torch.float32}


class CudaClassifier(DeviceClassifier):
    """A :class:`deploy.classifier.Classifier` by torch on a GPU.

    Without ``graphs``, and on the device "cpu", the same step by step. Raises EngineFault when the device fails.
    """

    def __init__(
        self,
        bundle: Bundle,
        precision: str = "auto",
        device: str = "cuda",
        graphs: bool = True,
    ) -> None:
        precision = "fp16" if precision == "auto" else precision
        super().__init__(bundle, f"torch-{torch.device(device).type}-{precision}", device)
        self.dtype = PRECISIONS[precision]
        self._graphs = graphs and self.stream is not None
        with device_faults(), self._on_stream():
            self._network = DeviceNetwork(bundle, self.dtype).to(self._device).eval()
        self.warm_up()

    def _prepare(self, edges: Tensor, features: Tensor) -> Callable[[], object]:
        def work() -> object:
            return features.copy_(self._network(edges))

        return recorded(work, self.stream) if self._graphs and self.stream is not None else work
