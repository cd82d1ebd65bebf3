"""The environment: no home, a user without a name, streams that are closed, full or not UTF-8, a state that is none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

from daemon.cli import main
from daemon.client.service_file import TemporaryService, free_port
from tests.ledgerhelp import ledger_with
from tests.speaker import Speaker

ROOT = Path(__file__).resolve().parents[1]
CURVE = ROOT / "daemon" / "curves" / "waite_set1_75.txt"
#: A user number without a name. It may look everywhere (the interpreter may lie in a home), and not write.
STRANGER = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"]
STRANGER += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
ENCODINGS = {
    "ASCII": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
}


def homeless() -> dict[str, str]:
    """The environment without a word of who the user is."""
    names = ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "USER", "LOGNAME", "STATE_DIRECTORY")
    return {name: value for name, value in os.environ.items() if name not in names}


def call(*words: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "daemon", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, env={**os.environ, **variables}, check=False)


@cache
def why_no_stranger() -> str:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return "needs root and setpriv, to become a user without a name"
    code = f"import subprocess; subprocess.run([{sys.executable!r}, '-c', ''], check=True)"
    tried = subprocess.run([*STRANGER, sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return tried.stderr.strip()[-200:]


def as_stranger(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    if why_no_stranger():
        pytest.skip(why_no_stranger())
    command = [*STRANGER, sys.executable, "-m", "daemon", *words]
    variables = {**homeless(), "PYTHONDONTWRITEBYTECODE": "1", **variables}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=variables, check=False)


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """One that everybody may write into."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


# ---- nobody's home


@pytest.mark.faults
@pytest.mark.parametrize("home", [None, "/nonexistent"], ids=["no HOME", "a HOME that is not there"])
def test_verbs_that_need_no_state_need_no_home(home: str | None, open_folder: Path) -> None:
    variables = {} if home is None else {"HOME": home}
    config, picture = open_folder / "afm.toml", open_folder / "why.png"
    config.write_text(f'watch = ["{open_folder}/watch"]\n')
    for words in (
        ("score", str(CURVE)),
        ("check", str(config)),
        ("explain", str(CURVE), "--out", str(picture)),
        ("simulate", "--curves", "2", "--into", str(open_folder / "simulated")),
        ("replay", str(CURVE), "--into", str(open_folder / "played"), "--rate", "1000"),
        ("models", "list"),
    ):
        done = as_stranger(*words, **variables)
        assert (done.returncode, done.stderr) == (0, ""), words
    assert picture.stat().st_size > 10_000
    assert "Traceback" not in as_stranger("doctor", **variables).stderr


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("events", "--since", "0"),
        ("console",),
        ("labels", "export"),
        ("reload",),
        ("run", "--watch", "/tmp"),
    ],
)
def test_without_a_home_the_others_say_that_a_state_is_needed(words: tuple[str, ...]) -> None:
    if Path("/var/lib/afm-triage/afm1").is_dir():
        pytest.skip("the system's own service has a state folder here, which is found")
    done = as_stranger(*words)
    assert (done.returncode, done.stderr.count("\n")) == (78, 1), done.stderr
    assert "give --state DIR" in done.stderr


def test_with_a_state_the_service_needs_no_home(open_folder: Path) -> None:
    if why_no_stranger():
        pytest.skip(why_no_stranger())
    trial = Stranger(open_folder)
    with trial:
        done = as_stranger("status", "--state", str(trial.state), "--instrument", "demo", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["state"] == "ready"
        assert trial.stop() == 0


class Stranger(TemporaryService):
    def command(self) -> list[str]:
        return [
            "env",
            "-u",
            "HOME",
            "-u",
            "XDG_STATE_HOME",
            "-u",
            "USER",
            "-u",
            "LOGNAME",
            *STRANGER,
            *super().command(),
        ]


# ---- a state that cannot be written


def service(state: Path, watch: Path) -> tuple[str, ...]:
    ends = [word for key in ("--publish", "--replay") for word in (key, f"tcp://127.0.0.1:{free_port()}")]
    return ("run", "--watch", str(watch), "--state", str(state), "--metrics-port", "0", *ends)


@pytest.mark.parametrize("below", ["", "further/down"])
def test_a_state_that_is_a_file_is_a_bad_configuration(below: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    state = str(file / below) if below else str(file)
    for words in (
        service(Path(state), tmp_path / "watch"),
        ("status", "--state", state),
        ("labels", "export", "--state", state),
    ):
        done = call(*words)
        assert (done.returncode, done.stderr.count(b"\n")) == (78, 1), done.stderr
        assert f"{file} is no folder".encode() in done.stderr


def test_a_state_without_permission_is_told_in_one_line(open_folder: Path) -> None:
    closed = open_folder.parent / "closed"
    closed.mkdir()
    for state in (closed, closed / "new"):
        done = as_stranger(*service(state, open_folder))
        assert (done.returncode, done.stderr.count("\n")) == (74, 1), done.stderr
        assert f"the state folder {state} cannot be written (Permission denied)" in done.stderr


def test_a_state_that_may_only_be_read_can_be_read(open_folder: Path) -> None:
    closed = open_folder.parent / "closed"
    closed.mkdir()
    ledger_with(closed / "ledger.sqlite", 3).close()
    silent = ("--state", str(closed), "--replay", "tcp://127.0.0.1:9", "--publish", "tcp://127.0.0.1:9")
    done = as_stranger("events", "--since", "0", *silent)
    assert (done.returncode, done.stdout.count("\n")) == (0, 3), done.stderr
    done = as_stranger("labels", "add", str(CURVE), "keep", "--rater", "anna", "--state", str(closed))
    assert (done.returncode, done.stderr.count("\n")) == (74, 1), done.stderr


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system on which nothing more can be written."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True, check=False
    ).returncode:
        pytest.skip("needs the right to mount")
    try:
        (disk / "state").mkdir()
        with suppress(OSError), (disk / "filling").open("wb", buffering=0) as file:
            while True:  # until there is no space left
                file.write(bytes(4096))
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_disk_that_is_full_at_the_start_is_told_in_one_line(full_disk: Path, tmp_path: Path) -> None:
    done = call(*service(full_disk / "state", tmp_path / "watch"))
    assert (done.returncode, done.stderr.count(b"\n")) == (74, 1), done.stderr
    assert b"No space left on device" in done.stderr


# ---- standard streams


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Speaker]:
    with Speaker(tmp_path_factory.mktemp("speaking") / "state") as speaker:
        speaker.record(2, path="Äpfel/µN.txt")
        yield speaker


@pytest.fixture(scope="module")
def umlauts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("names")
    shutil.copy(CURVE, folder / "Äpfel µN.txt")
    with open(os.fsencode(folder) + b"/gr\xfc\xdfe.txt", "wb") as file:
        file.write(CURVE.read_bytes() + b"\n")
    return folder


@pytest.mark.faults
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_stream_that_is_not_utf8_shows_what_it_can(encoding: str, speaker: Speaker, umlauts: Path) -> None:
    state = ("--state", str(speaker.state))
    config = umlauts.parent / "Größe.toml"
    config.write_text(f'watch = ["{umlauts}/Äpfel"]\nstate = "{speaker.state}"\n', encoding="utf-8")
    for words in (("status", *state), ("score", str(umlauts)), ("check", str(config)), ("labels", "export", *state)):
        done = call(*words, **ENCODINGS[encoding])
        assert (done.returncode, done.stderr) == (0, b""), words
    done = call("doctor", *state, **ENCODINGS[encoding])
    assert (done.returncode in (0, 69), done.stderr) == (True, b"")
    done = call("console", "--snapshot", str(umlauts.parent / "c.svg"), *state, **ENCODINGS[encoding])
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.faults
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_loses_nothing_in_any_encoding(encoding: str, speaker: Speaker, umlauts: Path) -> None:
    state = ("--state", str(speaker.state))
    events, scores, status = (
        call(*words, **ENCODINGS[encoding]).stdout
        for words in (
            ("events", "--since", "0", *state),
            ("score", "--json", str(umlauts)),
            ("status", "--json", *state),
        )
    )
    assert {json.loads(line)["data"]["path"] for line in events.splitlines()} == {"Äpfel/µN.txt"}
    assert "Äpfel µN.txt" in {json.loads(line)["path"] for line in scores.splitlines()}
    json.loads(status)


@pytest.mark.faults
@pytest.mark.parametrize(
    "words",
    [
        ("status", "--state", "STATE"),
        ("status", "--json", "--state", "STATE"),
        ("events", "--since", "0", "--state", "STATE"),
        ("labels", "export", "--state", "STATE"),
        ("score", "--json", str(CURVE)),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_closed_full_and_deserted_streams(words: tuple[str, ...], speaker: Speaker) -> None:
    named = " ".join(word.replace("STATE", str(speaker.state)) for word in words)
    verb = f"{sys.executable} -m daemon {named}"
    for shell, code, lines in (
        (f"{verb} >&-", 0, 0),
        (f"{verb} >/dev/full", 74, 1),
        (f"{verb} 2>&- >/dev/null", 0, 0),
        (f"{verb} <&- >&- 2>&-", 0, 0),
        (f"set -o pipefail; {verb} | true", 0, 0),
    ):
        done = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (code, lines), (shell, done.stderr)


def test_a_closed_stream_does_not_give_its_number_to_a_file() -> None:
    """Else the ledger could be file 2, and what a library writes to standard error would land in it."""
    code = "import os; from daemon.common import stdio; stdio.steady(); print(os.open('/dev/zero', os.O_RDONLY))"
    with subprocess.Popen(
        ["bash", "-c", f'{sys.executable} -c "{code}" <&- 2>&-'], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        out, _ = process.communicate(timeout=30)
    assert int(out) >= 3


def test_no_message_steers_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = tmp_path / "a\x1b[2J\x1b]0;owned\x07.txt"
    for words in (["score", str(evil)], ["check", str(evil)], ["status", "--config", str(evil)], [str(evil)]):
        assert main(words) in (64, 65, 78)
        out, err = capsys.readouterr()
        assert not {"\x1b", "\x07"} & set(out + err), words


@pytest.mark.parametrize("verb", ["status", "score", "events", "labels"])
def test_no_name_of_a_file_steers_the_terminal(verb: str, tmp_path: Path) -> None:
    evil = "a\x1b[2J\nkeep 1.0 fake.txt"
    shutil.copy(CURVE, tmp_path / evil)
    with Speaker(tmp_path / "state") as speaker:
        speaker.record(3, path=evil)
        state = ("--state", str(speaker.state))
        words = {
            "status": ("status", *state),
            "score": ("score", str(tmp_path / evil)),
            "events": ("events", "--since", "0", *state),
            "labels": ("labels", "add", str(tmp_path / evil), "keep", "--rater", "anna", *state),
        }[verb]
        done = call(*words)
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"\nkeep 1.0 fake" not in done.stdout
