"""One name for a curve: two folders, odd file names, files that are gone; a real service, verbs as subprocesses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from daemon.formats import event_path
from tests.faults.harness import history
from tests.faults.lab import Lab, put, share, until
from tests.makers import make_jpk_map

pytestmark = pytest.mark.timeout(240)
ODD = (b"a #2.jpk-force", b"two words.jpk-force", b"caf\xe9.jpk-force", "µ-ü.jpk-force".encode(), b"x#0.jpk-force#1")


def afm_triage(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "daemon", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, errors="surrogateescape", timeout=90, check=False)


def decided(lab: Lab, count: int) -> list[dict[str, Any]]:
    until(lambda: len(history(lab)) >= count, 60)
    return [event["data"] for event in history(lab)]


def test_every_verb_takes_the_name_that_an_event_prints(tmp_path: Path) -> None:
    here, there = tmp_path / "lab" / "watch", tmp_path / "other"
    for folder in (here, there):
        (folder / "run7").mkdir(parents=True)
    keeps_all = "[thresholds]\ndiscard = 0.0\nkeep = 1.0\n"  # every curve is flagged: each has a copy
    with Lab(tmp_path / "lab", also=[there], toml=keeps_all) as lab:
        lab.wait_ready()
        os.utime(put(here / "run7", 1, "same"), (1.6e9, 1.6e9))
        put(there / "run7", 2, "same").rename(there / "run7" / "same000001.jpk-force")
        for number, name in enumerate(ODD):
            put(here, 10 + number, "odd").rename(here / os.fsdecode(name))
        (here / "map.jpk-force-map").write_bytes(make_jpk_map(3))
        curves = decided(lab, 2 + len(ODD) + 3)
        own = ["--state", lab.state]
        names = {(one["folder"], f"{one['path']}#{one['curve']}") for one in curves}
        odd = {event_path(os.fsdecode(name)) for name in ODD}
        assert {(str(here), f"{name}#0") for name in odd} <= names
        for one in curves:
            datetime.fromisoformat(one["acquired"])
            assert one["cut"] == {"origin": "configured", "events": 0}

        flagged = json.loads(afm_triage("status", *own, "--json").stdout)["flagged"]
        assert {f"{one['path']}#{one['curve']}" for one in flagged} <= {name for _, name in names}

        refused = afm_triage("labels", "add", "run7/same000001.jpk-force#0", "keep", "--rater", "ada", *own)
        assert (refused.returncode, refused.stderr.count("\n")) == (64, 1)
        candidates = [f"{folder}/run7/same000001.jpk-force#0" for folder in (here, there)]
        assert all(one in refused.stderr for one in candidates)

        unique = [name for _, name in names if "same" not in name]
        for name in [*unique, *candidates]:
            said = afm_triage("labels", "add", name, "keep", "--rater", "ada", *own)
            plain = name.removeprefix(f"{here}/").removeprefix(f"{there}/")
            assert said.stdout == f"{plain}: keep (ada)\n", said.stderr
        assert len(afm_triage("labels", "export", *own).stdout.splitlines()) == 1 + len(names)

        for path in (*here.rglob("*.*"), *there.rglob("*.*")):
            path.unlink()
        out, judge = tmp_path / "why.png", ["--config", tmp_path / "lab" / "afm.toml", "--model", "shipped"]
        scores = {one["sha256"]: one["score"] for one in curves}
        for name in (sorted(unique)[0], candidates[1], "map.jpk-force-map#2"):
            told = afm_triage("explain", name, "--out", out, "--state", lab.state, *judge)
            assert f": {name.removeprefix(f'{there}/')}: review, score" in told.stdout, told.stderr
        told = afm_triage("score", sorted(unique)[0], "--json", *judge)
        assert told.returncode == 65, "the state of this configuration is another one"
        (lab.folder / "afm.toml").write_text(keeps_all.replace("[thr", f"state = '{lab.state}'\n[thr"))
        told = afm_triage("score", candidates[1], "--json", *judge)
        again = json.loads(told.stdout)
        assert (again["folder"], again["path"]) == (str(there), "run7/same000001.jpk-force")
        assert again["score"] == scores[again["sha256"]]
        gone = afm_triage("labels", "remove", candidates[0], "--rater", "ada", *own)
        assert gone.stdout == "run7/same000001.jpk-force#0: keep (ada) removed\n"
        assert len(afm_triage("labels", "export", *own).stdout.splitlines()) == len(names)


def test_a_file_seen_with_two_contents_is_the_latest_and_labels_follow(tmp_path: Path) -> None:
    with Lab(tmp_path / "lab") as lab:
        lab.wait_ready()
        file = put(lab.watch, 1)
        decided(lab, 1)
        put(lab.watch, 2, "new").replace(file)
        until(lambda: sum(event["data"]["path"] == file.name for event in history(lab)) == 2, 60)
        latest = [event["data"] for event in history(lab) if event["data"]["path"] == file.name][-1]
        assert afm_triage("labels", "add", file.name, "keep", "--rater", "ada", "--state", lab.state).returncode == 0
        (row,) = afm_triage("labels", "export", "--state", lab.state).stdout.splitlines()[1:]
        assert row.split(",")[6] == latest["sha256"]


def test_names_hold_while_the_share_of_their_files_is_silent(tmp_path: Path) -> None:
    with (
        share(tmp_path) as remote,
        Lab(tmp_path / "lab", also=[remote.point], toml="[thresholds]\nkeep = 1.0\n") as lab,
    ):
        lab.wait_ready()
        put(remote.point, 1)
        (one,) = decided(lab, 1)
        assert (one["folder"], one["verdict"] == "discard") == (str(remote.point), False)
        table = tmp_path / "labels.csv"
        table.write_text(f"path,label,rater\n{one['path']},keep,bob\n")
        remote.stall()
        name, own = f"{one['path']}#0", ["--state", lab.state]
        for words in (
            ("labels", "add", name, "keep", "--rater", "ada"),
            ("labels", "add", f"{remote.point}/{name}", "keep", "--rater", "eve"),
            ("labels", "import", table),
            ("labels", "remove", name, "--rater", "eve"),
            ("explain", name, "--out", tmp_path / "why.png"),
        ):
            begun_s = time.monotonic()
            told = afm_triage(*words, *own)
            assert told.returncode == 0, told.stderr
            assert time.monotonic() - begun_s < 20, words
        assert len(afm_triage("labels", "export", *own).stdout.splitlines()) == 3
