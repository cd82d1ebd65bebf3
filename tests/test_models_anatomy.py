import numpy as np
import pytest
import torch
from modelhelp import untrained

from models.anatomy import EPSILON, convolutions, fold, shapes
from models.bundle import SHIPPED, read
from models.network import ResNet18, load
from models.network import fold as fold_torch


@pytest.mark.parametrize("width", [1, 4, 16, 64])
def test_the_anatomy_is_that_of_the_network_that_learns(width):
    state = {name: tuple(tensor.shape) for name, tensor in ResNet18(width).state_dict().items() if tensor.dim()}
    assert shapes(width) == state
    modules = dict(ResNet18(width).named_modules())
    for one in convolutions(width):
        assert modules[one.name].stride == (one.stride, one.stride)
        assert modules[one.name].padding == (one.padding, one.padding)
        assert modules[one.norm].eps == EPSILON


def test_folding_without_torch_is_torchs_folding():
    for width, weights in (
        (4, {name: tensor.numpy() for name, tensor in untrained().state_dict().items() if tensor.dim()}),
        (16, read(SHIPPED).weights),
    ):
        network = load(width, {name: torch.from_numpy(tensor) for name, tensor in weights.items()})
        exact = fold_torch(network.double()).state_dict()
        folded = fold(width, weights)
        assert folded.keys() == exact.keys()
        for name, tensor in folded.items():
            assert tensor.dtype == np.float32
            # rounded once: within half a unit in the last place
            np.testing.assert_allclose(tensor, exact[name].numpy(), rtol=1e-7, atol=1e-9)
