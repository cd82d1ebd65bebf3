"""Sketch, board and screen: what the console shows, without a terminal."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from rich.console import Console

from daemon.common.text import bars, duration, latency, rate, score, size
from daemon.config import Config
from daemon.screens import curves, svg
from daemon.screens.board import Board, Entry
from daemon.screens.curves import tail
from daemon.screens.screen import KEYS, frame
from daemon.verbs.console import Labeller
from models.clock import day_and_minute, rfc3339, time_of_day
from tests.speaker import preview
from tests.test_review_night import guard

DOWN, RIGHT = "\x1b[B", "\x1b[C"
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


def sketch(preview: str | None, width: int, height: int) -> tuple[str, ...]:
    drawn = curves.sketch(preview, width, height)
    return () if drawn is None else drawn.rows


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
    assert sketch(damaged, 5, 2) == ()


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
    heard_s = NOW_S
    board.status = {**board.status, "sources": [{"name": "/d", "ok": True, "folder": 0, "last_seen_s": heard_s}]}
    board.now = lambda: heard_s + 312
    board.take_link(False, "service not reachable, retrying")
    lines = frame(board, 80, 24)
    assert f"▲ no answer for 5 min, as of {time_of_day(heard_s)}" in lines[0].plain
    assert "ready" not in lines[0].plain
    assert board.troubles() == []  # what the folder does now nobody knows
    assert "curve-0009" in "\n".join(line.plain for line in lines)
    assert all("dim" in [str(span.style) for span in line.spans] for line in lines[1:])
    assert not any(str(span.style) == "dim" for line in frame(board_with(9), 80, 24) for span in line.spans)


def test_a_service_that_fell_silent_is_no_longer_called_ready() -> None:
    """Heartbeats come every 5 s; until the connection is given up nobody shall take old numbers for new ones."""
    board = board_with(3)
    board.now = lambda: NOW_S + 6.5
    assert "no answer for 6 s" in text_of(board, 80, 24).splitlines()[0]
    board.note_heard()
    assert "● ready" in text_of(board, 80, 24).splitlines()[0]


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
    shown = [score(x) for x in (None, 0.0, 0.99996, 1.0, 0.973, 0.0421, 0.00321, 0.00096, 0.00094, 3.2e-5, 4e-12)]
    assert {len(one) for one in shown} == {6, 7}  # the longest is no score that a network gives
    assert [one.strip() for one in shown] == [
        "–", "0", "0.999", "1.000", "0.973", "0.042", "0.0032", "0.0010", "9.4e-4", "3.2e-5", "4.0e-12",
    ]  # fmt: skip
    assert [size(b) for b in (12, 3_200, 84_100_000_000, 2e12)] == ["12 bytes", "3.2 kB", "84.1 GB", "2.0 TB"]


def test_an_entry_knows_its_curve_of_a_map() -> None:
    assert Entry.of(event(1, curve=7)).label.endswith(".jpk-force#7")


@pytest.mark.parametrize(("width", "height"), [(200, 50), (120, 36), (80, 24)])
def test_the_session_stands_beside_the_numbers_of_all_time(width: int, height: int) -> None:
    counts = {"keep": 1_234, "review": 0, "discard": 10_000}
    told = {"number": 3, "sample": "titin\x1b[2J", "tip": "OMCL", "seconds": 8000.0, "counts": counts}
    all_time = {"keep": 5_000, "review": 0, "discard": 70_000}
    assert " session " not in text_of(board_with(9), width, height)
    words = "12 of 50 kept (2 called no event); 50 in 1 h 40 min to 6 h 5 min (90 %), likely 2 h"
    goal = {"kept": 12, "wanted": 50, "text": words}
    board = board_with(9, current_session=told, counts=all_time, goal=goal)
    lines = frame(board, width, height)
    text = "\n".join(line.plain for line in lines)
    assert " session 3, titin\ufffd[2J, tip OMCL, for 2 h 13 min" in text
    assert re.search(r" goal +12 of 50 kept \(2 called no event\); 50 in 1 h 40 min to 6 h 5 min \(90 %\)", text)
    assert ("likely 2 h" in text) == (width > 80)  # not torn in two: what is likeliest is left out where it has no room
    (row,) = (line.plain for line in lines if line.plain.startswith(" ● keep"))
    assert row.split()[2:6] == ["1,236", "11.0%", "5,002", "6.7%"]
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


ALARMS = [
    "28 curves in a row without contact: the tip is not reaching the surface (check engage, setpoint, drift)",
    "the share does not answer: look whether the instrument computer is on, then mount it again; curves that are "
    "written meanwhile are not lost, they are read when it is back",
    "3.1 GB left where the state lies: free some space or move the state folder",
    "openvino could not be loaded: torch judges instead, four times as slow",
    "the noise doubled: look at the tip, or wait until the laser is warm",
    "nothing was kept for 40 min: compare with the first hour",
]


def test_on_a_small_terminal_every_alarm_is_told_whole() -> None:
    """80 by 24: as many as fit, each with what to do; a key shows all, and the curve that is open leaves one."""
    since = "2026-11-20T12:00:00.000Z"
    health = [{**condition(f"c{number}", "alarm", text), "since": since} for number, text in enumerate(ALARMS)]
    board = board_with(4, review_queue=276, health=health, engine="cpu, openvino")
    labeller = Labeller(Config(state=Path("/nowhere")), board, "ada")

    def told() -> str:
        lines = text_of(board, 80, 24).splitlines()
        assert {len(line) for line in lines} == {80}
        return " ".join(" ".join(lines).split())

    when = day_and_minute(since)
    first = f"▲ c0: 28 curves in a row without contact since {when}: the tip is not reaching the surface"
    overview = told()
    assert first in overview
    shown = [text.split(": ", 1)[1] in overview for text in ALARMS]
    assert sum(shown) >= 2
    assert shown == sorted(shown, reverse=True)
    assert overview.count("▲ c") == sum(shown)  # nothing is begun that is not told to its end
    assert f"▲ {6 - sum(shown)} more: press ! to read" in overview
    assert "review 277" in overview
    assert "curve-0004" in overview
    labeller.take("!")
    page = told()
    assert all(text.split(":")[1].strip() in page for text in ALARMS)
    labeller.take("!\r")
    opened = told()
    assert first in opened
    assert re.search(r"▲ [45] more: press ! to read", opened)
    labeller.take("\x1b?")
    assert KEYS in told()


def test_an_opened_curve_is_large_with_its_scales_and_pages_lead_to_the_others() -> None:
    board = board_with(0)
    axes = {"unit": "pN", "softness": 20.0, "low": -200.0, "high": 5000.0, "from_nm": -80.0, "to_nm": 720.0}
    for seq in range(1, 41):
        acquired = rfc3339(NOW_S - 3600 * 30 - seq, "seconds")
        board.take_decision(event(seq, ("keep", "discard")[seq % 2], preview_axes=axes, folder="/d", acquired=acquired))
    labeller = Labeller(Config(state=Path("/nowhere")), board, "ada")
    labeller.take("\r")
    assert board.selected is not None
    assert board.selected.seq == 40
    text = text_of(board, 100, 30)
    day = day_and_minute(rfc3339(NOW_S - 3600 * 30 - 40, "seconds"))
    for promised in ("● keep 0.500", day, "/d/run7/curve-0040.jpk-force#0", "1 of 20 kept", " pN┤"):
        assert promised in text
    assert re.search(r" 0 .* [67]00 nm", text)
    ticks = [int(one) for one in re.findall(r"^ +([\d,]+)(?: pN)?┤", text, re.M)]
    assert ticks == sorted(ticks, reverse=True)
    assert ticks[-1] == 0
    assert len(ticks) >= 3
    labeller.take("\x1b[6~" + RIGHT + DOWN)
    assert board.selected.seq == 16  # ten older, and two
    labeller.take("\x1b[5~" + "\x1b")
    assert (board.view, board.selected.seq) == ("all", 36)
    board.take_decision(event(41, "keep", preview_axes={"unit": "stone"}))  # of another version
    assert "curve-0041" in text_of(board, 100, 30)


def test_drawings_keep_apart_and_show_all_of_the_pull() -> None:
    """Below each other a row of dots stays free; what is left out is push at the surface, never a pull or a dip."""
    rng = np.random.default_rng(3)
    for _ in range(40):
        middle = 83 + 60 * rng.random() * np.sin(np.linspace(0, 20 * rng.random(), 256))
        middle[:20] = np.linspace(0, 83, 20)
        middle[40 : 40 + int(30 * rng.random())] += 160 * rng.random()
        levels = np.clip([middle - 3, middle + 3], 0, 255).astype(int)
        drawn = curves.sketch(edges_of(*levels), 14, 2)
        assert drawn is not None
        assert not any(ord(char) & 0b1001 for char in drawn.rows[0])  # the highest dots
        assert drawn.floor <= levels[0, 26:].min()
        assert drawn.ceiling >= levels[1].max()
        assert drawn.first <= 0.1
