import pytest
import torch
from modelhelp import untrained

from models.anatomy import shapes
from models.network import ResNet18, fold, load

#: Names and shapes of torchvision's resnet18, for one channel and one output.
TORCHVISION = {
    "conv1.weight": (64, 1, 7, 7),
    "bn1.weight": (64,),
    "bn1.running_var": (64,),
    "layer1.0.conv1.weight": (64, 64, 3, 3),
    "layer1.1.bn2.bias": (64,),
    "layer2.0.downsample.0.weight": (128, 64, 1, 1),
    "layer2.0.downsample.1.running_mean": (128,),
    "layer3.1.conv2.weight": (256, 256, 3, 3),
    "layer4.0.conv1.weight": (512, 256, 3, 3),
    "layer4.1.conv2.weight": (512, 512, 3, 3),
    "fc.weight": (1, 512),
    "fc.bias": (1,),
}


def test_names_and_shapes_are_torchvisions():
    found = shapes(64)
    assert TORCHVISION.items() <= found.items()
    assert len(found) == 102  # 122 of torchvision's state less 20 counters
    assert "layer1.0.downsample.0.weight" not in found
    weights = sum(torch.Size(shape).numel() for name, shape in found.items() if "running" not in name)
    assert weights == 11_689_512 - 2 * 64 * 49 - 999 * 513  # torchvision's count, less two colours and 999 classes


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (128, 256), (100, 70)])
def test_one_logit_a_picture(size):
    network = ResNet18(4).eval()
    assert network(torch.rand(3, 1, *size)).shape == (3,)
    features = network.forward_features(torch.rand(2, 1, *size))
    assert features.shape[:2] == (2, 32)
    assert network.forward_head(features).shape == (2,)


def test_trunk_and_tail_are_the_network_bit_by_bit():
    x = torch.rand(3, 1, 128, 256)
    with torch.inference_mode():
        trunk = untrained().forward_trunk(x)
        assert trunk.shape == (3, 16, 8, 16)
        assert torch.equal(untrained().forward_tail(trunk), untrained()(x))


def test_folding_changes_nothing_but_the_cost():
    x = torch.rand(4, 1, 64, 64)
    network = untrained()
    with torch.inference_mode():
        before = network(x)
        folded = fold(load(4, network.state_dict()))
        after = folded(x)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert (before - after).abs().max() < 1e-4 * before.abs().max() + 1e-5


def test_half_precision_weights_come_back_as_float32():
    network = untrained()
    halves = {n: t.half() for n, t in network.state_dict().items() if not n.endswith("num_batches_tracked")}
    back = load(4, halves)
    assert all(t.dtype == torch.float32 for n, t in back.state_dict().items() if not n.endswith("tracked"))
    assert torch.equal(back.fc.weight, network.fc.weight.half().float())
