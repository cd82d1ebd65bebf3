"""A model that serves is never changed in place: what replaces it is made beside it, and asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
from makers import a_retract
from modelhelp import make_model

from daemon.cli import main
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
