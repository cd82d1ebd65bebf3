"""The engines for a GPU on the CPU: all but the graph, the stream and the card is the same code."""

import numpy as np
import pytest
import torch
from modelhelp import SMALL, make_model

from deploy.classifier import Classifier, EngineFault, device_faults, fault_of
from deploy.serving import TOLERANCE, known_curves
from deploy.torch_engine import BUCKETS, CudaClassifier, DeviceNetwork, Head, TorchClassifier
from models.bundle import SHIPPED, read
from models.frontend import prepare
from models.raster import envelope
from models.simulate import simulate


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("device") / "small")


@pytest.fixture(scope="module")
def signals():
    curves = [*known_curves(), *(item.curve for item in simulate(60, 5))]
    return [item.signal for item in prepare(curves, SMALL) if item.signal is not None]


@pytest.fixture(scope="module")
def engine(bundle):
    return CudaClassifier(bundle, "fp32", device="cpu", graphs=False)


def test_it_gives_the_logits_of_the_torch_engine(bundle, engine, signals):
    reference: Classifier = TorchClassifier(bundle, "fp32", threads=1)
    seen, expected = engine.classify(signals), reference.classify(signals)
    assert engine.model_id == reference.model_id
    assert seen.logits.dtype == np.float64
    assert seen.edges.dtype == np.float32
    np.testing.assert_allclose(seen.logits, expected.logits, atol=1e-5, rtol=0)
    assert np.array_equal(seen.edges, expected.edges)
    assert seen.raster_s == 0.0


def test_it_passes_the_self_test_of_the_shipped_model():
    shipped = read(SHIPPED)
    known = [item.signal for item in prepare(known_curves(), shipped.profile)]
    engine = CudaClassifier(shipped, "fp32", device="cpu")
    assert str(engine.engine) == "torch-cpu-fp32"
    worst = np.abs(engine.classify(known).logits - shipped.manifest.selftest.logits).max()
    assert worst <= TOLERANCE[engine.engine.precision]
    edges = torch.from_numpy(envelope(known, shipped.profile))
    half = Head(shipped).logits(DeviceNetwork(shipped, torch.float16)(edges).numpy())
    assert 0 < np.abs(half - shipped.manifest.selftest.logits).max() <= TOLERANCE["fp16"]


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 33, 65, 257, 600])
def test_batches_of_any_size(engine, signals, count):
    many = [signals[index % len(signals)] for index in range(count)]
    seen = engine.classify(many)
    assert seen.logits.shape == (count,)
    assert np.array_equal(seen.edges, envelope(many, SMALL))
    whole = engine.classify(signals).logits
    np.testing.assert_allclose(seen.logits, [whole[index % len(signals)] for index in range(count)], atol=1e-5, rtol=0)


def test_batch_mates_within_a_bucket_change_nothing(engine, signals):
    whole = engine.classify(signals[:32]).logits
    assert np.array_equal(engine.classify(signals[31::-1]).logits[::-1], whole)
    engine.classify(signals[32:64])  # leaves other rows behind
    assert np.array_equal(engine.classify(signals[:9]).logits, whole[:9])


def test_every_bucket_is_ready_before_the_first_curve(bundle):
    prepared = []

    class Counted(CudaClassifier):
        def _prepare(self, edges, features):
            prepared.append(edges.shape[0])
            return super()._prepare(edges, features)

    engine = Counted(bundle, "fp32", device="cpu")
    assert prepared == list(BUCKETS)
    engine.classify([np.ones(SMALL.samples, np.float32)] * 300)
    assert prepared == list(BUCKETS)


def test_what_was_seen_stays_when_the_next_batch_comes(engine, signals):
    first = engine.classify(signals[:5])
    kept = first.logits.copy(), first.edges.copy()
    engine.classify(signals[5:])
    assert np.array_equal(first.logits, kept[0])
    assert np.array_equal(first.edges, kept[1])


def test_longer_signals_and_too_short_ones(engine, signals):
    long = np.random.default_rng(0).normal(0, 5, 300_000).astype(np.float32)
    seen = engine.classify([*signals[:3], long])
    assert np.array_equal(seen.edges, envelope([*signals[:3], long], SMALL))
    with pytest.raises(ValueError, match="fewer than the 64 columns"):
        engine.classify([np.zeros(63, np.float32)])


def test_the_picture_stays_in_single_precision(bundle):
    network = DeviceNetwork(bundle, torch.float16)
    assert network.picture.scale.dtype == torch.float32
    assert network.picture(torch.zeros(1, 2, 64)).dtype == torch.float16
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float16}
    assert network(torch.zeros(3, 2, 64)).dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in network.parameters())


MESSAGE = (
    "CUDA error: {}\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace "
    "below might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\n"
    "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
)


def accelerator(text, code=None):
    error = torch.AcceleratorError(MESSAGE.format(text))
    if code is not None:
        error.error_code = code
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 8 GiB"),
         "out_of_memory"),
        (accelerator("out of memory", 2), "out_of_memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "out_of_memory"),
        (accelerator("an illegal memory access was encountered", 700), "illegal_access"),
        (accelerator("an illegal memory access was encountered"), "illegal_access"),
        (accelerator("device-side assert triggered", 710), "illegal_access"),
        (accelerator("unspecified launch failure", 719), "illegal_access"),
        (accelerator("misaligned address"), "illegal_access"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER"), "illegal_access"),
        (accelerator("the launch timed out and was terminated", 702), "wedged"),
        (accelerator("no CUDA-capable device is detected", 100), "device_lost"),
        (accelerator("unknown error", 999), "device_lost"),
        (accelerator("CUDA-capable device(s) is/are busy or unavailable", 46), "device_lost"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "device_lost"),
        (RuntimeError("Found no NVIDIA driver on your system."), "device_lost"),
        (RuntimeError("TensorRT failed on the GPU: IExecutionContext::enqueueV3: Error Code 1: Cask"), "device_lost"),
        (RuntimeError("TensorRT failed on the GPU: an illegal memory access was encountered"), "illegal_access"),
        (AssertionError("Torch not compiled with CUDA enabled"), "device_lost"),
    ],
)  # fmt: skip
def test_what_a_broken_device_raises_is_translated(error, kind):
    fault = fault_of(error)
    assert fault.kind == kind
    assert "\n" not in str(fault)
    assert "CUDA_LAUNCH_BLOCKING" not in str(fault)
    with pytest.raises(EngineFault) as caught, device_faults():
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [ValueError("a signal of 3 samples"), RuntimeError("mat1 and mat2 shapes differ"), KeyError("x"), OSError(28)],
)
def test_what_is_no_fault_of_the_device_passes(error):
    assert fault_of(error) is None
    with pytest.raises(type(error)), device_faults():
        raise error


def test_a_fault_stays_the_fault_it_is():
    with pytest.raises(EngineFault) as caught, device_faults():
        raise EngineFault("wedged", "no answer within 2 s")
    assert caught.value.kind == "wedged"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_engine_is_a_fault(bundle):
    with pytest.raises(EngineFault) as caught:
        CudaClassifier(bundle)
    assert caught.value.kind == "device_lost"
