"""The way from a column of the picture back to the samples of the retract: checked with marks put into real signals."""

from __future__ import annotations

import numpy as np
import pytest

from models.curve import Curve
from models.frontend import prepare
from models.network import Place, place_of
from models.raster import RasterProfile, envelope

PROFILE = RasterProfile()


def curve_with(n: int, contact: float, mark: int | None = None, seed: int = 0) -> Curve:
    """Noise after a push that takes ``contact`` of the retract, with one tall sample."""
    force = np.random.default_rng(seed).normal(0.0, 5e-12, n)
    push = int(contact * n)
    force[:push] -= np.linspace(2e-9, 0.0, push)
    if mark is not None:
        force[mark] += 3e-9
    return Curve(force=force, force_unit="N")


@pytest.mark.parametrize("profile", [PROFILE, RasterProfile(columns=128, samples_per_column=4)], ids=lambda p: p.id)
@pytest.mark.parametrize("contact", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("n", [200, 511, 512, 700, 2048, 9973])
def test_a_mark_in_the_curve_is_found_where_the_picture_shows_it(
    n: int, contact: float, profile: RasterProfile
) -> None:
    for share in (0.6, 0.77, 0.9, 0.9999):
        mark = int(share * n)
        curve = curve_with(n, contact, mark)
        prepared = prepare([curve], profile)[0]
        assert prepared.signal is not None
        place = place_of(curve, prepared, profile)
        upper = envelope([prepared.signal], profile)[0, 1]
        found = place.sample_of(int(upper.argmax()))
        assert abs(found - mark) <= max(1.0, 0.51 * place.shown / profile.columns + 0.51 * place.shown / place.signal)


def test_a_long_push_is_left_out_and_the_columns_begin_behind_it() -> None:
    curve = curve_with(4000, 0.5)
    place = place_of(curve, prepare([curve], PROFILE)[0], PROFILE)
    assert place.first + place.shown == 4000
    assert 1700 < place.first < 1850  # a tenth of the columns still shows the push
    assert place.first < place.sample_of(0) < place.first + place.shown / 256
    assert 4000 - place.shown / 256 < place.sample_of(255) < 4000


def test_columns_and_samples_are_the_same_where_nothing_is_averaged() -> None:
    place = Place(first=100, shown=512, signal=512, columns=256)
    assert place.sample_of([0, 1, 255]).tolist() == [100.5, 102.5, 610.5]


def test_what_is_spread_keeps_its_place_and_is_blank_where_the_picture_shows_nothing() -> None:
    place = Place(first=300, shown=2048, signal=512, columns=256)
    values = np.zeros(256)
    values[40] = 1.0
    along = place.spread(values)
    assert along.shape == (2348,)
    assert np.isnan(along[:300]).all()
    assert np.isfinite(along[300:]).all()
    assert abs(int(np.nanargmax(along)) - float(place.sample_of(40))) <= 0.5
    assert np.nanmax(along) > 0.9


def test_a_curve_without_a_picture_has_no_place() -> None:
    curve = Curve(force=np.zeros(30), force_unit="N")
    with pytest.raises(ValueError, match="too_short"):
        place_of(curve, prepare([curve], PROFILE)[0], PROFILE)
