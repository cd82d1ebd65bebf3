"""The watched folders: a verb knows them from the service, while it runs and while it rests, and writes into none."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.cli import main
from daemon.client.folders import NOTE, note, refuse_watched, watched_folders
from daemon.client.service_file import TemporaryService
from daemon.common.errors import USAGE, UserError
from daemon.config import Config
from daemon.ledger.view import LedgerView

ROOT = Path(__file__).resolve().parents[1]
CURVES = ROOT / "daemon" / "curves"
GONE = 4_194_999  # no process has this number


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TemporaryService]:
    """A service that has decided curves of every verdict."""
    with TemporaryService(tmp_path_factory.mktemp("trial")) as running:
        shutil.copytree(CURVES, running.watch / "run7", ignore=shutil.ignore_patterns("*.md"))
        deadline_s = time.monotonic() + 60
        while set(decided(running)) != {"keep", "review", "discard"}:
            assert time.monotonic() < deadline_s, "no curve of each verdict"
            time.sleep(0.1)
        yield running


def decided(trial: TemporaryService) -> dict[str, str]:
    """The first curve of each verdict, as events name it."""
    with LedgerView(trial.state / "ledger.sqlite") as view:
        events = sorted(view.last(1000), key=lambda event: -event["seq"])
    return {event["data"]["verdict"]: f"{event['data']['path']}#{event['data']['curve']}" for event in events}


def labels(trial: TemporaryService, *words: str) -> subprocess.CompletedProcess[str]:
    """As typed in the folder above the watched one; only the state folder is named."""
    command = [sys.executable, "-m", "daemon", "labels", *words, "--state", str(trial.state)]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=trial.folder, env=environment, capture_output=True, text=True, check=False)


def check_export_and_add(trial: TemporaryService, rater: str) -> None:
    inside = labels(trial, "export", "--curves", "watch/mine")
    assert (inside.returncode, inside.stderr.count("\n")) == (64, 1)
    assert f"watch/mine lies in the watched folder {trial.watch}" in inside.stderr
    assert not (trial.watch / "mine").exists()
    for name in decided(trial).values():
        done = labels(trial, "add", name, "keep", "--rater", rater)
        assert (done.returncode, done.stdout) == (0, f"{name}: keep ({rater})\n"), done.stderr


def test_a_running_service_tells_its_folders(trial: TemporaryService) -> None:
    (trial.state / NOTE).unlink()  # a service from before there were notes: its answer must do
    check_export_and_add(trial, "ada")
    outside = labels(trial, "export", "--curves", "mine")
    assert outside.stderr.startswith("3 curves and labels.csv in mine"), outside.stderr
    with (trial.folder / "mine" / "labels.csv").open(newline="") as file:
        assert {f"{row['origin_path']}#{row['origin_curve_index']}" for row in csv.DictReader(file)} == set(
            decided(trial).values()
        )


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_note_of_a_service_that_rests_still_tells_them(trial: TemporaryService, end: str) -> None:
    trial.stop()
    trial.start()
    trial.wait_ready()
    getattr(trial, end)()
    check_export_and_add(trial, end)


def test_the_configuration_counts_as_well_and_each_folder_once(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    note(Config(state=tmp_path, watch=(one,)))
    (tmp_path / "link").symlink_to(one)
    assert watched_folders(Config(state=tmp_path, watch=(other, tmp_path / "link"))) == [other, one]


@pytest.mark.parametrize("content", ["", "[]", '{"watch": 3}', '{"watch": [3, null]}', "\x00", "[" * 100_000])
def test_a_damaged_note_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / NOTE).write_text(content)
    assert watched_folders(Config(state=tmp_path)) == []


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a service that runs on this computer under a name of its own, so that no verb is told of it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    (folder := tmp_path / "afm").mkdir()
    (tmp_path / "mine").mkdir()
    runs(tmp_path, os.getpid(), folder)
    monkeypatch.chdir(tmp_path)
    return folder


def runs(home: Path, pid: int, folder: Path) -> None:
    (state := home / "home/afm-triage/left").mkdir(parents=True, exist_ok=True)
    (state / "service.json").write_text(json.dumps({"pid": pid}))
    note(Config(state=state, watch=(folder,)))


@pytest.mark.parametrize(
    "words",
    [
        ("score", CURVES, "--out"),
        ("score", CURVES, "--cluster", "local", "--out"),
        ("score", CURVES, "--state", "mine", "--out"),
        ("pack", CURVES, "--out"),
        ("pack", CURVES, "--cluster", "local", "--out"),
        ("events", "--state", "mine", "--to", "parquet", "--out"),
        ("events", "--replay", "tcp://127.0.0.1:1", "--to", "duckdb", "--out"),
        ("find", "--state", "mine", "--csv"),
        ("report", "--state", "mine", "--html"),
        ("labels", "export", "--state", "mine", "--out"),
        ("labels", "export", "--state", "mine", "--curves"),
        ("ledger", "snapshot", "--state", "mine", "--to"),
        ("console", "--state", "mine", "--snapshot"),
        ("rank", CURVES, "--labelled", CURVES, "--list"),
        ("rank", "--state", "mine", "--list"),
        ("evaluate", "shipped", CURVES, "--report"),
        ("train", "--simulate", "9", "--out"),
        ("simulate", "--into", "elsewhere", "--truth"),
        ("explain", CURVES / "waite_set1_16.txt", "--out"),
    ],
    ids=lambda words: f"{words[0]} {words[-2]} {words[-1]}",
)
def test_no_verb_writes_what_it_makes_into_a_watched_folder(
    words: tuple[str | Path, ...], watched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*map(str, words), str(watched / "x.png")]) == USAGE
    told = capsys.readouterr()
    assert f"{words[-1]} {watched}/x.png" in told.err
    assert f" lies in the watched folder {watched}, which is the instrument's: name a place outside it" in told.err
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert not any(watched.iterdir())


def test_a_target_is_looked_at_where_it_leads_and_a_service_that_has_ended_holds_nobody_up(
    watched: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(watched)
    for target in (watched, watched / "no/such/x", tmp_path / "link/x", Path("afm/x"), Path("other/../afm/x")):
        with pytest.raises(UserError, match="lies in the watched folder"):
            refuse_watched({"--csv": None, "--out": target})
    outside = {"--csv": None, "--out": Path("afm2/x"), "--copy": tmp_path, "--html": Path("/dev/stdout")}
    refuse_watched(outside)
    with pytest.raises(UserError, match=f"--copy {tmp_path} holds the watched folder {watched}"):
        refuse_watched(outside, trees=("--copy",))
    runs(tmp_path, GONE, watched)
    refuse_watched({"--out": watched / "x"})


def test_what_is_wrong_with_a_service_that_nobody_named_stops_nothing(
    watched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (outside := watched.parent / "outside").mkdir()
    monkeypatch.setenv("AFM_TRIAGE_WATCH", str(outside))
    monkeypatch.setenv("AFM_TRIAGE_KEY", "no/such/key")
    monkeypatch.setenv("AFM_TRIAGE_DEVICE", "abacus")
    with pytest.raises(UserError, match=f"lies in the watched folder {outside}"):
        refuse_watched({"--out": outside / "x"})
    refuse_watched({"--out": watched.parent / "x"})
    monkeypatch.delenv("AFM_TRIAGE_WATCH")
    monkeypatch.setattr(Path, "expanduser", no_home)
    monkeypatch.delenv("XDG_STATE_HOME")
    refuse_watched({"--out": outside / "x"})


def no_home(path: Path) -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_an_instrument_is_played_and_simulated_into_a_watched_folder_all_the_same(
    watched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", "--into", str(watched), "--curves", "1", "--truth", "truth.csv"]) == 0
    assert main(["replay", str(CURVES / "waite_set1_16.txt"), "--into", str(watched), "--rate", "1000"]) == 0
    assert len(list(watched.iterdir())) == 2
