"""The OpenVINO engine: the same network in Intel's runtime, two to three times faster on one core than torch's.

It needs no torch: a service that it serves starts a second sooner and holds some hundred megabytes less. Single
precision is its default, and gives the same scores on every machine (deploy/decisions/0010).
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.classifier import CHUNK, EngineId, NoEngine, PictureClassifier, Precision, default_threads
from deploy.engine_cache import EngineCache, UnsafeCache
from models.anatomy import convolutions, fold
from models.bundle import SHIPPED, Bundle

# The OpenVINO runtime, told to be silent and to keep to its place on a machine that belongs to an instrument.
#
# ``import openvino`` reports itself to its maker's analytics, without asking, and leaves a number for this
# machine in ``~/intel``. A laboratory's computer must not: here the package that does so cannot be found, and
# openvino goes on without it, as it is made to. Nobody else imports openvino (a test holds it).

_REPORTER = "openvino_telemetry"
HINTS = {"fp32": "f32", "bf16": "bf16"}


def openvino() -> Any:
    """The module. Raises ImportError where it is not installed."""
    sys.modules.setdefault(_REPORTER, None)  # type: ignore[arg-type]  # None: its import fails, from now on
    import openvino as runtime

    return runtime


@cache
def core() -> Any:
    """The ``openvino.Core``, one for the life of the process.

    Its making sets the alternate signal stack of the thread it is made in, its end frees that memory; ended in another
    thread, as when a model is replaced, it leaves a stack that is gone, and the next signal kills the process.
    """
    return openvino().Core()


def has_bf16() -> bool:
    """Whether this processor computes bf16 itself.

    OpenVINO offers it wherever it knows AVX-512, and emulates it there at a third of the speed of single precision.
    """
    offered = "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return offered and ("avx512_bf16" in flags or "amx_bf16" in flags)


def compiled(model: Any, precision: str, threads: int | None = None) -> Any:
    """An ``openvino.Model`` -> an infer request on the CPU. ``precision``: of HINTS.

    Threads are not pinned to cores, where the acquisition software could not make them move over, and precision is
    never left to OpenVINO: it takes bf16 where it can, and machines would disagree by 1 % of a logit.
    """
    settings = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": threads or default_threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    return core().compile_model(model, "CPU", settings).create_infer_request()


# Int8: what was measured on a laboratory's own curves so that a network may compute in eight bits on this
# machine.
#
# The weights stay where they are; kept are the ranges of the values between the layers, and how far off its
# logits were. Whoever has the ranges writes the network anew (``deploy.openvino_engine``), so there is nothing
# here that could be run.

FILE = "int8.json"


@dataclass(frozen=True, slots=True)
class Int8:
    """Ranges of one model's values, and what that costs."""

    ranges: Mapping[str, float]  # point of the graph -> largest value
    margin: float  # a logit closer to a threshold is computed again in single precision
    evidence: Mapping[str, Any]  # curves, and errors against single precision


def find(bundle: Bundle, cache: Path | None) -> Int8:
    """What was measured for these weights on this machine. Raises NoEngine where nothing was, or others could write."""
    try:
        folder = None if cache is None or not cache.is_dir() else EngineCache(cache).get(_key(bundle))
    except UnsafeCache as error:
        raise NoEngine(str(error)) from None
    if folder is None:
        where = f" for this service (state folder {cache.parent})" if cache else ""
        model = "shipped" if bundle.folder == SHIPPED else str(bundle.folder)
        raise NoEngine(f"int8 was not built{where}: {how(model, cache)}")
    return Int8(**json.loads((folder / FILE).read_text(encoding="utf-8")))


def how(model: str, cache: Path | None) -> str:
    """The command that builds it for the service that has this ``cache``."""
    words = ["afm-triage", "models", "build", *([] if model == "shipped" else [model])]
    words += ["--precision", "int8", "--curves", "DIR", *(["--state", str(cache.parent)] if cache else [])]
    return shlex.join(words)


def keep(bundle: Bundle, found: Int8, cache: Path) -> None:
    """For :func:`find`, on this machine and for these weights alone. Raises OSError and UnsafeCache."""
    text = json.dumps(asdict(found), indent=1)
    EngineCache(cache).put(_key(bundle), lambda folder: _write(folder / FILE, text))


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def _key(bundle: Bundle) -> dict[str, str]:
    """Whatever the margin depends on: without VNNI, say, sums of eight bits saturate."""
    processor = core()
    return {
        "engine": str(EngineId("openvino", "cpu", "int8")),
        "weights": bundle.weights_sha256,
        "raster": bundle.profile.id,
        "openvino": openvino().get_version(),
        "processor": processor.get_property("CPU", "FULL_DEVICE_NAME"),
        "capabilities": " ".join(sorted(processor.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))),
    }


# The OpenVINO graph: the network written node by node from folded weights.
#
# That takes 5 ms where the converter takes 2 s and holds the interpreter all that while. With ranges it is the
# int8 network: every convolution reads 256 levels of its input and 255 of its weights (Jacob et al. 2018, arXiv
# 1712.05877).

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


# The OpenVINO engine: the same network in Intel's runtime, two to three times faster on one core than torch's.


class OpenVinoClassifier(PictureClassifier):
    """A :class:`deploy.classifier.Classifier` by OpenVINO on the CPU.

    ``int8`` is what ``find`` has for this model; without it there is no such precision. NoEngine for bf16 where the
    processor does not have it.
    """

    def __init__(
        self, bundle: Bundle, precision: Precision = "fp32", threads: int | None = None, int8: Int8 | None = None
    ) -> None:
        if precision == "bf16" and not has_bf16():
            raise NoEngine("this processor computes no bf16, and emulates it slowly: leave precision at auto")
        if (precision == "int8") != (int8 is not None):
            raise ValueError(f"ranges belong to int8, not to {precision}")
        super().__init__(bundle, EngineId("openvino", "cpu", precision), None if int8 is None else int8.margin)
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
