"""Labels at the console: a curve is selected with the arrows and labelled with one key; what is not stored is told."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from daemon.cli import main
from daemon.client.service_file import find_page, forget_page, leave_page
from daemon.config import Config
from daemon.labels import Label, Labels
from daemon.labels.sessions import Sessions
from daemon.ledger import Ledger
from daemon.ledger.wire import decode
from daemon.screens.board import Board
from daemon.screens.screen import frame
from daemon.verbs.console import Labeller, keys_of, rater_of
from tests.ledgerhelp import ledger_with

UP, DOWN, RIGHT, LEFT = "\x1b[A", "\x1b[B", "\x1b[C", "\x1bOD"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(ledger_with(tmp_path / "ledger.sqlite", 9)) as ledger:
        yield ledger


@pytest.fixture
def board(ledger: Ledger) -> Board:
    board = Board()
    board.take_link(True, "")
    board.take_status({"stream": ledger.stream, "data": {"last_seq": 0}})
    for row in ledger.view().since(0):
        board.take_decision(decode(row.body))
    return board


def said(state: Path) -> list[tuple[int | None, str, str]]:
    with Labels(state / "labels.sqlite") as labels:
        return [(one.seq, one.label, one.rater) for one in labels.current()]


def test_arrows_select_and_keys_label_and_z_takes_back(board: Board, tmp_path: Path) -> None:
    with Labels(tmp_path / "labels.sqlite") as labels:
        Sessions(labels).begin(sample="titin", before={})
    labeller = Labeller(Config(state=tmp_path), board, "ada")
    labeller.take("k")
    assert (board.told, said(tmp_path)) == ("select a curve with the arrows first", [])
    labeller.take(DOWN + DOWN + "k")  # 8 is flagged
    assert said(tmp_path) == [(8, "keep", "ada")]
    assert board.selected is not None
    assert board.selected.seq == 6  # kept or flagged, as 8 was: 7 is a discard
    shown = [line.plain for line in frame(board, 120, 40)]
    assert not any("0008" in line and "#6" in line for line in shown), "the one that was answered, and the next one"
    assert any("0008" in line and "keep (ada)" in line for line in shown)
    labeller.take("?")
    assert "k keep · d discard · u unsure" in board.told
    labeller.take("d" + UP + "U")
    assert said(tmp_path) == [(8, "keep", "ada"), (6, "unsure", "ada")]
    assert board.labels == {8: "keep", 6: "unsure"}
    with Labels(tmp_path / "labels.sqlite") as labels:
        first = next(labels.current())
        assert (first.queue, first.session, first.verdict, first.model) == ("console", 1, "review", "shipped")
    labeller.take("z")
    assert said(tmp_path) == [(8, "keep", "ada"), (6, "discard", "ada")]
    assert "unsure taken back, discard holds again" in board.told
    labeller.take("zz")
    assert (said(tmp_path), board.labels) == ([], {})
    labeller.take("z")
    assert "nothing to take back" in board.told
    with Labels(tmp_path / "labels.sqlite") as labels:
        assert len(list(labels.history())) == 6  # nothing that was said is lost
    labeller.take("\x1b")
    assert board.selected is None


def test_the_same_key_twice_is_one_label_and_another_s_word_stays(board: Board, tmp_path: Path) -> None:
    with Labels(tmp_path / "labels.sqlite") as labels:
        labels.add(
            [Label("run7/curve-0009.jpk-force", 0, "keep", "bob", "2026-11-20T12:00:00.000Z", sha256=f"{9:064x}")]
        )
    labeller = Labeller(Config(state=tmp_path), board, "ada")
    labeller.take(DOWN + "k" + UP + UP + UP + "k")
    assert said(tmp_path) == [(None, "keep", "bob"), (9, "keep", "ada")]
    labeller.take("z")
    assert said(tmp_path) == [(None, "keep", "bob")]


def test_what_cannot_be_stored_is_told_and_changes_nothing(board: Board, tmp_path: Path) -> None:
    labeller = Labeller(Config(state=tmp_path), board, "ada")
    labeller.take(DOWN + "k")
    with closing(sqlite3.connect(tmp_path / "labels.sqlite", isolation_level=None)) as other:
        other.execute("begin exclusive")
        labeller.take("k")
        assert board.told.startswith("not stored: another program holds")
        labeller.take("z")
        assert board.told.startswith("not stored: another program holds")
        other.execute("rollback")
    assert said(tmp_path) == [(9, "keep", "ada")]
    board.status = {**board.status, "stream": "another"}
    labeller.take("k")
    assert "is not the state folder of this service" in board.told
    Labeller(Config(state=tmp_path / "absent"), board, "ada").take("k")
    assert "no state folder" in board.told
    Labeller(Config(state=tmp_path), board, "").take("k")
    assert "--rater NAME" in board.told
    assert said(tmp_path) == [(9, "keep", "ada")]


def test_the_selection_stays_on_its_curve_and_in_sight(board: Board, ledger: Ledger, tmp_path: Path) -> None:
    labeller = Labeller(Config(state=tmp_path), board, "ada")
    labeller.take(DOWN + "k" + DOWN * 20)
    assert board.selected is not None
    assert board.selected.seq == 1
    for width, height in ((60, 16), (80, 24), (200, 50)):
        lines = frame(board, width, height)
        assert (len(lines), {line.cell_len for line in lines}) == (height, {width})
        text = "\n".join(line.plain for line in lines)
        assert " ▸ #1 " in text
        assert any("reverse" in str(span.style) and "0001" in line.plain for line in lines for span in line.spans)
    labeller.take(RIGHT)
    assert board.selected.seq == 1  # nothing older that was kept or flagged
    labeller.take(LEFT)
    assert board.selected.seq == 2
    labeller.take(UP * 20)
    assert "✎ keep" in "\n".join(line.plain for line in frame(board, 120, 36))


def test_what_a_terminal_sends_is_taken_apart() -> None:
    assert list(keys_of(UP + "K" + LEFT + "\x1b" + "ü")) == ["up", "k", "left", "\x1b", "ü"]


def test_who_labels_is_whoever_is_logged_in_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "eve")
    assert (rater_of(None), rater_of(" ada ")) == ("eve", "ada")


def test_a_rater_without_a_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["console", "--state", str(tmp_path), "--rater", " "]) == 64
    assert capsys.readouterr().err == "afm-triage: --rater must name somebody\n"


def test_pages_lead_back_to_the_first_that_was_kept_or_flagged(ledger: Ledger, tmp_path: Path) -> None:
    """The events brought the last three only; the older ones come out of the ledger as they are asked for."""
    board = Board()
    board.take_link(True, "")
    board.take_status({"stream": ledger.stream, "data": {"last_seq": 9}})
    for row in ledger.view().since(6):
        board.take_decision(decode(row.body))
    before = [one.seq for one in board.marked]
    assert before == [9, 8]
    labeller = Labeller(Config(state=tmp_path), board, "ada")
    labeller.take(RIGHT * 9)
    assert [one.seq for one in board.marked] == [9, 8, 6, 5, 3, 2]  # every third is a discard
    assert board.selected is not None
    assert board.selected.seq == 2
    text = "\n".join(line.plain for line in (board.show("one"), frame(board, 100, 30))[1])
    assert "6 of 6 kept and flagged" in text
    board.take_status({"stream": "another", "data": {"last_seq": 0}})
    labeller.past.fetch(60)
    assert not board.marked


def test_a_curve_is_opened_on_the_page_or_it_is_said_how(
    board: Board, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    labeller = Labeller(Config(state=tmp_path), board, "ada")
    labeller.take("o")
    assert board.told == "select a curve with the arrows first"
    labeller.take(DOWN + "o")
    assert board.told == f"no review page runs; start it with: afm-triage review --state {tmp_path}"
    leave_page(tmp_path, "http://127.0.0.1:8795/")
    labeller.take("o")
    assert board.told == f"open in a browser: http://127.0.0.1:8795/#curve={ledger.stream}:9"
    forget_page(tmp_path)
    assert find_page(tmp_path) is None
    labeller.take("e")
    assert board.told.startswith("drawing run7/curve-0009")
    labeller.take("e")
    assert board.told == "one picture is being made already"
    until_s = time.monotonic() + 40
    while not board.told.startswith("no picture"):  # its file was never there, and a kept curve of long ago has no copy
        assert time.monotonic() < until_s
        time.sleep(0.05)
        labeller.opener.look()
    assert "0009" in board.told
    labeller.opener.close()
