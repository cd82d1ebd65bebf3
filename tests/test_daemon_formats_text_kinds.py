"""Text as programs and people write it: several pulls in a table, tables on their side, and what is no curve at all."""

from __future__ import annotations

import time
from functools import partial

import formathelp
import numpy as np
import pytest
from makers import a_retract
from numpy.typing import NDArray
from pace import allowed

from daemon.formats import NAMES
from daemon.formats.base import NotACurve, Unreadable
from daemon.formats.text import TextReader
from models.curve import Curve

FORCE, DISTANCE = a_retract()
OTHER, _ = a_retract(seed=1)
PN, NM = -FORCE * 1e12, DISTANCE * 1e9  # as files have them: repulsion positive
APPROACH = np.random.default_rng(9).normal(0, 8, FORCE.size)
APPROACH[-25:] += np.linspace(0, 400, 25)
Cells = list[str]


read = partial(formathelp.read, TextReader(), name="x.txt")


def cells(samples: NDArray[np.float64], form: str = "%.6f") -> Cells:
    return [form % sample for sample in samples]


def rows(*columns: Cells, separator: str = ",") -> str:
    return "".join(separator.join(row) + "\n" for row in zip(*columns, strict=True))


def is_the_retract(curve: Curve, force: NDArray[np.float64] = FORCE) -> None:
    np.testing.assert_allclose(curve.force, force, atol=2e-15)
    np.testing.assert_allclose(curve.distance, DISTANCE - DISTANCE[0] + curve.distance[0], atol=2e-12)  # type: ignore[index]


# ---- several pulls


@pytest.mark.parametrize("label", ["cycle", "curve", "file", "sample"])
def test_a_column_that_tells_curves_apart(label: str) -> None:
    names = ["a.ibw", "b.ibw"] if label == "file" else ["1", "2"]
    text = f"{label},z (nm),F (pN)\n"
    for name, force in zip(names, (PN, -OTHER * 1e12), strict=True):
        text += rows([name] * NM.size, cells(NM), cells(force))
    first, second = read(text)
    is_the_retract(first)
    is_the_retract(second, OTHER)


@pytest.mark.parametrize("label", ["peak", "label", "speed"])
def test_a_label_within_a_curve_does_not_cut_it(label: str) -> None:
    marks = [str(at // 100) for at in range(NM.size)]
    (curve,) = read(f"z (nm),F (pN),{label}\n" + rows(cells(NM), cells(PN), marks))
    is_the_retract(curve)


def test_a_retract_in_two_segments_is_one_curve() -> None:
    sides = ["approach"] * NM.size + ["retract 1"] * 200 + ["retract 2"] * (NM.size - 200)
    z, force = np.concatenate([NM[::-1], NM]), np.concatenate([APPROACH, PN])
    (curve,) = read("z (nm),F (pN),segment\n" + rows(cells(z), cells(force), sides))
    is_the_retract(curve)
    assert curve.approach_force is not None


@pytest.mark.parametrize("names", ["t (s),z (nm),F (pN)\n", ""])
def test_a_distance_that_goes_and_returns_again_and_again(names: str) -> None:
    z = np.concatenate([NM[::-1], NM] * 3)
    force = np.concatenate([APPROACH, PN] * 3)
    columns = [cells(z), cells(force)]
    text = names + rows(*([cells(np.arange(z.size) / 1e3)] if names else []), *columns)
    curves = read(text)
    assert len(curves) == 3
    for curve in curves:
        assert abs(len(curve) - FORCE.size) < 0.1 * FORCE.size
        assert curve.force.max() == pytest.approx(FORCE.max() if names else FORCE.max() * 1e12, rel=1e-5)


def test_a_retract_before_its_approach_in_one_column() -> None:
    z, force = np.concatenate([NM, NM[::-1]]), np.concatenate([PN, APPROACH])
    (curve,) = read("z (nm),F (pN)\n" + rows(cells(z), cells(force)))
    assert curve.force.max() == pytest.approx(FORCE.max(), abs=1e-15)
    assert abs(len(curve) - FORCE.size) < 5


def test_two_sides_of_several_curves_beside_each_other() -> None:
    names = ",".join(f"z_app_{at},f_app_{at},z_ret_{at},f_ret_{at}" for at in (1, 2))
    columns = [cells(NM[::-1]), cells(APPROACH), cells(NM), cells(PN)]
    other = [*columns[:3], cells(-OTHER * 1e12)]
    first, second = read(names + "\n" + rows(*columns, *other))
    assert len(first) == len(second) == FORCE.size
    assert not np.array_equal(first.force, second.force)


def test_curves_without_names_below_each_other_are_curves_each() -> None:
    blocks = [rows(cells(NM), cells(force), separator=" ") for force in (PN, -OTHER * 1e12)]
    assert [len(curve) for curve in read("\n\n".join(blocks))] == [FORCE.size] * 2


def test_sides_named_above_numbers_without_names() -> None:
    text = "# approach\n" + rows(cells(NM[::-1]), cells(APPROACH)) + "# retract\n" + rows(cells(NM), cells(PN))
    (curve,) = read(text)
    assert len(curve) == FORCE.size
    assert curve.approach_force is not None


def test_forces_over_one_distance_without_names() -> None:
    text = rows(cells(NM), cells(PN), cells(-OTHER * 1e12), cells(PN + 1))
    assert len(read(text)) == 3


# ---- one curve, oddly written


@pytest.mark.parametrize("remark", ["# stage moved\n", "\n", "Page 2\nz (nm),F (pN)\n", "z (nm),F (pN)\n"])
def test_a_remark_between_rows_that_run_on_cuts_nothing(remark: str) -> None:
    lines = rows(cells(NM), cells(PN)).splitlines(keepends=True)
    (curve,) = read("z (nm),F (pN)\n" + "".join(lines[:200]) + remark + "".join(lines[200:]))
    is_the_retract(curve)


def test_a_remark_behind_a_row_cuts_nothing() -> None:
    remarks = ["event" if at == 200 else "" for at in range(NM.size)]
    (curve,) = read("z (nm),F (pN),comment\n" + rows(cells(NM), cells(PN), remarks))
    is_the_retract(curve)


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_units_in_the_cells(separator: str) -> None:
    text = separator.join(["Distance", "Force"]) + "\n"
    (curve,) = read(text + rows(cells(NM, "%.6f nm"), cells(PN, "%.6f pN"), separator=separator))
    is_the_retract(curve)


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_a_table_on_its_side(separator: str) -> None:
    lines = [["Distance (nm)", *cells(NM)], ["Force (pN)", *cells(PN)]]
    (curve,) = read("".join(separator.join(line) + "\n" for line in lines))
    is_the_retract(curve)


def test_waves_below_each_other() -> None:
    text = ""
    for name, wave in (("ZSnsr", -DISTANCE), ("Defl", -FORCE)):
        text += f"IGOR\nWAVES\t{name}\nBEGIN\n" + "".join(f"\t{x:.9e}\n" for x in wave) + "END\n"
    (curve,) = read(text)
    np.testing.assert_allclose(curve.force, FORCE, rtol=1e-6)


def test_decimal_commas_between_blanks_and_between_commas() -> None:
    for separator in (" ", ","):
        text = f"Abstand[nm]{separator}Kraft[pN]\n" + rows(cells(NM, "%.3f"), cells(PN, "%.3f"), separator="#")
        (curve,) = read(text.replace(".", ",").replace("#", separator))
        np.testing.assert_allclose(curve.force, FORCE, atol=1e-15)


def test_points_that_set_thousands_apart_throughout() -> None:
    def grouped(samples: NDArray[np.float64]) -> Cells:
        return [f"{round(sample):,}".replace(",", ".") for sample in samples]

    (curve,) = read("z (pm);F (pN)\n" + rows(grouped(NM * 1e3), grouped(PN * 1e4), separator=";"))
    assert curve.distance is not None
    assert np.ptp(curve.distance) == pytest.approx(400e-9, rel=1e-6)
    assert len(curve) == FORCE.size


def test_a_few_numbers_missing() -> None:
    force = cells(PN)
    for at, mark in zip((50, 51, 300), ("n.d.", "NaN", "1.#INF"), strict=True):
        force[at] = mark
    (curve,) = read("z (nm),F (pN)\n" + rows(cells(NM), force))
    assert len(curve) == FORCE.size - 3
    assert np.isfinite(curve.force).all()


@pytest.mark.parametrize("above", ['{"k": 0.05}\n', '<curve k="0.05">\n', "0.05\t1000\t1\n", "Parameter: 1\n" * 500])
def test_what_may_stand_above_a_table(above: str) -> None:
    (curve,) = read(above + "z (nm)\tF (pN)\n" + rows(cells(NM), cells(PN), separator="\t"))
    is_the_retract(curve)


def test_the_deflection_error_of_one_vendor_is_the_deflection() -> None:
    names = "Ramp Extend (nm),Ramp Retract (nm),Deflection Error Extend (nm),Deflection Error Retract (nm)\n"
    (curve,) = read(names + rows(cells(NM), cells(NM), cells(APPROACH[::-1]), cells(PN)))
    np.testing.assert_allclose(curve.force, FORCE * 1e3, atol=2e-12)


def test_text_under_the_suffix_of_an_old_spreadsheet() -> None:
    assert NAMES.claim("curve.xls") is None
    assert NAMES.claim("curve.xlsx") is False


# ---- no curves


def picture(size: int = 64) -> str:
    heights = np.cumsum(np.random.default_rng(0).normal(0, 1, (size, size)), axis=0)
    return "".join("\t".join(cells(row)) + "\n" for row in heights)


FREQUENCY = np.linspace(10, 1e5, 400)
NOISE = np.random.default_rng(4).gamma(10, 1, 400)


@pytest.mark.parametrize(
    "text",
    [
        picture(),
        "# Channel: Height\n# Value units: m\n" + picture(),
        "Frequency (Hz)\tPSD (m^2/Hz)\n" + rows(cells(FREQUENCY), cells(NOISE), separator="\t"),
        "Freq,Amplitude\nHz,pm\n" + rows(cells(FREQUENCY), cells(NOISE)),
        "Force (pN),Counts\n" + rows(cells(np.arange(40.0)), cells(NOISE[:40], "%.0f")),
        "".join(f"force-save-{at:04d}.jpk-force {at % 2}\n" for at in range(300)),
        "".join(f"gain{at} = {at * 0.5}\n" for at in range(100)),
        "".join(f"{at % 2}\n" for at in range(300)),
        "Item,Price,Qty\n" + "".join(f"tip {at},{at * 1.5},{at % 5}\n" for at in range(60)),
        "X[nm]\tY[nm]\tZ[nm]\n" + "".join(f"{at % 20}\t{at // 20}\t{np.sin(at):.4f}\n" for at in range(400)),
    ],
)
def test_other_tables_are_no_curves(text: str) -> None:
    with pytest.raises(NotACurve):
        read(text)


def test_columns_without_a_distance_are_one_line_for_a_person() -> None:
    noise = np.random.default_rng(2).normal(0, 1, (200, 20))
    with pytest.raises(Unreadable, match="no_force_channel"):
        read("".join("\t".join(cells(row)) + "\n" for row in noise))


@pytest.mark.parametrize(
    "text", ["1 2\nabc\n" * 50_000, ("x y\n" + "1 2\n" * 10) * 20_000, "1 2\n\0\0\n3 4\n" * 50_000]
)
def test_a_text_of_very_many_tables_is_refused_soon(text: str) -> None:
    started_s = time.monotonic()
    with pytest.raises(Unreadable):
        read(text)
    assert time.monotonic() - started_s < allowed(10.0)
