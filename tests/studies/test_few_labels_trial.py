"""One split of the study, on simulated curves that an untrained network embeds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from modelhelp import SMALL, make_model, some_examples

from models.heads import embed
from models.metrics import auc
from models.train import infer
from tests.studies import few_labels_trial
from tests.studies.few_labels_trial import ALL, AS_IS, LOOKED_AT, RIVALS, SCRATCH, TUNED, Arena, Setting, Split, try_out

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    bundle = make_model(tmp_path_factory.mktemp("model") / "m")
    examples = some_examples(each=16)  # 96 curves
    torch.set_num_threads(1)
    made = Arena(bundle, examples.edges, examples.labels > 0.5, np.zeros(0), np.zeros(0), seed=1)
    vectors = embed(made.network(), examples.edges, SMALL).astype(np.float64)
    return Arena(bundle, examples.edges, examples.labels > 0.5, vectors, vectors[:40] + 0.01, seed=1)


@pytest.fixture(scope="module")
def setting():
    places = np.arange(96)
    return Setting("half", (Split(places[:60], places[60:], places[:60]),))


@pytest.fixture(scope="module")
def results(bench, setting):
    return list(try_out(bench, setting, 0, (8, 32, 64), (0, 20, 100), (32,)))


def test_the_model_as_it_is_ranks_by_its_own_logits(bench, setting, results):
    np.testing.assert_allclose(bench.logits(), infer(bench.network(), bench.edges, SMALL), atol=1e-5)
    base = next(one for one in results if one.rival == AS_IS)
    assert (base.labelled, base.unlabelled) == (0, "")
    assert base.auc == auc(bench.logits()[60:], bench.events[60:])


def test_every_rival_is_tried_at_every_number_that_the_pool_holds(results):
    for rival in RIVALS:
        tried = [(one.labelled, one.unlabelled) for one in results if one.rival == rival]
        by_labels = [(count, ALL) for count in (8, 32)]  # 64 are more than there are
        by_others = [(LOOKED_AT, name) for name in ("0", "20", "40 simulated")]  # 100 are not there
        assert tried == by_labels + by_others
    assert [one.labelled for one in results if one.rival in (TUNED, SCRATCH)] == [32, 32]
    assert all(0 <= one.auc <= 1 and 0 <= one.ap <= 1 for one in results)


def test_labels_help_where_the_model_knows_nothing(results):
    base = next(one.auc for one in results if one.rival == AS_IS)
    best = [one.auc for one in results if one.rival == "* logistic, pooled + own logit" and one.labelled == 32]
    assert min(best) > max(base, 0.9)


def test_fine_tuning_starts_from_the_model_and_scratch_does_not(bench, monkeypatch):
    monkeypatch.setattr(few_labels_trial, "TUNED_PICTURES", 1)
    monkeypatch.setattr(few_labels_trial, "SCRATCH_PICTURES", 1)
    weights = {name: -one if name == "fc.weight" else one for name, one in bench.bundle.weights.items()}
    turned = replace(bench, bundle=replace(bench.bundle, weights=weights))
    labelled, tested = np.arange(32), np.arange(60, 96)
    tuned, scratch = ([one.train(labelled, tested, 1, scratch=way) for one in (bench, turned)] for way in (False, True))
    assert np.corrcoef(*tuned)[0, 1] < -0.5
    assert np.array_equal(*scratch)


def test_the_same_seed_repeats_itself(bench, setting, results):
    again = list(try_out(bench, setting, 0, (8,), (), ()))
    assert [one for one in again if one.labelled == 8] == [one for one in results if one.labelled == 8]
