import json

import pytest
from modelhelp import GOOD, SHARED, write_folder
from scipy import stats

from daemon.cli import main
from daemon.decision import Judge, Thresholds
from daemon.training.evaluation import Judged, evaluate
from daemon.training.report import write_html, write_text

JUDGE = Judge("model-1", "p", "torch-cpu-fp32", Thresholds(0.1, 0.8), "simulation", 0.02)


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


def test_the_page_is_whole_and_safe():
    page = write_html(evaluate(judged(), JUDGE), judged())
    assert "b&lt;c" in page
    assert "b<c" not in page
    assert page.count("<tr") == page.count("</tr>") == 4
    assert "http" not in page.replace("charset", "")
    assert "nan" not in page.lower()


def test_the_terminal_table_lines_up():
    lines = write_text(evaluate(judged(), JUDGE)).splitlines()
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[3].startswith("pooled")


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
    assert "<table>" in (tmp_path / "r.html").read_text()


def test_evaluate_refuses_what_is_no_model(tmp_path, capsys):
    folder = write_folder(tmp_path / "lab", GOOD)
    assert main(["evaluate", str(tmp_path), str(folder)]) == 65
    assert "manifest.json" in capsys.readouterr().err


@pytest.mark.skipif(not SHARED.is_dir(), reason="no collection of real curves here")
def test_the_shipped_model_holds_its_bar_on_real_curves(capsys):
    """The bar of the first model: AUC 0.97 without the set whose labels contradict each other."""
    from daemon.config import ThresholdsConfig
    from daemon.judging import judge_of, load_model
    from daemon.training.evaluation import judge_all
    from daemon.training.labelled import read_folder

    model = load_model("shipped", "cpu")
    judge = judge_of(model, ThresholdsConfig())
    labelled = read_folder(SHARED / "data")
    curves = (item for item in labelled.curves([]) if "waite" not in item.row.path)
    pooled = evaluate(judge_all(curves, model, judge), judge)["pooled"]
    assert (pooled["events"], pooled["event_free"]) == (152, 113)
    assert pooled["auc"] >= 0.97
    assert pooled["recall"] >= 0.98
