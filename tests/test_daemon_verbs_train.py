import pytest

from daemon.cli import main
from models.bundle import read
from models.loss import LOSSES

SMALL = ["--simulate", "130", "--width", "4", "--size", "64", "--epochs", "1", "--held-out", "200", "--threads", "1"]


def test_help_names_every_loss(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    told = capsys.readouterr().out.split("--loss NAME")[-1].split("NAME:parameter")[0]
    assert [word.strip(",") for word in told.split()][:-1] == list(LOSSES)


def test_the_manifest_and_the_card_say_which_loss_with_every_parameter(tmp_path):
    out = tmp_path / "model"
    assert main(["train", *SMALL, "--loss", "asymmetric_focal:gamma_none=3", "--out", str(out)]) == 0
    loss = read(out).manifest.training["loss"]
    assert (loss["name"], loss["alpha_event"], loss["gamma_none"]) == ("asymmetric_focal", 0.75, 3.0)
    assert "gamma_none 3.0" in (out / "card.md").read_text()


@pytest.mark.parametrize(("loss", "says"), [("hinge", "none of focal"), ("focal:gamma=x", "no number")])
def test_a_loss_that_is_none_is_a_usage_error(tmp_path, capsys, loss, says):
    assert main(["train", *SMALL, "--loss", loss, "--out", str(tmp_path / "m")]) == 64
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_samples_and_most_missed_are_in_the_manifest(tmp_path):
    words = [*SMALL, "--samples", "3", "--most-missed", "0.2", "--out", str(tmp_path / "model")]
    assert main(["train", *words]) == 0
    bundle = read(tmp_path / "model")
    assert bundle.profile.samples_per_column == 3
    evidence = bundle.manifest.thresholds.evidence
    assert evidence["most_missed"] == 0.2
    assert 0 < evidence["events_discarded"] <= 0.2 * evidence["events"]
    assert main(["train", *SMALL, "--most-missed", "0", "--out", str(tmp_path / "strict")]) == 0
    assert read(tmp_path / "strict").manifest.thresholds.evidence["events_discarded"] == 0


@pytest.mark.parametrize("words", [["--samples", "1"], ["--most-missed", "0.5"], ["--most-missed", "-0.1"]])
def test_what_samples_and_most_missed_may_be(tmp_path, capsys, words):
    assert main(["train", *SMALL, *words, "--out", str(tmp_path / "m")]) == 64
    assert words[0] in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
