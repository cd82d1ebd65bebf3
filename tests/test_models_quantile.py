"""The short cuts of the front-end give what numpy gives, to the last bit: the model is frozen with that front-end."""

import numpy as np
import pytest

from models import frontend
from models.frontend import median, prepare, quantile
from models.raster import RasterProfile
from models.simulate import simulate

SIZES = [1, 2, 3, 4, 5, 7, 8, 13, 51, 204, 409, 4096, 5001]
PROFILES = [RasterProfile(), RasterProfile(columns=100, samples_per_column=3), RasterProfile(scale="pn")]


def samples(n):
    random = np.random.default_rng(n)
    drawn = [random.normal(size=n), random.normal(size=n) * 1e-12 - 3e-9, random.integers(0, 3, n).astype(float)]
    return [*drawn, np.sort(drawn[0]), -np.zeros(n), np.full(n, np.inf)]


@pytest.mark.parametrize("n", SIZES)
def test_median_and_quantile_are_those_of_numpy_to_the_bit(n):
    for values in samples(n):
        kept = values.copy()
        assert median(values).hex() == float(np.median(values)).hex()
        if np.isfinite(values).all() and values.any():  # the sign that numpy gives a zero depends on their number
            for share in (0.0, 0.1, 1 / 3, 0.5, 0.77, 1.0):
                assert quantile(values, share).hex() == float(np.quantile(values, share)).hex()
        assert np.array_equal(values, kept)


def test_nothing_and_nan_have_no_middle():
    for values in (np.zeros(0), np.array([1.0, np.nan, 2.0, 3.0])):
        assert np.isnan(median(values))
        assert np.isnan(quantile(values, 1 / 3))


def resampled(force, profile):
    """`models.frontend.resample` in numpy's own words."""
    n, most, least = force.shape[0], profile.samples, 2 * profile.columns
    if n < least:
        return np.interp(np.linspace(0.0, n - 1.0, least), np.arange(n), force)
    if n <= most:
        return force
    total = np.concatenate(([0.0], np.cumsum(force)))
    return np.diff(np.interp(np.linspace(0.0, float(n), most + 1), np.arange(n + 1), total)) * (most / n)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.id)
@pytest.mark.parametrize("n", [63, 200, 300, 512, 513, 1000, 2048, 4095, 4096, 4097, 100_003])
def test_resampling_is_interpolation_of_the_running_sum_to_the_bit(n, profile):
    force = np.random.default_rng(n).normal(1e-9, 2e-11, n)
    force[:40] = -0.0
    assert frontend.resample(force, profile).tobytes() == resampled(force, profile).tobytes()


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.id)
def test_a_prepared_curve_is_what_numpy_alone_would_make_of_it(monkeypatch, profile):
    curves = [simulated.curve for simulated in simulate(150, seed=4, prevalence=0.3)]
    quick = prepare(curves, profile)
    for module in (frontend, frontend):
        monkeypatch.setattr(module, "median", lambda values: float(np.median(values)))
        monkeypatch.setattr(module, "resample", resampled)
    monkeypatch.setattr(frontend, "quantile", lambda values, share: float(np.quantile(values, share)))
    for one, other in zip(quick, prepare(curves, profile), strict=True):
        assert (one.signal is None) == (other.signal is None)
        assert one.signal is None or one.signal.tobytes() == other.signal.tobytes()
        known = (one.reasons, one.noise, one.level, one.tilt, one.contact)
        assert known == (other.reasons, other.noise, other.level, other.tilt, other.contact)
