import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from modelhelp import SMALL, some_examples, untrained

from models.finetune import REPLAY, Lessons, Tuning, TuningRecipe, cross_fit, steps_of, tail_logits, trunk_of
from models.metrics import auc
from models.network import ResNet18
from models.train import infer

QUICK = TuningRecipe(epochs=3, batch=16, rate=1e-2, pull=0.0, replay=0.5)


def same(one: ResNet18, other: ResNet18) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.fixture(scope="module")
def lessons() -> Lessons:
    """Eight days of six curves, and as many again to be replayed."""
    examples, trunk = some_examples(), trunk_of(untrained(), some_examples().edges, SMALL)
    days = np.repeat(np.arange(8), 6)
    labelled = Lessons(trunk, examples.labels, np.ones(len(examples), np.float32), days)
    return labelled + replace(labelled, groups=np.full(len(examples), REPLAY))


def test_the_trunk_and_the_tail_are_the_network(tmp_path):
    edges = some_examples().edges
    trunk = trunk_of(untrained(), edges, SMALL, batch=7)
    assert trunk.shape == (48, 16, 4, 4)
    assert trunk.dtype == np.float16
    assert np.abs(tail_logits(untrained(), trunk) - infer(untrained(), edges, SMALL)).max() < 0.005
    on_disk = trunk_of(untrained(), edges, SMALL, "cpu:0", file=tmp_path / "trunk.npy")
    assert np.array_equal(np.load(tmp_path / "trunk.npy"), on_disk)
    assert np.abs(on_disk.astype(np.float32) - trunk).max() < 0.01


def test_it_learns_and_leaves_what_it_was_given(lessons):
    start = untrained()
    before = copy.deepcopy(start)
    tuning = Tuning(start, lessons, replace(QUICK, epochs=5))
    assert len(tuning) == steps_of(lessons, replace(QUICK, epochs=5)) == 30
    losses = list(tuning)
    assert len(losses) == 30
    assert np.mean(losses[-6:]) < 0.7 * np.mean(losses[:6])
    assert auc(tail_logits(tuning.network, lessons.trunk), lessons.targets) > 0.95
    assert same(start, before)


def test_only_convolutions_of_layer4_and_the_last_layer_change(lessons):
    tuning = Tuning(untrained(), lessons, QUICK, device="cpu:0")
    list(tuning)
    old, new = untrained().state_dict(), tuning.network.state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    expected = {name for name in old if name.startswith("fc.") or (name.startswith("layer4.") and old[name].ndim == 4)}
    assert changed == expected


def test_an_interrupted_tuning_ends_as_if_it_had_not_been(tmp_path, lessons):
    whole = Tuning(untrained(), lessons, QUICK)
    losses = list(whole)
    for step, _ in enumerate(Tuning(untrained(), lessons, QUICK, tmp_path)):
        if step == 8:  # in the middle of the second epoch
            break
    resumed = Tuning(untrained(), lessons, QUICK, tmp_path)
    assert len(resumed) == 12
    assert list(resumed) == losses[6:]
    assert same(resumed.network, whole.network)


def test_the_pull_holds_the_weights_by_the_parents(lessons):
    def distance(pull: float) -> float:
        tuning = Tuning(untrained(), lessons, replace(QUICK, pull=pull))
        list(tuning)
        return float((tuning.network.fc.weight - untrained().fc.weight).detach().norm())

    assert distance(0.5) < 0.5 * distance(0.0)


def test_of_replayed_curves_it_goes_on_to_say_what_its_parent_says(lessons):
    """All labels say event, and everything would rise; what is replayed stays where it was."""
    parent = Tuning(untrained(), lessons, replace(QUICK, epochs=5))
    list(parent)
    days = lessons.groups >= 0
    trunk, said = lessons.trunk[days], tail_logits(parent.network, lessons.trunk[days])
    replayed = Lessons.replayed(parent.network, trunk[12:])
    np.testing.assert_allclose(replayed.targets, 1 / (1 + np.exp(-said[12:])), atol=1e-6)
    own = Lessons(trunk[:12], np.ones(12, np.float32), np.ones(12, np.float32), np.arange(12))

    def moved(whole: Lessons) -> float:
        tuning = Tuning(parent.network, whole, replace(QUICK, rate=3e-3, replay=0.75))
        list(tuning)
        return float(np.abs(tail_logits(tuning.network, trunk[12:]) - said[12:]).mean())

    assert moved(own + replayed) < 0.5 * moved(own)


def test_a_batch_holds_the_wanted_shares(lessons):
    """A tenth of the labelled curves are events; half of what is drawn is, and half is replayed."""
    rare = replace(lessons, targets=np.where(np.arange(96) % 10 == 0, 1.0, 0.0).astype(np.float32))
    seen = []
    tuning = Tuning(untrained(), rare, replace(QUICK, replay=0.25))
    step, tuning._step = tuning._step, lambda chosen, rate: seen.append(chosen) or step(chosen, rate)
    list(tuning)
    replayed = np.concatenate([rare.groups[chosen] == -1 for chosen in seen])
    events = np.concatenate([rare.targets[chosen] for chosen in seen])
    assert replayed.mean() == pytest.approx(0.25, abs=0.01)
    assert events.mean() == pytest.approx(0.5, abs=0.02)


def test_a_cross_fit_sees_no_curve_of_the_group(lessons):
    """One day's labels are the reverse of all others: whoever never saw them errs on that day alone."""
    own = lessons.groups >= 0
    trunk, targets, weights, groups = (
        getattr(lessons, name)[own] for name in ("trunk", "targets", "weights", "groups")
    )
    odd = groups == 3
    turned = Lessons(trunk, np.where(odd, 1 - targets, targets), weights, groups)
    fitted = cross_fit(untrained(), turned, replace(QUICK, epochs=8))
    assert fitted.is_by_group
    others = ~odd
    assert auc(fitted.logits[others], turned.targets[others]) > 0.9
    assert auc(fitted.logits[odd], turned.targets[odd]) < 0.2


def test_an_interrupted_cross_fit_goes_on(tmp_path, lessons):
    def kill(_: int) -> None:
        steps.append(1)
        if len(steps) == 15:  # in the third fold of five, six steps each
            raise InterruptedError

    recipe, steps = replace(QUICK, epochs=1), []
    with pytest.raises(InterruptedError):
        cross_fit(untrained(), lessons, recipe, checkpoint=tmp_path, progress=kill)
    left: list[int] = []
    resumed = cross_fit(untrained(), lessons, recipe, checkpoint=tmp_path, progress=left.append)
    assert len(left) == 5 * 6 - 12
    np.testing.assert_array_equal(resumed.logits, cross_fit(untrained(), lessons, recipe).logits)


def test_too_few_days_are_said_and_copies_stay_together(lessons):
    few = replace(lessons, groups=np.where(lessons.groups < 0, -1, lessons.groups % 3))
    steps: list[int] = []
    fitted = cross_fit(untrained(), few, replace(QUICK, epochs=1), progress=steps.append)
    assert not fitted.is_by_group
    assert "3 experiments" in fitted.text
    assert np.array_equal(np.isfinite(fitted.logits), few.groups >= 0)
    assert sum(steps) == 5 * steps_of(few, replace(QUICK, epochs=1))


def test_a_night_has_its_time_however_many_labels_there_are(lessons):
    assert steps_of(lessons, QUICK) == 3 * 6
    assert steps_of(lessons, replace(QUICK, most=16)) == 3 * 2


def test_too_few_lessons_are_refused(lessons):
    with pytest.raises(ValueError, match="without a labelled"):
        Tuning(untrained(), Lessons.replayed(untrained(), lessons.trunk), QUICK)
    one = np.zeros(4, np.int64)  # a curve and its copies
    alone = Lessons(lessons.trunk[one], lessons.targets[one], lessons.weights[one], one)
    with pytest.raises(ValueError, match="two different"):
        cross_fit(untrained(), alone, QUICK)
