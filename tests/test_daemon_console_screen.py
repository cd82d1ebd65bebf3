"""Sketch, board and screen: what the console shows, without a terminal."""

from __future__ import annotations

import base64
import re
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from rich.console import Console

from daemon.common.text import bars, duration, latency, rate, score, size
from daemon.screens.board import Board, Entry
from daemon.screens.console import KEYS
from daemon.screens.screen import frame, sketch, svg, tail
from models.clock import day_and_minute, rfc3339
from tests.speaker import preview
from tests.test_review_night import guard

SVG = "{http://www.w3.org/2000/svg}"
NOW_S = 1_800_000_000.0


def event(seq: int, verdict: str = "keep", age_s: float = 1.0, **data: Any) -> dict[str, Any]:
    told = {
        "path": f"run7/curve-{seq:04d}.jpk-force",
        "curve": 0,
        "verdict": verdict,
        "score": 0.5,
        "reasons": ["score"],
        "latency_s": {"total": 0.018},
        "preview": preview(),
    }
    return {"seq": seq, "time": rfc3339(NOW_S - age_s), "stream": "s", "data": told | data}


def status(last_seq: int = 0, stream: str = "s", **data: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"last_seq": last_seq, "instrument": "afm1", "state": "ready", "uptime_s": 8000.0}
    return {"stream": stream, "data": {**told, "watch": ["/data/afm1"], **data}}


def condition(name: str, level: str, text: str) -> dict[str, Any]:
    return {"name": name, "level": level, "text": text, "ok": False}


def board_with(count: int, **data: Any) -> Board:
    board = Board(now=lambda: NOW_S)
    board.take_link(True, "")
    board.take_status(status(**data))
    for seq in range(1, count + 1):
        board.take_decision(event(seq, ("keep", "review", "discard", "discard")[seq % 4], age_s=count - seq))
    return board


def text_of(board: Board, width: int, height: int) -> str:
    return "\n".join(line.plain for line in frame(board, width, height))


# sketch


def edges_of(lower: list[int], upper: list[int]) -> str:
    return base64.b64encode(np.array([lower, upper], np.uint8).tobytes()).decode()


def test_a_rising_line_rises_in_the_drawing() -> None:
    ramp = list(range(0, 256, 2))
    rows = sketch(edges_of(ramp, ramp), 8, 4)
    inked = [[row for row in range(4) if rows[row][column] != "\u2800"] for column in range(8)]
    lowest = [max(rows_of) for rows_of in inked if rows_of]
    assert lowest == sorted(lowest, reverse=True)
    assert inked[-1][0] == 0


def test_a_spike_of_one_column_survives_a_coarse_drawing() -> None:
    flat, spiked = [80] * 128, [80] * 128
    spiked[77] = 250
    rows = sketch(edges_of(flat, spiked), 12, 3)
    assert [column for column, char in enumerate(rows[0]) if char != "\u2800"] == [77 * 24 // 128 // 2]


def test_the_noise_of_a_flat_curve_is_not_magnified() -> None:
    noise = np.random.default_rng(0).integers(76, 84, 128)
    rows = sketch(edges_of(list(noise), list(noise + 3)), 20, 4)
    assert set("".join(rows[:2])) == {"\u2800"}


@pytest.mark.parametrize("damaged", [None, "", "no base64!", "QQ==", "QUFB", "é"])
def test_no_curve_no_drawing(damaged: str | None) -> None:
    assert sketch(damaged, 5, 2) == ("     ", "     ")


def test_any_number_of_columns_is_drawn() -> None:
    for columns in (2, 3, 31, 64, 500):
        rows = sketch(edges_of([10] * columns, [200] * columns), 16, 2)
        assert [len(row) for row in rows] == [16, 16]


def test_bars() -> None:
    assert bars([0, 1, 4, 8], 5) == "  ▁▄█"
    assert bars([0, 0], 3) == "   "


# board


def test_decisions_after_the_status_are_added_and_never_twice() -> None:
    board = board_with(0, last_seq=0, counts={"keep": 10, "review": 5, "discard": 100}, review_queue=5)
    for seq, verdict in ((1, "keep"), (2, "review"), (2, "review"), (1, "keep")):
        board.take_decision(event(seq, verdict))
    assert board.counts == {"keep": 11, "review": 6, "discard": 100}
    assert board.review_queue == 6
    board.take_status(status(last_seq=1, counts={"keep": 11, "review": 5, "discard": 100}, review_queue=5))
    assert board.counts == {"keep": 11, "review": 6, "discard": 100}


def test_rates_are_those_of_the_last_minute() -> None:
    board = board_with(0)
    for seq in range(1, 121):
        board.take_decision(event(seq, "discard" if seq % 2 else "keep", age_s=120 - seq))
    assert board.rate_per_s() == pytest.approx(1.0, abs=0.05)
    assert board.rate_per_s("keep") == pytest.approx(0.5, abs=0.05)
    assert sum(board.history(6)) == pytest.approx(60, abs=2)


def test_a_young_service_s_rate_counts_from_its_start() -> None:
    board = board_with(20, uptime_s=10.0)
    assert board.rate_per_s() == pytest.approx(1.0, abs=0.15)


def test_another_ledger_starts_over() -> None:
    board = board_with(8, counts={"keep": 2, "review": 2, "discard": 4})
    board.take_status(status(last_seq=0, stream="other", counts={"keep": 0, "review": 0, "discard": 0}))
    assert (sum(board.counts.values()), len(board.recent), board.rate_per_s()) == (0, 0, 0)
    assert board.take_decision(event(1)) is not None


@pytest.mark.parametrize(
    "broken", [{}, {"seq": "x"}, {"seq": 1, "time": "soon", "data": {}}, {"seq": 1, "data": None}, event(1, "perhaps")]
)
def test_what_makes_no_sense_changes_nothing(broken: dict[str, Any]) -> None:
    board = board_with(0)
    before = board.version
    assert board.take_decision(broken) is None
    assert board.version == before


# screen


@pytest.mark.parametrize(("width", "height"), [(40, 12), (60, 20), (80, 24), (132, 43), (200, 50), (300, 90)])
def test_a_frame_has_exactly_the_size_of_the_terminal(width: int, height: int) -> None:
    for board in (Board(), board_with(0), board_with(200)):
        lines = frame(board, width, height)
        assert len(lines) == height
        assert {line.cell_len for line in lines} == {width}


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50)])
def test_everything_that_was_promised_is_on_the_screen(width: int, height: int) -> None:
    trouble = {"name": "contact", "ok": False, "text": "20 curves in a row without contact", "since": "…"}
    board = board_with(
        9,
        last_seq=0,
        counts={"keep": 1234, "review": 45, "discard": 98765},
        session={"backlog": 7},
        model={"id": "shipped-1", "score_basis": "simulation"},
        engine="torch-cpu-bf16",
        latency_s={"p50": 0.018, "p99": 0.041},
        health=[trouble],
    )
    text = text_of(board, width, height)
    for promised in ("afm1", "1,236", "98,769", "backlog  7", "p50 18 ms", "p99 41 ms", "shipped-1", "torch-cpu-bf16"):
        assert promised in text
    assert "▲ contact: 20 curves in a row" in text
    assert "curve-0009.jpk-force" in text
    assert sum("\u2800" < char <= "\u28ff" for char in text) > 100  # drawings


@pytest.mark.parametrize(("width", "height"), [(60, 16), (80, 24), (200, 50)])
def test_folders_their_marks_the_last_curve_and_what_waits_are_on_the_screen(width: int, height: int) -> None:
    board = board_with(0)
    now_s = board.now()
    local = {"name": "/data/afm1", "ok": True, "folder": 0, "last_seen_s": now_s - 2, "last_curve_s": now_s - 11520}
    share = {"name": "/mnt/b", "ok": True, "folder": 1, "last_seen_s": now_s - 45, "last_curve_s": None}
    said = {"last_curve_s": now_s - 11520, "oldest_pending_s": 71.0, "sources": [local, share]}
    board.status = {**board.status, **said}
    text = text_of(board, width, height)
    assert "last curve 3 h 12 min ago" in text
    assert "all well" not in text
    assert "▲ source /mnt/b: has not been seen for 45 s" in text
    if width >= 80:
        assert "the oldest waits 1 min   ▲ /mnt/b   ✓ /data/afm1" in text
    board.status = {**board.status, "sources": [local]}
    assert "all well" in text_of(board, width, height)


def test_what_is_passed_over_is_told_by_kind_whether_all_is_well_or_not() -> None:
    kinds = {"unclaimed .pfc": 12, "image": 3, "companion": 40}
    trouble = {"name": "contact", "ok": False, "text": "20 curves in a row without contact"}
    for health in ([], [trouble]):
        text = text_of(board_with(3, ignored=kinds, health=health), 120, 24)
        assert "ignored: 12 unclaimed .pfc, 3 image; 40 companion" in text
    assert "ignored" not in text_of(board_with(3, ignored={"companion": 40}), 120, 24)  # nothing to worry about
    hostile = text_of(board_with(3, ignored={"unclaimed .\x1b[7m": 1, "image": "many"}), 120, 24)
    assert "\x1b" not in hostile


def test_a_larger_terminal_shows_more_curves() -> None:
    small, large = (text_of(board_with(300), *size).count(".jpk-force") for size in ((80, 24), (200, 50)))
    assert small >= 9
    assert large >= 25


def test_without_colour_the_marks_tell_the_verdicts_apart() -> None:
    terminal = Console(width=80, force_terminal=True, color_system=None, no_color=True)
    with terminal.capture() as captured:
        for line in frame(board_with(12), 80, 24):
            terminal.print(line)
    assert "\x1b[3" not in captured.get().replace("\x1b[39m", "")
    assert {"●", "◐", "○"} <= set(captured.get())


def test_the_rare_curves_stay_in_view_among_many_discards() -> None:
    board = board_with(1)
    board.take_decision(event(2, "keep", path="the-rare-one.jpk-force"))
    for seq in range(3, 300):
        board.take_decision(event(seq, "discard"))
    assert "the-rare-one" in text_of(board, 80, 24)


def test_a_curve_that_could_not_be_read_says_why() -> None:
    board = board_with(0)
    board.take_decision(event(1, "review", score=None, preview=None, reasons=["truncated"]))
    text = text_of(board, 80, 24)
    assert "truncated" in text
    assert "no curve" in text


def test_a_file_name_cannot_steer_the_terminal() -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07[red]evil\nname\u202e.jpk-force"
    told = {"watch": ["/data/\x1b[7m"], "engine": "\x1b[7m", "state": "\x1b[7m", "model": {"id": "\x1b[7m"}}
    board = board_with(0, **told, instrument="a\x1b[31m", health=[{"name": "x", "ok": False, "text": "\x1b[5mblink"}])
    board.take_decision(event(1, "keep", path=hostile, reasons=["\x1b[0m"]))
    text = text_of(board, 200, 50)
    assert not {char for char in text.replace("\n", "") if not char.isprintable()}
    assert "[red]evil" in text  # shown, not obeyed


def test_wide_characters_are_cut_by_cells() -> None:
    assert (tail("測定データ.txt", 9), tail("測定データ.txt", 8)) == ("…ータ.txt", "…タ.txt")
    board = board_with(0)
    board.take_decision(event(1, "keep", path="測定" * 60))
    assert {line.cell_len for line in frame(board, 80, 24)} == {80}


def test_while_the_service_is_away_the_last_known_stays() -> None:
    board = board_with(9, counts={"keep": 1, "review": 1, "discard": 1})
    board.take_link(False, "service not reachable, retrying")
    text = text_of(board, 80, 24)
    assert "service not reachable, retrying" in text
    assert "curve-0009" in text


def picture(width: int = 120, height: int = 36) -> ElementTree.Element:
    board = board_with(19)
    board.take_decision(event(20, "keep", path="<script>&amp;.txt"))
    return ElementTree.fromstring(svg(frame(board, width, height), "a <title>"))


def test_the_picture_for_a_page_has_the_same_words_at_their_places() -> None:
    page = picture()
    words = {text.text: text for text in page.iter(f"{SVG}text")}
    assert {"afm-triage", "afm1", "ready", "keep", "<script>&amp;.txt#0", "a <title>"} <= words.keys()
    assert float(words["afm1"].attrib["x"]) == pytest.approx(16 + 13 * 8.4, abs=0.1)


def test_drawings_are_shapes_in_the_colour_of_their_verdict() -> None:
    page = picture()
    dots = {path.attrib["fill"]: path.attrib["d"].count("M") for path in page.iter(f"{SVG}path")}
    assert dots.keys() >= {"#7fd06b", "#f0b84a", "#7d838f"}
    assert not any("\u2800" <= char <= "\u28ff" for text in page.iter(f"{SVG}text") for char in text.text or "")
    well = next(text for text in page.iter(f"{SVG}text") if text.text == "well")
    assert well.attrib["fill"] == "#7fd06b"
    width = float(page.attrib["viewBox"].split()[2])
    starts = [float(x) for path in page.iter(f"{SVG}path") for x in re.findall(r"M([0-9.]+)", path.attrib["d"])]
    assert 16 <= min(starts) < max(starts) <= width - 16


def test_colours_do_not_leak_to_what_stands_beside() -> None:
    top = frame(board_with(3), 80, 24)[0]
    reversed_cells = sum(len(s.text) for s in top.render(Console()) if s.style and s.style.reverse)
    assert reversed_cells == len(" afm-triage ")


# wording


def test_wording() -> None:
    assert [duration(s) for s in (0, 59, 60, 8000, 360000)] == ["0 s", "59 s", "1 min", "2 h 13 min", "4 d 4 h"]
    assert [latency(s) for s in (None, 0.0004, 0.018, 1.24)] == ["–", "0.4 ms", "18 ms", "1.2 s"]
    assert [rate(r) for r in (0, 0.2, 9.81, 250.4)] == ["–", "12/min", "9.8/s", "250/s"]
    assert [score(x) for x in (None, 0.0, 0.99996, 1.0)] == ["  –  ", "0.000", "0.999", "1.000"]
    assert [size(b) for b in (12, 3_200, 84_100_000_000, 2e12)] == ["12 bytes", "3.2 kB", "84.1 GB", "2.0 TB"]


def test_an_entry_knows_its_curve_of_a_map() -> None:
    assert Entry.of(event(1, curve=7)).label.endswith(".jpk-force#7")


@pytest.mark.parametrize(("width", "height"), [(200, 50), (120, 36), (80, 24)])
def test_the_session_stands_beside_the_numbers_of_all_time(width: int, height: int) -> None:
    told = {"number": 3, "sample": "titin\x1b[2J", "tip": "OMCL", "seconds": 8000.0, "counts": {"keep": 1_234}}
    assert " session " not in text_of(board_with(9), width, height)
    board = board_with(9, current_session=told)
    lines = frame(board, width, height)
    (row,) = (line.plain for line in lines if line.plain.startswith(" session 3, titin\ufffd[2J, tip OMCL, for 2 h"))
    assert row.split("●")[1].split()[0] == "1,236"
    assert (len(lines), {line.cell_len for line in lines}) == (height, {width})


def test_what_is_missed_and_how_the_tip_is() -> None:
    """Numbers and charts share a line where there is room; advice that is no trouble yet is told like one, once."""
    told = msgspec.to_builtins(guard(count=60, change=45))
    board = board_with(4, guard=told)
    numbers = " missed  path ≥ 96.3 % · events 38 of 39 shown · unseen ≤ 64 of 2,184"
    noise, adhesion = "noise ▄▄▄▄▄▄▄▄▄▄▄▄████ 10 pN", "adhesion ████████████     –"
    wide, narrow = text_of(board, 200, 40).splitlines(), text_of(board, 80, 30).splitlines()
    second = "second opinion disputes 31, 12 looked at"
    assert any(line.startswith(f"{numbers}   {second}") and noise in line and adhesion in line for line in wide)
    assert numbers in [line.rstrip() for line in narrow]
    assert any(noise in line and numbers not in line for line in narrow)
    advice = "noise doubled since 02:14: look at the tip"
    assert "\n".join(wide).count(advice) == 1
    assert "all well" not in "\n".join(wide)
    board.take_status(status(guard=told, health=[condition("advice noise", "degraded", advice) | {"is_advice": True}]))
    assert (board.troubles(), board.advice) == ([], [advice])
    board.take_status(status(guard=told, health=[condition("advice unit", "alarm", advice)]))
    assert (board.troubles(), board.advice) == ([f"advice unit: {advice}"], [])
    told["path"] |= {"is_well": False, "lower_bound": 0.81}
    assert " missed  ▲ path ≥ 81 %, 1,183 of 1,204 found · events" in text_of(board_with(4, guard=told), 140, 40)
    assert "missed" not in text_of(board_with(4, guard=None), 140, 40)


def test_on_a_small_terminal_a_red_line_still_says_since_when_and_what_to_do() -> None:
    """80 by 24: numbers keep apart, what is wrong takes two lines, and so does the help."""
    since = "2026-11-20T12:00:00.000Z"
    text = "28 curves in a row without contact: the tip is not reaching the surface (check engage, setpoint, drift)"
    health = [{**condition("contact", "alarm", text), "since": since}, condition("disk", "degraded", "full")]
    board = board_with(4, review_queue=276, health=health, engine="cpu, openvino")
    board.tell(KEYS)
    lines = text_of(board, 80, 24).splitlines()
    assert "flagged  277  " in "\n".join(lines)
    begin = next(place for place, line in enumerate(lines) if line.startswith(" ▲ contact"))
    told = " ".join(" ".join(lines[begin : begin + 2]).split())
    when = day_and_minute(since)
    assert told.startswith(f"▲ contact: 28 curves in a row without contact since {when}: the tip is not reaching")
    assert told.endswith("(check engage, setpoint, drift) (+1 more)")
    assert KEYS in " ".join("\n".join(lines).split())
    assert {len(line) for line in lines} == {80}
