import json
from importlib.util import find_spec

import pytest

from daemon.cli import main
from daemon.learn import int8
from tests.studies.__main__ import main as study
from tests.studies.engines import cpu_requests, write_text

COSTED = {("torch", "fp32"), ("openvino", "int8")}


def some_requests(cache, with_int8):
    return (wish for wish in cpu_requests(cache, with_int8) if (wish.engine, wish.precision) in COSTED)


@pytest.mark.timeout(180)
def test_every_engine_is_asked_and_costed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(int8, "SIMULATED", (20, 100))
    monkeypatch.setattr("tests.studies.engines.timed_requests", some_requests)  # each takes a process of its own
    monkeypatch.setattr("tests.studies.engines.NEIGHBOURS", (0,))
    monkeypatch.setattr("tests.studies.engines.THREADS", (1,))
    assert (
        main(["simulate", "--into", str(tmp_path / "c"), "--curves", "210", "--prevalence", "0.3", "--seed", "5"]) == 0
    )
    words = [str(tmp_path / "c"), "--curves", "60", "--seconds", "0.02", "--out", str(tmp_path / "found.json")]
    capsys.readouterr()
    assert study(["engines", *words]) == 0
    report = json.loads((tmp_path / "found.json").read_text())
    assert capsys.readouterr().out.splitlines() == write_text(report)
    told = {one["engine"]: one for one in report["agreement"]}
    assert all("errors" in one or one["failed"] for one in told.values())  # some processors have no bf16
    found = {engine: one for engine, one in told.items() if "errors" in one}
    if find_spec("openvino"):
        assert list(told)[:3] == ["openvino-cpu-fp32", "openvino-cpu-bf16", "openvino-cpu-int8"]
        assert found["openvino-cpu-fp32"]["errors"]["max"] < 1e-4
        assert found["openvino-cpu-fp32"]["margin"] == 0
        assert found["openvino-cpu-int8"]["real"] == 105  # those that neither gave ranges nor the margin
        assert found["openvino-cpu-int8"]["margin"] == report["int8"]["margin"]
        if "openvino-cpu-bf16" in found:
            assert found["openvino-cpu-int8"]["errors"]["max"] > found["openvino-cpu-bf16"]["errors"]["max"]
        assert report["installed_bytes"]["openvino"] > 1e8
    assert all(one["as_served"]["changes"] == [] for one in found.values())
    assert {row["engine"] for row in report["cost"]} == {"torch-cpu-fp32", *(set(found) & {"openvino-cpu-int8"})}
    assert all(row["batches"]["1"]["latency_ms"]["p99"] > 0 for row in report["cost"])


def test_verdicts_that_changed_are_shown_with_both_scores():
    change = {
        "curve": "a.ibw#0",
        "verdicts": ["review", "keep"],
        "scores": [0.26801, 0.27876],
    }
    told = {"changes": [change] * 50, "jumps": ["a.ibw#0"], "share_changed": 0.05}
    engine = {
        "engine": "openvino-cpu-bf16",
        "real": 1000,
        "curves": 1000,
        "errors": {"median": 0.0, "99 %": 0.01, "max": 0.03},
        "margin": 0.1,
        "judged_twice": {"real": 0.03, "simulated": None},
        "alone": told,
        "as_served": {"changes": [], "jumps": [], "share_changed": 0.0},
    }
    report = {
        "model": "m",
        "thresholds": {"discard": 0.004, "keep": 0.28},
        "curves": {"real": 1000, "simulated": 0},
        "prevalence": 0.02,
        "seed": 1,
        "int8": "int8 is calibrated on real curves, and 3 are too few (200)",
        "agreement": [engine, {**engine, "as_served": told}, {"engine": "openvino-cpu-int8", "failed": "no VNNI"}],
        "cost": [],
        "installed_bytes": {"openvino": 0, "torch": 8e8},
    }
    lines = write_text(report)
    assert "no int8: int8 is calibrated on real curves, and 3 are too few (200)" in lines
    assert lines.count("  a.ibw#0: review -> keep, scores 0.26801 and 0.27876") == 3 * 40
    assert "  and 10 more (--out)" in lines
    assert "openvino-cpu-int8 does not run here: no VNNI" in lines
    rows = [line for line in lines if line.startswith("openvino-cpu-bf16  ")]
    assert rows[0].split()[-3:] == ["0", "(0.000%)", "reached"]
    assert "50 (5.000%, 1 keep <-> discard)" in rows[0]
    assert rows[1].endswith("missed")
    assert "3.0%, -" in rows[0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--curves", "-1"], "0 or more"),
        (["--prevalence", "1"], "between 0 and 1"),
        (["nowhere"], "nowhere: no such file"),
        (["--curves", "0"], "nothing to ask"),
    ],
)
def test_what_makes_no_sense_is_said(capsys, words, says):
    assert study(["engines", *words]) == 64
    assert says in capsys.readouterr().err
