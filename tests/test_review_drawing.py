"""The drawing: real units where the file knows them, said where it does not, and marks that lie on the curve."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest

from daemon.formats import open_file
from daemon.review.drawing import MOST_POINTS, draw, packed
from models.curve import Curve

CURVES = Path(__file__).resolve().parents[1] / "daemon" / "curves"


def retract(count: int = 2000, push_pn: float = 300.0, peak_pn: float = 150.0) -> np.ndarray:
    """A push, one stretched molecule that breaks at 60 %, noise of 2 pN; in pN."""
    force = np.random.default_rng(3).normal(0, 2, count)
    push, end = count // 20, int(0.6 * count)
    force[:push] -= np.linspace(push_pn, 0, push)
    force[end - count // 10 : end] += peak_pn * np.linspace(0, 1, count // 10) ** 2
    return force


def test_the_five_peaks_of_a_published_pull_are_marked_on_the_curve() -> None:
    drawn = draw(open_file(CURVES / "force-save-0441.jpk-force")[0])
    assert (drawn.force_unit, drawn.distance_unit, drawn.distance_kind, drawn.contact) == ("pN", "nm", "separation", 0)
    assert len(drawn.ruptures) == 5
    last = drawn.ruptures[-1]
    assert (last.force, last.drop) == (pytest.approx(288, abs=8), pytest.approx(284, abs=8))
    for one in drawn.ruptures:
        (at,) = np.flatnonzero(drawn.x == one.x)
        assert drawn.y[at] == pytest.approx(one.force, abs=30)  # a sample with its noise, and a tilted baseline
        assert drawn.y[at + 1 : at + 20].mean() < drawn.y[at] - 0.5 * one.drop  # and it falls from there
    assert drawn.approach is not None
    assert drawn.approach[0][0] == pytest.approx(drawn.x[-1], abs=20)
    assert abs(drawn.approach[1][: len(drawn.approach[1]) // 4].mean()) < 10


@pytest.mark.parametrize("way", [1.0, -1.0])
def test_the_step_of_the_second_opinion_is_marked_just_before_it(way: float) -> None:
    """Turned upside down the same step is seen, as a rise."""
    force = retract()
    force[100:] *= way
    drawn = draw(Curve(force * 1e-12, "N", np.linspace(0, 1e-6, 2000), "separation", spring_constant_n_per_m=0.05))
    assert drawn.step is not None
    (at,) = np.flatnonzero(drawn.x == drawn.step.x)
    assert drawn.y[at] == drawn.step.force == pytest.approx(way * 150, abs=25)
    assert drawn.step.rise == pytest.approx(-way * 150, rel=0.25)
    assert way * (drawn.y[at] - drawn.y[at + 4 : at + 24].mean()) > 100
    words = drawn.step.words("pN", "nm")
    assert ("the force fall by" in words) == (way > 0)
    assert ("a rupture if the sign is wrong" in words) == (way < 0)


@pytest.mark.parametrize(
    ("unit", "more", "force_unit", "kind", "peak"),
    [
        ("N", {"spring_constant_n_per_m": 0.05}, "pN", "separation", 150),
        ("N", {}, "pN", "piezo", 150),
        ("m", {"spring_constant_n_per_m": 0.05}, "pN", "separation", 150),
        ("m", {}, "nm", "separation", 3),
        ("V", {"spring_constant_n_per_m": 0.05, "sensitivity_m_per_v": 30e-9}, "pN", "separation", 150),
        ("V", {"sensitivity_m_per_v": 30e-9}, "nm", "separation", 3),
        ("V", {"spring_constant_n_per_m": 0.05}, "mV", "piezo", 100),
        (None, {}, "", "piezo", 150e-12),
    ],
)
def test_the_units_are_the_best_that_the_file_knows(
    unit: str | None, more: dict[str, float], force_unit: str, kind: str, peak: float
) -> None:
    newton = {"N": 1.0, "m": 0.05, "V": 0.05 * 30e-9, None: 1.0}[unit]
    travel = np.linspace(0, 1e-6, 2000)
    curve = Curve(retract() * 1e-12 / newton, unit, travel, "piezo", **more)  # type: ignore[arg-type]
    drawn = draw(curve)
    assert (drawn.force_unit, drawn.distance_kind) == (force_unit, kind)
    assert [one.force for one in drawn.ruptures] == [pytest.approx(peak, rel=0.06)]
    pulled_back_nm = 150e-12 / 0.05 * 1e9 if kind == "separation" else 0.0
    assert drawn.ruptures[0].x == pytest.approx(
        550 - pulled_back_nm, abs=12
    )  # 600 nm of travel; the push ends at 50, and in doubt early


def test_a_baseline_is_drawn_tilted_where_it_is() -> None:
    def line(force: np.ndarray) -> list[float]:
        drawn = draw(Curve(force * 1e-12, "N", np.linspace(0, 1e-6, len(force)), "separation"))
        assert drawn.baseline is not None
        assert drawn.baseline.level == 0
        return [y for _, y in drawn.baseline.line]

    assert line(retract()) == [0, 0]
    assert line(retract() + np.linspace(0, 120, 2000)) == [pytest.approx(-120, rel=0.1), 0]
    assert line(retract() - np.linspace(0, 120, 2000)) == [pytest.approx(120, rel=0.1), 0]
    wavy = open_file(CURVES / "force-save-0578.jpk-force")[0]  # its far end is level, with a slow wave on it
    assert line(wavy.force * 1e12) == [0, 0]


def test_a_line_above_the_curve_is_no_baseline() -> None:
    """A cell that lets go late: its far half falls all the way, and nearer to the contact nothing is as high."""
    n, rng = 2000, np.random.default_rng(3)
    late = np.interp(np.arange(n), [0, 40, 900, 1400, n - 1], [-40, 0, 60, 220, 0]) + rng.normal(0, 8, n)
    drawn = draw(Curve(late * 1e-12, "N", np.linspace(0, 1e-6, n), "separation"))
    assert drawn.baseline is None
    assert drawn.y[-1] == pytest.approx(0, abs=40), "force is counted from the far end all the same"


def test_a_file_without_distance_is_drawn_over_shares_of_its_retract() -> None:
    drawn = draw(Curve(retract() * 1e-12, "N", approach_force=-retract()[::-1] * 1e-12))
    assert (drawn.distance_unit, drawn.distance_kind, drawn.x[0], drawn.x[-1]) == ("%", "share", 0, 100)
    assert drawn.approach is not None
    assert (drawn.approach[0][0], drawn.approach[0][-1]) == (100, 0)


@pytest.mark.parametrize("broken", [np.full(500, 3e-9), np.arange(5.0), np.full(500, np.nan), np.full(900, 1e300)])
def test_what_has_no_score_is_drawn_too(broken: np.ndarray) -> None:
    drawn = draw(Curve(broken, "N", np.linspace(0, 1e-6, len(broken)), "separation"))
    assert len(drawn.x) == len(drawn.y) == len(broken)
    assert (drawn.baseline, drawn.ruptures) == (None, ())
    drawn.plain()


def test_a_long_curve_keeps_its_peaks_and_its_marks() -> None:
    drawn = draw(Curve(retract(200_000) * 1e-12, "N", np.linspace(0, 1e-6, 200_000), "separation"))
    assert len(drawn.x) <= MOST_POINTS + len(drawn.ruptures) + 2
    assert drawn.y.max() == pytest.approx((retract(200_000)).max(), abs=1)
    assert {one.x for one in drawn.ruptures} <= set(drawn.x)
    (one,) = drawn.ruptures
    assert one.drop == pytest.approx(150, rel=0.06)


def test_numbers_travel_in_single_precision() -> None:
    sent = np.frombuffer(base64.b64decode(packed(np.array([1.5, np.nan, 1e300]))), "<f4")
    assert sent[0] == 1.5
    assert not np.isfinite(sent[1:]).any()
