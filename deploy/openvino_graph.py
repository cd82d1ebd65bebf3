"""The OpenVINO graph: the network written node by node from folded weights.

That takes 5 ms where the converter takes 2 s and holds the interpreter all that while. With ranges it is the int8
network: every convolution reads 256 levels of its input and 255 of its weights (Jacob et al. 2018, arXiv 1712.05877).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.openvino_runtime import openvino
from deploy.picture_classifier import CHUNK
from models.anatomy import convolutions

Weights = Mapping[str, NDArray[np.float32]]  # as models.anatomy.fold gives them
Ranges = Mapping[str, float]  # the largest value at each of Graph.points


class Graph:
    """``Graph(width, weights, (1, H, W)).model()``: (b, 1, H, W) pictures -> (b, 8 width, H/32, W/32) features.

    ``points`` are the places whose values int8 rounds, in order: what each convolution reads. With ``ranges`` they
    are rounded; :meth:`watched` also returns them.
    """

    def __init__(self, width: int, weights: Weights, shape: tuple[int, int, int], ranges: Ranges | None = None) -> None:
        self._op = openvino().opset13
        self._weights, self._ranges = weights, ranges
        self._convolutions = {one.name: one for one in convolutions(width)}
        self._input = self._op.parameter([openvino().Dimension(1, CHUNK), *shape], np.float32)
        self.points: dict[str, Any] = {}
        self._features = self._network()

    def model(self) -> Any:
        """An ``openvino.Model`` that gives the features."""
        return openvino().Model([self._op.result(self._features)], [self._input], "resnet18")

    def watched(self) -> Any:
        """An ``openvino.Model`` that gives the value at every point, in the order of ``points``."""
        return openvino().Model([self._op.result(node) for node in self.points.values()], [self._input], "resnet18")

    def _network(self) -> Any:
        op = self._op
        x = self._point(self._input, "pictures")
        x = self._point(op.relu(self._convolve(x, "conv1")), "conv1")
        x = op.max_pool(x, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3]).output(0)
        for layer in (1, 2, 3, 4):
            for block in (0, 1):
                x = self._block(x, f"layer{layer}.{block}")
        return x

    def _block(self, x: Any, name: str) -> Any:
        op, shortcut = self._op, f"{name}.downsample.0"
        beside = self._convolve(x, shortcut) if shortcut in self._convolutions else x
        x = self._point(op.relu(self._convolve(x, f"{name}.conv1")), f"{name}.conv1")
        x = op.relu(op.add(self._convolve(x, f"{name}.conv2"), beside))
        return x if name == "layer4.1" else self._point(x, name)  # the last layer is computed in double

    def _convolve(self, x: Any, name: str) -> Any:
        one, op = self._convolutions[name], self._op
        kernel, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        stride, padding = [one.stride] * 2, [one.padding] * 2
        y = op.convolution(x, self._kernel(kernel), stride, padding, padding, [1, 1])
        return op.add(y, op.constant(bias.reshape(1, -1, 1, 1)))

    def _kernel(self, kernel: NDArray[np.float32]) -> Any:
        if self._ranges is None:
            return self._op.constant(kernel)
        largest = np.maximum(np.abs(kernel).max(axis=(1, 2, 3), keepdims=True), np.float32(1e-8))
        return self._rounded(self._op.constant(kernel), -largest, largest, 255)

    def _point(self, x: Any, name: str) -> Any:
        self.points[name] = x
        if self._ranges is None:
            return x
        return self._rounded(x, np.float32(0.0), np.float32(self._ranges[name]), 256)

    def _rounded(self, x: Any, low: Any, high: Any, levels: int) -> Any:
        limits = [self._op.constant(limit) for limit in (low, high)]
        return self._op.fake_quantize(x, *limits, *limits, levels)
