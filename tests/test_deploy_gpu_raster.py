"""The raster by torch against the one by numpy: the same envelope to the bit, a picture within a stated bound."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from modelhelp import SHARED, noisy

from deploy import torch_engine
from deploy.serving import known_curves
from deploy.torch_engine import LARGEST_ROW_ERROR, Picture, envelope
from models.frontend import prepare
from models.raster import RasterProfile, coverage, to_rows
from models.raster import envelope as envelope_by_numpy
from models.simulate import simulate

BUNDLED = Path(__file__).resolve().parents[1] / "daemon" / "curves"
PROFILE = RasterProfile()
GROUPS = ["known", "simulated", "bundled", "adversarial"]
ODD = RasterProfile(columns=100, rows=96, softness=3.7, lowest=-33.3, highest=777.0, thickness=1.3)


def by_torch(signals, profile=PROFILE):
    sizes = np.array([signal.shape[0] for signal in signals], np.int64)
    return envelope(torch.from_numpy(np.concatenate(signals)), sizes, profile).numpy()


def drawn(curves, profile=PROFILE):
    return [item.signal for item in prepare(curves, profile) if item.signal is not None]


def adversarial():
    rng = np.random.default_rng(5)
    lengths = [256, 257, 511, 512, 513, 767, 1000, 4096, 256]
    signals = [rng.normal(0, 10.0**scale, n) for scale, n in enumerate(lengths, -4)]
    spikes = np.zeros(512)
    spikes[[0, 1, 255, 256, 510, 511]] = [1e30, -1e30, 3e38, -3e38, 1e-38, 1e-45]
    ramps = [np.linspace(-1e6, 1e6, 300), np.linspace(1e6, -1e6, 999), np.full(512, -40.0), np.full(256, 1000.0)]
    infinite = np.where(np.arange(512) % 7 == 0, np.inf, -np.inf)
    return [signal.astype(np.float32) for signal in (*signals, spikes, *ramps, infinite)]


def real():
    from daemon.formats import open_file
    from daemon.reading.ahead import find

    return [curve for arrival in find([BUNDLED]) for curve in open_file(arrival.file)]


@cache
def signals_of(group):
    if group == "known":
        return drawn([noisy(curve, seed) for seed in range(8) for curve in known_curves()])
    if group == "simulated":
        return drawn([item.curve for item in simulate(200, 11)])
    return drawn(real()) if group == "bundled" else adversarial()


@pytest.mark.parametrize("profile", [PROFILE, ODD], ids=["shipped", "odd"])
@pytest.mark.parametrize("group", GROUPS)
def test_the_envelope_has_the_same_bits(group, profile):
    signals = signals_of(group)
    expected = envelope_by_numpy(signals, profile)
    assert by_torch(signals, profile).dtype == np.float32
    assert np.array_equal(by_torch(signals, profile), expected)
    alone = np.concatenate([by_torch([signal], profile) for signal in signals])
    assert np.array_equal(alone, expected)
    assert np.array_equal(by_torch(signals[::-1], profile)[::-1], expected)


@pytest.mark.parametrize("profile", [PROFILE, ODD], ids=["shipped", "odd"])
@pytest.mark.parametrize("group", GROUPS)
def test_the_picture_is_within_the_stated_bound(group, profile):
    edges = envelope_by_numpy(signals_of(group), profile)
    picture = Picture(profile)
    rows = picture.to_rows(torch.from_numpy(edges)).numpy()
    assert np.abs(rows - to_rows(edges, profile)).max() <= LARGEST_ROW_ERROR
    images = picture(torch.from_numpy(edges)).numpy()
    assert images.shape == coverage(edges, profile).shape
    assert np.abs(images - coverage(edges, profile)).max() <= 2 * LARGEST_ROW_ERROR
    assert Picture(profile, torch.float16)(torch.from_numpy(edges)).dtype == torch.float16


def test_from_equal_rows_the_pixels_have_the_same_bits(monkeypatch):
    edges = envelope_by_numpy([*signals_of("simulated"), *signals_of("adversarial")], PROFILE)
    rows = to_rows(edges, PROFILE)
    picture = Picture(PROFILE)
    monkeypatch.setattr(picture, "to_rows", lambda _: torch.from_numpy(rows))
    assert np.array_equal(picture(torch.from_numpy(edges)).numpy(), coverage(edges, PROFILE))


def test_not_a_number_shows_in_both_alike():
    signal = np.zeros(600, np.float32)
    signal[300] = np.nan
    expected = envelope_by_numpy([signal], PROFILE)
    assert np.isnan(expected).any()
    assert np.array_equal(by_torch([signal]), expected, equal_nan=True)


def test_a_long_curve_among_short_ones_is_gathered_apart(monkeypatch):
    asked = []
    gathered = torch_engine._gathered

    def counted(samples, starts, sizes, width, depth):
        asked.append(starts.shape[0] * width * depth)
        return gathered(samples, starts, sizes, width, depth)

    monkeypatch.setattr(torch_engine, "_gathered", counted)
    rng = np.random.default_rng(1)
    signals = [rng.normal(0, 9, n).astype(np.float32) for n in [512] * 60 + [2_000_000] + [512] * 60]
    assert np.array_equal(by_torch(signals), envelope_by_numpy(signals, PROFILE))
    assert max(asked) <= torch_engine.CELLS
    assert sum(asked) < 1.1 * sum(map(len, signals)) + 121 * 256 * 2


def test_many_curves_are_gathered_in_parts(monkeypatch):
    monkeypatch.setattr(torch_engine, "CELLS", 10_000)
    signals = signals_of("simulated")
    assert np.array_equal(by_torch(signals), envelope_by_numpy(signals, PROFILE))


def test_no_signals_and_wrong_ones():
    nothing = envelope(torch.zeros(0), np.zeros(0, np.int64), PROFILE)
    assert nothing.shape == (0, 2, 256)
    assert Picture(PROFILE)(nothing).shape == (0, 1, 128, 256)
    with pytest.raises(ValueError, match="fewer than the 256 columns"):
        by_torch([np.zeros(512, np.float32), np.zeros(255, np.float32)])
    with pytest.raises(ValueError, match="512 samples for signals of 500"):
        envelope(torch.zeros(512), np.array([500]), PROFILE)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the collection of real curves is not beside this checkout")
def test_real_curves_of_other_laboratories():
    from daemon.formats import open_file
    from daemon.reading.ahead import find

    found = [arrival.file for arrival in find([SHARED / "data" / "open"])][:60]
    signals = drawn([curve for file in found for curve in open_file(file)][:300])
    assert np.array_equal(by_torch(signals), envelope_by_numpy(signals, PROFILE))
