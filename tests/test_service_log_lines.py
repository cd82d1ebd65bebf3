"""The log: lines in order, nobody waits for a reader, what is lost is counted and told."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pace import allowed

from daemon.processes.child import launch
from daemon.service import log_lines
from daemon.service.log_lines import Log

_log = logging.getLogger("daemon.test")


@pytest.fixture(autouse=True)
def _root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    yield
    logging.captureWarnings(False)
    root.handlers[:], root.level = before


class Reader:
    """A pipe, and how the log is opened onto it."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.said = b""
        self._opened: list[Log] = []

    def open(self, level: str = "info", form: str = "text") -> Log:
        writer = Log(level, form, self.writing, instrument="afm9")
        writer.open()
        self._opened.append(writer)
        return writer

    def close(self) -> None:
        """Read until nobody writes any more: its number is soon another's."""
        until(lambda: self.read() is not None and not any(one.is_writing for one in self._opened))
        os.close(self.reading)
        os.close(self.writing)

    def read(self) -> str:
        try:
            while found := os.read(self.reading, 1 << 16):
                self.said += found
        except BlockingIOError:
            pass
        return self.said.decode()

    def lines(self) -> list[str]:
        return self.read().splitlines()


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader()
    yield made
    made.close()


def until(is_so: Callable[[], bool], limit_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < deadline_s, f"not within {limit_s:g} s"
        time.sleep(0.01)


def test_a_line_carries_a_priority_for_the_journal_and_json_for_collectors(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = os.fstat(reader.writing)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    writer = reader.open()
    _log.error("two\nlines")
    until(lambda: reader.read() == "<3>two | lines\n")
    writer.adopt("warning", "json")
    _log.info("not told")
    _log.warning("told")
    writer.close()
    assert json.loads(reader.lines()[1])["message"] == "told"
    assert len(reader.lines()) == 2
    assert writer.said == {"info": 0, "warning": 1, "error": 1}


def test_what_was_raised_is_one_object_too_and_its_end_is_never_cut(reader: Reader) -> None:
    writer = reader.open(form="json")
    try:
        raise ValueError("x" * 5_000 + " the last word")
    except ValueError:
        _log.exception("two\nlines")
    writer.close()
    (line,) = reader.lines()
    found = json.loads(line)
    assert (found["level"], found["instrument"], found["message"]) == ("error", "afm9", "two\nlines")
    assert found["error"].startswith("ValueError: xxx")
    assert found["error"].endswith("the last word")
    assert found["traceback"].startswith("Traceback")
    assert found["traceback"].endswith("the last word")
    assert max(map(len, found.values())) == log_lines.LONGEST_LINE


def test_a_verb_that_a_timer_runs_tells_the_journal_that_it_failed(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("wb") as said:
        found = os.fstat(said.fileno())
        journal = {**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        words = [sys.executable, "-m", "daemon", "notify", "--test", "--config", str(tmp_path / "no.toml")]
        subprocess.run(words, stderr=said, env=journal, timeout=30, check=False)
    assert (tmp_path / "stderr").read_text().startswith("<3>afm-triage: ")


def test_a_service_that_cannot_start_says_so_in_an_object_where_objects_are_collected(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[log]\nformat = "json"\n')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        words = [
            "--config",
            tmp_path / "a.toml",
            "--watch",
            tmp_path / "w",
            "--state",
            tmp_path / "s",
            "--publish",
            endpoint,
        ]
        command = [sys.executable, "-m", "daemon", "run", *map(str, words), "--replay", "tcp://127.0.0.1:0"]
        run = subprocess.run([*command, "--metrics-port", "0"], capture_output=True, text=True, timeout=50, check=False)
    said = [json.loads(line) for line in run.stderr.splitlines()]
    assert (run.returncode, said[-1]["level"]) == (69, "critical")
    assert endpoint.rpartition(":")[2] in said[-1]["message"]


def test_the_journals_variable_alone_makes_no_journal(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    writer = reader.open()
    _log.error("on a terminal")
    writer.close()
    assert reader.read().endswith(" ERROR on a terminal\n")


def test_nothing_in_a_line_steers_a_terminal_and_no_line_is_a_page(reader: Reader) -> None:
    writer = reader.open()
    _log.info("\x1b[2J%s", "x" * 100_000)
    writer.close()
    (line,) = reader.lines()
    assert "\x1b" not in line
    assert len(line) <= log_lines.LONGEST_LINE


def test_a_reader_that_sleeps_costs_lines_and_nobodys_time(reader: Reader) -> None:
    writer = reader.open()
    begun_s = time.monotonic()
    for number in range(5_000):
        _log.info("line %d %s", number, "x" * 100)
    assert time.monotonic() - begun_s < allowed(5)
    assert writer.dropped > 2_000
    assert "lines were dropped" in writer.trouble
    until(lambda: "dropped while nobody read" in reader.read())
    until(lambda: not writer.trouble)
    _log.info("the next one")
    writer.close()
    said = reader.lines()
    numbers = [int(line.split("line ")[1].split()[0]) for line in said if " line " in line]
    assert numbers == sorted(set(numbers)), "in order"
    assert len(numbers) + writer.dropped == 5_000
    told = [line.split("WARNING ")[1].split()[0] for line in said if "dropped while nobody read" in line]
    assert sum(int(count.replace(",", "")) for count in told) == writer.dropped, "every one is told of"
    assert said[-1].endswith("the next one")


def test_the_end_waits_for_no_reader(reader: Reader) -> None:
    writer = reader.open()
    for _ in range(900):
        _log.info("x" * 1_000)
    begun_s = time.monotonic()
    writer.close()
    assert time.monotonic() - begun_s < log_lines.FLUSH_S + 1


def test_a_reader_that_has_gone_is_told_and_lines_flow_when_another_comes(tmp_path: Path) -> None:
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    first = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = Log("info", "text", os.open(fifo, os.O_WRONLY))
    writer.open()
    os.close(first)
    for number in range(3):
        _log.info("lost %d", number)
    until(lambda: writer.dropped == 3)
    assert "Broken pipe" in writer.trouble
    second = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    _log.info("heard")
    until(lambda: not writer.trouble)
    writer.close()
    said = os.read(second, 65536).decode().splitlines()
    assert [line.split(" ", 1)[1] for line in said] == ["INFO heard", "WARNING 3 lines were dropped while nobody read"]


def test_a_descriptor_that_somebody_made_non_blocking_loses_nothing(reader: Reader) -> None:
    os.set_blocking(reader.writing, False)
    writer = reader.open()
    for number in range(800):
        _log.info("%d %s", number, "x" * 1_500)
    until(lambda: len(reader.lines()) == 800)
    writer.close()
    assert writer.dropped == 0


def test_a_warning_again_and_again_is_one_line_with_a_count(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "REPEAT_S", 0.3)
    writer = reader.open()
    for _ in range(50):
        _log.error("the disk is full")
    _log.error("another")
    time.sleep(0.4)
    _log.error("the disk is full")
    writer.close()
    said = [line.split("ERROR ")[1] for line in reader.lines()]
    assert said[:-1] == ["the disk is full"] * log_lines.REPEATS + ["another"]
    assert said[-1].startswith(f"the disk is full (and {50 - log_lines.REPEATS} times more")


def test_what_libraries_threads_and_children_say_goes_the_same_way(reader: Reader) -> None:
    writer = reader.open()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("of a library", stacklevel=1)
        logging.captureWarnings(False)
    thread = threading.Thread(target=lambda: 1 / 0, name="unlucky")
    thread.start()
    thread.join(5)
    chatty = launch([sys.executable, "-c", "import sys; sys.stderr.write('of a child\\n' * 3)"], {})
    chatty.process.wait(20)
    until(lambda: "of a child" in reader.read())
    writer.close()
    text = reader.read()
    assert "of a library" in text
    assert "thread unlucky ended: ZeroDivisionError" in text


@pytest.mark.timeout(90)
def test_a_child_that_floods_its_standard_error_is_never_stopped_by_it(reader: Reader) -> None:
    """The pipe of children is full, as nobody reads it: the descriptor itself is non-blocking."""
    writer = reader.open()
    code = "import os\nfor _ in range(5000):\n try: os.write(2, b'x' * 1000 + b'\\n')\n except BlockingIOError: pass"
    flooding = launch([sys.executable, "-c", code], {})
    assert flooding.process.wait(60) == 0
    writer.close()


def test_a_process_whose_log_nobody_reads_ends_at_once() -> None:
    """The thread that writes hangs in the kernel when the interpreter leaves."""
    code = (
        "import logging, os, sys\nfrom daemon.service.log_lines import Log\n"
        "writer = Log('info', 'text'); writer.open()\n"
        "for _ in range(3000): logging.getLogger('x').info('y' * 500)\n"
        "writer.close(); print('closed', flush=True)"
    )
    reading, writing = os.pipe()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=writing) as process:
        out, _ = process.communicate(timeout=30)
        assert (out, process.returncode) == (b"closed\n", 0)
    os.close(reading)
    os.close(writing)
