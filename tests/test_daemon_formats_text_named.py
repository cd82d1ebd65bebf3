"""Named columns decide: which is the force, which side is the retract, and when a name is not believed."""

from __future__ import annotations

import gzip
from pathlib import Path

import formathelp
import numpy as np
import pytest
from makers import a_retract, make_columns
from numpy.typing import NDArray

from daemon.formats.base import NotACurve, Unreadable
from daemon.formats.text import TextReader
from daemon.formats.text_rule import from_mapping
from models.curve import Curve

FORCE, DISTANCE = a_retract()
RAW, APPROACH = -FORCE, np.random.default_rng(9).normal(0, 8e-12, FORCE.size)
APPROACH[-20:] += np.linspace(0, 0.4e-9, 20)
TIME = np.arange(FORCE.size) / 2000.0
SPARE = np.random.default_rng(8).normal(20, 0.1, FORCE.size)


def read(content: bytes, name: str = "x.txt", **rule: object) -> list[Curve]:
    reader = TextReader(from_mapping({"pattern": "*", **rule})) if rule else TextReader()
    return formathelp.read(reader, content, name=name)


def table(names: str, *columns: NDArray[np.float64], separator: str = "\t") -> bytes:
    return make_columns(*columns, header=names + "\n", separator=separator)


def is_the_retract(curve: Curve, **tolerance: float) -> None:
    np.testing.assert_allclose(curve.force, FORCE, rtol=1e-6, **tolerance)
    assert "columns_assumed" not in curve.notes


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        ("Time (s)\tZ (m)\tDeflection (m)\tForce (N)", (TIME, DISTANCE, RAW / 0.05, RAW)),
        ("Force (N)\tTime (s)\tDistance (m)", (RAW, TIME, DISTANCE)),
        ("Height (m)\tVertical deflection (N)\tLateral deflection (N)", (DISTANCE, RAW, SPARE)),
        ("Z(m)\tF_avg(N)\tF_std(N)", (DISTANCE, RAW, np.abs(SPARE))),
        ("Weg [m]\tKraft [N]\tTemperatur [°C]", (DISTANCE, RAW, SPARE)),
        ("距离(m)\t力(N)\t温度", (DISTANCE, RAW, SPARE)),
        ("変位(m)\t荷重(N)\t摩擦力(N)", (DISTANCE, RAW, SPARE)),
        ("Raw\tDefl\tZSnsr", (-DISTANCE * 1.1, RAW, -DISTANCE)),
        ("\tHauteur (m)\tForce (N)", (np.arange(FORCE.size, dtype=float), DISTANCE, RAW)),
        ("Расстояние (m)\tСила (N)\tВремя (s)", (DISTANCE, RAW, TIME)),
    ],
)
def test_names_beat_order(names: str, columns: tuple[NDArray[np.float64], ...]) -> None:
    content = make_columns(*columns, header="")
    (curve,) = read((names + "\n").encode() + content)
    is_the_retract(curve)
    assert "sign_assumed" in curve.notes


@pytest.mark.parametrize(
    "names",
    [
        "Approach Z (m)\tApproach Force (N)\tRetract Z (m)\tRetract Force (N)",
        "Z_ex_m\tDefl_N_Ex\tZ_rt_m\tDefl_N_Rt",
        "Z_ext (m)\tF_ext (N)\tZ_ret (m)\tF_ret (N)",
        "Approach\t\tRetract\t\nZ (m)\tF (N)\tZ (m)\tF (N)",
        "Hinweg: Weg [m]\tHinweg: Kraft [N]\tRückweg: Weg [m]\tRückweg: Kraft [N]",
        "进针高度(m)\t进针力(N)\t退针高度(m)\t退针力(N)",
    ],
)
def test_two_sides_beside_each_other_are_one_curve(names: str) -> None:
    (curve,) = read(names.encode() + b"\n" + make_columns(DISTANCE[::-1], APPROACH, DISTANCE, RAW))
    is_the_retract(curve)
    assert curve.approach_force is not None
    np.testing.assert_allclose(curve.approach_force, -APPROACH, rtol=1e-6)


def test_sides_in_another_order_and_one_shorter() -> None:
    columns = (RAW, DISTANCE, np.append(APPROACH[:400], np.full(112, np.nan)), DISTANCE[::-1])
    content = make_columns(*columns, header="Retract F (N)\tRetract Z (m)\tApproach F (N)\tApproach Z (m)\n")
    (curve,) = read(content.replace(b"nan", b""))
    is_the_retract(curve)
    assert curve.approach_force is not None
    assert curve.approach_force.size == 400


def test_a_distance_that_both_sides_share() -> None:
    names = "Z (m)\tApproach (N)\tRetract (N)"
    for order in (slice(None), slice(None, None, -1)):
        (curve,) = read(table(names, DISTANCE[order], APPROACH[::-1][order], RAW[order]))
        is_the_retract(curve)
        assert curve.approach_force is not None
        np.testing.assert_allclose(curve.approach_force, -APPROACH, rtol=1e-6)


@pytest.mark.parametrize("words", [("approach", "retract"), ("进针", "退针"), ("0", "1"), ("a", "b")])
def test_a_column_of_segments(words: tuple[str, str]) -> None:
    rows = [f"{z:.7e},{f:.7e},{words[0]}" for z, f in zip(DISTANCE[::-1], APPROACH, strict=True)]
    rows += [f"{z:.7e},{f:.7e},{words[1]}" for z, f in zip(DISTANCE, RAW, strict=True)]
    (curve,) = read(("Height (m),Force (N),Segment\n" + "\n".join(rows) + "\n").encode())
    is_the_retract(curve)
    assert curve.approach_force is not None


@pytest.mark.parametrize(
    "headings", [("Approach\n", "Retract\n"), ("", "\n"), ("[Segment: extend]\n", "[Segment: retract]\n")]
)
def test_sides_below_each_other(headings: tuple[str, str]) -> None:
    blocks = [make_columns(DISTANCE[::-1], APPROACH, header="m\tN\n"), make_columns(DISTANCE, RAW, header="m\tN\n")]
    (curve,) = read(headings[0].encode() + blocks[0] + headings[1].encode() + blocks[1])
    is_the_retract(curve)
    assert curve.approach_force is not None


def test_a_lone_approach_is_no_retract() -> None:
    with pytest.raises(Unreadable) as caught:
        read(table("Approach Z (m)\tApproach F (N)", DISTANCE[::-1], APPROACH))
    assert caught.value.reason == "no_retract"


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        ("Force (N)\tDistance (m)", (DISTANCE, RAW)),  # the names are changed
        ("Distance (m)\tForce 1 (N)\tForce 2 (N)", (DISTANCE, RAW, SPARE)),  # two forces
        ("Distance (m)\tForce (N)\tLoad (N)", (DISTANCE, RAW, SPARE)),
        ("Distance (km)\tForce (m)", (DISTANCE, RAW)),  # the unit is none of a force
        ("Mesafe\tKuvvet", (DISTANCE, RAW)),  # a language nobody foresaw
        ("Distance (m)\tForce (N)", (DISTANCE * 1e10, RAW)),  # a ramp of a kilometre
        ("a\tb\tc\td", (DISTANCE, RAW, TIME, SPARE)),
    ],
)
def test_what_is_doubtful_is_never_discarded(names: str, columns: tuple[NDArray[np.float64], ...]) -> None:
    assert all("columns_assumed" in curve.notes for curve in read(table(names, *columns)))


def test_numbers_without_names_are_assumed_from_three_columns_on() -> None:
    (pair,) = read(make_columns(DISTANCE, RAW))
    assert "columns_assumed" not in pair.notes
    (three,) = read(make_columns(TIME, DISTANCE, RAW))
    assert "columns_assumed" in three.notes
    (alike,) = read(make_columns(DISTANCE, DISTANCE * 2e-3))
    assert "columns_assumed" in alike.notes


def test_spare_columns_never_become_curves() -> None:
    names = "Index\tTime (s)\tZ (m)\tForce (N)\tF_std (N)\tAmplitude\tX"
    (curve,) = read(table(names, np.arange(FORCE.size, dtype=float), TIME, DISTANCE, RAW, SPARE, SPARE, SPARE))
    is_the_retract(curve)


def test_curves_beside_each_other_by_number_are_curves_each() -> None:
    columns = [c for seed in range(3) for c in (DISTANCE, -a_retract(seed=seed)[0])]
    names = "\t".join(f"Z{i} (m)\tF{i} (N)" for i in range(3))
    curves = read(table(names, *columns))
    assert len(curves) == 3
    assert all("columns_assumed" not in curve.notes for curve in curves)


@pytest.mark.parametrize("names", ["Time (s)\tTemperature (°C)", "file\trupture length", "时间(s)\t温度\t湿度"])
def test_a_table_of_something_else_is_no_curve(names: str) -> None:
    count = names.count("\t") + 1
    with pytest.raises(NotACurve) as caught:
        read((names + "\n").encode() + make_columns(*[TIME, SPARE, SPARE][:count]))
    assert caught.value.reason == "table"


def test_wsxm() -> None:
    header = "WSxM file copyright UAM\nFZ curve file\n\n[General Info]\n    Number of lines: 2\n    X axis unit: m\n"
    header += "    Y axis unit: N\n[Header end]\n"
    (curve,) = read(make_columns(DISTANCE[::-1], APPROACH, DISTANCE, RAW, header=header, separator=" "), "x.curves")
    is_the_retract(curve)


def test_a_spring_constant_with_its_unit_is_taken() -> None:
    (curve,) = read(b"k (N/m)\t0.019\n\n" + table("Z (m)\tDeflection (m)", DISTANCE, RAW / 0.019))
    is_the_retract(curve)
    assert (curve.force_unit, curve.spring_constant_n_per_m) == ("N", 0.019)


def test_gzip_of_a_text() -> None:
    (curve,) = read(gzip.compress(table("Z (m)\tForce (N)", DISTANCE, RAW)), "x.csv.gz")
    is_the_retract(curve)


# ---- what the laboratory says


def test_a_rule_settles_sign_columns_and_units() -> None:
    content = make_columns(TIME, DISTANCE * 1e9, FORCE * 1e12)
    rule = {"columns": ["time", "distance", "force"], "force_unit": "pN", "distance_unit": "nm"}
    (curve,) = read(content, **rule, pulling="positive")
    is_the_retract(curve)
    assert curve.notes == ("text_rule",)
    assert curve.force_unit == "N"
    (turned,) = read(content, **rule, pulling="negative")
    np.testing.assert_allclose(turned.force, -FORCE, rtol=1e-6)
    (still_open,) = read(content, **rule)
    assert still_open.notes == ("sign_assumed", "text_rule")


def test_a_rule_may_pass_over_a_spare_column() -> None:
    content = make_columns(DISTANCE * 0.5, DISTANCE * 1e9, FORCE * 1e12, separator=",")
    rule = {"columns": ["-", "distance", "force"], "force_unit": "pN", "distance_unit": "nm", "pulling": "positive"}
    (curve,) = read(content, **rule)
    is_the_retract(curve)
    assert curve.notes == ("text_rule",)


def test_a_rule_that_names_columns_leaves_the_units_to_the_file() -> None:
    (curve,) = read(table("A (nm)\tB (pN)", DISTANCE * 1e9, FORCE * 1e12), columns=["distance", "force"])
    assert (curve.force_unit, curve.notes) == ("N", ("sign_assumed", "text_rule"))
    is_the_retract(curve)
    (doubtful,) = read(table("A (nm)\tB (pN)", DISTANCE * 1e9, FORCE * 1e12), columns=["force", "distance"])
    assert "columns_assumed" in doubtful.notes


def test_a_rule_for_the_unit_of_the_force_alone() -> None:
    (curve,) = read(make_columns(DISTANCE * 1e9, FORCE * 1e12), pulling="positive", force_unit="pN")
    assert (curve.force_unit, curve.notes) == ("N", ("unit_assumed", "text_rule"))
    is_the_retract(curve)


@pytest.mark.parametrize("names", [["distance", "force"], ["force"], ["time", "-", "distance", "force"]])
def test_a_rule_for_another_number_of_columns_is_doubtful(names: list[str]) -> None:
    wide = (FORCE * 1e12,) if len(names) == 2 else (DISTANCE * 1e9, FORCE * 1e12)
    (curve,) = read(make_columns(*wide), columns=names)
    assert "columns_assumed" in curve.notes


def test_a_rule_for_one_column() -> None:
    (curve,) = read(make_columns(FORCE * 1e12), pulling="positive", force_unit="pN")
    assert (curve.force_unit, curve.notes) == ("N", ("text_rule",))
    np.testing.assert_allclose(curve.force, FORCE, rtol=1e-6)


def test_a_rule_that_does_not_fit_the_table_is_doubtful() -> None:
    (curve,) = read(table("Z (m)\tForce (N)", DISTANCE, RAW), columns=["time", "distance", "force"])
    assert "columns_assumed" in curve.notes


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({}, "settles nothing"),
        ({"pulling": "up"}, "positive"),
        ({"force_unit": "furlong"}, "no unit"),
        ({"distance_unit": "pN"}, "no unit"),
        ({"columns": ["distance", "time"]}, "no force"),
        ({"columns": ["distance", "forse"]}, "no force"),
        ({"columns": ["force", "blub"]}, "means nothing"),
        ({"columns": "force"}, "list"),
        ({"collumns": ["force"]}, "no key"),
        ({"pattern": 5}, "pattern"),
    ],
)
def test_a_rule_with_an_error_says_what_to_write(rule: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        from_mapping({"pattern": "*.csv", **rule})


def test_every_error_of_a_rule_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="positive") as caught:
        from_mapping({"pattern": "*", "pulling": "up", "force_unit": "furlong", "columns": ["force", "a1", "b2"]})
    assert len(caught.value.args) == 4


def test_a_rule_holds_for_the_paths_that_match_it() -> None:
    rule = from_mapping({"pattern": "exports/*.CSV", "pulling": "positive"})
    assert rule.matches(Path("/data/exports/a.csv"))
    assert not rule.matches(Path("/data/other/a.csv"))
    assert not rule.matches(Path("/data/more-exports/a.csv"))
    assert not from_mapping({"pattern": "/exports/*.csv", "pulling": "positive"}).matches(Path("/data/exports/a.csv"))
    assert from_mapping({"pattern": "*.csv", "pulling": "positive"}).matches(Path("/deep/down/A.csv"))


def test_a_rule_holds_from_whatever_folder_a_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = from_mapping({"pattern": "exports/*.csv", "pulling": "positive"})
    (tmp_path / "exports").mkdir()
    monkeypatch.chdir(tmp_path / "exports")
    assert rule.matches(Path("a.csv"))
