"""Open and wrong signs on their way through files, archives, the pipeline, explanations and training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from makers import a_retract
from modelhelp import make_model

from daemon.cli import main
from daemon.config import ThresholdsConfig
from daemon.explain import explain, find_reading, trace_of
from daemon.formats.afmcurve import pack
from daemon.judging import classify, decide
from daemon.judging.judge import judge_of, load_model
from daemon.reading import Reading
from daemon.sources import Arrival
from deploy.serving import Model
from models.curve import Curve
from models.frontend import OPEN, is_spot, prepare, turned


@pytest.fixture(scope="module")
def shipped() -> Model:
    return load_model("shipped")


def retract(seed: int = 0, *, is_open: bool = False, is_wrong: bool = False) -> Curve:
    force, distance = a_retract(seed=seed)
    curve = Curve(force, "N", distance, "piezo", notes=(OPEN,) if is_open else ())
    return turned(curve) if is_wrong else curve


def write_lab(folder: Path) -> Path:
    """Signs that are open and right, open and wrong, stated and right, stated and wrong."""
    folder.mkdir()
    for is_open in (False, True):
        for is_wrong in (False, True):
            name = f"{'open' if is_open else 'stated'}-{'wrong' if is_wrong else 'right'}"
            for seed in range(3):
                curve = retract(seed, is_open=is_open, is_wrong=is_wrong)
                (folder / f"{name}-{seed}.afmcurve").write_bytes(pack(curve, dtype="<f8"))
    return folder


def scored(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[list[dict[str, object]], str]:
    assert main(["score", "--json", *words]) == 0
    told = capsys.readouterr()
    return [json.loads(line) for line in told.out.splitlines()], told.err


def test_files_and_archives_give_the_same_verdicts_and_say_which_format_looks_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = write_lab(tmp_path / "lab")
    rows, said = scored(capsys, str(lab))
    kinds = {str(row["path"]).rsplit("-", 1)[0]: (row["verdict"], row["reasons"]) for row in rows}
    assert kinds == {
        "open-right": ("keep", ["score", "sign_assumed"]),
        "open-wrong": ("keep", ["score", "sign_assumed", "sign_turned"]),
        "stated-right": ("keep", ["score"]),
        "stated-wrong": ("review", ["score", "no_contact", "flipped"]),
    }
    same = ("path", "verdict", "score", "reasons", "preview")
    (line,) = [line for line in said.splitlines() if "upside down" in line]
    assert line.startswith("afm-triage: 3 of 12 afmcurve curves in a row look like events when turned upside down")
    packed = tmp_path / "lab.h5"
    assert main(["pack", str(lab), "--out", str(packed)]) == 0
    capsys.readouterr()
    again, said = scored(capsys, str(packed))
    assert [[row[name] for name in same] for row in again] == [[row[name] for name in same] for row in rows]
    assert line in said.splitlines()
    assert main(["score", "--summary", str(packed)]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["keep", "9"],
        ["review", "3"],
        ["discard", "0"],
    ]


def test_a_wary_sentinel_has_every_discard_of_its_format_looked_at(shipped: Model) -> None:
    """A push confirms the sign, the lot falls on another curve: only a sentinel that is wary has it looked at."""
    curves = [curve for seed in range(400) if (curve := _event_below_a_push(seed)) is not None]
    profile, judge = shipped.bundle.profile, judge_of(shipped, ThresholdsConfig())
    believed = shipped.judge_prepared(prepare(curves, profile))
    upside_down = shipped.judge_prepared(prepare([turned(curve) for curve in curves], profile))
    chosen = [
        curve
        for curve, one, other in zip(curves, believed, upside_down, strict=True)
        if one.score <= judge.thresholds.discard and not one.reasons and other.score >= judge.thresholds.keep
    ]
    assert chosen
    arrival = Arrival("watch", "a.jpk-force", Path("a.jpk-force"), size_bytes=1)
    readings = [Reading(arrival, n, "ab" * 32, curve, format="jpk") for n, curve in enumerate(chosen)]
    for wary_of, verdict in ((set(), "discard"), ({"text"}, "discard"), ({"jpk", "text"}, "review")):
        decisions = decide(readings, classify(readings, shipped, judge.thresholds, wary_of), judge)
        assert {decision.verdict for decision in decisions} == {verdict}
    bare = [replace(one, curve=Curve(np.zeros(0), "N"), prepared=None, profile=profile) for one in readings[:1]]
    bare = [replace(one, prepared=prepare([chosen[0]], profile)[0]) for one in bare]
    (decision,) = decide(bare, classify(bare, shipped, judge.thresholds, {"jpk"}), judge)
    assert decision.verdict == "discard"  # there are no samples to turn


def _event_below_a_push(seed: int) -> Curve | None:
    """Upside down an event, before which a push is seen in either way; None where the lot falls on it."""
    force, distance = a_retract(1024, seed=seed)
    force[: 1024 // 20] = -0.6e-9 + np.random.default_rng(seed).normal(0, 8e-12, 1024 // 20)
    curve = Curve(-force, "N", distance, "piezo")
    curve.force[:40] = -0.6e-9
    return None if is_spot(curve) else curve


def test_what_was_sent_counts_as_ingest_whatever_it_is_kept_in() -> None:
    arrival = Arrival("ingest", "n", Path("x"), known_curve="7")
    assert Reading(arrival, 0, None, None, format="afmcurve").sign_from == "ingest"
    assert Reading(replace(arrival, source="watch"), 0, None, None, format="jpk").sign_from == "jpk"


def test_an_explanation_shows_the_way_that_scored_higher(tmp_path: Path, shipped: Model) -> None:
    pictures = []
    for is_wrong in (False, True):
        path = tmp_path / f"{is_wrong}.afmcurve"
        path.write_bytes(pack(retract(is_open=True, is_wrong=is_wrong), dtype="<f8"))
        pictures.append(explain(find_reading(path, 0), shipped, judge_of(shipped, ThresholdsConfig())))
    right, wrong = pictures
    assert wrong.decision.reasons == ("score", "sign_assumed", "sign_turned")
    assert wrong.decision.score == right.decision.score
    assert (wrong.curve.force == right.curve.force).all()
    assert wrong.attention is not None
    assert right.attention is not None
    assert wrong.attention.peak == right.attention.peak
    assert (trace_of(wrong).y == trace_of(right).y).all()


def write_labelled(folder: Path, *, is_wrong: bool, is_open: bool = True) -> Path:
    folder.mkdir()
    rows = ["path,label"]
    for number in range(4):
        curve = retract(number, is_open=is_open, is_wrong=is_wrong)
        if number % 2:
            flat = np.where(
                np.arange(len(curve)) < 26, curve.force, np.random.default_rng(number).normal(0, 8e-12, 512)
            )
            curve = replace(curve, force=flat)
        (folder / f"{number}.afmcurve").write_bytes(pack(curve, dtype="<f8"))
        rows.append(f"{number}.afmcurve,{'discard' if number % 2 else 'keep'}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_evaluate_judges_an_open_sign_as_the_service_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = []
    for is_wrong in (False, True):
        folder = write_labelled(tmp_path / str(is_wrong), is_wrong=is_wrong)
        assert main(["evaluate", "shipped", str(folder), "--json"]) == 0
        reports.append(json.loads(capsys.readouterr().out)["pooled"])
    assert reports[0]["table"]["keep"]["event"] == reports[1]["table"]["keep"]["event"] == 2
    assert reports[0]["auc"] == reports[1]["auc"] == 1.0


def test_a_labelled_event_with_an_open_sign_is_taught_as_the_first_model_keeps_it(tmp_path: Path) -> None:
    """The reader's wrong belief changes nothing where there is a model to begin from; from scratch it does."""
    from daemon.learn.evidence import read_labels
    from daemon.learn.head import Start
    from daemon.learn.training import Plan, _open
    from models.bundle import SHIPPED, read
    from models.train import Recipe

    events = {}
    for start in (Start(), Start(parent=read(SHIPPED))):
        for is_wrong in (False, True):
            folder = tmp_path / f"{is_wrong}-{start.parent is None}"
            labels = read_labels([write_labelled(folder, is_wrong=is_wrong)])
            profile = read(SHIPPED).profile
            plan = Plan(tmp_path / "m", "m", 0, (folder,), Recipe(), profile, start)
            examples = _open("reading", plan, labels, set())
            assert examples.labels.tolist() == [1.0, 0.0, 1.0, 0.0]
            events[start.parent is None, is_wrong] = examples.edges[examples.labels > 0.5]
    assert (events[False, True] == events[False, False]).all()
    assert (events[True, False] == events[False, False]).all()
    assert not (events[True, True] == events[True, False]).all()


def test_training_from_a_model_goes_through_with_open_signs(tmp_path: Path) -> None:
    folder = write_labelled(tmp_path / "lab", is_wrong=False)
    make_model(tmp_path / "small")
    words = ["--init", str(tmp_path / "small"), "--simulate", "100", "--epochs", "1", "--held-out", "200"]
    assert main(["train", "--labelled", str(folder), *words, "--threads", "1", "--out", str(tmp_path / "out")]) == 0
