"""Labels written while the writer is killed again and again: each is there once or, if it was never confirmed, not."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from daemon.cli import main
from daemon.config import Config
from daemon.labels import Labels
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import decode
from daemon.screens.board import Board
from daemon.verbs.console import Labeller
from tests.ledgerhelp import ledger_with

pytestmark = pytest.mark.faults

CURVES, WINDOW_S = 3_000, 0.05


def is_taken_back(number: int) -> bool:
    return number % 5 == 0


def write(state: Path, first: int, confirmed: int) -> None:
    """Labels from curve ``first`` on, by the verb and by the console's keys in turn; each is confirmed when done."""
    board = Board()
    with LedgerView(state / "ledger.sqlite") as ledger:
        board.status = {"stream": ledger.stream}
        for row in ledger.since(first - 1, 100):
            board.take_decision(decode(row.body))
    labeller = Labeller(Config(state=state), board, "ada")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.write(confirmed, b"0\n")
    for number in count(first):
        name = f"run7/curve-{number:04d}.jpk-force#0"
        if number % 2:
            assert main(["labels", "add", name, "keep", "--rater", "ada", "--state", str(state)]) == 0
        else:
            board.select_seq(number)
            labeller.take("k")
            assert "z takes it back" in board.told
        if is_taken_back(number):
            assert main(["labels", "remove", name, "--state", str(state)]) in (0, 65)
        os.write(confirmed, b"%d\n" % number)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kills", [30, pytest.param(200, marks=pytest.mark.long)])
def test_no_label_is_lost_or_doubled_by_kills(tmp_path: Path, kills: int) -> None:
    ledger_with(tmp_path / "ledger.sqlite", CURVES).close()
    rng, told = random.Random(11), 0
    for _ in range(kills):
        receiver, confirmed = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                write(tmp_path, told + 1, confirmed)
            finally:
                os._exit(1)
        os.close(confirmed)
        with os.fdopen(receiver) as lines:
            assert lines.readline() == "0\n", "the writer failed by itself"
            heard = [lines.readline() for _ in range(rng.randrange(3))]
            time.sleep(rng.uniform(0.0, WINDOW_S))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            assert os.WIFSIGNALED(status), "the writer failed by itself"
            told = max([told, *map(int, heard), *map(int, lines.read().split())])
    with Labels(tmp_path / "labels.sqlite") as labels:
        current = Counter(one.seq for one in labels.current())
        history = Counter((one.seq, one.removed_by is not None) for one in labels.history())
    assert told > kills / 2  # enough was written for kills to hit it
    assert {number for number in range(1, told + 1) if not is_taken_back(number)} <= current.keys()
    assert not [number for number in range(1, told + 1) if is_taken_back(number) and number in current]
    assert set(current.values()) == {1}
    assert max(current) <= told + 1
    assert {seq: often for seq, often in history.items() if often > 1 and not is_taken_back(seq[0] or 0)} == {}
    with closing(sqlite3.connect(tmp_path / "labels.sqlite")) as file:
        assert file.execute("pragma integrity_check").fetchone() == ("ok",)
