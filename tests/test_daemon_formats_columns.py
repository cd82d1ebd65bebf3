"""What the name of a column says, in the languages that exports are written in."""

from __future__ import annotations

import pytest

from daemon.formats.columns import column, columns, side_of, unit_of


@pytest.mark.parametrize(
    ("name", "quantity", "dimension", "side"),
    [
        ("Force (pN)", "force", "N", None),
        ("F_avg(N)", "force", "N", None),
        ("F_std(N)", "spread", "N", None),
        ("Kraft [nN]", "force", "N", None),
        ("力 (pN)", "force", "N", None),
        ("荷重/nN", "force", "N", None),
        ("Fuerza_pN", "force", "N", None),
        ("vDeflection", "deflection", None, None),
        ("hDeflection", "lateral", None, None),
        ("Vertical deflection (pN)", "force", "N", None),
        ("Lateral deflection (pN)", "lateral", "N", None),
        ("垂直偏转(nN)", "force", "N", None),
        ("横向偏转 (V)", "lateral", "V", None),
        ("Déflexion (V)", "deflection", "V", None),
        ("Auslenkung [nm]", "deflection", "m", None),
        ("T-B (V)", "deflection", "V", None),
        ("ZSnsr", "distance", None, None),
        ("Raw", "distance", None, None),
        ("Raw deflection (V)", "deflection", "V", None),
        ("Force sensor", "force", None, None),
        ("Height (measured & smoothed)", "distance", None, None),
        ("Abstand (µm)", "distance", "m", None),
        ("Hauteur (nm)", "distance", "m", None),
        ("距离 (nm)", "distance", "m", None),
        ("Tip-sample separation (m)", "distance", "m", None),
        ("ext (nm)", "distance", "m", None),
        ("Calc_Ramp_Ex_nm", "distance", "m", "approach"),
        ("Defl_pN_Rt", "force", "N", "retract"),
        ("Retract Z-Sense(nm)", "distance", "m", "retract"),
        ("Rückzug Kraft (pN)", "force", "N", "retract"),
        ("回退力", "force", None, "retract"),
        ("アプローチ 変位(nm)", "distance", "m", "approach"),
        ("Time (s)", "time", "s", None),
        ("Zeit", "time", None, None),
        ("時間", "time", None, None),
        ("Unnamed: 0", "index", None, None),
        ("No.", "index", None, None),
        ("n", "index", None, None),
        ("N", "force", "N", None),
        ("Segment", "segment", None, None),
        ("Temperature (°C)", "other", "?", None),
        ("k (N/m)", "other", "?", None),
        ("filename", "file", None, None),
        ("nm", "distance", "m", None),
        ("Kuvvet", None, None, None),
        ("Сила", None, None, None),
    ],
)
def test_a_name_says_quantity_unit_and_side(name: str, quantity: str | None, dimension: str | None, side: str) -> None:
    found = column(name, is_sided=side is not None)
    assert (found.quantity, found.unit.dimension if found.unit else None, found.side) == (quantity, dimension, side)


def test_a_unit_in_a_line_of_its_own_counts() -> None:
    force, distance = columns(["Kraft", "Weg"], ["[pN]", "nm"])
    assert force.unit is not None
    assert distance.unit is not None
    assert (force.unit.factor, distance.unit.factor) == (1e-12, 1e-9)


def test_ext_is_a_side_only_beside_a_retract() -> None:
    assert [one.side for one in columns(["Z_ext", "F_ext", "Z_ret", "F_ret"])] == ["approach"] * 2 + ["retract"] * 2
    assert columns(["ext", "F"])[0].quantity == "distance"
    assert [one.side for one in columns(["Trace 1", "Trace 2"])] == [None, None]
    assert [one.side for one in columns(["Trace", "Retrace"])] == ["approach", "retract"]


@pytest.mark.parametrize("name", ["Force (nm)", "Distance (pN)", "Deflection (s)", "Z (V/s)", "Force (°C)"])
def test_a_unit_that_the_quantity_cannot_have_is_a_contradiction(name: str) -> None:
    found = column(name)
    assert found.is_contradictory or found.quantity in ("other", "deflection", None)


def test_the_measured_position_comes_before_the_calculated_and_the_smoothed() -> None:
    names = ["Calc_Ramp", "Height", "Height (measured & smoothed)", "Height (measured)", "Indentation"]
    ranked = sorted(names, key=lambda name: column(name).rank)
    assert ranked == ["Height (measured)", "Height (measured & smoothed)", "Height", "Calc_Ramp", "Indentation"]


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("Approach", "approach"),
        ("# direction: retrace", "retract"),
        ("Retour", "retract"),
        ("Approach and retract", None),
    ],
)
def test_a_short_line_names_one_side_or_none(text: str, side: str | None) -> None:
    assert side_of(text) == side


@pytest.mark.parametrize(
    ("text", "factor"), [("(pN)", 1e-12), ("µm", 1e-6), ("μm", 1e-6), ("in nN", 1e-9), ("PN", 1e-12)]
)
def test_units(text: str, factor: float) -> None:
    found = unit_of(text)
    assert found is not None
    assert found.factor == factor
    assert unit_of("n") is None
