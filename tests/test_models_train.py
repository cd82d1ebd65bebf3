import copy
import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from modelhelp import SMALL, some_examples, untrained

from models.metrics import auc
from models.network import ResNet18
from models.train import Recipe, Run, infer, layout_of, rate_at, store

QUICK = Recipe(width=4, epochs=3, batch=16, rate=1e-2, bf16=False)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_it_learns():
    run = Run(some_examples(), SMALL, Recipe(width=4, epochs=8, batch=16, rate=1e-2))
    assert len(run) == 24
    losses = list(run)
    assert len(losses) == 24
    assert len(run) == 0
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])
    assert auc(infer(run.network, some_examples().edges, SMALL), some_examples().labels) > 0.95


def test_the_same_recipe_gives_the_same_network():
    first, second = (Run(some_examples(), SMALL, QUICK) for _ in range(2))
    assert list(first) == list(second)
    assert same(first.network, second.network)


def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path):
    whole = Run(some_examples(), SMALL, QUICK)
    losses = list(whole)
    broken = Run(some_examples(), SMALL, QUICK, checkpoint=tmp_path)
    for step, _ in enumerate(broken):
        if step == 4:  # in the middle of the second epoch
            break
    resumed = Run(some_examples(), SMALL, QUICK, checkpoint=tmp_path)
    assert len(resumed) == 6
    assert list(resumed) == losses[3:]
    assert same(resumed.network, whole.network)


def test_a_checkpoint_is_two_plain_files(tmp_path):
    list(Run(some_examples(), SMALL, QUICK, checkpoint=tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-3.safetensors", "progress.json"]


@pytest.mark.parametrize("harm", ["weights", "progress"])
def test_a_damaged_checkpoint_means_beginning_again(tmp_path, harm):
    list(Run(some_examples(), SMALL, QUICK, checkpoint=tmp_path))
    (tmp_path / ("epoch-3.safetensors" if harm == "weights" else "progress.json")).write_bytes(b"\x80\x04nonsense")
    assert len(Run(some_examples(), SMALL, QUICK, checkpoint=tmp_path)) == 9


def test_channels_come_last_only_where_the_backward_pass_stays_within_its_memory():
    assert Run(some_examples(), SMALL, QUICK).network.layer1[0].conv1.weight.is_contiguous()
    assert [layout_of(channels) for channels in (7, 8)] == [torch.contiguous_format, torch.channels_last]


def test_training_goes_on_from_a_given_network():
    start = copy.deepcopy(untrained())
    run = Run(some_examples(), SMALL, QUICK, initial=start)
    assert run.network is start
    before = start.fc.weight.clone()
    next(iter(run))
    assert not torch.equal(before, start.fc.weight)


def test_a_frozen_network_learns_in_its_last_layer_alone(tmp_path):
    start = copy.deepcopy(untrained())
    before = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    frozen = replace(QUICK, frozen=True)
    whole = Run(some_examples(), SMALL, frozen, initial=start)
    losses = list(whole)
    after = whole.network.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"fc.weight", "fc.bias"}
    assert losses[-1] < losses[0]
    broken = Run(some_examples(), SMALL, frozen, copy.deepcopy(untrained()), checkpoint=tmp_path)
    next(iter(broken))
    again = Run(some_examples(), SMALL, frozen, copy.deepcopy(untrained()), checkpoint=tmp_path)
    list(again)
    assert same(again.network, whole.network)
    thawed = Run(some_examples(), SMALL, QUICK, initial=whole.network)
    next(iter(thawed))
    assert not torch.equal(after["conv1.weight"].clone(), before["conv1.weight"])


def test_learning_rate_rises_then_falls_to_zero():
    rates = [rate_at(step, 1000, 0.05) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 50)
    assert max(rates) == pytest.approx(1.0)
    assert np.argmax(rates) in (49, 50)
    assert (np.diff(rates[50:]) < 0).all()
    assert rates[-1] < 1e-4


def test_inference_does_not_depend_on_the_batch():
    edges = some_examples().edges[:20]
    network: ResNet18 = untrained()
    whole = infer(network, edges, SMALL)
    np.testing.assert_allclose(infer(network, edges, SMALL, batch=3), whole, atol=1e-5)


def test_a_full_disk_is_an_error_of_the_disk(tmp_path):
    network, before = ResNet18(4), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))  # no file grows beyond, as on a disk that is full
    try:
        with pytest.raises(OSError, match="make room"):
            store(tmp_path, network, torch.optim.AdamW(network.parameters()), 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
