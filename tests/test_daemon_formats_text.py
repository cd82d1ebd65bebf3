"""Text of every dialect, and what is no curve at all."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import formathelp
import numpy as np
import pytest
from makers import a_retract, make_columns, make_jpk_text

from daemon.formats import open_file
from daemon.formats.base import Unfinished
from daemon.formats.samples import turnaround
from daemon.formats.text import TextReader

DATA = Path(__file__).resolve().parents[1] / "daemon" / "curves"


read = partial(formathelp.read, TextReader(), name="x.txt")
reason = partial(formathelp.reason_of, read)


def test_a_jpk_export() -> None:
    force, distance = a_retract()
    (curve,) = read(make_jpk_text(force, distance))
    np.testing.assert_allclose(curve.force, force, rtol=1e-6)
    assert curve.distance is not None
    assert curve.approach_force is not None
    np.testing.assert_allclose(curve.distance, distance, rtol=1e-6)
    assert (curve.force_unit, curve.spring_constant_n_per_m) == ("N", 0.05)


def test_a_jpk_export_with_fewer_rows_than_promised_is_unfinished() -> None:
    assert reason(make_jpk_text(rows=600)) == "truncated"
    whole = make_jpk_text()
    approach_only = whole[: whole.index(b"# segmentIndex: 1")]
    assert reason(approach_only) == "truncated"


def test_two_columns_with_units() -> None:
    force, distance = a_retract()
    (curve,) = read(make_columns(distance * 1e9, -force * 1e9, header="    nm         \tnN\n"))
    np.testing.assert_allclose(curve.force, force, rtol=1e-6)
    assert curve.distance is not None
    assert curve.notes == ("sign_assumed",)
    np.testing.assert_allclose(curve.distance, distance, rtol=1e-6)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("is_backward", [False, True])
@pytest.mark.parametrize("is_force_first", [False, True])
def test_bare_pairs_are_oriented_by_the_curve_itself(sign: float, is_backward: bool, is_force_first: bool) -> None:
    force, distance = a_retract(peak_pn=80)
    columns = [sign * force, distance] if is_force_first else [distance, sign * force]
    (curve,) = read(make_columns(*(column[::-1] if is_backward else column for column in columns)))
    np.testing.assert_allclose(curve.force, force, rtol=1e-6)
    assert curve.force_unit == "N"
    assert curve.notes == ("sign_assumed", "unit_assumed")


def test_many_pairs_share_one_sign_and_lose_their_padding() -> None:
    traces = [a_retract(400, seed) for seed in range(5)]
    traces[3][0][:20] = 0.0  # one without contact follows the others
    columns = [c for force, distance in traces for c in (force, distance)]
    padded = [np.concatenate([column, np.zeros(30 * (i // 2))])[: 400 + 0] for i, column in enumerate(columns)]
    padded[6][350:] = padded[7][350:] = 0.0
    curves = read(make_columns(*padded))
    assert [len(curve) for curve in curves] == [400, 400, 400, 350, 400]
    for curve, (force, _) in zip(curves, traces, strict=True):
        np.testing.assert_allclose(curve.force, force[: len(curve)], rtol=1e-6, atol=1e-20)


def test_time_separation_and_force_are_cut_at_the_turn() -> None:
    force, distance = a_retract()
    there = np.concatenate([distance[::-1], np.full(100, distance[0]), distance])
    signal = -np.concatenate([force[::-1], np.full(100, force[0]), force])
    time = np.arange(there.size) / 2000.0
    (curve,) = read(make_columns(time, there, signal, header="# made up\n", separator=","))
    assert curve.distance_kind == "separation"
    assert curve.approach_force is not None
    assert 505 <= len(curve) <= 530
    np.testing.assert_allclose(curve.force[-500:], force[-500:], rtol=1e-6)


def test_one_column_is_force_without_unit_and_distance() -> None:
    force, _ = a_retract()
    (curve,) = read(make_columns(-force * 1e12))
    assert (curve.force_unit, curve.distance, curve.notes) == (None, None, ("sign_assumed",))
    np.testing.assert_allclose(curve.force, force * 1e12, rtol=1e-6)


@pytest.mark.parametrize("half", [slice(0, 256), slice(256, 512)])
def test_not_a_number_in_a_lone_pair_stays_in_the_force(half: slice) -> None:
    force, distance = a_retract()
    force[half] = np.nan
    (curve,) = read(make_columns(distance, force))
    assert int(np.isnan(curve.force).sum()) == 256
    assert curve.distance is not None
    assert np.isfinite(curve.distance).all()


def test_without_a_contact_part_the_sign_is_assumed_and_said() -> None:
    noise = np.random.default_rng(5).normal(0, 1.0, 600)
    (curve,) = read(make_columns(noise))
    assert "sign_assumed" in curve.notes
    np.testing.assert_allclose(curve.force, -noise, rtol=1e-6)


def test_decimal_commas_and_semicolons() -> None:
    force, distance = a_retract()
    rows = make_columns(distance * 1e9, -force * 1e9, header="nm\tnN\n").replace(b".", b",")
    (curve,) = read(rows)
    np.testing.assert_allclose(curve.force, force, rtol=1e-6)
    (other,) = read(make_columns(distance * 1e9, -force * 1e9, header="nm;nN\n", separator=";"))
    np.testing.assert_allclose(other.force, force, rtol=1e-6)


def test_text_must_end_in_a_newline_and_have_even_rows() -> None:
    content = make_columns(*a_retract())
    assert reason(content[:-1]) == "unended"
    assert reason(content[: len(content) // 2]) == "truncated"
    assert reason(content + b"1.0\t2.0\t3.0\n" * 9 + content) == "unreadable"


@pytest.mark.parametrize("footer", [b"1.0\n", b"1.0\tword\n", b"\n\nend of data\n"])
def test_what_stands_below_the_rows_is_no_row(footer: bytes) -> None:
    content = make_columns(*a_retract())
    (curve,), (whole,) = read(content + footer), read(content)
    np.testing.assert_array_equal(curve.force, whole.force)


def test_text_without_a_line_end_is_read_in_the_end_without_its_last_row() -> None:
    """Many scripts join rows with line ends; but the last number may have been cut, so it is not used."""
    force, distance = a_retract()
    content = make_columns(distance * 1e9, force * 1e9, header="nm\tnN\n")
    (whole,) = read(content)
    for unended in (content[:-1], content[:-1] + b" ", content + b"# the end", content + b"9.99e+02"):
        assert reason(unended) in ("unended", "truncated")
    (curve,) = read(content[:-1], is_final=True)
    np.testing.assert_array_equal(curve.force, whole.force[:-1])
    (footed,) = read(content + b"# the end", is_final=True)
    np.testing.assert_array_equal(footed.force, whole.force)


@pytest.mark.parametrize("cut", [2, 3, 5, 9, 14, 15, 16, 20, 26])
@pytest.mark.parametrize("separator", ["\t", ";", ", "])
def test_text_that_was_broken_off_within_a_row_is_never_a_whole_curve(cut: int, separator: str) -> None:
    """A copy that was interrupted lacks the end of the curve, and perhaps its event."""
    force, distance = a_retract()
    content = make_columns(distance * 1e9, force * 1e9, header="nm\tnN\n", separator=separator)
    for is_final in (False, True):
        with pytest.raises(Unfinished, match="truncated"):
            read(content[:-cut], is_final=is_final)


def test_numbers_of_any_length_may_end_without_a_line_end() -> None:
    force, distance = a_retract()
    rows = [f"{x * 1e9:g}\t{y * 1e9:g}" for x, y in zip(distance, force, strict=True)]
    content = ("nm\tnN\n" + "\n".join(rows)).encode()
    (curve,) = read(content, is_final=True)
    assert len(curve) == len(force) - 1
    with pytest.raises(Unfinished, match="truncated"):
        read(content[: content.rindex(b"\t") + 2], is_final=True)


def test_a_promise_of_rows_is_kept_by_one_that_lacks_its_end() -> None:
    content = make_jpk_text(*a_retract())
    (whole,) = read(content)
    (curve,) = read(content[:-1], is_final=True)
    assert len(curve) == len(whole)
    np.testing.assert_array_equal(curve.force[:-1], whole.force[:-1])
    assert curve.force[-1] == curve.force[-2]  # not the number that may be cut
    lines = content.splitlines(keepends=True)
    with pytest.raises(Unfinished, match="truncated"):
        read(b"".join(lines[:-2]).rstrip(), is_final=True)


def test_an_end_of_zeros_is_noticed() -> None:
    force, distance = a_retract()
    force[-70:] = 0.0
    assert reason(make_columns(distance * 1e9, force * 1e9, header="nm\tnN\n")) == "zero_tail"


@pytest.mark.parametrize(
    "text",
    [
        "Notes of the day\n\nThe cantilever was bad:\n0.02\nthen\n0.03\nN/m\n",
        "path,curve_index,label\na.txt,0,keep\nb.txt,0,discard\n",
        "2026-11-21 03:12:11 INFO started\n2026-11-21 03:12:12 INFO stopped\n",
        '{"a": 1,\n "b": 2}\n',
        "1.5\n",
        "",
    ],
)
def test_what_nobody_can_make_numbers_of_is_nobodys(text: str) -> None:
    assert not TextReader().claims("x.txt", text.encode())


def test_damaged_numbers_are_claimed_and_unreadable() -> None:
    content = bytearray(make_columns(a_retract()[0] * 1e12))
    rng = np.random.default_rng(1)
    content[200:240] = rng.bytes(40)
    assert reason(bytes(content)) == "unreadable"
    assert reason(bytes(content[:4000]) + bytes(len(content) - 4000)) == "zero_tail"


def test_a_number_that_looks_like_many_costs_no_time() -> None:
    """Commas may separate or be decimal: a search that tried both ways for each would never end."""
    assert not TextReader().claims("x.csv", b"1," * 30_000 + b"x\n" + b"1," * 20_000 + b"y\n")


def test_turnaround_finds_dwell_and_refuses_one_way_ramps() -> None:
    ramp = np.linspace(0, 1, 300)
    noise = np.random.default_rng(0).normal(0, 0.002, 700)
    position = np.concatenate([ramp, np.ones(100), ramp[::-1]]) + noise
    found = turnaround(position)
    assert found is not None
    assert abs(found[0] - 300) < 8
    assert abs(found[1] - 400) < 8
    assert turnaround(np.concatenate([ramp, ramp[::-1]])) is not None
    assert turnaround(ramp) is None
    assert turnaround(np.zeros(300)) is None


@pytest.mark.parametrize(
    ("name", "points", "unit"),
    [
        ("bruker_nanoscope_export_multicolumn.txt", 512, "N"),
        ("bruker_retract_two_column.txt", 512, "N"),
        ("fmt-afm-workshop-fd_single_2021-10-22_14.16.csv", 1217, "N"),
        ("fmt-ntmdt-txt-fd_2015_01_17_gel4-0_1_mQ_adh_6B_Curve_DFL_Height_51.txt", 822, None),
    ],
)
def test_real_files_start_in_contact_and_end_away(name: str, points: int, unit: str | None) -> None:
    (curve,) = open_file(DATA / name)
    assert (len(curve), curve.force_unit) == (points, unit)
    assert curve.force[0] < np.median(curve.force)
    assert curve.distance is not None
    assert curve.distance[-1] > curve.distance[0]


def test_an_export_and_its_two_columns_are_the_same_curve() -> None:
    (export,), (columns,) = (
        open_file(DATA / name) for name in ("bruker_nanoscope_export_multicolumn.txt", "bruker_retract_two_column.txt")
    )
    np.testing.assert_allclose(export.force, columns.force, rtol=1e-6)
    assert export.distance is not None
    assert columns.distance is not None
    np.testing.assert_allclose(export.distance, columns.distance, rtol=1e-6)
