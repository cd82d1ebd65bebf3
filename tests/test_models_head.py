import numpy as np
import pytest
from modelhelp import SMALL, some_examples, untrained

from models.heads import HEADS, embed, fold, own_logit, principal, round_support, standardise
from models.metrics import auc
from models.train import infer

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def embedded():
    examples = some_examples()
    return embed(untrained(), examples.edges, SMALL).astype(float), examples.labels > 0.5


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("make", [standardise, principal], ids=lambda make: make.__name__)
def test_a_folded_head_is_a_network_that_says_the_same(embedded, kind, make):
    network, (vectors, labels) = untrained(), embedded
    features = make(vectors).beside(own_logit(network, vectors))
    head = HEADS[kind](features.apply(vectors), labels, None)
    folded = fold(network, features, head)
    wanted = head.score(features.apply(vectors))
    longest, found = (float(one.fc.weight.detach().norm()) for one in (network, folded))
    assert found <= longest * 1.001
    wanted *= found / np.linalg.norm(head.weight @ features.matrix)
    np.testing.assert_allclose(infer(folded, some_examples().edges, SMALL), wanted, atol=1e-3 * np.abs(wanted).max())
    assert folded is not network
    assert auc(wanted, labels) > auc(infer(network, some_examples().edges, SMALL), labels)


@pytest.mark.parametrize("kind", HEADS)
def test_weights_say_how_often_a_curve_counts(embedded, kind):
    """One curve of weight 3 is three curves of weight 1."""
    vectors, labels = embedded
    z, times = standardise(vectors).apply(vectors), np.where(np.arange(len(vectors)) % 5 == 0, 3, 1)
    weighted = HEADS[kind](z, labels, times.astype(float))
    repeated = HEADS[kind](np.repeat(z, times, axis=0), np.repeat(labels, times), None)
    if kind == "logistic":  # class balance is by counts, which repetition changes a little
        assert np.corrcoef(weighted.score(z), repeated.score(z))[0, 1] > 0.999
    assert np.corrcoef(weighted.score(z), repeated.score(z))[0, 1] > 0.98


def test_a_few_events_weigh_as_much_as_many_others(embedded):
    vectors, labels = embedded
    few = np.flatnonzero(labels)[:3]
    chosen = np.concatenate((few, np.flatnonzero(~labels)))
    z = standardise(vectors).apply(vectors)
    for fit in HEADS.values():
        assert (fit(z[chosen], labels[chosen], None).score(z[few]) > 0).all()


def test_the_round_kernel_learns_what_no_line_can():
    rng = np.random.default_rng(3)
    points = rng.normal(size=(300, 2))
    labels = np.square(points).sum(1) < 1.0
    assert auc(round_support(points, labels)(points), labels) > 0.99
    assert auc(HEADS["logistic"](points, labels, None).score(points), labels) < 0.7


@pytest.mark.parametrize("fit", [*HEADS.values(), round_support])
@pytest.mark.parametrize("event", [True, False])
def test_one_class_teaches_nothing(fit, event):
    with pytest.raises(ValueError, match="with and without"):
        fit(np.eye(4), np.full(4, event), *(() if fit is round_support else (None,)))
