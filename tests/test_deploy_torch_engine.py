import numpy as np
import pytest
from modelhelp import SMALL, some_examples, untrained

from deploy.classifier import Classifier
from deploy.torch_engine import TorchClassifier, bf16_in_hardware
from models.bundle import SHIPPED, read
from models.network import load
from models.raster import coverage
from models.train import gather, infer


def test_fp32_is_the_network_that_was_trained(bundle, images):
    import torch

    engine: Classifier = TorchClassifier(bundle, "fp32")
    assert str(engine.engine) == "torch-cpu-fp32"
    assert engine.model_id == bundle.id
    reference = load(4, {name: torch.from_numpy(tensor) for name, tensor in bundle.weights.items()})
    logits = engine.logits_of(images)
    assert logits.dtype == np.float64
    np.testing.assert_allclose(logits, infer(reference, some_examples().edges, SMALL), atol=2e-4)
    assert np.abs(infer(untrained(), some_examples().edges, SMALL) - logits).max() < 0.02  # what half precision costs


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_picture_has_the_same_logit_in_every_batch(bundle, images, precision):
    engine = TorchClassifier(bundle, precision)
    whole = engine.logits_of(images)
    for size in (1, 2, 3, 7, 8, 16):
        parts = [engine.logits_of(images[start : start + size]) for start in range(0, len(images), size)]
        assert np.array_equal(np.concatenate(parts), whole)


def test_large_batches_are_cut(bundle, images):
    engine = TorchClassifier(bundle)
    many = np.concatenate([images] * 4)
    assert np.array_equal(engine.logits_of(many), np.tile(engine.logits_of(images), 4))
    assert engine.logits_of(images[:0]).shape == (0,)


def test_pictures_of_another_size_are_refused(bundle):
    with pytest.raises(ValueError, match="the model wants"):
        TorchClassifier(bundle).logits_of(np.zeros((1, 1, 32, 64), np.float32))


def test_auto_is_single_precision_on_every_processor(bundle):
    assert str(TorchClassifier(bundle).engine) == "torch-cpu-fp32"
    assert str(TorchClassifier(bundle, "bf16").engine) == "torch-cpu-bf16"


def test_training_takes_bf16_only_where_the_processor_has_it(monkeypatch):
    import torch

    assert bf16_in_hardware() in (True, False)
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)  # torch 2.11
    assert not bf16_in_hardware()


def test_bf16_moves_few_verdicts_of_the_shipped_model():
    from models.simulate import simulate

    bundle = read(SHIPPED)
    examples = gather(((item.curve, item.label == "keep") for item in simulate(100, 77)), bundle.profile)
    pictures = coverage(examples.edges, bundle.profile)
    exact, fast = (TorchClassifier(bundle, precision).logits_of(pictures) for precision in ("fp32", "bf16"))
    scores = [bundle.calibration.score(logits) for logits in (exact, fast)]
    sides = [np.digitize(score, [bundle.discard, bundle.keep]) for score in scores]
    assert (sides[0] != sides[1]).mean() <= 0.02
    assert not ((sides[0] == 2) & (sides[1] == 0)).any()
