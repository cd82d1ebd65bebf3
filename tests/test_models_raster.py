import base64

import numpy as np
import pytest
from modelhelp import noisy

from deploy.serving import known_curves
from models.frontend import prepare
from models.raster import RasterProfile, coverage, envelope, previews, to_rows

PROFILE = RasterProfile(columns=128, rows=128)


def signals(count=12):
    curves = [noisy(curve, seed) for seed in range(count // 6) for curve in known_curves()]
    return [item.signal for item in prepare(curves, PROFILE)]


def walk(n, seed):
    return np.random.default_rng(seed).normal(0, 3, n).cumsum().astype(np.float32)


def slow_envelope(signal, width):
    n = len(signal)
    lower, upper = np.full(width, np.inf), np.full(width, -np.inf)
    for i in range(n):
        column = i * width // n
        group = [signal[i]] if i == 0 else [signal[i - 1], signal[i]] if (i - 1) * width // n != column else [signal[i]]
        lower[column], upper[column] = min(lower[column], *group), max(upper[column], *group)
    return np.stack((lower, upper))


@pytest.mark.parametrize("n", [128, 129, 200, 256, 300, 511, 512])
def test_envelope_is_that_of_every_sample_and_the_one_before(n):
    signal = walk(n, n)
    assert np.array_equal(envelope([signal], PROFILE)[0], slow_envelope(signal, 128).astype(np.float32))


def test_neighbouring_columns_touch():
    edges = envelope([walk(n, n) for n in (128, 257, 512)], PROFILE)
    lower, upper = edges[:, 0], edges[:, 1]
    assert (np.maximum(lower[:, 1:], lower[:, :-1]) <= np.minimum(upper[:, 1:], upper[:, :-1])).all()


def test_a_curve_has_the_same_bits_alone_and_in_any_batch():
    batch = [*signals(), *(walk(n, n) for n in (130, 256, 500))]
    edges = envelope(batch, PROFILE)
    images = coverage(edges, PROFILE)
    for place, signal in enumerate(batch):
        alone = envelope([signal], PROFILE)
        assert np.array_equal(alone[0], edges[place])
        assert np.array_equal(coverage(alone, PROFILE)[0], images[place])
    backwards = coverage(envelope(batch[::-1], PROFILE), PROFILE)[::-1]
    assert np.array_equal(backwards, images)


def test_coverage_is_the_length_inside_each_pixel():
    images = coverage(envelope(signals(), PROFILE), PROFILE)
    assert images.shape == (12, 1, 128, 128)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1
    rows = to_rows(envelope(signals(), PROFILE), PROFILE)
    inside = (rows[:, 0] > 0.5) & (rows[:, 1] < 127.5)
    expected = rows[:, 1] - rows[:, 0] + PROFILE.thickness
    np.testing.assert_allclose(images.sum((1, 2))[inside], expected[inside], atol=2e-3)


def test_row_zero_is_the_strongest_push():
    flat = np.zeros((3, 2, 128), np.float32) + np.array([-1e6, 0, 1e6], np.float32)[:, None, None]
    images = coverage(flat, PROFILE)[:, 0]
    assert images[0, 0].min() > 0
    assert images[2, 127].min() > 0
    assert images[0, 1:].sum() == images[2, :127].sum() == 0


def test_a_spike_of_one_sample_survives():
    signal = np.zeros(512, np.float32)
    signal[300] = 200
    image = coverage(envelope([signal], PROFILE), PROFILE)[0, 0]
    top = int(to_rows(np.full((1, 2, 128), 200, np.float32), PROFILE)[0, 0, 0])
    assert image[top - 1, 75] == 1


def test_no_curves_and_too_short_ones():
    assert envelope([], PROFILE).shape == (0, 2, 128)
    assert coverage(envelope([], PROFILE), PROFILE).shape == (0, 1, 128, 128)
    with pytest.raises(ValueError, match="fewer than the 128 columns"):
        envelope([np.zeros(127, np.float32)], PROFILE)


def test_preview_is_two_rows_of_bytes():
    batch = envelope(signals(), PROFILE)
    assert previews(batch, PROFILE) == [previews(edges[None], PROFILE)[0] for edges in batch]
    assert previews(batch[:0], PROFILE) == []
    edges = batch[2]
    drawn = np.frombuffer(base64.b64decode(previews(edges[None], PROFILE)[0]), np.uint8).reshape(2, 128)
    assert (drawn[0] <= drawn[1]).all()
    back = drawn.astype(np.float32) * (PROFILE.rows / 255)
    assert np.abs(back - to_rows(edges, PROFILE)).max() <= PROFILE.rows / 255
