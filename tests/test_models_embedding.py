import numpy as np
from modelhelp import SMALL, some_examples, untrained

from models.heads import embed
from models.train import infer


def test_the_last_layer_of_an_embedded_curve_is_its_logit():
    network, edges = untrained(), some_examples().edges
    vectors = embed(network, edges, SMALL)
    assert vectors.shape == (len(edges), 32)
    assert vectors.dtype == np.float32
    logits = vectors @ network.fc.weight[0].detach().numpy() + network.fc.bias.detach().numpy()
    np.testing.assert_allclose(logits, infer(network, edges, SMALL), atol=1e-5)


def test_the_batch_changes_nothing_and_none_is_none():
    network, edges = untrained(), some_examples().edges[:10]
    np.testing.assert_allclose(embed(network, edges, SMALL, batch=3), embed(network, edges, SMALL), atol=1e-5)
    assert embed(network, edges[:0], SMALL).shape == (0, 32)
