import json

import pytest
from modelhelp import GOOD, SHARED, write_folder
from scipy import stats

from daemon.cli import main
from daemon.judging import Judge, Thresholds
from daemon.learn.evaluation import Judged, evaluate, write_text
from deploy.classifier import EngineId

JUDGE = Judge("model-1", "p", EngineId("torch", "cpu", "fp32"), Thresholds(0.1, 0.8), "simulation", 0.02)


def judged():
    """Two systems: one perfect, one with a miss, a false keep, a curve without a score and an unsure one."""
    return [
        Judged("a", "keep", "keep", 0.9),
        Judged("a", "discard", "discard", 0.05),
        Judged("b<c", "keep", "discard", 0.02),
        Judged("b<c", "keep", "review", None),
        Judged("b<c", "discard", "keep", 0.85),
        Judged("b<c", "discard", "review", 0.3),
        Judged("b<c", "unsure", "discard", 0.03),
    ]


def test_figures_are_counted_by_hand():
    report = evaluate(judged(), JUDGE)
    a, b, pooled = report["systems"]["a"], report["systems"]["b<c"], report["pooled"]
    assert (a["events"], a["event_free"], a["auc"], a["recall"], a["discarded"], a["precision"]) == (1, 1, 1, 1, 1, 1)
    assert b["table"] == {
        "keep": {"event": 0, "none": 1},
        "review": {"event": 1, "none": 1},
        "discard": {"event": 1, "none": 0},
    }
    assert (b["recall"], b["discarded"], b["precision"], b["auc"]) == (0.5, 0.0, 0.0, 0.0)
    assert (b["unsure"], b["unsure_discarded"], b["without_score"]) == (1, 1, 1)
    assert (pooled["events"], pooled["event_free"], pooled["unsure"]) == (3, 3, 1)
    expected = stats.binomtest(2, 3).proportion_ci(0.95, "exact")
    assert pooled["recall"] == pytest.approx(2 / 3)
    assert pooled["intervals"]["recall"] == pytest.approx([expected.low, expected.high], abs=1e-9)


def test_a_system_of_one_kind_has_no_auc_and_still_a_line():
    report = evaluate([Judged("a", "keep", "keep", 0.9)], JUDGE)
    assert report["pooled"]["auc"] is None
    assert report["pooled"]["discarded"] is None
    assert json.loads(json.dumps(report)) == report
    assert "pooled" in write_text(report)


def test_the_terminal_table_lines_up():
    lines = write_text(evaluate(judged(), JUDGE)).splitlines()
    assert len({len(line) for line in lines[:4]}) == 1
    assert [line.split()[0] for line in lines[:4]] == ["system", "b<c", "a", "pooled"]


def test_evaluate_prints_json_and_writes_the_page(tmp_path, capsys):
    folder = write_folder(tmp_path / "lab", GOOD)
    assert main(["evaluate", "shipped", str(folder), "--json", "--report", str(tmp_path / "r.html")]) == 0
    report = json.loads(capsys.readouterr().out)
    keys = {"events", "event_free", "table", "auc", "ap", "recall", "discarded", "ece"}
    assert keys <= report["pooled"].keys()
    assert keys <= report["systems"]["lab"].keys()
    assert report["pooled"]["events"] == 2
    assert report["pooled"]["auc"] == 1.0
    assert report["pooled"]["recall"] == 1.0
    page = (tmp_path / "r.html").read_text()
    assert page.count("<figure ") == 8  # four diagrams, two events, two event-free curves
    assert report["warnings"] == []


def test_one_kind_of_label_is_told_as_far_as_it_goes(tmp_path, capsys):
    folder = write_folder(tmp_path / "lab", [("c.txt", 0, "keep"), ("d.txt", 0, "keep")])
    assert main(["evaluate", "shipped", str(folder), "--json", "--report", str(tmp_path / "r.html")]) == 0
    pooled = json.loads(capsys.readouterr().out)["pooled"]
    assert (pooled["events"], pooled["event_free"], pooled["auc"], pooled["discarded"]) == (2, 0, None, None)
    assert pooled["recall"] == 1.0
    assert (tmp_path / "r.html").read_text().count("<figure ") == 3


def test_unsure_labels_alone_are_refused(tmp_path, capsys):
    folder = write_folder(tmp_path / "lab", [("c.txt", 0, "unsure")])
    assert main(["evaluate", "shipped", str(folder), "--report", str(tmp_path / "r.html")]) == 65
    assert "labelled keep or discard" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_a_report_that_cannot_be_written_is_said_before_the_work(tmp_path, capsys):
    folder = write_folder(tmp_path / "lab", GOOD)
    for place in (tmp_path, tmp_path / "nowhere" / "r.html"):
        assert main(["evaluate", "shipped", str(folder), "--report", str(place)]) == 74
        assert "a folder that exists" in capsys.readouterr().err


def test_a_model_that_knows_the_labels_is_no_witness(tmp_path, capsys):
    """By the table and by the curves themselves, whatever the folder is called now."""
    folder, model, report = write_folder(tmp_path / "lab", GOOD), tmp_path / "model", tmp_path / "r.html"
    words = ["--width", "4", "--size", "64", "--epochs", "1", "--held-out", "200", "--threads", "1"]
    assert main(["train", "--labelled", str(folder), "--simulate", "100", *words, "--out", str(model)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(model), str(folder), "--json", "--report", str(report)]) == 0
    captured = capsys.readouterr()
    assert f"{folder}: the model was trained on these labels" in captured.err
    assert "trained on 4 of these 6 curves" in captured.err
    assert json.loads(captured.out)["warnings"] == captured.err.replace("afm-triage: ", "").splitlines()[1:]
    assert "trained on these labels" in report.read_text()
    other = write_folder(tmp_path / "elsewhere", [*GOOD[1:], ("a.txt", 0, "unsure")])
    assert main(["evaluate", str(model), str(other)]) == 0
    error = capsys.readouterr().err
    assert "on these labels" not in error
    assert "trained on 4 of these 6 curves" in error


def test_evaluate_refuses_what_is_no_model(tmp_path, capsys):
    folder = write_folder(tmp_path / "lab", GOOD)
    assert main(["evaluate", str(tmp_path), str(folder)]) == 65
    assert "manifest.json" in capsys.readouterr().err


@pytest.mark.skipif(not SHARED.is_dir(), reason="no collection of real curves here")
def test_the_shipped_model_holds_its_bar_on_real_curves(capsys):
    """The bar of the first model: AUC 0.97 without the set whose labels contradict each other."""
    from daemon.config import ThresholdsConfig
    from daemon.judging.judge import judge_of, load_model
    from daemon.learn.evaluation import judge_all
    from daemon.learn.evidence import read_folder

    model = load_model("shipped")
    judge = judge_of(model, ThresholdsConfig())
    labelled = read_folder(SHARED / "data")
    curves = (item for item in labelled.curves([]) if "waite" not in item.row.path)
    pooled = evaluate(judge_all(curves, model, judge), judge)["pooled"]
    assert (pooled["events"], pooled["event_free"]) == (152, 113)
    assert pooled["auc"] >= 0.97
    assert pooled["recall"] >= 0.98
