import numpy as np
import pytest
import torch
from modelhelp import noisy

from daemon.bench.recipe import SIDE, ThreeChannels, draw
from deploy.serving import known_curves
from models.metrics import auc
from tests.studies.published import PublishedRun, Settings

TRUTH = (False, False, True, True, True, False)
QUICK = Settings(epochs=2, batch=4, width=4, bf16=False)


def known(each):
    """The known curves with fresh noise, and which of them hold an event."""
    return [noisy(curve, seed) for seed in range(each) for curve in known_curves()], np.array(TRUTH * each)


@pytest.fixture(scope="module")
def pictures():
    curves, events = known(each=2)
    return np.stack(list(draw(curves))), events


def test_a_picture_is_a_black_line_on_paper_scaled_to_itself(pictures):
    drawn, _ = pictures
    assert drawn.shape == (12, SIDE, SIDE)
    assert drawn.dtype == np.uint8
    for picture in drawn:
        dark = np.argwhere(picture < 200)
        assert (dark.min(axis=0) < 0.08 * SIDE).all()  # matplotlib's margins of 5 %
        assert (dark.max(axis=0) > 0.92 * SIDE).all()
        assert 0.003 < (picture < 200).mean() < 0.6


def test_units_and_company_change_no_picture():
    curves, _ = known(each=1)
    alone = [next(iter(draw([curve]))) for curve in curves]
    np.testing.assert_array_equal(alone, list(draw(curves)))


def test_the_network_is_torchvisions_in_shape():
    state = ThreeChannels().body.state_dict()
    assert state["conv1.weight"].shape == (64, 3, 7, 7)
    assert state["layer4.1.conv2.weight"].shape == (512, 512, 3, 3)
    assert sum(tensor.numel() for name, tensor in state.items() if "num_batches" not in name) == 11_186_625


def test_it_learns_and_goes_on_where_it_was_ended(pictures, tmp_path):
    drawn, events = pictures
    whole = PublishedRun(drawn, events, QUICK, tmp_path / "whole")
    losses = list(whole)
    assert len(losses) == 6
    broken = PublishedRun(drawn, events, QUICK, tmp_path / "broken")
    for step, _ in enumerate(broken):
        if step == 4:
            break
    resumed = PublishedRun(drawn, events, QUICK, tmp_path / "broken")
    assert len(resumed) == 3
    assert list(resumed) == losses[3:]
    np.testing.assert_array_equal(resumed.score(drawn), whole.score(drawn))
    assert torch.isfinite(torch.from_numpy(whole.score(drawn))).all()


def test_it_can_tell_events_from_none(pictures, tmp_path):
    drawn, events = pictures
    run = PublishedRun(drawn, events, Settings(epochs=10, batch=4, width=8), tmp_path)
    list(run)
    assert auc(run.score(drawn), events) > 0.9
