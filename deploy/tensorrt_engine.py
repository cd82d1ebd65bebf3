"""The TensorRT engine: the compiled device network, from the cache or built now, one execution context a bucket.

The plan is run by TensorRT's own runtime and not by torch-tensorrt's: that one unpickles, writes its caches into
folders that every user can write, and has other classes in every version. TensorRT asks for a context of its own for
every recorded graph; all of them share one piece of memory, as only one runs at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deploy.classifier import EngineFault
from deploy.device_classifier import DeviceClassifier, recorded
from deploy.device_faults import device_faults
from deploy.device_network import DeviceNetwork
from deploy.engine_cache import EngineCache
from deploy.tensorrt_plan import bindings_of, build, flavours_here, key_of, loaded, missing
from models.bundle import Bundle

log = logging.getLogger(__name__)


class TensorRtClassifier(DeviceClassifier):
    """A :class:`deploy.classifier.Classifier` by TensorRT or TensorRT-RTX, in half precision.

    ``cache`` is the folder of compiled engines; None builds and forgets. Raises EngineFault when the device fails or
    TensorRT does not know it, UnsafeCache when others could have put an engine into the folder.
    """

    def __init__(self, bundle: Bundle, cache: Path | None = None, device: str = "cuda", graphs: bool = True) -> None:
        if (why := missing()) is not None:
            raise EngineFault("device_lost", why)
        (self._flavour,) = flavours_here()
        super().__init__(bundle, self._flavour.engine, device)
        with device_faults(), self._on_stream():
            self._trt = bindings_of(self._flavour)
            self._log = _listener(self._trt)
            self._runtime = self._trt.Runtime(self._log)
            self._graphs = graphs
            self._engine = loaded(
                EngineCache(cache) if cache is not None else None,
                key_of(bundle, self._flavour, str(self._trt.__version__)),
                self._runtime.deserialize_cuda_engine,
                lambda: build(DeviceNetwork(bundle, torch.float16).to(self._device), bundle.profile.columns),
            )
            needed_bytes = max(int(self._engine.device_memory_size_v2), 1)
            self._memory = torch.empty(needed_bytes, dtype=torch.uint8, device=self._device)
        self.warm_up()

    def _prepare(self, edges: Tensor, features: Tensor) -> Callable[[], object]:
        context = self._context()
        for name, tensor in zip(self._names(), (edges, features), strict=True):
            if self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT:
                context.set_input_shape(name, tuple(tensor.shape))
            context.set_tensor_address(name, tensor.data_ptr())

        def work() -> None:
            if not context.execute_async_v3(0 if self.stream is None else self.stream.cuda_stream):
                raise RuntimeError(f"TensorRT failed on the GPU: {self._log.last}")

        if not self._graphs or self.stream is None:
            return work
        work()  # kernels for this shape are made now; before that a stream cannot be recorded
        self.stream.synchronize()
        capturable = getattr(context, "is_stream_capturable", None)  # TensorRT-RTX alone has it
        if capturable is not None and not capturable(self.stream.cuda_stream):
            return work
        return recorded(work, self.stream)

    def _context(self) -> Any:
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._flavour.rtx:
            config = self._engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            # kernels for a shape at once, not in the background: a curve's logit must not change while it serves
            config.dynamic_shapes_kernel_specialization_strategy = (
                self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
            )
            context = self._engine.create_execution_context(config)
        else:
            context = self._engine.create_execution_context(strategy)
        if context is None:
            raise RuntimeError(f"TensorRT has no context on this GPU: {self._log.last}")
        context.set_device_memory(self._memory.data_ptr(), self._memory.numel())
        return context

    def _names(self) -> list[str]:
        """Of the input, then of the output."""
        names = [self._engine.get_tensor_name(place) for place in range(self._engine.num_io_tensors)]
        return sorted(names, key=lambda name: self._engine.get_tensor_mode(name) != self._trt.TensorIOMode.INPUT)


def _listener(trt: Any) -> Any:
    """What TensorRT tells its messages to; its functions answer False or None, and ``last`` says why."""

    class Listener(trt.ILogger):  # type: ignore[misc]
        last = "no reason given"

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last = message
                log.warning("TensorRT: %s", message)

    return Listener()
