import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import conv2d

from models.anatomy import shapes
from models.heads import MEAN, STD, BadWeights, adapt, read_imagenet


def published(seed=0):
    """Tensors of torchvision's names and shapes, with values of a trained network's size."""
    rng = torch.Generator().manual_seed(seed)
    wanted = {**shapes(64), "conv1.weight": (64, 3, 7, 7), "fc.weight": (1000, 512), "fc.bias": (1000,)}
    tensors = {}
    for name, shape in wanted.items():
        fan_in = np.prod(shape[1:]) if len(shape) > 1 else 1
        tensors[name] = torch.randn(shape, generator=rng) * (2 / fan_in) ** 0.5
        if name.endswith(("running_var", "1.weight", "2.weight")) and len(shape) == 1:
            tensors[name] = 0.5 + torch.rand(shape, generator=rng)
        if name.endswith("running_mean"):
            tensors[name.replace("running_mean", "num_batches_tracked")] = torch.tensor(1234)
    return tensors


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(published(), path)
    return path


def test_every_tensor_but_stem_and_head_is_taken_as_it_is(file):
    network, tensors = read_imagenet(file), published()
    assert network.width == 64
    assert not network.training
    state = network.state_dict()
    changed = {"conv1.weight", "bn1.running_mean", "fc.weight", "fc.bias"}
    for name, tensor in tensors.items():
        if name not in changed and not name.endswith("num_batches_tracked"):
            assert torch.equal(state[name], tensor), name
    assert not state["fc.weight"].any()
    assert network(torch.rand(2, 1, 64, 64)).tolist() == [0.0, 0.0]


def test_a_grey_picture_gets_the_stem_that_its_colours_had(file):
    """Away from the padded rim the one-channel stem answers as the published one does on the normalised picture."""
    network, tensors = read_imagenet(file), published()
    grey = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    colours = (grey.expand(-1, 3, -1, -1) - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    drawn = conv2d(colours, tensors["conv1.weight"], stride=2, padding=3)
    wanted = torch.nn.functional.batch_norm(
        drawn, *(tensors[f"bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    )
    with torch.no_grad():
        found = network.bn1(network.conv1(grey))
    torch.testing.assert_close(found[..., 2:-2, 2:-2], wanted[..., 2:-2, 2:-2], atol=1e-3, rtol=1e-4)
    assert not torch.allclose(found[..., :1, :], wanted[..., :1, :], atol=1e-2)  # the rim is what differs


def test_half_precision_and_a_missing_head_are_welcome(tmp_path):
    tensors = {name: tensor.half() for name, tensor in published().items() if not name.startswith("fc.")}
    save_file(tensors, tmp_path / "half.safetensors")
    assert read_imagenet(tmp_path / "half.safetensors").conv1.weight.dtype == torch.float32
    assert torch.equal(adapt(tensors).layer4[1].bn2.weight, tensors["layer4.1.bn2.weight"].float())


def changed(**changes):
    tensors = published()
    for name, value in changes.items():
        tensors.pop(name.replace("__", "."), None)
        if value is not None:
            tensors[name.replace("__", ".")] = value
    return tensors


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (changed(conv1__weight=torch.zeros(64, 1, 7, 7)), "conv1.weight is (64, 1, 7, 7), not (64, 3, 7, 7)"),
        (changed(layer1__0__conv1__weight=torch.zeros(64, 64, 1, 1)), "layer1.0.conv1.weight is (64, 64, 1, 1)"),
        (changed(layer3__1__bn2__bias=None), "layer3.1.bn2.bias is missing"),
        (changed(layer1__2__conv1__weight=torch.zeros(64, 64, 3, 3)), "layer1.2.conv1.weight does not belong"),
        (changed(bn1__bias=torch.full((64,), torch.nan)), "bn1.bias is not finite"),
        (changed(bn1__bias=torch.full((64,), 1e5)), "bn1.bias is not finite in half precision"),
        (changed(bn1__bias=torch.full((64,), torch.nan).to(torch.float8_e4m3fn)), "bn1.bias is not finite"),
        (changed(bn1__running_var=torch.full((64,), -1.0)), "bn1.running_var is negative"),
    ],
    ids=["grey", "resnet50", "missing", "resnet34", "nan", "huge", "float8", "variance"],
)
def test_the_first_tensor_that_differs_is_named(tmp_path, tensors, says):
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(BadWeights) as refused:
        read_imagenet(tmp_path / "other.safetensors")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_pickle_is_never_opened(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "resnet18.pth")
    with pytest.raises(BadWeights, match="is a pickle and is not opened; where you trust it, convert it") as refused:
        read_imagenet(tmp_path / "resnet18.pth")
    command = str(refused.value).split('"')[1]
    compile(command, "told", "exec")  # what is told can be run as it stands
    assert "resnet18.safetensors" in command


@pytest.mark.parametrize("data", [b"", b"no weights at all", b"\xff" * 64, b"\x10\0\0\0\0\0\0\0{nonsense}      "])
def test_what_is_no_weight_file_is_said(tmp_path, data):
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(BadWeights, match="is no safetensors file"):
        read_imagenet(tmp_path / "x.safetensors")
    with pytest.raises(BadWeights, match="no such file"):
        read_imagenet(tmp_path / "nowhere.safetensors")
