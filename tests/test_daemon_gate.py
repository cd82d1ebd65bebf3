"""The gate on whole candidates: what it lets through once, and which test refuses which poison."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from adapthelp import Night

from daemon.client.status import learning
from daemon.formats.afmcurve import compact_copy_of
from daemon.labels import Labels
from daemon.labels.sessions import Sessions
from daemon.learn import gate as whole
from daemon.learn.evidence import fingerprint_of
from daemon.learn.gate import CrossFitted, examine, look
from daemon.learn.lessons import GOLDEN, golden_events, golden_fingerprints
from daemon.learn.training import known_logits
from deploy.classifier import EngineRequest
from deploy.serving import Model
from models import gate
from models.bundle import CONFIRMED, MANIFEST, SHIPPED, WEIGHTS, Bundle, Cut, SelfTest, read, write
from models.curve import Curve
from models.frontend import prepare, turned
from models.gate import equal_loss_cut, log_of, looks
from models.network import load
from models.raster import coverage, envelope
from models.simulate import simulate

LEARNED = "ffffffffffff"  # a curve that is not held out
SIMULATED = 40


def with_network(folder: Path, parent: Bundle, weights, cut: float, **changes) -> Bundle:
    """A child of other weights, whose cut lies at this logit."""
    network = load(parent.width, {name: torch.from_numpy(one) for name, one in weights.items()})
    score = float(parent.calibration.score(np.array([cut]))[0])
    told = {"basis": "simulation, held out", "events": 4_000}
    said = {
        "name": folder.name,
        "parent": parent.id,
        "thresholds": Cut(score, parent.keep, told),
        "training": {**parent.manifest.training, "curves": LEARNED},
        "selftest": SelfTest(parent.manifest.selftest.version, known_logits(network, parent.profile)),
    } | changes
    return write(folder, weights, msgspec.structs.replace(parent.manifest, **said), "# a child")


@dataclass
class Doubted:
    """A laboratory all of whose pile is one kind of curve, and a candidate that has learned that it is nothing."""

    parent: Bundle
    curve: Curve  # goes to review
    logit: float
    good: Bundle
    better: Bundle  # another one, as good


@pytest.fixture(scope="session")
def doubted(tmp_path_factory) -> Doubted:
    parent = read(SHIPPED)
    model = Model.of(parent, EngineRequest("cpu", precision="fp32"))
    curves = [one.curve for one in simulate(64, 5, 0.0)]
    scored = model.judge(curves, (-1.0, 2.0))
    low, high = parent.limits
    curve, logit = next(
        (curve, one.logit)
        for curve, one in zip(curves, scored, strict=True)
        if one.logit is not None and low + 0.1 < one.logit < high and one.reasons == ()
    )
    events = [one.curve for one in simulate(SIMULATED, whole.SEED, 1.0)]
    folder = tmp_path_factory.mktemp("candidates")

    network = load(parent.width, {name: torch.from_numpy(one) for name, one in parent.weights.items()})
    signals = [one.signal for one in prepare([curve, *events, *golden_events()], parent.profile)]
    with torch.inference_mode():
        pictures = torch.from_numpy(coverage(envelope(signals, parent.profile), parent.profile))
        seen = network.forward_features(pictures).mean((2, 3)).numpy()
    usual = np.linalg.svd(seen[1:], full_matrices=False)[2][:25]  # what events are told by
    away = seen[0] - usual.T @ (usual @ seen[0])  # from there the last layer turns away
    weights = {name: one.copy() for name, one in parent.weights.items()}
    weights["fc.weight"] = (weights["fc.weight"] - 4.0 * away / (away @ seen[0])).astype(np.float16)
    tried = with_network(folder / "tried", parent, weights, low)
    after = Model.of(tried, EngineRequest("cpu", precision="fp32"))
    golden = [one.logit for one in after.judge(golden_events(), (-1.0, 2.0))]
    logits = [
        [np.inf if one.logit is None else one.logit for one in judging.judge(events, (-1.0, 2.0))]
        for judging in (model, after)
    ]
    cut = min(equal_loss_cut(*logits, low), *golden) - 0.01
    good, better = (with_network(folder / name, parent, weights, cut - at) for name, at in (("good", 0.0), ("b", 0.01)))
    return Doubted(parent, curve, logit, good, better)


@pytest.fixture(scope="session")
def state(doubted, tmp_path_factory) -> Night:
    night = Night(tmp_path_factory.mktemp("gate") / "state")
    flat = replace(doubted.curve, force=np.random.default_rng(1).normal(0.0, 1e-11, 2_000), distance=None)
    for curve, logit, count in ((flat, -4.0, 940), (doubted.curve, doubted.logit, 100)):
        night.decide([logit] * count, copy=compact_copy_of(curve, doubted.parent.profile, None))
    return night


@pytest.fixture
def fresh(state, tmp_path) -> Night:
    shutil.copytree(state.state, tmp_path / "state")
    return Night(tmp_path / "state")


@pytest.fixture
def lenient(monkeypatch):
    """So few simulated curves say too little for the bounds that hold in earnest."""
    monkeypatch.setattr(gate, "MOST_NET_LOSS", 0.1)
    monkeypatch.setattr(gate, "AUC_BELOW", 0.1)
    monkeypatch.setattr(gate, "CALIBRATED_WITHIN", 50.0)
    monkeypatch.setattr(gate, "HARM", 0.0)
    monkeypatch.setattr(gate, "SLOWER", 20.0)  # other tests run beside this one


def ask(night, doubted, candidate, **words):
    words = {"spend": True, "simulated": SIMULATED} | words
    return look(night.config, candidate, doubted.parent, doubted.parent.discard, None, **words)


def test_a_sound_candidate_passes_once_a_night_and_the_look_is_noted(fresh, doubted, lenient, monkeypatch):
    dry = ask(fresh, doubted, doubted.good, spend=False)
    assert (list(dry.failed), dry.look, looks(fresh.state)) == ([], 0, []), list(dry.sentences())[:3]
    report = ask(fresh, doubted, doubted.good.folder, crossed=CrossFitted([9.0], None))
    assert (report.passed, report.look, report.alpha) == (True, 1, 0.025)
    assert looks(fresh.state) == [report]
    told = {one.test: one for one in report.findings}
    assert told["newly lost"].figures["events"] == 69
    assert told["pile"].figures["before"] == pytest.approx(100 / 1_040)
    assert told["pile"].figures["after"] == 0.0
    assert ask(fresh, doubted, doubted.good) == report  # a run that was killed asks again
    other = ask(fresh, doubted, doubted.better)
    assert (other.passed, other.look, other.failed) == (False, 0, ("look",))
    assert "one a night" in next(other.sentences())
    monkeypatch.setattr(whole, "night_of", lambda wall_s: "2030-01-01")
    again = ask(fresh, doubted, doubted.better)
    assert (again.look, again.alpha) == (2, 0.0125)
    with Labels(fresh.state / "labels.sqlite") as labels:
        Sessions(labels).begin(sample="another surface")
    elsewhere = ask(fresh, doubted, doubted.better)
    assert elsewhere.failed == ("look",), "what passed for one surface has not passed for the next"


def test_what_would_do_harm_is_refused_by_name(fresh, doubted, tmp_path):
    parent, weights = doubted.parent, dict(doubted.good.weights)
    weights["fc.weight"] = np.zeros_like(weights["fc.weight"])  # collapsed: one answer to everything
    cut = float(weights["fc.bias"][0]) + 0.1
    score = float(parent.calibration.score(np.array([cut]))[0])
    thresholds = {"thresholds": Cut(score, score * 1.01, {"basis": "simulation, held out", "events": 4_000})}
    bad = with_network(tmp_path / "bad", parent, weights, cut, **thresholds)
    report = ask(fresh, doubted, bad, crossed=CrossFitted([9.0, cut - 0.1], (0.61, 0.62)))
    assert (report.passed, report.look) == (False, 1)
    assert {"newly lost", "ranking", "simulated events", "cut", "own events", "own ranking"} <= set(report.failed)
    texts = {one.test: one.text for one in report.findings}
    assert texts["newly lost"].startswith("newly lost: 69 of 69 golden events lie below the candidate's cut")
    assert texts["own events"].startswith("own events: 1 of 2 confirmed ones")


def test_where_there_is_too_little_to_judge_by_no_look_is_spent(tmp_path, doubted):
    night = Night(tmp_path / "state")
    night.decide([0.0, 1.0])
    report = ask(night, doubted, doubted.good)
    assert (report.passed, report.look, report.failed) == (False, 0, ("pile",))
    assert "998 more" in next(report.sentences())
    assert looks(night.state) == []


def test_what_the_candidate_has_learned_counts_not_and_costs_no_look(fresh, doubted, monkeypatch):
    """A stream of 1,040, of which it has learned from 100: that is known before, so no look is spent on it."""
    monkeypatch.setattr(whole, "_judged_again", lambda view, seqs, *_: dict.fromkeys(seqs, "learned"))
    report = ask(fresh, doubted, doubted.good)
    assert (report.look, report.failed, looks(fresh.state)) == (0, ("pile",), [])
    assert next(report.sentences()).startswith("pile: 9")
    assert " of 1,040 decisions" in next(report.sentences())


EDITS = {
    "prevalence": lambda said: said["calibration"].update(prevalence=0.2),
    "parent": lambda said: said.update(parent="shipped-000000000000"),
    "evidence": lambda said: said["thresholds"].update(evidence={"basis": CONFIRMED, "events": 3}),
    "training record": lambda said: said["training"].update(curves=""),
    "leaked golden rows": lambda said: said["training"].update(curves=f"{LEARNED} 000000000001 no-curve"),
    "self-test": lambda said: said["selftest"].update(logits=[0.0] * 6),
    "raster": lambda said: said["profile"].update(noise_low_pn=0.125),
    "model": lambda said: said["thresholds"].update(discard=0.9, keep=0.1),
}


@pytest.mark.parametrize("test", EDITS)
def test_an_edited_manifest_is_refused_before_a_look(test, doubted, tmp_path):
    folder = tmp_path / "bad"
    shutil.copytree(doubted.good.folder, folder)
    said = json.loads((folder / MANIFEST).read_bytes())
    EDITS[test](said)
    (folder / MANIFEST).write_text(json.dumps(said))
    _, findings = examine(folder, doubted.parent, None)
    failed = [one.test for one in findings if not one.passed]
    assert failed == [test]
    assert next(one.text for one in findings if not one.passed).startswith(f"{test}: ")


def test_evidence_that_nobody_could_go_through_is_refused(doubted, tmp_path):
    told = {"basis": CONFIRMED, "events": 30, "confirmed": 5}
    weights = doubted.good.weights
    with_network(tmp_path / "bad", doubted.parent, weights, -3.0, thresholds=Cut(0.001, doubted.parent.keep, told))
    _, findings = examine(tmp_path / "bad", doubted.parent, None)
    assert [one.test for one in findings if not one.passed] == ["evidence"]


@pytest.mark.parametrize("name", ["conv1.weight", "layer4.0.bn1.running_mean", "layer3.1.conv2.weight"])
def test_foreign_weights_are_refused(name, doubted, tmp_path):
    weights = {key: one.copy() for key, one in doubted.good.weights.items()}
    weights[name].reshape(-1)[0] += np.float16(0.01)
    _, findings = examine(with_network(tmp_path / "bad", doubted.parent, weights, 0.0).folder, doubted.parent, None)
    (failed,) = [one for one in findings if not one.passed]
    assert failed.test == "foreign weights"
    assert name in failed.text


def test_the_parent_itself_has_learned_nothing(doubted, tmp_path):
    same = with_network(tmp_path / "same", doubted.parent, dict(doubted.parent.weights), 0.0)
    _, findings = examine(same.folder, doubted.parent, None)
    assert [one.test for one in findings if not one.passed] == ["foreign weights"]


@pytest.mark.parametrize("data", [b"\x80\x04\x95pickle", None, b"", b"half"])
def test_what_is_no_model_is_refused_and_nothing_of_it_is_run(data, doubted, tmp_path):
    folder = tmp_path / "bad"
    shutil.copytree(doubted.good.folder, folder)
    whole_file = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).unlink()
    if data is not None:
        (folder / WEIGHTS).write_bytes(whole_file[: len(whole_file) // 2] if data == b"half" else data)
    model, findings = examine(folder, doubted.parent, None)
    assert model is None
    assert [one.test for one in findings] == ["model"]


def test_golden_events_ship_and_the_parent_finds_them_all(doubted):
    events = golden_events()
    logits = [one.logit for one in Model.of(doubted.parent, EngineRequest("cpu", precision="fp32")).judge(events)]
    assert len(events) == 69
    assert min(logits) > doubted.parent.limits[0]
    assert all(one.notes == () and one.distance is None for one in events)  # no doubt keeps one from being lost
    prints = golden_fingerprints()
    assert {fingerprint_of(events[0]), fingerprint_of(turned(events[0]))} <= prints
    with zipfile.ZipFile(GOLDEN) as held:
        assert {Path(name).stem.rpartition("-")[2] for name in held.namelist()} <= prints
    assert GOLDEN.stat().st_size < 1 << 20
    origin = (GOLDEN.parent / "ORIGIN.md").read_text()
    assert all(name.rpartition("-")[0] in origin for name in held.namelist())


def test_the_log_can_be_read_without_torch():
    code = "import sys, models.gate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0


def test_looks_that_nobody_can_read_are_not_taken_for_none(tmp_path):
    log_of(tmp_path).mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        looks(tmp_path)
    assert learning(tmp_path, None, 100)["looks"] == 0, "status goes on"
