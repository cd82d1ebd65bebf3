"""Questions about files in a process of their own: true answers, and an end of the waiting when nobody answers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pace import allowed

from daemon.processes.apart import Asker, Silent, ask


@pytest.fixture
def asker() -> Iterator[Asker]:
    found = Asker()
    yield found
    found.end()


def pid_of(asker: Asker) -> int:
    assert asker._process is not None
    return asker._process.pid


def test_the_answers_are_those_of_the_system(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"m\xfcller \n.txt")
    file.write_bytes(b"12345")
    (tmp_path / "link").symlink_to(file)
    found, link, missing = ask("lstat", file, tmp_path / "link", tmp_path / "none", limit_s=10)
    there, far = file.lstat(), (tmp_path / "link").lstat()
    assert (found.st_size, found.st_mtime_ns, found.st_ctime_ns) == (5, there.st_mtime_ns, there.st_ctime_ns)
    assert (found.st_ino, found.st_mode, link.st_ino) == (there.st_ino, there.st_mode, far.st_ino)
    assert isinstance(missing, FileNotFoundError)
    assert ask("names", tmp_path, limit_s=10) == [sorted(os.listdir(tmp_path))]
    assert ask("real", tmp_path / "link", limit_s=10) == [os.path.realpath(file)]
    assert ask("may_list", tmp_path, limit_s=10) == [True]
    ((free, total),) = ask("free", tmp_path, limit_s=10)
    assert 0 < free < total


def test_many_answers_come_in_parts_and_what_nobody_wants_is_passed_over(asker: Asker, tmp_path: Path) -> None:
    first = asker.ask("lstat", [str(tmp_path)] * 20_000, 10)
    assert next(first)
    assert len(list(asker.ask("lstat", [str(tmp_path)] * 3, 10))) == 3


def test_silence_ends_the_waiting_and_a_late_answer_ends_the_silence(asker: Asker, tmp_path: Path) -> None:
    assert list(asker.ask("lstat", ["/"], 10))
    os.kill(pid_of(asker), signal.SIGSTOP)
    begun_s = time.monotonic()
    with pytest.raises(Silent):
        list(asker.ask("lstat", ["/"], 0.3))
    assert 0.25 < time.monotonic() - begun_s < allowed(1.0)
    with pytest.raises(Silent):  # at once
        list(asker.ask("lstat", ["/"], 60))
    assert asker.is_silent
    assert not asker.look()
    before = pid_of(asker)
    os.kill(before, signal.SIGCONT)
    while not asker.look():
        assert time.monotonic() - begun_s < 10
        time.sleep(0.02)
    assert list(asker.ask("may_list", ["/", str(tmp_path)], 10)) == [True, True]
    assert pid_of(asker) == before


def test_a_child_that_was_killed_is_replaced_once_it_has_gone(asker: Asker) -> None:
    assert list(asker.ask("lstat", ["/"], 10))
    before = pid_of(asker)
    os.kill(before, signal.SIGSTOP)
    with pytest.raises(Silent):
        list(asker.ask("lstat", ["/"], 0.1))
    asker.kill()
    begun_s = time.monotonic()
    while not asker.look():
        assert time.monotonic() - begun_s < 10
        time.sleep(0.02)
    assert list(asker.ask("may_list", ["/"], 10)) == [True]
    assert pid_of(asker) != before


def test_the_end_wakes_whoever_waits(asker: Asker) -> None:
    assert list(asker.ask("lstat", ["/"], 10))
    os.kill(pid_of(asker), signal.SIGSTOP)
    threading.Timer(0.2, asker.end).start()
    begun_s = time.monotonic()
    with pytest.raises(Silent):
        list(asker.ask("lstat", ["/"], 60))
    assert time.monotonic() - begun_s < 5
