import numpy as np
import pytest
import torch
from modelhelp import SMALL, make_model, some_examples, untrained
from safetensors.numpy import load_file, save_file

from daemon.learn.training import Origin, assemble, half, known_logits
from deploy.serving import known_curves
from models.anatomy import shapes
from models.bundle import Network, read
from models.card import describe
from models.train import Examples


def test_a_model_folder_says_all_about_itself(tmp_path):
    bundle = make_model(tmp_path / "small", parent="older-123")
    manifest = read(tmp_path / "small").manifest
    assert manifest.parent == "older-123"
    assert manifest.network == Network(4)
    assert manifest.thresholds.evidence["events"] == int(some_examples().labels.sum())
    assert manifest.calibration.prevalence == 0.02
    assert len(manifest.selftest.logits) == len(known_curves())
    card = (tmp_path / "small" / "card.md").read_text()
    assert card == describe(manifest)
    assert "older-123" in card
    assert "no certificate" in card
    assert bundle.discard < bundle.keep


def test_weights_are_those_of_the_file_format():
    weights = half(untrained())
    assert {name: tensor.shape for name, tensor in weights.items()} == shapes(4)
    assert all(tensor.dtype == np.float16 for tensor in weights.values())


def test_known_logits_are_those_of_the_rounded_network(tmp_path):
    logits = make_model(tmp_path / "small").manifest.selftest.logits
    exact = known_logits(untrained(), SMALL)
    assert logits != exact
    np.testing.assert_allclose(logits, exact, atol=0.02)


def test_held_out_curves_of_one_kind_make_no_model(tmp_path):
    events = some_examples().labels > 0.5
    only = Examples(some_examples().edges[events], some_examples().labels[events])
    with pytest.raises(ValueError, match="with and without"):
        assemble(tmp_path / "m", untrained(), SMALL, only, Origin("m", "0", {}))
    assert list(tmp_path.iterdir()) == []


def test_the_weights_of_a_network_in_channels_last_survive_a_file(tmp_path):
    network = untrained().to(memory_format=torch.channels_last)
    save_file(half(network), tmp_path / "weights.safetensors")
    back = load_file(tmp_path / "weights.safetensors")
    assert back.keys() == half(network).keys()
    for name, tensor in network.state_dict().items():
        if name in back:
            assert np.array_equal(back[name], tensor.half().numpy())
