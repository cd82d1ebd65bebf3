"""TensorRT-RTX where there is no GPU: run as a program, prints as JSON what came out.

TensorRT-RTX compiles ahead of time and needs no GPU for it, but torch-tensorrt asks for one when it is imported, and
its C++ part wants a torch with CUDA. So torch's answers are stood in for and that part is hidden: conversion,
compilation and cache are the real ones. Only a compiled engine cannot run here; in its place torch computes, from the
addresses that the engine was given. Nothing of this belongs into the program.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

GIB = 1 << 30
CARD = SimpleNamespace(name="none", major=8, minor=9, total_memory=8 * GIB, multi_processor_count=64)
SEEN: dict = {"networks": 0}


def pretend_a_gpu() -> None:
    """What torch-tensorrt asks torch at import and while it converts."""
    torch.cuda.get_device_capability = lambda device=None: (CARD.major, CARD.minor)
    torch.cuda.current_device = lambda: 0
    torch.cuda.get_device_properties = lambda device=None: CARD
    torch.cuda.mem_get_info = lambda device=None: (8 * GIB, 8 * GIB)
    if not hasattr(torch._C, "_CudaDeviceProperties"):
        torch._C._CudaDeviceProperties = type("_CudaDeviceProperties", (), {})


def import_without_its_cpp_part() -> None:
    is_file = os.path.isfile
    os.path.isfile = lambda path: "libtorchtrt" not in os.fspath(path) and is_file(path)
    try:
        import torch_tensorrt  # noqa: F401
    finally:
        os.path.isfile = is_file


def watch_what_is_built(trt) -> None:
    """Every network that TensorRT compiles is described in SEEN."""

    class Builder(trt.Builder):
        def build_serialized_network(self, network, config):
            inputs = [network.get_input(place) for place in range(network.num_inputs)]
            outputs = [network.get_output(place) for place in range(network.num_outputs)]
            kinds = [network.get_layer(place).type.name for place in range(network.num_layers)]
            SEEN["inputs"] = [[tensor.dtype.name, list(tensor.shape)] for tensor in inputs]
            SEEN["outputs"] = [[tensor.dtype.name, list(tensor.shape)] for tensor in outputs]
            SEEN["layers"] = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
            SEEN["networks"] += 1
            return super().build_serialized_network(network, config)

    trt.Builder = Builder


def run_by_torch(trt, network) -> SimpleNamespace:
    """In place of TensorRT's runtime; ``runs`` of what it answers says whether execution succeeds."""
    control = SimpleNamespace(runs=True, loads=True)

    class Context:
        def __init__(self):
            self.addresses, self.shape, self.memory = {}, None, None

        def set_device_memory(self, address, size):
            self.memory = (address, size)

        def set_input_shape(self, name, shape):
            assert name == "edges"
            self.shape = shape
            return True

        def set_tensor_address(self, name, address):
            self.addresses[name] = address
            return True

        def execute_async_v3(self, stream):
            assert self.memory is not None
            if not control.runs:
                return False
            edges = _tensor_at(self.addresses["edges"], self.shape)
            with torch.no_grad():
                features = network(edges)
            _tensor_at(self.addresses["output0"], features.shape).copy_(features)
            return True

    class Engine:
        device_memory_size_v2 = 1024
        num_io_tensors = 2

        def __init__(self, plan):
            self.plan = bytes(plan)

        def serialize(self):
            return self.plan

        def get_tensor_name(self, place):
            return ("output0", "edges")[place]

        def get_tensor_mode(self, name):
            return trt.TensorIOMode.INPUT if name == "edges" else trt.TensorIOMode.OUTPUT

        def create_runtime_config(self):
            return SimpleNamespace(set_execution_context_allocation_strategy=lambda strategy: None)

        def create_execution_context(self, config):
            assert config.dynamic_shapes_kernel_specialization_strategy.name == "EAGER"
            return Context()

    class Runtime:
        def __init__(self, logger):
            pass

        def deserialize_cuda_engine(self, plan):
            return Engine(plan) if control.loads or "torch_tensorrt" in sys._getframe(1).f_globals["__name__"] else None

    trt.Runtime = Runtime
    return control


def _tensor_at(address, shape):
    count = int(np.prod(shape))
    return torch.frombuffer((ctypes.c_float * count).from_address(address), dtype=torch.float32).reshape(tuple(shape))


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    pretend_a_gpu()
    import_without_its_cpp_part()
    import tensorrt_rtx as trt

    from deploy import device_classifier
    from deploy.classifier import EngineFault
    from deploy.device_network import DeviceNetwork
    from deploy.selftest import known_curves
    from deploy.tensorrt_engine import TensorRtClassifier
    from deploy.tensorrt_plan import FLAVOURS, key_of
    from deploy.torch_engine import TorchClassifier
    from models.bundle import SHIPPED, read
    from models.frontend import prepare

    device_classifier.BUCKETS = (1, 8, 16)  # torch would warm up on hundreds of pictures at each start
    bundle = read(SHIPPED)
    watch_what_is_built(trt)
    control = run_by_torch(trt, DeviceNetwork(bundle, torch.float32))
    signals = [item.signal for item in prepare(known_curves(), bundle.profile)] * 2
    reference = TorchClassifier(bundle, "fp32", threads=1).classify(signals)
    cache = folder / "engines"

    begun_s = time.perf_counter()
    engine = TensorRtClassifier(bundle, cache, device="cpu")
    SEEN["first_s"] = time.perf_counter() - begun_s
    (plan,) = cache.glob("*/engine.plan")
    SEEN["bytes"] = plan.stat().st_size
    SEEN["engine"] = engine.engine
    seen = engine.classify(signals)
    SEEN["edges_equal"] = bool(np.array_equal(seen.edges, reference.edges))
    SEEN["worst"] = float(np.abs(seen.logits - reference.logits).max())
    SEEN["key"] = key_of(bundle, FLAVOURS[1], trt.__version__)

    SEEN["built"] = [SEEN["networks"]]
    TensorRtClassifier(bundle, cache, device="cpu")
    SEEN["built"].append(SEEN["networks"])  # the same: it was in the cache
    plan.write_bytes(plan.read_bytes()[:-1])
    TensorRtClassifier(bundle, cache, device="cpu")
    SEEN["built"].append(SEEN["networks"])  # one more: it was damaged

    for what in ("runs", "loads"):
        setattr(control, what, False)
        try:
            TensorRtClassifier(bundle, cache, device="cpu")
        except EngineFault as fault:
            SEEN[f"not {what}"] = [fault.kind, str(fault)]
        setattr(control, what, True)
    SEEN["left"] = sorted(path.name for path in folder.iterdir())
    print(json.dumps(SEEN))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
