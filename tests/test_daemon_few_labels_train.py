"""Few labels and published weights, as a user asks `train` for them."""

import copy
import csv
import sys

import numpy as np
import pytest
import torch
from modelhelp import SMALL, make_model, noisy, some_examples, untrained
from safetensors.torch import save_file
from test_models_transfer import published

from daemon.cli import main
from daemon.learn.evidence import TrainingRecord
from daemon.learn.head import HeadPlan, _weights, fit_head
from deploy.serving import Model, known_curves
from models.bundle import read
from models.metrics import auc
from models.train import infer

pytest.importorskip("sklearn")
TRUTH = ("discard", "discard", "keep", "keep", "keep", "discard")


def write_curves(folder, days, labelled=True):
    """The known curves of some days, each with its own noise, as two-column text."""
    folder.mkdir(parents=True)
    rows = []
    for day in days:
        for number, (curve, label) in enumerate(zip(known_curves(), TRUTH, strict=True)):
            name = f"day{day}-{number}.txt"
            force = noisy(curve, 100 * day + number).force
            text = "".join(f"{place * 0.25e-9:.6e}\t{value:.6e}\n" for place, value in enumerate(force))
            (folder / name).write_text("distance [m]\tforce [N]\n" + text)
            rows.append((name, label, f"day{day}"))
    if labelled:
        with (folder / "labels.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label", "experiment"), *rows])
    return folder


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    root = tmp_path_factory.mktemp("lab")
    write_curves(root / "labelled", (1, 2))
    write_curves(root / "unlabelled", (3, 4), labelled=False)
    make_model(root / "model")
    return root


def train(*words):
    return main(["train", *map(str, words), "--epochs", "1", "--held-out", "200", "--threads", "1"])


@pytest.mark.parametrize(("head", "features"), [("logistic", "pca"), ("svm", "none")])
def test_a_head_of_few_labels_is_a_model_like_any_other(lab, tmp_path, head, features):
    out = tmp_path / "ours"
    words = ["--init", lab / "model", "--labelled", lab / "labelled", "--unlabelled", lab / "unlabelled"]
    assert train(*words, "--head", head, "--features", features, "--out", out) == 0
    before, after = read(lab / "model"), read(out)
    assert {name for name in after.weights if not np.array_equal(after.weights[name], before.weights[name])} == {
        "fc.weight",
        "fc.bias",
    }
    assert after.manifest.parent == before.id
    assert after.manifest.score_basis == "simulation"
    assert after.manifest.training["head"] == {"kind": head, "features": features, "unlabelled": 12}
    assert len(after.manifest.training["curves"].split()) == 12  # evidence about it has to be other curves
    unlabelled = after.manifest.training["unlabelled_curves"].split()  # they have shaped the ranking, too
    assert len(unlabelled) == 12
    assert TrainingRecord.of(after.manifest.training).unlabelled == set(unlabelled)
    assert "unlabelled curves:" not in (out / "card.md").read_text()
    scored = [one.logit for one in Model.load(out).judge(known_curves())]  # it serves, self-test and all
    assert min(logit for logit, label in zip(scored, TRUTH, strict=True) if label == "keep") > max(
        logit for logit, label in zip(scored, TRUTH, strict=True) if label == "discard"
    )


def test_a_head_leans_on_simulated_curves_too(lab, tmp_path):
    words = ["--init", lab / "model", "--labelled", lab / "labelled", "--head", "logistic", "--simulate", "60"]
    assert train(*words, "--out", tmp_path / "ours") == 0
    assert read(tmp_path / "ours").manifest.training["simulated"] == 60


def test_simulated_curves_weigh_the_rest_however_many_they_are():
    for count in (10, 1000):
        weights = _weights(20, count, 0.25)
        assert weights[:20].sum() / weights.sum() == pytest.approx(0.25)
        assert (weights[:20] == 1).all()
    assert (_weights(0, 5, 0.25) == 1).all()


def test_a_body_without_a_head_of_its_own_gets_one():
    """Published weights come without: there is no logit to lean on."""
    body = copy.deepcopy(untrained())
    torch.nn.init.zeros_(body.fc.weight)
    examples = some_examples()
    fitted = fit_head(body, HeadPlan("logistic"), examples, None, None, SMALL, 0.25)
    assert auc(infer(fitted, examples.edges, SMALL), examples.labels) > 0.95


def test_freeze_moves_the_last_layer_alone(lab, tmp_path):
    words = ["--init", lab / "model", "--labelled", lab / "labelled", "--simulate", "130", "--freeze"]
    assert train(*words, "--out", tmp_path / "ours") == 0
    before, after = read(lab / "model"), read(tmp_path / "ours")
    changed = {name for name in after.weights if not np.array_equal(after.weights[name], before.weights[name])}
    assert changed == {"fc.weight", "fc.bias"}
    assert after.manifest.training["recipe"]["frozen"] is True


@pytest.mark.parametrize(("unlabelled", "says"), [("nowhere", "no such folder"), ("empty", "holds no curve")])
def test_unlabelled_folders_that_hold_nothing_are_said(lab, tmp_path, capsys, unlabelled, says):
    (tmp_path / "empty").mkdir()
    words = ["--init", lab / "model", "--labelled", lab / "labelled", "--head", "svm"]
    assert train(*words, "--unlabelled", tmp_path / unlabelled, "--out", tmp_path / "ours") == 65
    assert says in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_an_unreadable_unlabelled_file_is_left_out_and_counted(lab, tmp_path, capsys):
    others = write_curves(tmp_path / "others", (5,), labelled=False)
    (others / "broken.ibw").write_bytes(b"\0" * 40)
    words = ["--init", lab / "model", "--labelled", lab / "labelled", "--head", "logistic", "--unlabelled", others]
    assert train(*words, "--out", tmp_path / "ours") == 0
    assert "cannot be read: 1, the first broken.ibw" in capsys.readouterr().err
    assert read(tmp_path / "ours").manifest.training["head"]["unlabelled"] == 6


def test_without_scikit_learn_a_head_says_what_to_install(lab, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)  # as if it were not installed
    words = ["--init", lab / "model", "--labelled", lab / "labelled", "--head", "logistic"]
    assert train(*words, "--out", tmp_path / "ours") == 69
    assert "pip install scikit-learn" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_published_weights_are_where_training_starts(tmp_path):
    file = tmp_path / "resnet18.safetensors"
    save_file(published(), file)
    words = ["--simulate", "64", "--size", "64", "--rate", "1e-6", "--held-out", "100"]
    assert train("--init", f"imagenet:{file}", *words, "--out", tmp_path / "m") == 0
    made = read(tmp_path / "m")
    assert made.width == 64
    assert made.manifest.parent is None
    assert made.manifest.training["init"].startswith("imagenet ")
    kept = published()["layer4.1.conv2.weight"].numpy()
    assert np.abs(made.weights["layer4.1.conv2.weight"].astype(np.float32) - kept).max() < 1e-3


def test_weights_that_are_none_end_with_65_and_one_line(tmp_path, capsys):
    torch.save({}, tmp_path / "resnet18.pth")
    for name, says in (("resnet18.pth", "is a pickle"), ("nowhere.safetensors", "no such file")):
        assert train("--init", f"imagenet:{tmp_path / name}", "--simulate", "9", "--out", tmp_path / "m") == 65
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1
    assert not (tmp_path / "m").exists()


def test_a_head_on_the_shipped_model_passes_its_self_test_in_service(tmp_path):
    """Half precision of the folded layer and bf16 of the body stay within what the self-test allows."""
    folder = write_curves(tmp_path / "labelled", (1, 2, 3))
    assert train("--init", "shipped", "--labelled", folder, "--head", "logistic", "--out", tmp_path / "ours") == 0
    assert Model.load(tmp_path / "ours").judge(known_curves())[3].score is not None
