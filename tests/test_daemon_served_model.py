"""A model that serves is never changed in place: what replaces it is made beside it, and asked for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from makers import a_retract
from modelhelp import make_model

from daemon.cli import main
from daemon.judging.registry import JUDGED, Registry
from deploy.classifier import EngineRequest
from deploy.serving import Model
from models.bundle import BadBundle, read, write
from models.curve import Curve

CPU = EngineRequest(device="cpu", engine="torch")


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("verb", ["train", "calibrate"])
def test_a_model_is_replaced_only_where_that_is_asked_for(
    tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said before the work begins, not after an hour of it."""
    make_model(tmp_path / "other")
    made = make_model(tmp_path / "mine")
    before = contents(made.folder)
    first = ["--simulate", "200"] if verb == "train" else [str(tmp_path / "other"), str(tmp_path)]
    assert main([verb, *first, "--out", str(made.folder)]) == 64
    error = capsys.readouterr().err
    assert "--replace" in error
    assert error.count("\n") == 1
    assert contents(made.folder) == before
    (tmp_path / "notes").mkdir()
    assert main([verb, *first, "--out", str(tmp_path / "notes"), "--replace"]) == 64
    assert "is no model" in capsys.readouterr().err


def test_training_replaces_on_request(tmp_path: Path) -> None:
    made = make_model(tmp_path / "mine")
    words = ["--simulate", "64", "--held-out", "200", "--epochs", "1", "--width", "4", "--size", "64", "--threads", "1"]
    assert main(["train", *words, "--out", str(made.folder), "--replace"]) == 0
    assert read(made.folder).id != made.id
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_serves_holds_what_it_loaded(tmp_path: Path) -> None:
    """Also while its folder is replaced, and once it is gone."""
    made = make_model(tmp_path / "mine")
    force, distance = a_retract(2000)
    curve = Curve(force, "N", distance, "piezo")
    serving = Model.load(made.folder, CPU)
    (before,) = serving.judge([curve])
    changed = {name: tensor * 0.5 for name, tensor in made.weights.items()}
    manifest = msgspec.structs.replace(made.manifest, name="other")
    write(made.folder, changed, manifest, "# other\n", replaces=True)
    (beside,) = serving.judge([curve])
    assert (beside.score, beside.logit, serving.id) == (before.score, before.logit, made.id)
    assert read(made.folder).id != made.id
    shutil.rmtree(made.folder)
    assert serving.judge([curve])[0].logit == before.logit


@pytest.mark.parametrize("missing", ["weights.safetensors", "manifest.json", "card.md"])
def test_half_a_folder_is_never_loaded(tmp_path: Path, missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_model(tmp_path / "mine")
    (made.folder / missing).unlink()
    with pytest.raises(BadBundle):
        Model.load(made.folder, CPU)
    assert main(["score", str(Path(__file__).parent), "--model", str(made.folder)]) == 65
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("damage", ["missing", "half", "flipped"])
def test_check_finds_a_model_that_run_would_refuse(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    file = tmp_path / "afm.toml"
    file.write_text(f'watch = ["{tmp_path / "watched"}"]\nmodel = "{folder}"\nstate = "{tmp_path / "state"}"\n')
    if damage != "missing":
        make_model(folder)
        assert main(["check", str(file)]) == 0
        weights = folder / "weights.safetensors"
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.unlink() if damage == "half" else weights.write_bytes(content)
    capsys.readouterr()
    assert main(["check", str(file)]) == 78
    told = capsys.readouterr()
    assert told.out == ""
    assert "✗ model: " in told.err
    assert str(folder) in told.err
    assert told.err.count("\n") == 2
    file.write_text(f"metrics_port = -1\n{file.read_text()}")
    assert main(["check", str(file)]) == 78
    assert ": 2 to correct" in capsys.readouterr().err, "the model is told beside the other errors"


@pytest.mark.parametrize("key", ["discard = 0.9", "keep = 0.001"])
def test_check_finds_a_threshold_that_the_model_does_not_go_with(
    tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "afm.toml"
    file.write_text(f'watch = ["{tmp_path / "watched"}"]\nstate = "{tmp_path / "state"}"\n[thresholds]\n{key}\n')
    assert main(["check", str(file)]) == 78
    told = capsys.readouterr().err
    assert (": 1 to correct" in told, "must lie below keep" in told) == (True, True)


def listed(state: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    capsys.readouterr()
    assert main(["models", "list", "--json", "--state", str(state)]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_model_that_has_judged_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Registered or not, replaced since or gone."""
    state = tmp_path / "state"
    ours, mine = make_model(state / "models" / "ours"), make_model(tmp_path / "mine", "mine")
    idle = make_model(state / "models" / "idle", "idle")
    for name, made in (("ours", ours), ("mine", mine), ("mine", mine), ("ours", ours)):
        Registry(state / "models").note_served(name, made)
    assert len((state / "served-models.jsonl").read_text().splitlines()) == 3  # once for each time one takes over
    rows = {str(row["id"]): row for row in listed(state, capsys)}
    assert {ours.id, mine.id, idle.id} < rows.keys()
    assert rows[ours.id]["served_since"]
    assert rows[mine.id]["served_since"]
    assert rows[idle.id]["served_since"] is None
    manifest = msgspec.structs.replace(mine.manifest, name="other")
    write(mine.folder, mine.weights, manifest, "# other\n", replaces=True)
    shutil.rmtree(mine.folder)
    assert {str(row["id"]): row["problem"] for row in listed(state, capsys)}[mine.id] is None, "it stays readable"
    shutil.rmtree(state / "models" / JUDGED / mine.id)
    assert "is gone" in {str(row["id"]): str(row["problem"]) for row in listed(state, capsys)}[mine.id]
    assert main(["models", "list", "--state", str(state)]) == 0
    assert mine.id in capsys.readouterr().out


def test_a_note_that_was_cut_off_or_cannot_be_written_hinders_nothing(tmp_path: Path) -> None:
    serving = make_model(tmp_path / "mine")
    nowhere = Registry(tmp_path / "nowhere" / "models")
    (tmp_path / "nowhere").write_text("a file")
    nowhere.note_served("mine", serving)
    assert nowhere.served() == []
    registry = Registry(tmp_path / "models")
    (tmp_path / "served-models.jsonl").write_text('[7]\n{"id": "x", "na')
    registry.note_served("mine", serving)
    registry.note_served("mine", serving)
    assert [one.id for one in registry.served()] == [serving.id]


def test_a_service_notes_which_model_judges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, watch = tmp_path / "state", tmp_path / "watch"
    watch.mkdir()
    made = make_model(tmp_path / "mine", "mine")
    words = ["run", "--watch", str(watch), "--state", str(state), "--model", str(made.folder), "--metrics-port", "0"]
    words += ["--publish", "tcp://127.0.0.1:*", "--replay", "tcp://127.0.0.1:*", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "daemon", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline_s = time.monotonic() + 40
        while not Registry(state / "models").served() and time.monotonic() < deadline_s:
            time.sleep(0.1)
    finally:
        process.terminate()
        process.wait(20)
    assert [one.id for one in Registry(state / "models").served()] == [made.id]
    assert made.id in {row["id"] for row in listed(state, capsys)}
