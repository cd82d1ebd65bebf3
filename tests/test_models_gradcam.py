"""Grad-CAM: against its definition, against a network built to look at one place, and against physics."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from modelhelp import untrained

from models.bundle import SHIPPED, read
from models.frontend import prepare
from models.network import Lens, ResNet18, load, look, place_of
from models.raster import coverage, envelope
from models.simulate import simulate


def pictures(count: int = 6, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    return np.random.default_rng(3).random((count, 1, *size), dtype=np.float32)


@pytest.fixture(scope="module")
def shipped() -> tuple[ResNet18, object]:
    bundle = read(SHIPPED)
    return load(bundle.width, {name: torch.from_numpy(tensor) for name, tensor in bundle.weights.items()}), bundle


def test_the_last_layer_alone_is_the_class_activation_map_of_the_paper() -> None:
    """For a network that ends in a mean and one weight a channel, Grad-CAM is CAM (Selvaraju et al., section 3.1)."""
    network, images = untrained(), pictures(size=(64, 96))
    heat = look(network, images, Lens(layers=("layer4",), inked=False))
    with torch.no_grad():
        features = network.forward_features(torch.from_numpy(images))
        small = torch.relu((features * network.fc.weight[0][None, :, None, None]).sum(1))
        large = torch.nn.functional.interpolate(small[:, None], (64, 96), mode="bilinear", align_corners=False)[:, 0]
        logits = network(torch.from_numpy(images))
    assert large.max() > 0
    for found, wanted in zip(heat.map, large.numpy(), strict=True):
        assert np.allclose(found, wanted / max(float(wanted.max()), 1e-30), atol=1e-5)
    assert np.allclose(heat.logits, logits.numpy(), atol=1e-5)
    assert np.array_equal(heat.along.argmax(1), heat.map.sum(1).argmax(1))


@pytest.mark.parametrize("rule", ["gradcam", "hirescam", "layercam"])
def test_gradients_are_those_of_numbers(rule: str) -> None:
    """layer3's gradient, measured by moving one feature, gives the map that the code makes."""
    network, image = copy.deepcopy(untrained()).double(), torch.from_numpy(pictures(1)).double()
    with torch.no_grad():
        x = network.maxpool(torch.relu(network.bn1(network.conv1(image))))
        x = network.layer3(network.layer2(network.layer1(x)))
        moved = x + 1e-5 * torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape[1:])  # one feature each
        logits = network.forward_head(network.layer4(torch.cat((x, moved))))
        slope = ((logits[1:] - logits[0]) / 1e-5).reshape(x.shape)
        weight = {"gradcam": slope.mean((2, 3), keepdim=True), "hirescam": slope, "layercam": torch.relu(slope)}[rule]
        small = torch.relu((weight * x).sum(1))
        large = torch.nn.functional.interpolate(small[:, None], (64, 64), mode="bilinear", align_corners=False)[0, 0]
    found = look(untrained(), image.float().numpy(), Lens(layers=("layer3",), rule=rule, inked=False)).map[0]
    assert np.allclose(found, (large / large.max()).numpy(), atol=2e-3)


def test_heat_is_the_same_again_alone_and_in_a_batch() -> None:
    images = pictures(70)
    first, again = look(untrained(), images), look(untrained(), images)
    assert np.array_equal(first.map, again.map)
    assert np.array_equal(first.along, again.along)
    alone = look(untrained(), images[65:66])
    assert np.allclose(alone.along[0], first.along[65], atol=1e-4)
    assert first.map.shape == (70, 64, 64)
    assert first.along.shape == (70, 64)
    assert first.map.dtype == first.along.dtype == np.float32


def test_no_picture_no_heat() -> None:
    heat = look(untrained(), np.zeros((0, 1, 64, 96), np.float32))
    assert heat.map.shape == (0, 64, 96)
    assert heat.peaks.shape == (0,)


def test_where_nothing_speaks_for_an_event_nothing_is_warm() -> None:
    network = ResNet18(4).eval()
    with torch.no_grad():
        network.fc.weight.fill_(-1.0)  # every feature speaks against
    heat = look(network, pictures(3))
    assert not heat.map.any()
    assert heat.peaks.tolist() == [-1, -1, -1]


def test_only_ink_is_warm() -> None:
    network, images = copy.deepcopy(untrained()), pictures(4)
    with torch.no_grad():
        network.fc.weight.fill_(1.0)  # every feature speaks for an event
    images[:, :, :, 20:40] = 0.0
    heat, bare = look(network, images, Lens(("layer4",))), look(network, images, Lens(("layer4",), inked=False))
    assert not heat.along[:, 20:40].any()
    assert (heat.along.max(axis=1) == 1.0).all()
    assert bare.along[:, 20:40].all()


@pytest.mark.parametrize("network", [ResNet18(4), ResNet18(4).eval().half()], ids=["in training", "half"])
def test_a_network_that_is_not_ready_is_refused(network: ResNet18) -> None:
    with pytest.raises(ValueError, match="evaluation mode"):
        look(network, pictures(1))


def test_looking_leaves_the_network_as_it_was() -> None:
    network = untrained()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    look(network, pictures(2))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_it_looks_at_the_rupture(shipped: tuple[ResNet18, object]) -> None:
    """Issue bar: within 5 % of the ramp in 90 % of the kept curves; here 60 curves, `study explain` has thousands."""
    network, bundle = shipped
    events = list(simulate(60, seed=4, prevalence=1.0))
    prepared = prepare([event.curve for event in events], bundle.profile)
    able = [(event, item) for event, item in zip(events, prepared, strict=True) if item.signal is not None]
    heat = look(network, coverage(envelope([item.signal for _, item in able], bundle.profile), bundle.profile))
    scores = bundle.calibration.score(heat.logits)
    near = []
    for (event, item), peak, score in zip(able, heat.peaks, scores, strict=True):
        if score >= bundle.keep:
            at, n = float(place_of(event.curve, item, bundle.profile).sample_of(peak)), len(event.curve)
            near.append(min(abs(at - rupture.index) for rupture in event.ruptures) <= 0.05 * n)
    assert len(near) >= 40
    assert np.mean(near) >= 0.85  # 0.97 measured; three of its standard errors below the bar would be 0.78


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_sees_the_same() -> None:
    images = pictures(5)
    here = look(untrained(), images)
    network = ResNet18(4)
    network.load_state_dict(untrained().state_dict())
    there = look(network.eval().cuda(), images)
    assert np.allclose(here.along, there.along, atol=1e-3)
