"""The engines: every way to run the network, the best first, and why one of them cannot be used here.

Nothing is imported before it is wanted, and torch_tensorrt not before a GPU is known to be there: without one its
import fails.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, get_args

from deploy.classifier import Device, EngineRequest, NoEngine, Precision

if TYPE_CHECKING:
    from deploy.classifier import Classifier
    from models.bundle import Bundle


@dataclass(frozen=True, slots=True)
class Engine:
    """One way to run the network."""

    name: str
    device: Device
    precisions: tuple[Precision, ...]  # besides "auto"
    missing: Callable[[], str | None]  # why it cannot be used here; initialises no device
    build: Callable[[Bundle, EngineRequest], Classifier]

    def refuses(self, wish: EngineRequest) -> str | None:
        """Why it is not what ``wish`` asks for, or cannot be had here."""
        return self.differs(wish) or self.missing()

    def differs(self, wish: EngineRequest) -> str | None:
        """Why it is not what ``wish`` asks for, wherever that is."""
        if wish.engine not in ("auto", self.name):
            return f"{wish.engine} was asked for"
        if wish.device not in ("auto", self.device):
            return f"runs on {self.device}, and {wish.device} was asked for"
        if wish.precision != "auto" and wish.precision not in self.precisions:
            return f"computes in {' or '.join(self.precisions)}, not in {wish.precision}"
        return None


def candidates(wish: EngineRequest) -> Iterator[Engine]:
    """The engines that can serve ``wish``, the best first. Raises NoEngine when there is none."""
    refusals = {engine.name: engine.refuses(wish) for engine in ENGINES}
    if all(refusals.values()):
        raise NoEngine(_why_none(wish, refusals))
    yield from (engine for engine in ENGINES if refusals[engine.name] is None)


def _why_none(wish: EngineRequest, refusals: Mapping[str, str | None]) -> str:
    """One reason where one is enough, and what to ask for instead."""
    fitting = [engine for engine in ENGINES if engine.differs(wish) is None]
    if wish.engine in refusals:
        what = "engine" if wish.device == "auto" else "device and engine"
        instead = f"; leave {what} away (or auto), and the processor judges"
        on_gpu = any(engine.device == "cuda" for engine in fitting)
        return f"{wish.engine}: {refusals[wish.engine]}" + (instead if on_gpu else "")
    on_device = [engine.missing() for engine in ENGINES if engine.device == wish.device]
    if wish.device == "cuda" and on_device and all(on_device):
        return f"{on_device[-1]}; leave device away (or auto), and the processor judges"
    able = [engine for engine in ENGINES if wish.precision in engine.precisions]
    if able and all(engine.device == "cuda" for engine in able):
        why = "the processor was asked for" if wish.device == "cpu" else _none_of(able)
        return f"{wish.precision} runs on a GPU only, and {why}; here: {', '.join(_precisions(wish))}"
    return "; ".join(f"{engine.name}: {refusals[engine.name]}" for engine in fitting or ENGINES)


def _none_of(engines: Sequence[Engine]) -> str:
    why = engines[-1].missing() or "none can be used"
    return "there is none" if why == _NO_GPU else why


def _precisions(wish: EngineRequest) -> list[str]:
    """Those that can be had at once: int8 has to be built first."""
    usable = [engine for engine in ENGINES if engine.refuses(replace(wish, precision="auto")) is None]
    return [one for one in PRECISIONS if one != "int8" and any(one in engine.precisions for engine in usable)]


def named(name: str) -> Engine:
    """The engine of that name."""
    return next(engine for engine in ENGINES if engine.name == name)


_NO_GPU = "there is no NVIDIA GPU here"
#: One of them is there wherever an NVIDIA driver is: on a PC, under Windows' Linux, on a Jetson.
_NVIDIA = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-gpu")


def _no_cuda() -> str | None:
    """Most machines have no such card, and are spared a second for torch to say so."""
    if not any(os.path.exists(path) for path in _NVIDIA):
        return _NO_GPU
    import torch

    if torch.version.cuda is None:
        return "torch is its CPU build (deploy/docs/engines.md says how to install the other)"
    return None if torch.cuda.is_available() else "there is no NVIDIA GPU that torch can use"


def _no_tensorrt() -> str | None:
    if why := _no_cuda():
        return why
    from deploy.tensorrt_engine import missing

    return missing()


def _no_openvino() -> str | None:
    return None if find_spec("openvino") else "openvino is not installed (pip install openvino)"


def _tensorrt(bundle: Bundle, wish: EngineRequest) -> Classifier:
    from deploy.tensorrt_engine import TensorRtClassifier

    return TensorRtClassifier(bundle, wish.cache)


def _cuda(bundle: Bundle, wish: EngineRequest) -> Classifier:
    from deploy.torch_engine import CudaClassifier

    return CudaClassifier(bundle, wish.precision_or("fp16"))


def _torch(bundle: Bundle, wish: EngineRequest) -> Classifier:
    from deploy.torch_engine import TorchClassifier

    return TorchClassifier(bundle, wish.precision_or("fp32"), wish.threads)


def _openvino(bundle: Bundle, wish: EngineRequest) -> Classifier:
    from deploy.openvino_engine import OpenVinoClassifier, find

    int8 = find(bundle, wish.cache) if wish.precision == "int8" else None
    return OpenVinoClassifier(bundle, wish.precision_or("fp32"), wish.threads, int8)


ENGINES: tuple[Engine, ...] = (
    Engine("tensorrt", "cuda", ("fp16",), _no_tensorrt, _tensorrt),
    Engine("cuda", "cuda", ("fp16",), _no_cuda, _cuda),
    Engine("openvino", "cpu", ("fp32", "bf16", "int8"), _no_openvino, _openvino),
    Engine("torch", "cpu", ("fp32", "bf16"), lambda: None, _torch),
)

# What a user may ask for.
DEVICES = ("auto", *get_args(Device))
NAMES = ("auto", *(engine.name for engine in reversed(ENGINES)))
PRECISIONS = ("auto", *get_args(Precision))
