import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from deploy.classifier import Classifier, EngineRequest, NoEngine
from deploy.engines import candidates
from deploy.serving import Model
from deploy.torch_engine import TorchClassifier
from models.bundle import SHIPPED, read
from models.raster import coverage
from models.train import gather

if find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)

from deploy import openvino_engine
from deploy.openvino_engine import OpenVinoClassifier, has_bf16

PRECISIONS = ["fp32", "bf16"] if has_bf16() else ["fp32"]


def test_single_precision_is_that_of_torch(bundle, images):
    engine: Classifier = OpenVinoClassifier(bundle, "fp32")
    assert str(engine.engine) == "openvino-cpu-fp32"
    assert engine.model_id == bundle.id
    np.testing.assert_allclose(engine.logits_of(images), TorchClassifier(bundle, "fp32").logits_of(images), atol=1e-4)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_picture_has_the_same_logit_in_every_batch(bundle, images, precision, threads):
    engine = OpenVinoClassifier(bundle, precision, threads)
    whole = engine.logits_of(images)
    assert np.array_equal(OpenVinoClassifier(bundle, precision, 3 - threads).logits_of(images), whole)
    for size in (1, 2, 3, 7, 8, 16):
        parts = [engine.logits_of(images[start : start + size]) for start in range(0, len(images), size)]
        assert np.array_equal(np.concatenate(parts), whole)


def test_the_shipped_model_is_off_by_less_than_its_tolerance():
    from models.simulate import simulate

    bundle = read(SHIPPED)
    examples = gather(((item.curve, item.label == "keep") for item in simulate(300, 78)), bundle.profile)
    pictures = coverage(examples.edges, bundle.profile)
    exact = TorchClassifier(bundle, "fp32").logits_of(pictures)
    assert np.abs(OpenVinoClassifier(bundle, "fp32").logits_of(pictures) - exact).max() < 1e-4
    if has_bf16():
        assert np.abs(OpenVinoClassifier(bundle, "bf16").logits_of(pictures) - exact).max() < 0.1


@pytest.mark.skipif(not has_bf16(), reason="this processor computes no bf16")
def test_it_goes_before_torch_and_proves_itself():
    assert [engine.name for engine in candidates(EngineRequest(device="cpu"))] == ["openvino", "torch"]
    model = Model.load(wish=EngineRequest(engine="openvino", precision="bf16"))
    assert str(model.engine) == "openvino-cpu-bf16"
    assert str(model.reference.engine) == "openvino-cpu-fp32"


def test_auto_is_single_precision_and_bf16_is_refused_where_it_is_emulated(bundle, monkeypatch):
    assert str(OpenVinoClassifier(bundle).engine) == "openvino-cpu-fp32"
    monkeypatch.setattr(openvino_engine, "has_bf16", lambda: False)
    with pytest.raises(NoEngine, match="computes no bf16"):
        OpenVinoClassifier(bundle, "bf16")


def test_precisions_go_with_their_ranges(bundle):
    with pytest.raises(ValueError, match="ranges belong to int8"):
        OpenVinoClassifier(bundle, "int8")


def test_one_model_serves_while_the_next_is_built(bundle, images):
    """As in a hot swap: another thread builds, and the one that judges notices nothing."""
    serving = OpenVinoClassifier(bundle, "fp32", 1)
    wanted, built = serving.logits_of(images), []
    building = threading.Thread(target=lambda: built.extend(OpenVinoClassifier(bundle, "fp32", 1) for _ in range(5)))
    building.start()
    while building.is_alive():
        assert np.array_equal(serving.logits_of(images), wanted)
    building.join()
    assert len(built) == 5
    assert all(np.array_equal(one.logits_of(images), wanted) for one in built)


def test_swaps_leave_nothing_behind(bundle, images):
    """``python -m tests.faults.swaps`` counts 200 of the shipped model."""

    def swap():
        OpenVinoClassifier(bundle, "fp32", 2).logits_of(images)
        return rss_bytes(), len(list(Path("/proc/self/task").iterdir()))

    for _ in range(10):
        before = swap()
    for _ in range(20):
        after = swap()
    assert after[0] - before[0] < 8 << 20
    assert after[1] == before[1]  # threads


def rss_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
