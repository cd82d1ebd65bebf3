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
    loss = read(out).manifest["training"]["loss"]
    assert (loss["name"], loss["alpha_event"], loss["gamma_none"]) == ("asymmetric_focal", 0.75, 3.0)
    assert "gamma_none 3.0" in (out / "card.md").read_text()


@pytest.mark.parametrize(("loss", "says"), [("hinge", "none of focal"), ("focal:gamma=x", "no number")])
def test_a_loss_that_is_none_is_a_usage_error(tmp_path, capsys, loss, says):
    assert main(["train", *SMALL, "--loss", loss, "--out", str(tmp_path / "m")]) == 64
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
