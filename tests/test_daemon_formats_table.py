"""How a table is written is found by its rows."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from daemon.formats import text_layout
from daemon.formats.base import Unfinished, Unreadable
from daemon.formats.table import blocks
from daemon.formats.text_layout import layout_of

ROWS = [(0.0, 1063.379), (-0.143, 1064.702), (0.245, 22.855), *((float(i), -i / 7) for i in range(1, 60))]


def written(form: str, end: str = "\n", **replace: str) -> str:
    lines = [form.format(*row) for row in ROWS]
    for old, new in replace.items():
        lines = [line.replace({"point": ".", "comma": ",", "e": "e"}[old], new) for line in lines]
    return end.join(lines) + end


@pytest.mark.parametrize(
    "text",
    [
        written("{:.3f}\t{:.3f}"),
        written("{:.3f},{:.3f}"),
        written("{:.3f}, {:.3f}"),
        written("{:.3f};{:.3f}"),
        written("{:12.3f} {:12.3f}"),
        written("  {:.3f}   {:.3f}  "),
        written("{:.3f}|{:.3f}"),
        written('"{:.3f}","{:.3f}"'),
        written("{:.3f}\t{:.3f}\t", end="\r\n"),
        written("{:.3f}\t{:.3f}", end="\r"),
        written("{:.3f}\t{:.3f}", point=","),
        written("{:.3f};{:.3f}", point=","),
        written("{:.3f}, {:.3f}", point=",").replace(",,", ",").replace(", ", ";"),
        written("{:.3f}\t{:,.3f}"),
        written('"{:.3f}","{:,.3f}"'),
        written("{:.3f};{:,.3f}").replace(",", "_").replace(".", ",").replace("_", "."),
        written("{:.3f};{:,.3f}").replace(",", " ").replace(".", ","),
        written("{:.3f}\t{:,.3f}").replace(",", "'"),
        written("{:.6e}\t{:.6e}", e="D"),
        written("{:.6e}\t{:.6e}").replace("-", "\u2212"),
        written("{:.3f}\t{:.3f}\n"),
    ],
)
def test_marks_and_numbers(text: str) -> None:
    (block,) = blocks(text_layout.decode(text.encode()))
    np.testing.assert_allclose(block.rows, ROWS, atol=6e-4)
    assert not block.layout.is_ambiguous


def test_a_comma_that_may_be_both_is_told() -> None:
    text = "".join(f"{i}\t{i + 100},{i:03d}\n" for i in range(100, 200))
    layout = layout_of(text.splitlines())
    assert layout is not None
    assert layout.is_ambiguous


@pytest.mark.parametrize("name", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "mac_roman"])
def test_encodings_of_europe(name: str) -> None:
    assert text_layout.decode("Höhe\tKraft für µN\n1\t2\n".encode(name)).startswith("Höhe\tKraft für")


@pytest.mark.parametrize(("name", "text"), [("gb18030", "距离(nm)\t力(pN)\n"), ("shift_jis", "変位(nm)\t荷重(pN)\n")])
def test_encodings_of_east_asia(name: str, text: str) -> None:
    assert text_layout.decode((text + "1\t2\n" * 20).encode(name)).startswith(text)


def test_text_cut_inside_a_character_is_still_utf_8() -> None:
    assert text_layout.decode("Höhe µ".encode()[:-1]) == "Höhe "


def test_blank_cells_are_missing_numbers() -> None:
    rows = [f"{i}\t{i * 2}\t{'' if i > 70 else i}\t{'' if i > 70 else -i}" for i in range(100)]
    (block,) = blocks("\n".join(rows) + "\n")
    assert block.rows.shape == (100, 4)
    assert int(np.isnan(block.rows[:, 2]).sum()) == 29
    assert not block.is_ragged


def test_a_blank_in_front_is_seen_where_tabs_separate_and_told_where_blanks_do() -> None:
    rows = [f"{'' if i < 30 else i}\t{i}" for i in range(100)]
    (block,) = blocks("\n".join(rows) + "\n")
    assert int(np.isnan(block.rows[:, 0]).sum()) == 30
    (ragged,) = blocks("\n".join(" ".join(row.split()) for row in rows) + "\n")
    assert ragged.is_ragged


def test_words_and_times_of_day_are_columns_of_their_own() -> None:
    rows = [f"12:00:0{i % 10}.5,{i},{'approach' if i < 50 else 'retract'},{-i}" for i in range(100)]
    (block,) = blocks("\n".join(rows) + "\n")
    assert sorted(block.words) == [0, 2]
    np.testing.assert_allclose(block.rows[:, 3], -np.arange(100.0))


def test_blocks_end_at_words_and_at_blank_lines() -> None:
    numbers = "".join(f"{i} {i}\n" for i in range(40))
    for between in ("Retract\n", "\n", "# retract\nnm pN\n"):
        assert [block.rows.shape for block in blocks(f"Approach\n{numbers}{between}{numbers}")] == [(40, 2), (40, 2)]


def test_remarks_are_no_rows() -> None:
    numbers = "".join(f"{i}\t{-i}\n" for i in range(40))
    (block,) = blocks(f"0.042\nnm\tpN\n{numbers}mean\t12.5\nend of data\n")
    assert block.rows.shape == (40, 2)
    assert [column.quantity for column in block.named() or []] == ["distance", "force"]


def test_damage_between_rows_is_no_remark() -> None:
    numbers = "".join(f"{i}\t{-i}\n" for i in range(40))
    with pytest.raises(Unreadable):
        blocks(numbers + "\x9f\x03}~\x81\n" + numbers)


def test_more_columns_than_anybody_writes() -> None:
    with pytest.raises(Unreadable) as caught:
        blocks(("1," * 1_000_000 + "1\n") * 3)
    assert caught.value.reason == "bomb"


def test_gzip_has_an_end_and_a_limit() -> None:
    content = gzip.compress(b"1\t2\n" * 1000)
    assert text_layout.unzip(content, 10_000) == b"1\t2\n" * 1000
    assert text_layout.unzip(content + content, 10_000) == b"1\t2\n" * 2000
    assert text_layout.unzip_head(content)[:4] == b"1\t2\n"
    with pytest.raises(Unfinished):
        text_layout.unzip(content[:-9], 10_000)
    with pytest.raises(Unreadable) as caught:
        text_layout.unzip(gzip.compress(bytes(50_000_000)), 1_000_000)
    assert caught.value.reason == "bomb"
