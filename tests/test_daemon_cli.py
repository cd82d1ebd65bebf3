"""The command line: exit codes, one line for a user error, nothing imported that the verb does not need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from daemon.cli import LATER, VERBS, main

ROOT = Path(__file__).resolve().parents[1]


def call(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "daemon", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("nonsense",), 64),
        (("run",), 64),
        (("run", "--device", "abacus"), 64),
        (("score",), 64),
        (("score", "/no/such/file"), 65),
        (("bench", "--rates", "0"), 64),
        (("demo", "--curves", "0"), 64),
        (("check", "/no/such/file.toml"), 78),
        (("events", "--since", "0", "--state", "/no/such/folder", "--replay", "tcp://127.0.0.1:9"), 69),
        *(((verb,), 64) for verb in LATER),
    ],
)
def test_a_user_error_is_one_line_and_its_exit_code(words: tuple[str, ...], code: int) -> None:
    run = call(*words)
    assert run.returncode == code, run.stderr
    assert run.stderr.count("\n") == 1
    assert run.stderr.startswith("afm-triage: ")
    assert "Traceback" not in run.stderr


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(verb in text for verb in VERBS)


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    folder = ROOT / "daemon" / "curves"
    command = f"{sys.executable} -m daemon score {folder} | head -n 1"
    run = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert run.stdout.count("\n") == 1
    assert run.stderr in ("", "ignored: 1 unclaimed .md\n")  # the latter where it was done before the reader left


def test_a_file_name_cannot_steer_the_terminal_that_score_prints_on(tmp_path: Path) -> None:
    (tmp_path / "a\n\x1b[31m.jpk-force").touch()
    run = call("score", str(tmp_path))
    assert run.stdout == "review        -  a��[31m.jpk-force#0  (empty)\n"


@pytest.mark.parametrize("verb", ["events", "status", "console", "check", "labels", "replay", "simulate", "reload"])
def test_verbs_that_do_not_judge_do_not_load_torch(verb: str) -> None:
    code = f"""
import sys
from daemon.cli import main
try:
    main([{verb!r}, "--help"])
except SystemExit:
    sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False).returncode == 0
