import csv
import json

import pytest
from modelhelp import make_model
from test_daemon_few_labels_train import TRUTH, write_curves

from daemon.cli import main

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    root = tmp_path_factory.mktemp("lab")
    write_curves(root / "labelled", (1, 2, 3))
    write_curves(root / "others", (4, 5, 6), labelled=False)
    (root / "others" / "broken.ibw").write_bytes(b"\0" * 40)
    make_model(root / "model")
    return root


def order(lab, out, *words, model=None):
    words = ["--model", model or str(lab / "model"), "--labelled", str(lab / "labelled"), "--list", str(out), *words]
    return main(["rank", str(lab / "others"), *words])


@pytest.mark.parametrize("features", ["none", "pca", "autoencoder", "soft-kmeans"])
@pytest.mark.parametrize("head", ["logistic", "svm"])
def test_every_curve_is_in_the_list_and_events_come_first(lab, tmp_path, features, head):
    words = ["--features", features, "--head", head]
    assert order(lab, tmp_path / "order.csv", *words, model="shipped") == 0
    rows = list(csv.DictReader((tmp_path / "order.csv").read_text().splitlines()))
    assert len(rows) == 19
    assert rows[-1] == {"path": "broken.ibw", "curve_index": "0", "rank_score": ""}
    scores = [float(row["rank_score"]) for row in rows[:-1]]
    assert scores == sorted(scores, reverse=True)
    events = [TRUTH[int(row["path"][-5])] == "keep" for row in rows[:-1]]
    assert sum(events[:9]) >= 8


def test_the_list_is_one_that_score_takes(lab, tmp_path, capsys):
    assert order(lab, tmp_path / "order.csv") == 0
    head = (tmp_path / "order.csv").read_text().splitlines()[:4]
    (tmp_path / "first.csv").write_text("\n".join(head) + "\n")
    capsys.readouterr()
    words = ["--model", str(lab / "model"), "--only", str(tmp_path / "first.csv"), "--json"]
    assert main(["score", str(lab / "others"), *words]) == 0
    scored = {json.loads(line)["path"] for line in capsys.readouterr().out.splitlines()}
    assert scored == {line.split(",")[0] for line in head[1:]}


def test_what_makes_no_sense_is_said_and_nothing_written(lab, tmp_path, capsys):
    lonely = write_curves(tmp_path / "lonely", (1,))
    (lonely / "labels.csv").write_text("path,label\nday1-0.txt,discard\n")
    words = ["--labelled", str(lonely), "--model", str(lab / "model"), "--list", str(tmp_path / "order.csv")]
    assert main(["rank", str(lab / "others"), *words]) == 65
    assert "both kinds" in capsys.readouterr().err
    assert main(["rank", str(tmp_path / "nowhere"), *words]) == 65
    assert "no such file or folder" in capsys.readouterr().err
    assert order(lab, tmp_path / "nowhere" / "order.csv") == 74
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lonely"]
