"""The OpenVINO engine: the same network in Intel's runtime, two to three times faster on one core than torch's.

It needs no torch: a service that it serves starts a second sooner and holds some hundred megabytes less. Single
precision is its default, and gives the same scores on every machine (deploy/decisions/0010).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deploy.engines import NoEngine
from deploy.int8 import Int8
from deploy.openvino_graph import Graph
from deploy.openvino_runtime import compiled, has_bf16
from deploy.picture_classifier import PictureClassifier
from models.anatomy import fold
from models.bundle import Bundle


class OpenVinoClassifier(PictureClassifier):
    """A :class:`deploy.classifier.Classifier` by OpenVINO on the CPU.

    ``int8`` is what ``deploy.int8.find`` has for this model; without it there is no such precision. NoEngine for bf16
    where the processor does not have it.
    """

    def __init__(
        self, bundle: Bundle, precision: str = "auto", threads: int | None = None, int8: Int8 | None = None
    ) -> None:
        precision = "fp32" if precision == "auto" else precision
        if precision == "bf16" and not has_bf16():
            raise NoEngine("this processor computes no bf16, and emulates it slowly: leave precision at auto")
        if (precision == "int8") != (int8 is not None):
            raise ValueError(f"ranges belong to int8, not to {precision}")
        super().__init__(bundle, f"openvino-cpu-{precision}", None if int8 is None else int8.margin)
        weights = fold(bundle.width, bundle.weights)
        graph = Graph(bundle.width, weights, self._shape, None if int8 is None else int8.ranges)
        self._request = compiled(graph.model(), "fp32" if int8 is not None else precision, threads)
        self._head = weights["fc.weight"][0].astype(np.float64), weights["fc.bias"].astype(np.float64)
        self.warm_up()

    def _forward(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        features = self._request.infer([np.ascontiguousarray(images)], share_inputs=True)[0]
        # the last layer row by row in double, as torch's engine does it: batch-mates must change nothing
        weight, bias = self._head
        logits: NDArray[np.float64] = (features.astype(np.float64).mean((2, 3)) * weight).sum(1) + bias
        return logits
