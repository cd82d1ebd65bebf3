"""The watched folders: `labels` knows them from the service, while it runs and while it rests."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.client.folders import NOTE, note, watched_folders
from daemon.client.service_file import TemporaryService
from daemon.config import Config
from daemon.ledger.view import LedgerView

ROOT = Path(__file__).resolve().parents[1]
CURVES = ROOT / "daemon" / "curves"


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
