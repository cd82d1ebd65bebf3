import numpy as np
from modelhelp import SMALL, some_examples

from deploy.serving import known_curves
from models.curve import Curve
from models.frontend import prepare
from models.raster import envelope
from models.simulate import simulate
from models.train import Examples, gather, order


def test_training_sees_the_envelopes_of_service():
    examples = gather([(curve, True) for curve in known_curves()], SMALL)
    signals = [item.signal for item in prepare(known_curves(), SMALL)]
    assert np.array_equal(examples.edges, envelope(signals, SMALL))
    assert (examples.labels == 1).all()


def test_curves_without_a_score_teach_nothing():
    short = Curve(force=np.zeros(10), force_unit="N")
    examples = gather([(short, True), (known_curves()[2], True), (short, False)], SMALL)
    assert len(examples) == 1


def test_chunks_and_progress_cover_every_curve():
    seen = []
    pairs = [(item.curve, item.label == "keep") for item in simulate(300, 5)]
    examples = gather(iter(pairs), SMALL, seen.append)
    assert sum(seen) == 300
    np.testing.assert_array_equal(examples.labels[:50], [float(event) for _, event in pairs[:50]])


def test_saved_examples_come_back(tmp_path):
    assert Examples.load(tmp_path / "x") is None
    examples = some_examples()
    examples.save(tmp_path / "x")
    again = Examples.load(tmp_path / "x")
    assert np.array_equal(again.edges, examples.edges)
    assert np.array_equal(again.labels, examples.labels)
    (tmp_path / "x-labels.npy").unlink()
    assert Examples.load(tmp_path / "x") is None


def test_joining_and_repeating():
    examples = some_examples()
    assert len(examples + examples.repeat(3)) == 4 * len(examples)


def test_order_is_a_shuffle_of_seed_and_epoch_alone():
    examples = some_examples()
    first = order(examples, 1, 0)
    assert sorted(first) == list(range(len(examples)))
    assert np.array_equal(first, order(examples, 1, 0))
    assert not np.array_equal(first, order(examples, 1, 1))
    assert not np.array_equal(first, order(examples, 2, 0))
