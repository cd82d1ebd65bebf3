import numpy as np
import pytest
from modelhelp import SMALL, make_model, some_examples

from deploy.classifier import Classifier
from deploy.engines import Wish, candidates
from deploy.serving import Model
from deploy.torch_engine import TorchClassifier
from models.bundle import SHIPPED, read
from models.data import gather
from models.raster import coverage

pytest.importorskip("openvino")

from deploy.openvino_engine import OpenVinoClassifier


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("engine") / "small")


@pytest.fixture(scope="module")
def images():
    return coverage(some_examples().edges, SMALL)


def test_single_precision_is_that_of_torch(bundle, images):
    engine: Classifier = OpenVinoClassifier(bundle, "fp32")
    assert engine.engine == "openvino-cpu-fp32"
    assert engine.model_id == bundle.id
    np.testing.assert_allclose(engine.logits_of(images), TorchClassifier(bundle, "fp32").logits_of(images), atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
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
    assert np.abs(OpenVinoClassifier(bundle, "bf16").logits_of(pictures) - exact).max() < 0.1


def test_it_goes_before_torch_and_proves_itself():
    assert [engine.name for engine in candidates(Wish(device="cpu"))] == ["openvino", "torch"]
    model = Model.load(wish=Wish(engine="openvino", precision="bf16"))
    assert model.engine == "openvino-cpu-bf16"
    assert model.reference.engine == "openvino-cpu-fp32"
