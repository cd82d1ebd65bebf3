import numpy as np
import pytest
import torch
from modelhelp import untrained

from models.heads import LEAN, Autoencoder, cluster, encode, own_logit, principal, standardise

pytest.importorskip("sklearn")


def cloud(count=300, kinds=3, seed=0):
    """Curves of a few kinds in 32 channels, two of them silent, and the kind of each."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(kinds, size=count)
    centres = np.random.default_rng(99).normal(0, 3, (kinds, 32))
    vectors = centres[kind] + rng.normal(0, 1, (count, 32))
    vectors[:, :2] = 0.5
    return vectors, kind


def lengths(z):
    return float(np.square(z - z.mean(0)).sum(1).mean())


@pytest.mark.parametrize("make", [standardise, principal, encode], ids=lambda make: make.__name__)
def test_features_have_mean_squared_length_one_whatever_the_units(make):
    vectors, _ = cloud()
    assert lengths(make(vectors).apply(vectors)) == pytest.approx(30 / 32 if make is standardise else 1.0, abs=0.06)
    again = make(vectors * 1e3).apply(vectors * 1e3)
    assert lengths(again) == pytest.approx(lengths(make(vectors).apply(vectors)), rel=1e-3)


def test_a_channel_silent_among_the_fitted_curves_does_not_shout():
    vectors, _ = cloud()
    told = standardise(vectors)
    spoken = vectors.copy()
    spoken[:, 0] += vectors.std()
    change = np.abs(told.apply(spoken) - told.apply(vectors)).max()
    assert change < 5.0


def test_principal_components_are_those_of_a_singular_value_decomposition():
    vectors, _ = cloud()
    found = principal(vectors, 2)
    assert found.matrix.shape == (2, 32)
    z = standardise(vectors).apply(vectors)
    _, _, turn = np.linalg.svd(z - z.mean(0), full_matrices=False)
    wanted = (z - z.mean(0)) @ turn[:2].T
    for one, other in zip(found.apply(vectors).T, wanted.T, strict=True):
        assert abs(np.corrcoef(one, other)[0, 1]) == pytest.approx(1.0, abs=1e-9)


def test_a_few_curves_have_fewer_components():
    vectors, _ = cloud(5)
    assert principal(vectors).apply(vectors).shape == (5, 4)


def test_the_networks_own_logit_is_a_feature_like_the_others():
    network, rng = untrained(), np.random.default_rng(1)
    vectors = rng.normal(size=(50, 32))
    found = standardise(vectors).beside(own_logit(network, vectors)).apply(vectors)
    with torch.no_grad():
        logits = network.fc(torch.from_numpy(vectors).float())[:, 0].numpy()
    assert found.shape == (50, 33)
    np.testing.assert_allclose(found[:, -1], LEAN * (logits - logits.mean()) / logits.std(), atol=1e-4)


def test_soft_k_means_finds_the_kinds_and_says_how_sure():
    vectors, kind = cloud(400)
    shares = cluster(vectors, 3).apply(vectors)
    np.testing.assert_allclose(shares.sum(1), 1.0)
    assert ((shares >= 0) & (shares <= 1)).all()
    for one in range(3):
        members = shares[kind == one].mean(0)
        assert members.max() > 0.95
    assert np.array_equal(cluster(vectors, 3).apply(vectors), shares)


def test_the_autoencoder_keeps_what_curves_differ_in():
    vectors, kind = cloud(400)
    made = encode(vectors, codes=2)
    codes = made.apply(vectors)
    centres = np.array([codes[kind == one].mean(0) for one in range(3)])
    nearest = np.linalg.norm(codes[:, None] - centres, axis=2).argmin(1)
    assert (nearest == kind).mean() > 0.98


def test_the_autoencoder_repeats_itself_and_touches_no_other_randomness():
    vectors, _ = cloud(40)
    torch.manual_seed(5)
    first = encode(vectors).apply(vectors)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.rand(1) == after
    torch.manual_seed(6)
    assert np.array_equal(encode(vectors).apply(vectors), first)
    assert not np.array_equal(encode(vectors, seed=2).apply(vectors), first)


def test_the_autoencoder_is_kept_as_safetensors(tmp_path):
    vectors, _ = cloud(40)
    made = encode(vectors, codes=3)
    made.save(tmp_path / "code.safetensors")
    assert np.array_equal(Autoencoder.load(tmp_path / "code.safetensors").apply(vectors), made.apply(vectors))
