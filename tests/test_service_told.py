"""The running service and the files that it does not judge at once, or at all: told by kind, raised, waited for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from daemon.client.service_file import TemporaryService
from tests.faults.harness import CURVES, history, identity_holds, scrape
from tests.makers import a_retract, make_columns, make_ibw_pair, make_jpk
from tests.test_service import score, until

pytestmark = pytest.mark.slow
UNENDED_S = 4.0


def afm_triage(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "daemon", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def status(trial: TemporaryService) -> dict[str, Any]:
    told = afm_triage("status", "--state", trial.state, "--json")
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def alarm(trial: TemporaryService) -> str:
    """What is said about the folder, "" while all is well."""
    name = f"folder {trial.watch}"
    return next((one["text"] for one in status(trial)["health"] if one["name"] == name and not one["ok"]), "")


def test_what_is_passed_over_is_told_by_kind_everywhere_and_again_after_a_restart(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with TemporaryService(tmp_path) as trial:
        for number in range(3):
            (trial.watch / f"{number}.pfc").write_bytes(b"x")
        (trial.watch / "camera.png").write_bytes(b"x")
        (trial.watch / "README").write_text("the tip was changed at 14:00\n")
        (trial.watch / "tree").symlink_to(outside)
        os.mkfifo(trial.watch / "pipe")
        for half, content in zip(("aDefl.ibw", "aZSNSR.IBW"), make_ibw_pair(*a_retract()), strict=True):
            (trial.watch / half).write_bytes(content)
        expected = {
            "unclaimed .pfc": 3,
            "unclaimed without suffix": 1,
            "image": 1,
            "link": 1,
            "not_regular": 1,
            "companion": 1,
        }
        until(lambda: status(trial)["ignored"] == expected, "all kinds told")
        until(lambda: len(history(trial)) == 1, "the pair decided")
        assert status(trial)["session"]["ignored"] == 7  # the second half of a pair is read
        page = afm_triage("status", "--state", trial.state).stdout
        assert "7 ignored" in page
        assert "3 unclaimed .pfc, 1 unclaimed without suffix, 1 image, 1 link, 1 not_regular; 1 companion" in page
        numbers = scrape(trial)
        assert numbers['afm_triage_files_ignored_total{reason="unclaimed"}'] == 4
        assert numbers['afm_triage_files_ignored_total{reason="companion"}'] == 1
        assert identity_holds(numbers)
        assert trial.log.read_text().count("links are not followed (the first: tree)") == 1
        scored = afm_triage("score", "--json", trial.watch)
        assert [json.loads(line)["path"] for line in scored.stdout.splitlines()] == ["aDefl.ibw"]
        assert "ignored: 3 unclaimed .pfc, 1 unclaimed without suffix, 1 image, 1 link, 1 not_regular;" in scored.stderr
        assert f"links to folders are not followed, the first is {trial.watch / 'tree'}" in scored.stderr
        assert history(trial)[0]["data"]["sha256"] == json.loads(scored.stdout)["sha256"]
        trial.stop()
        trial.start()
        trial.wait_ready()
        until(lambda: status(trial)["ignored"] == expected, "told again")
        assert alarm(trial) == ""


def test_files_that_come_and_are_not_read_raise_an_alarm_until_a_curve_comes(tmp_path: Path) -> None:
    with TemporaryService(tmp_path) as trial:
        for number in range(15):
            (trial.watch / f"{number}.pfc").write_bytes(b"x")
        for number in range(5):
            (trial.watch / f"note{number}.txt").write_text(f"nothing to be seen here, {number}\n")
        until(lambda: "20 files came and none is a kind that is read: 15 .pfc, 5 .txt" in alarm(trial), "the alarm")
        assert status(trial)["state"] == "degraded"
        (trial.watch / "a.jpk-force").write_bytes(make_jpk(*a_retract(seed=1)))
        until(lambda: alarm(trial) == "", "the all-clear")
        assert f"folder {trial.watch}: what comes is read" in trial.log.read_text()


@pytest.mark.faults
def test_a_few_files_are_enough_after_a_while_and_a_note_with_a_thumbnail_is_not(tmp_path: Path) -> None:
    config = tmp_path / "afm1.toml"
    config.write_text("[alarm]\nunread_s = 2\n")
    with TemporaryService(tmp_path, options=("--config", str(config))) as trial:
        (trial.watch / "README").write_text("the tip was changed at 14:00\n")
        (trial.watch / "Thumbs.db").write_bytes(b"x")
        (trial.watch / "camera.png").write_bytes(b"x")
        time.sleep(4.0)
        assert alarm(trial) == ""
        (trial.watch / "one.pfc").write_bytes(b"x")
        until(lambda: alarm(trial).startswith("3 files came and none is a kind that is read: "), "the alarm", 5.0)
        trial.stop()
        trial.start()
        trial.wait_ready()
        time.sleep(3.0)
        assert alarm(trial) == ""  # what lay there at the start has not come


def test_text_without_a_line_end_is_judged_after_its_rest_as_score_judges_it_at_once(tmp_path: Path) -> None:
    """Three writers: one never ends its last row, one pauses within it, one was broken off."""
    config = tmp_path / "afm1.toml"
    config.write_text(f"[source]\nunended_s = {UNENDED_S}\ngive_up_s = 6\n")
    content = (CURVES / "waite_set1_16.txt").read_bytes().rstrip()
    force, distance = a_retract(seed=4)
    columns = make_columns(distance * 1e9, force * 1e9, header="nm\tnN\n")
    with TemporaryService(tmp_path, options=("--config", str(config))) as trial:
        with open(trial.watch / "paused.txt", "wb", buffering=0) as file:
            file.write(columns[:4001])
            (trial.watch / "unended.txt").write_bytes(content)
            (trial.watch / "broken.txt").write_bytes(columns[:3001])
            begun_s = time.monotonic()
            time.sleep(3.0)  # longer than ended text rests, shorter than unended text does
            assert history(trial) == []
            file.write(columns[4001:])
        until(lambda: len(history(trial)) == 3, "all three decided", 20.0)
        data = {event["data"]["path"]: event["data"] for event in history(trial)}
        assert data["broken.txt"]["reasons"] == ["truncated"]
        assert "truncated" not in data["paused.txt"]["reasons"] + data["unended.txt"]["reasons"]
        assert data["unended.txt"]["score"] is not None
        expected = score(trial.watch)
        for (path, curve), row in expected.items():
            assert curve == 0
            same = ("verdict", "score", "reasons", "sha256", "preview")
            assert {name: data[path][name] for name in same} == {name: row[name] for name in same}
        time.sleep(max(0.0, begun_s + 8.0 - time.monotonic()))
        assert len(history(trial)) == 3  # the one that paused was judged once, as a whole
        assert identity_holds(scrape(trial))


def test_unended_text_of_before_the_start_waits_no_more(tmp_path: Path) -> None:
    (tmp_path / "watch").mkdir()
    file = tmp_path / "watch" / "old.txt"
    shutil.copy(CURVES / "waite_set1_16.txt", file)
    file.write_bytes(file.read_bytes().rstrip())
    os.utime(file, (time.time() - 3600, time.time() - 3600))
    with TemporaryService(tmp_path) as trial:
        until(lambda: len(history(trial)) == 1, "decided at once", 5.0)
