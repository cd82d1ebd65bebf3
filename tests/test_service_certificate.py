"""`require_certificate` in the running service: discards are held back, `score` agrees, a hot swap sets them free."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daemon.client.service_file import TemporaryService
from models.bundle import SHIPPED, read
from models.certificate import Certificate, Experiment, miss_bound
from tests.faults.harness import CURVES, fresh, history
from tests.test_service import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


def certified(folder: Path, engine: str) -> Path:
    """The shipped model with a promise, as if 59 labelled events had earned it."""
    shutil.copytree(SHIPPED, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["certificate"] = Certificate(
        max_miss=0.05,
        confidence=0.95,
        bound=miss_bound(59, 0, 0.95),
        events=59,
        missed=0,
        allowed=0,
        limit_logit=100.0,
        experiments={"monday": Experiment(59, 0, "a" * 64)},
        weights_sha256=manifest["sha256"]["weights.safetensors"],
        engine=engine,
        made="2026-11-21T06:00:00Z",
    ).to_mapping()
    manifest["score_basis"] = "labels"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert read(folder).certificate is not None
    return folder


def take_back(folder: Path) -> None:
    """The same model without its promise, in the same folder."""
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "certificate": None}))


def score(folder: Path) -> dict[str, dict[str, Any]]:
    words = [sys.executable, "-m", "daemon", "score", "--json", "--require-certificate", str(folder)]
    run = subprocess.run(words, capture_output=True, text=True, check=True)
    return {row["path"]: row for row in map(json.loads, run.stdout.splitlines())}


def test_discards_are_held_back_live_as_in_score_and_freed_by_a_certified_model(tmp_path: Path) -> None:
    config = tmp_path / "afm.toml"
    config.write_text("require_certificate = true\n")
    singles = [file for file in sorted(CURVES.iterdir()) if file.suffix == ".jpk-force"]
    with TemporaryService(tmp_path / "trial", options=("--config", str(config))) as trial:
        assert trial.process is not None
        for file in singles:
            shutil.copy(file, trial.watch / file.name)
        until(lambda: len(history(trial)) == len(singles), "all decided")
        live, later = {event["data"]["path"]: event["data"] for event in history(trial)}, score(trial.watch)
        same = ("verdict", "score", "reasons", "model", "pipeline", "engine", "certificate")
        for path, row in later.items():
            assert {name: live[path][name] for name in same} == {name: row[name] for name in same}
        held_back = [path for path, row in live.items() if "no_certificate" in row["reasons"]]
        assert held_back
        assert "discard" not in {row["verdict"] for row in live.values()}
        config.write_text(f'require_certificate = true\nmodel = "{certified(tmp_path / "ours", "torch-cpu-fp32")}"\n')
        trial.process.send_signal(signal.SIGHUP)
        until(lambda: "applied ['model']" in trial.log.read_text(), "the model swapped")
        (trial.watch / "again.jpk-force").write_bytes(fresh((trial.watch / held_back[0]).read_bytes(), 7))
        until(lambda: len(history(trial)) == len(singles) + 1, "the next decided")
        last = history(trial)[-1]["data"]
        assert last["verdict"] == "discard"
        assert "no_certificate" not in last["reasons"]
        assert last["certificate"]["data"] == ["monday"]
        take_back(tmp_path / "ours")  # the same name, another model: the name alone does not say so
        trial.process.send_signal(signal.SIGHUP)
        until(lambda: trial.log.read_text().count("applied ['model']") == 2, "the folder was read again")
        (trial.watch / "third.jpk-force").write_bytes(fresh((trial.watch / held_back[0]).read_bytes(), 8))
        until(lambda: len(history(trial)) == len(singles) + 2, "the third decided")
        assert history(trial)[-1]["data"]["certificate"] is None
        assert history(trial)[-1]["data"]["verdict"] == "review"
