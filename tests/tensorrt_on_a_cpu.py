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
CONTROL = SimpleNamespace(runs=True, loads=True, network=None)  # whether the device does as it should


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


class Context:
    """Computes by torch, from and to the addresses that it was given, once all that TensorRT wants was said."""

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
        if CONTROL.runs:
            with torch.no_grad():
                features = CONTROL.network(tensor_at(self.addresses["edges"], self.shape))
            tensor_at(self.addresses["output0"], features.shape).copy_(features)
        return CONTROL.runs


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
        import tensorrt_rtx as trt

        return trt.TensorIOMode.INPUT if name == "edges" else trt.TensorIOMode.OUTPUT

    def create_runtime_config(self):
        return SimpleNamespace(set_execution_context_allocation_strategy=lambda strategy: None)

    def create_execution_context(self, config):
        assert config.dynamic_shapes_kernel_specialization_strategy.name == "EAGER"
        return Context()


class Runtime:
    """In place of TensorRT's own; torch-tensorrt asks for one too, right after it has compiled."""

    def __init__(self, logger):
        pass

    def deserialize_cuda_engine(self, plan):
        by_converter = sys._getframe(1).f_globals["__name__"].startswith("torch_tensorrt")
        return Engine(plan) if CONTROL.loads or by_converter else None


def tensor_at(address, shape):
    memory = (ctypes.c_float * int(np.prod(shape))).from_address(address)
    return torch.frombuffer(memory, dtype=torch.float32).reshape(tuple(shape))


def judge_known_curves(bundle, make) -> None:
    """A first start, without anything in the cache, and what the engine says beside torch's."""
    from deploy.serving import known_curves
    from deploy.torch_engine import TorchClassifier
    from models.frontend import prepare

    signals = [item.signal for item in prepare(known_curves(), bundle.profile)] * 2
    reference = TorchClassifier(bundle, "fp32", threads=1).classify(signals)
    begun_s = time.perf_counter()
    engine = make()
    SEEN["first_s"] = time.perf_counter() - begun_s
    SEEN["engine"] = str(engine.engine)
    seen = engine.classify(signals)
    SEEN["edges_equal"] = bool(np.array_equal(seen.edges, reference.edges))
    SEEN["worst"] = float(np.abs(seen.logits - reference.logits).max())


def start_again(make, cache: Path) -> None:
    """From the cache, from a damaged one, on a device that does not run, on one that refuses what is kept."""
    from deploy.classifier import EngineFault

    (plan,) = cache.glob("*/engine.plan")
    SEEN["bytes"] = plan.stat().st_size
    SEEN["built"] = [SEEN["networks"]]
    make()
    SEEN["built"].append(SEEN["networks"])
    plan.write_bytes(plan.read_bytes()[:-1])
    make()
    SEEN["built"].append(SEEN["networks"])
    for what in ("runs", "loads"):
        setattr(CONTROL, what, False)
        try:
            make()
        except EngineFault as fault:
            SEEN[f"not {what}"] = [fault.kind, str(fault)]
        setattr(CONTROL, what, True)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    pretend_a_gpu()
    import_without_its_cpp_part()
    import tensorrt_rtx as trt

    from deploy import torch_engine
    from deploy.tensorrt_engine import FLAVOURS, TensorRtClassifier, key_of
    from deploy.torch_engine import DeviceNetwork
    from models.bundle import SHIPPED, read

    torch_engine.BUCKETS = (1, 8, 16)  # torch would warm up on hundreds of pictures at each start
    bundle, cache = read(SHIPPED), folder / "engines"
    watch_what_is_built(trt)
    trt.Runtime, CONTROL.network = Runtime, DeviceNetwork(bundle, torch.float32)

    def make() -> TensorRtClassifier:
        return TensorRtClassifier(bundle, cache, device="cpu")

    judge_known_curves(bundle, make)
    start_again(make, cache)
    SEEN["key"] = key_of(bundle, FLAVOURS[1], trt.__version__)
    SEEN["left"] = sorted(path.name for path in folder.iterdir())
    print(json.dumps(SEEN))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
