import json

import numpy as np
import pytest

from daemon.learn.head import Start, parent_of
from tests.studies.__main__ import main as study
from tests.studies.order import LOOKED_AT, Embedded, replay, shares

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def network():
    return Start(parent=parent_of("shipped")).network()


def pile(network, count=120, events=16):
    """Events that lie aside in a direction which the network's own logit does not see."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(0.0, 1.0, (count, network.fc.in_features))
    weight = network.fc.weight.detach().double().numpy()[0]
    aside = rng.normal(0.0, 1.0, weight.size)
    aside -= weight * (aside @ weight) / (weight @ weight)
    is_event = np.arange(count) < events
    vectors[is_event] += 1.5 * aside
    return Embedded("made", vectors, vectors @ weight, is_event)


def test_what_labels_teach_is_found_sooner_than_by_score_and_everything_is_looked_at_once(network):
    some = pile(network)
    seen = {way: replay(some, network, way, 8) for way in ("score", "none")}
    assert all(sorted(order) == list(range(len(some.events))) for order in seen.values())
    quarter = {way: shares(some.events[order])[LOOKED_AT.index(0.25)] for way, order in seen.items()}
    assert quarter["none"] > 0.9 > quarter["score"]


def test_shares_are_of_the_events():
    events = np.zeros(40, bool)
    events[[0, 9, 10, 39]] = True
    assert shares(events) == [0.25, 0.5, 0.75, 0.75]


@pytest.mark.timeout(120)
def test_the_table_is_printed_and_written(tmp_path, capsys):
    out = tmp_path / "found.json"
    words = ["order", "--laboratories", "1", "--simulate", "150", "--repeats", "1", "--every", "40"]
    assert study([*words, "--out", str(out)]) == 0
    (row,) = json.loads(out.read_text())
    assert row["name"] in capsys.readouterr().out
    assert set(row["found"]) == {"chance", "score", "none", "pca", "autoencoder", "soft-kmeans"}
    assert study(["order", "--every", "0"]) == 64
