"""The plan: the whole device network compiled by TensorRT for the GPU of this machine, as plain bytes.

torch-tensorrt comes in two flavours under one import name, for two libraries: TensorRT, and TensorRT-RTX, which
compiles its kernels when it first meets the GPU. Which one is here is read from the installed distributions, because
importing it fails where there is no GPU. A plan holds no Python, and TensorRT itself loads it; torch-tensorrt's own
files hold pickles.
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

from deploy.classifier import EngineFault
from deploy.device_classifier import BUCKETS
from deploy.device_network import DeviceNetwork
from deploy.engine_cache import EngineCache, Key
from models.bundle import Bundle

SMALLEST, BEST, LARGEST = BUCKETS[0], 64, BUCKETS[-1]  # batches of a plan; kernels are chosen for the middle one
PLAN = "engine.plan"
log = logging.getLogger(__name__)
Loaded = TypeVar("Loaded")
_WRITTEN_IN = ("models.network", "models.raster_torch", "deploy.device_network", "deploy.tensorrt_plan")


@dataclass(frozen=True, slots=True)
class Flavour:
    """One of the two builds of torch-tensorrt."""

    distribution: str
    bindings: str  # the module of the TensorRT that it compiles for
    engine: str  # as events name it

    @property
    def rtx(self) -> bool:
        return self.bindings == "tensorrt_rtx"


FLAVOURS = (
    Flavour("torch-tensorrt", "tensorrt", "tensorrt-cuda-fp16"),
    Flavour("torch-tensorrt-rtx", "tensorrt_rtx", "tensorrt-rtx-cuda-fp16"),
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
        "engine": flavour.engine,
        "weights": str(bundle.manifest["sha256"]["weights.safetensors"]),
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
