"""The TensorRT engine: the compiled device network, from the cache or built now, one execution context a bucket.

The plan is run by TensorRT's own runtime and not by torch-tensorrt's: that one unpickles, writes its caches into
folders that every user can write, and has other classes in every version. TensorRT asks for a context of its own for
every recorded graph; all of them share one piece of memory, as only one runs at a time.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from deploy.classifier import EngineFault, EngineId, device_faults
from deploy.engine_cache import EngineCache, Key
from deploy.torch_engine import BUCKETS, DeviceClassifier, DeviceNetwork, recorded
from models.bundle import Bundle

# The plan: the whole device network compiled by TensorRT for the GPU of this machine, as plain bytes.
#
# torch-tensorrt comes in two flavours under one import name, for two libraries: TensorRT, and TensorRT-RTX, which
# compiles its kernels when it first meets the GPU. Which one is here is read from the installed distributions,
# because importing it fails where there is no GPU. A plan holds no Python, and TensorRT itself loads it; torch-
# tensorrt's own files hold pickles.

SMALLEST, BEST, LARGEST = BUCKETS[0], 64, BUCKETS[-1]  # batches of a plan; kernels are chosen for the middle one
PLAN = "engine.plan"
Loaded = TypeVar("Loaded")
_WRITTEN_IN = ("models.network", "deploy.torch_engine", "deploy.tensorrt_engine")


@dataclass(frozen=True, slots=True)
class Flavour:
    """One of the two builds of torch-tensorrt."""

    distribution: str
    bindings: str  # the module of the TensorRT that it compiles for
    engine: EngineId

    @property
    def rtx(self) -> bool:
        return self.bindings == "tensorrt_rtx"


FLAVOURS = (
    Flavour("torch-tensorrt", "tensorrt", EngineId("tensorrt", "cuda", "fp16")),
    Flavour("torch-tensorrt-rtx", "tensorrt_rtx", EngineId("tensorrt-rtx", "cuda", "fp16")),
)


def flavours_here() -> list[Flavour]:
    """The flavours whose distributions are installed; nothing is imported."""
    return [flavour for flavour in FLAVOURS if _version(flavour.distribution) is not None]


def missing() -> str | None:
    """Why TensorRT cannot be used here; None when it can be tried. Neither imports it nor initialises a device."""
    found = flavours_here()
    if not found:
        return "torch-tensorrt is not installed (the extra tensorrt-rtx, or tensorrt)"
    if len(found) > 1:
        return "torch-tensorrt and torch-tensorrt-rtx overwrite each other: uninstall both, then install one"
    return None


def key_of(bundle: Bundle, flavour: Flavour, library: str) -> dict[str, str]:
    """All that a plan depends on, in words; ``library`` is the version of TensorRT. Needs the GPU."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "engine": str(flavour.engine),
        "weights": bundle.weights_sha256,
        "profile": bundle.profile.id,
        "batch": f"{SMALLEST}-{BEST}-{LARGEST}",
        "code": _code(),
        "torch": torch.__version__,
        flavour.distribution: _version(flavour.distribution) or "",
        flavour.bindings: library,
        "driver": driver(),
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
    }


def build(network: DeviceNetwork, columns: int, refittable: bool = False) -> bytes:
    """Export and compile ``network``, where its tensors lie; its own types are the plan's, no precision is asked for.

    Seconds with TensorRT-RTX, minutes with TensorRT. Raises RuntimeError when an operator cannot be converted: a plan
    is the whole network or nothing.
    """
    import torch_tensorrt  # fails where there is no GPU, and takes seconds

    example = torch.zeros((2, 2, columns), device=network.picture.floor.device)
    batch = torch.export.Dim("batch", min=SMALLEST, max=LARGEST)
    program = torch.export.export(network.eval(), (example,), dynamic_shapes=({0: batch},))
    shapes = {
        f"{which}_shape": (count, 2, columns) for which, count in (("min", SMALLEST), ("opt", BEST), ("max", LARGEST))
    }
    with tempfile.TemporaryDirectory(prefix="afm-triage-") as private:  # else a folder that every user can write
        plan: bytes = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
            program,
            arg_inputs=[torch_tensorrt.Input(**shapes, dtype=torch.float32)],
            require_full_compilation=True,
            min_block_size=1,
            immutable_weights=not refittable,
            timing_cache_path=str(Path(private) / "timing.bin"),
            engine_cache_dir=private,
        )
    return bytes(plan)


def loaded(
    cache: EngineCache | None, key: Key, load: Callable[[bytes], Loaded | None], make: Callable[[], bytes]
) -> Loaded:
    """What ``load`` makes of the plan that is kept for ``key``, or of a new one by ``make``, which is kept.

    ``load`` answers None for a plan that it cannot use. Raises EngineFault when it cannot use even a new one.
    """
    entry = cache.get(key) if cache is not None else None
    if cache is not None and entry is not None:
        if (found := load((entry / PLAN).read_bytes())) is not None:
            return found
        log.warning("a compiled engine could not be loaded and is built again")
        cache.drop(key)
    plan = make()
    if (found := load(plan)) is None:
        raise EngineFault("device_lost", "TensorRT refuses its own engine on this GPU (the log says why)")
    if cache is not None:
        try:
            cache.put(key, lambda folder: _write(folder, plan))
        except OSError as error:  # a full disk costs a build at the next start, nothing else
            log.warning("the compiled engine could not be kept: %s", error)
    return found


def _write(folder: Path, plan: bytes) -> None:
    (folder / PLAN).write_bytes(plan)


def driver() -> str:
    """The version of the NVIDIA driver, as its kernel module says it; else the CUDA version that it serves."""
    try:
        found = re.search(r"\b(\d{3,}\.\d+(\.\d+)?)\b", Path("/proc/driver/nvidia/version").read_text())
    except OSError:
        found = None
    of_torch = getattr(torch._C, "_cuda_getDriverVersion", lambda: "unknown")
    return found[1] if found else f"CUDA {of_torch()}"


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _code() -> str:
    """The digest of the source that a plan is made by: the same weights give another plan after a change there."""
    digest = hashlib.sha256()
    for name in _WRITTEN_IN:
        digest.update(Path(str(sys.modules[name].__file__)).read_bytes())
    return digest.hexdigest()[:16]


def bindings_of(flavour: Flavour) -> Any:
    """The TensorRT module of a flavour. Raises what a broken installation raises, of whatever class."""
    return importlib.import_module(flavour.bindings)


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

    class Listener(trt.ILogger):  # type: ignore[misc]  # TensorRT has no types
        last = "no reason given"

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last = message
                log.warning("TensorRT: %s", message)

    return Listener()
