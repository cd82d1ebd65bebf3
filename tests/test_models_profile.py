import json
from dataclasses import replace

import pytest

from models.raster import RasterProfile


def test_json_round_trip_is_exact():
    profile = RasterProfile(name="pn", scale="pn", softness=20.0, columns=256)
    assert RasterProfile.from_mapping(json.loads(profile.to_json())) == profile


def test_every_number_changes_the_id():
    profile = RasterProfile()
    ids = {profile.id}
    for name in ("columns", "rows", "samples_per_column", "lead", "softness", "lowest", "highest", "thickness"):
        value = getattr(profile, name)
        ids.add(replace(profile, **{name: value / 2 if isinstance(value, float) else value + 1}).id)
    assert len(ids) == 9
    assert profile.id.startswith("sigma-v")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("columns", "128"),
        ("columns", 0),
        ("columns", 1e9),
        ("columns", True),
        ("softness", float("nan")),
        ("softness", 0.0),
        ("lead", 1.0),
        ("highest", -100.0),
        ("scale", "volts"),
        ("scale", 3),
    ],
)
def test_nonsense_is_refused(name, value):
    values = json.loads(RasterProfile().to_json())
    with pytest.raises(ValueError, match="raster profile"):
        RasterProfile.from_mapping({**values, name: value})


def test_keys_must_be_exactly_those_of_this_version():
    values = json.loads(RasterProfile().to_json())
    with pytest.raises(ValueError, match="surprise"):
        RasterProfile.from_mapping({**values, "surprise": 1})
    del values["rows"]
    with pytest.raises(ValueError, match="rows"):
        RasterProfile.from_mapping(values)
