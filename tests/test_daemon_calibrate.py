"""`calibrate` as a lab meets it: labelled folders in, a model folder with a promise out, or one line and nothing."""

import csv
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from modelhelp import make_model, noisy
from scipy import stats

from daemon.cli import main
from daemon.common.errors import UserError
from daemon.config import ThresholdsConfig
from daemon.formats import open_file
from daemon.formats.afmcurve import compact_copy_of, pack
from daemon.instrument import pack as pack_simulated
from daemon.judging import CutOrigin, decide
from daemon.judging.judge import judge_of, load_model
from daemon.learn.calibration import (
    CalibrationTarget,
    EligibleCurves,
    calibrate,
    gather_eligible,
    write_model,
    write_text,
)
from daemon.learn.evidence import TrainingRecord, fingerprint_of, read_labels
from daemon.ledger import events
from daemon.verbs.status import page
from deploy.classifier import EngineId, EngineRequest
from deploy.serving import Model, Scored, known_curves
from models.bundle import SHIPPED, BadBundle, Cut, read, write
from models.calibrate import KeepRule
from models.certificate import miss_bound
from models.frontend import prepare_to_judge
from models.raster import RasterProfile
from tests.test_daemon_decide import JUDGE, reading

EVENTS, FREE = (2, 3, 4), (0, 1, 5)  # among the known curves
HEADER = ("path", "curve_index", "label", "experiment")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model") / "small").folder


@pytest.fixture(scope="module")
def bundle(model):
    return read(model)


def fill(folder, count, kinds, label, seed=0, experiments=("monday", "titin")):
    """``count`` curves of these kinds as real files; returns their rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        curve = noisy(known_curves()[kinds[number % len(kinds)]], seed + number)
        name = f"{label}-{seed + number:05d}.afmcurve"
        (folder / name).write_bytes(pack(curve))
        rows.append((name, 0, label, experiments[number % len(experiments)]))
    return rows


def table(folder, rows):
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    return folder


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels") / "lab"
    rows = fill(folder, 64, EVENTS, "keep") + fill(folder, 40, FREE, "discard", seed=500)
    return table(folder, [*rows, *fill(folder, 3, (1,), "unsure", seed=900)])


def exhibits(events=200, free=200, seed=0, distance=3.0, lift=(), experiments=("a", "b", "c")):
    """Logits as a good model gives them."""
    rng = np.random.default_rng(seed)
    labels = np.arange(events + free) < events
    logits = rng.normal(0, 1, labels.size) + np.where(labels, distance, -distance)
    names = np.array([experiments[i % len(experiments)] for i in range(labels.size)])
    reasons = tuple(("score", "saturated") if i in lift else ("score",) for i in range(labels.size))
    return EligibleCurves(logits, labels, names, reasons, dict.fromkeys(experiments, "0" * 64), {})


# what is promised


def test_the_promise_of_59_events(lab, model, tmp_path, capsys):
    out = tmp_path / "ours"
    assert main(["calibrate", str(model), str(lab), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    made, old = read(out), read(model)
    assert said.startswith("64 events, 0 missed → at most 4.6 % missed, 95 % sure\n")
    assert "3 labelled unsure" in said
    assert "of these 64 events " in said
    assert made.id in said
    certificate = made.certificate
    assert (certificate.events, certificate.missed, certificate.allowed) == (64, 0, 0)
    assert {name: part.events for name, part in certificate.experiments.items()} == {"monday": 32, "titin": 32}
    assert certificate.bound == pytest.approx(stats.binomtest(0, 64).proportion_ci(0.9, "exact").high)
    assert (made.manifest.score_basis, made.manifest.parent, made.manifest.name) == ("labels", old.id, "ours")
    assert made.weights_sha256 == old.weights_sha256
    card = (out / "card.md").read_text()
    assert "64 events, 0 missed → at most 4.6 % missed" in card
    assert "| titin | 32 | 0 |" in card
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours"]


def test_every_event_below_the_threshold_is_counted_and_the_rest_keeps_to_it(bundle):
    wish = CalibrationTarget(max_miss=0.05, confidence=0.95, prevalence=0.05)
    for seed in range(8):
        shown = exhibits(seed=seed, distance=1.0)
        outcome = calibrate(shown, bundle, "engine", wish)
        scores = outcome.calibration.score(shown.logits)
        below = scores[shown.events] <= outcome.thresholds.discard
        assert below.sum() == outcome.certificate.missed <= outcome.certificate.allowed == 4
        assert (shown.logits[shown.events][below] < outcome.certificate.limit_logit).all()
        assert outcome.certificate.bound == miss_bound(200, 4, 0.95) <= 0.05
        assert outcome.thresholds.discard < outcome.thresholds.keep


def test_labs_that_calibrate_miss_more_than_promised_as_rarely_as_promised(bundle):
    """The whole rule, with its look at event-free curves, on 200 labs whose true miss rate is known."""
    broken = 0
    for seed in range(200):
        outcome = calibrate(exhibits(93, 60, seed, distance=1.2), bundle, "engine", CalibrationTarget())
        cut = outcome.thresholds.discard
        odds = np.log(cut / (1 - cut))
        logit = (odds - outcome.calibration.bias) * outcome.calibration.temperature
        broken += stats.norm.cdf(logit, loc=1.2) > 0.05
    assert broken <= stats.binom.ppf(0.999, 200, 0.05)


def test_floors_save_curves_and_never_the_promise(bundle):
    """An event that a floor lifts to review still counts as missed: the next of its kind may come without a floor."""
    plain = calibrate(exhibits(distance=1.0), bundle, "e", CalibrationTarget())
    lifted = calibrate(exhibits(distance=1.0, lift=range(400)), bundle, "e", CalibrationTarget())
    assert lifted.certificate.missed == plain.certificate.missed > 0
    assert (lifted.evidence["events_discarded"], lifted.evidence["event_free_discarded"]) == (0, 0)
    assert plain.evidence["event_free_discarded"] > 50


def test_an_experiment_that_breaks_the_promise_is_named(bundle):
    shown = exhibits(300, 300, distance=2.0)
    names = shown.experiments.astype("<U9")
    names[np.flatnonzero(shown.events)[np.argsort(shown.logits[shown.events])[:8]]] = "bad tip"
    shown = replace(shown, experiments=names, tables=dict.fromkeys(np.unique(names), "0" * 64))
    outcome = calibrate(shown, bundle, "e", CalibrationTarget())
    assert "▲ bad tip is worse than promised" in write_text(outcome)
    assert outcome.evidence["across"]["events"] == 300
    assert outcome.evidence["across"]["missed"] >= outcome.certificate.missed


@pytest.mark.parametrize(
    ("words", "rule"), [([], "90 %"), (["--precision", "0.5"], "50 %"), (["--review-share", "0.1"], "at most 10 %")]
)
def test_keep_follows_a_precision_or_a_review_budget(lab, model, tmp_path, capsys, words, rule):
    out = tmp_path / "m"
    said = ["calibrate", str(model), str(lab), "--out", str(out), "--prevalence", "0.1", *words]
    assert main(said) == 0
    assert main([*said, "--replace", "--json"]) == 0
    evidence = read(out).manifest.thresholds.evidence
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["thresholds"]["evidence"] == evidence
    assert evidence["keep_rule"].startswith(rule)
    assert read(out).calibration.prevalence == 0.1
    assert "--review-share" not in words or evidence["review_share"] <= 0.1


def test_labels_that_a_verdict_may_have_chosen_are_doubted(bundle):
    """Nothing labelled would have been discarded before: perhaps only flagged curves were looked at."""
    bold, timid = (
        replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, thresholds=Cut(discard, 1.0, {})))
        for discard in (0.9, 0.0)
    )
    said = [write_text(calibrate(exhibits(), one, "e", CalibrationTarget())) for one in (bold, timid)]
    assert ["if only flagged curves were" in text for text in said] == [False, True]


def test_names_of_experiments_steer_no_terminal(model, tmp_path, capsys):
    lab = tmp_path / "lab"
    rows = fill(lab, 59, EVENTS, "keep", experiments=("mon\x1b[31mday",)) + fill(lab, 5, FREE, "discard", seed=500)
    assert main(["calibrate", str(model), str(table(lab, rows)), "--out", str(tmp_path / "m")]) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert "\x1b" not in " ".join(read(tmp_path / "m").certificate.promise.data)


# what is refused


def refused(capsys, out, *words):
    assert main(["calibrate", *map(str, words), "--out", str(out)]) == 65
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert not out.exists()
    return error


def test_more_than_the_events_allow_is_refused_with_what_could_be_promised(lab, model, tmp_path, capsys):
    out = tmp_path / "m"
    error = refused(capsys, out, model, lab, "--max-miss", "0.01")
    assert "needs 299 events; the labels hold 64 events that count: they can promise at most 4.6 %" in error
    assert "--max-miss 0.046" in error
    assert main(["calibrate", str(model), str(lab), "--out", str(out), "--max-miss", "0.046"]) == 0
    assert list(tmp_path.iterdir()) == [out]


def test_one_class_alone_says_what_is_missing(model, tmp_path, capsys):
    events_only = table(tmp_path / "e", fill(tmp_path / "e", 59, EVENTS, "keep"))
    error = refused(capsys, tmp_path / "m", model, events_only)
    assert "no curve labelled discard: at most 5 % missed, 95 % sure could be promised" in error
    free_only = table(tmp_path / "f", fill(tmp_path / "f", 6, FREE, "discard"))
    assert "needs 59 events; the labels hold 0 events" in refused(capsys, tmp_path / "m", model, free_only)


def test_simulated_curves_never_count(model, tmp_path, capsys):
    folder = tmp_path / "sim"
    rows = fill(folder, 30, EVENTS, "keep") + fill(folder, 30, FREE, "discard", seed=500)
    for number in range(40):
        curve = replace(noisy(known_curves()[2], 2000 + number), spring_constant_n_per_m=0.05)
        (folder / f"renamed-{number}.jpk-force").write_bytes(pack_simulated(curve))
        rows.append((f"renamed-{number}.jpk-force", 0, "keep", "monday"))
    error = refused(capsys, tmp_path / "m", model, table(folder, rows))
    assert "hold 30 events that count (not counted: 40 simulated)" in error


def test_copies_count_once_and_contradicting_copies_are_said(model, tmp_path, capsys):
    rows = fill(tmp_path / "lab", 59, EVENTS, "keep") + fill(tmp_path / "lab", 5, FREE, "discard", seed=500)
    (tmp_path / "lab" / "copy.afmcurve").write_bytes((tmp_path / "lab" / rows[0][0]).read_bytes())
    table(tmp_path / "lab", [*rows[1:], (rows[0][0], 0, "keep", "x"), ("copy.afmcurve", 0, "keep", "x")])
    found = gather_eligible(read_labels([tmp_path / "lab", tmp_path / "lab"]), load_model(str(model)))
    assert (len(found), dict(found.set_aside)) == (64, {"copies of others": 66})
    table(tmp_path / "lab", [*rows, ("copy.afmcurve", 0, "discard", "x")])
    error = refused(capsys, tmp_path / "m", model, tmp_path / "lab")
    assert "row 66: copy.afmcurve is the curve of" in error
    table(tmp_path / "lab", [("copy.afmcurve", 0, "unsure", "x"), *rows])  # who doubts a copy doubts the curve
    error = refused(capsys, tmp_path / "m", model, tmp_path / "lab")
    assert "row 3: keep-00000.afmcurve is the curve of" in error
    assert "labelled unsure; decide for one" in error


def test_curves_that_the_network_was_taught_with_never_count(lab, model, tmp_path, capsys):
    """By the curves themselves, whatever folder they have come to; by the table, for models that noted only that."""
    old = read(model)
    kept = old.manifest.training
    found = gather_eligible(read_labels([lab]), load_model(str(model)))
    by_table = {**kept, "labelled": {"elsewhere": next(iter(found.tables.values()))}}
    by_curve = {**kept, **TrainingRecord({}, frozenset(identities(lab))).for_manifest()}
    for training in (by_table, by_curve):
        taught = write(
            tmp_path / "taught",
            old.weights,
            msgspec.structs.replace(old.manifest, training=training),
            "# x\n",
            replaces=True,
        )
        error = refused(capsys, tmp_path / "m", taught.folder, lab)
        assert "hold 0 events that count (not counted: 104 of the model's own training)" in error


def test_a_curve_and_the_copy_that_the_ledger_exports_are_the_same(model, tmp_path, capsys):
    """Long curves are averaged in an export, and all are in single precision: still no second witness."""
    lab, export = tmp_path / "lab", tmp_path / "export"
    rows = fill(lab, 30, EVENTS, "keep") + fill(lab, 10, FREE, "discard", seed=500)
    export.mkdir()
    for number, (name, *_) in enumerate(rows):
        old = open_file(lab / name)[0]
        rng = np.random.default_rng(number)
        force = np.repeat(old.force, 3) + rng.normal(0, 1e-12, 3 * len(old))
        long = replace(old, force=force, distance=None)
        (lab / name).write_bytes(pack(long, dtype="<f8"))
        (export / name).write_bytes(
            compact_copy_of(long, RasterProfile(), prepare_to_judge([long], RasterProfile())[0])
        )
    table(lab, rows)
    table(export, [(name, 0, label, "exported") for name, _, label, _ in rows])
    assert "hold 30 events that count (not counted: 40 copies of others)" in refused(
        capsys, tmp_path / "m", model, lab, export
    )
    assert identities(lab) == identities(export)


def test_tables_of_the_same_name_are_all_noted():
    first = TrainingRecord({}, frozenset()).with_more({"lab": "a"}, ["1"])
    third = first.with_more({"lab": "b"}, ["2"]).with_more({"lab": "c"}, ["3"], ["4"])
    assert set(third.tables.values()) == {"a", "b", "c"}
    again = TrainingRecord.of(third.for_manifest())
    assert again == third
    assert (again.curves, again.unlabelled) == ({"1", "2", "3"}, {"4"})
    assert third.with_more({"lab": "c"}, []).tables == third.tables


def test_folders_of_the_same_name_are_all_noted_and_decide_whether_to_go_on(tmp_path):
    folders = [tmp_path / day / "lab" for day in ("monday", "tuesday")]
    for seed, folder in enumerate(folders):
        rows = fill(folder, 3, EVENTS, "keep", seed=100 * seed)
        table(folder, rows + fill(folder, 3, FREE, "discard", seed=100 * seed + 50))
    out, given = tmp_path / "m", [word for folder in folders for word in ("--labelled", str(folder))]
    small = ["--width", "4", "--size", "64", "--simulate", "64", "--epochs", "1", "--held-out", "100", "--threads", "1"]
    assert main(["train", *small, *given, "--out", str(out)]) == 0
    digests = {hashlib.sha256((folder / "labels.csv").read_bytes()).hexdigest() for folder in folders}
    assert set(read(out).manifest.training["labelled"].values()) == digests


def identities(folder):
    return [fingerprint_of(open_file(path)[0]) for path in sorted(folder.glob("*.afmcurve"))]


def test_a_trained_model_knows_its_curves_and_those_of_its_parents(tmp_path):
    names = ("lab1", "lab2")
    for number, name in enumerate(names):
        rows = fill(tmp_path / name, 4, EVENTS, "keep", seed=100 * number)
        table(tmp_path / name, rows + fill(tmp_path / name, 4, FREE, "discard", seed=100 * number + 50))
    small = ["--width", "4", "--size", "64", "--simulate", "70"]
    options = ["--epochs", "1", "--held-out", "200", "--threads", "1"]
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["train", *small, *options, "--labelled", str(tmp_path / "lab1"), "--out", str(first)]) == 0
    again = ["--init", str(first), "--labelled", str(tmp_path / "lab2"), "--simulate", "64", "--out", str(second)]
    assert main(["train", *again, *options]) == 0
    taught = TrainingRecord.of(read(second).manifest.training)
    assert taught.curves == {*identities(tmp_path / "lab1"), *identities(tmp_path / "lab2")}
    assert set(taught.tables) == set(names)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (("nowhere.afmcurve", 0, "keep", ""), "no such file"),
        (("keep-00000.afmcurve", 0, "perhaps", ""), "perhaps"),
        (("keep-00000.afmcurve", 7, "keep", ""), "curve_index 7"),
        (("keep-00000.afmcurve", 0, "keep", ""), "remove one"),
    ],
)
def test_rows_that_make_no_sense_are_said_and_nothing_is_written(model, tmp_path, capsys, row, says):
    rows = fill(tmp_path / "lab", 2, EVENTS, "keep")
    assert says in refused(capsys, tmp_path / "m", model, table(tmp_path / "lab", [*rows, row]))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--max-miss", "0"], "--max-miss"),
        (["--max-miss", "1e-13"], "--max-miss"),
        (["--confidence", "1"], "--confidence"),
        (["--confidence", "0.9999999999"], "--confidence"),
        (["--max-miss", "nan"], "--max-miss"),
        (["--prevalence", "0.9999999999999999"], "--prevalence"),
        (["--prevalence", "2"], "--prevalence"),
        (["--precision", "1.5"], "--precision"),
        (["--review-share", "-1"], "--review-share"),
        (["--precision", "0.9", "--review-share", "0.1"], "not allowed"),
    ],
)
def test_options_that_make_no_sense_are_usage(lab, tmp_path, capsys, words, says):
    assert main(["calibrate", "shipped", str(lab), "--out", str(tmp_path / "m"), *words]) == 64
    assert says in capsys.readouterr().err


def test_a_name_that_steers_a_terminal_is_refused(lab, model, tmp_path, capsys):
    for words in (["calibrate", str(model), str(lab)], ["train", "--simulate", "9"]):
        assert main([*words, "--out", str(tmp_path / "a\x1b[31m\nb")]) == 64
        error = capsys.readouterr().err
        assert "can be printed" in error
        assert "\x1b" not in error
    assert list(tmp_path.iterdir()) == []


def test_no_model_is_overwritten_by_its_own_calibration(lab, model, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    for name, out in (
        (str(model), model),
        ("shipped", SHIPPED),
        (str(model), SHIPPED),
        (str(model), tmp_path / "full"),
    ):
        assert main(["calibrate", name, str(lab), "--out", str(out)]) == 64
        assert "name another folder" in capsys.readouterr().err


def test_without_out_the_new_model_stands_beside_the_old_one(lab, tmp_path, monkeypatch):
    folder = make_model(tmp_path / "titin").folder
    monkeypatch.chdir(tmp_path)
    assert main(["calibrate", "titin", str(lab)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["titin", "titin-calibrated"]
    assert read(tmp_path / "titin-calibrated").manifest.parent == read(folder).id


# what comes of it


@pytest.fixture(scope="module")
def certified(lab, model, tmp_path_factory):
    bundle = read(model)
    exact = load_model(str(model), EngineRequest(precision="fp32"))
    outcome = calibrate(
        gather_eligible(read_labels([lab]), exact), bundle, str(exact.engine), CalibrationTarget(keep=KeepRule(0.5))
    )
    return write_model(tmp_path_factory.mktemp("certified") / "ours", bundle, outcome).folder


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["certificate"].update(bound=0.01),
        lambda m: m["certificate"].update(weights_sha256="0" * 64),
        lambda m: m["certificate"].update(simulated=True),
        lambda m: m["thresholds"].update(discard=m["thresholds"]["keep"] * 0.999999),
        lambda m: m["calibration"].update(bias=m["calibration"]["bias"] - 3),
        lambda m: m.update(score_basis="simulation"),
    ],
)
def test_a_certificate_that_does_not_fit_its_model_makes_it_unusable(certified, tmp_path, change):
    folder = shutil.copytree(certified, tmp_path / "copy")
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadBundle, match=r"certificate|promise|allow|simulated"):
        read(folder)


def test_a_promise_holds_on_every_engine_that_decides_in_single_precision(certified):
    from deploy.torch_engine import TorchClassifier

    bundle = read(certified)
    assert bundle.certificate.engine.endswith("-cpu-fp32")
    rough, exact = (TorchClassifier(bundle, precision) for precision in ("bf16", "fp32"))
    elsewhere = replace(bundle.certificate, engine="torch-cuda-fp16")
    other = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, certificate=elsewhere))
    models = [Model(bundle, rough, exact), Model(bundle, exact), Model(bundle, rough), Model(other, exact)]
    judges = [judge_of(one, ThresholdsConfig(), require_certificate=True) for one in models]
    assert [judge.may_discard for judge in judges] == [True, True, False, False]
    assert judges[2].certificate is None
    assert judges[0].on(EngineId.parse("torch-cpu-fp32")).certificate == judges[0].certificate


def test_every_event_carries_the_certificate(certified, lab, capsys):
    assert main(["score", str(lab), "--json", "--model", str(certified)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    schema = json.loads((Path(events.__file__).parents[1] / "schema" / "decision.v1.json").read_text())
    data = Draft202012Validator(schema["properties"]["data"])
    for row in rows:
        data.validate(row)
    assert rows[0]["certificate"]["data"] == ["monday", "titin"]
    assert rows[0]["certificate"]["bound"] <= rows[0]["certificate"]["max_miss"] == 0.05
    rows[0]["certificate"]["bound"] = "five"
    assert not data.is_valid(rows[0])


def test_a_bolder_threshold_of_the_laboratory_has_no_certificate(certified):
    model = load_model(str(certified))
    discard = model.bundle.discard
    assert judge_of(model, ThresholdsConfig()).certificate is not None
    assert judge_of(model, ThresholdsConfig(discard=discard * 0.9)).certificate is not None
    assert judge_of(model, ThresholdsConfig(discard=min(discard * 1.01, model.bundle.keep * 0.999))).certificate is None


def test_an_event_says_where_the_discard_threshold_comes_from(certified):
    model = load_model(str(certified))
    adapted = judge_of(model, ThresholdsConfig())
    assert adapted.certificate is not None
    assert adapted.cut == CutOrigin("adapted", adapted.certificate.events)
    assert judge_of(model, ThresholdsConfig(keep=0.9)).cut == adapted.cut
    assert judge_of(model, ThresholdsConfig(discard=model.bundle.discard)).cut == CutOrigin("configured", 0)
    shipped = load_model("shipped", EngineRequest(engine="torch"))
    simulated = shipped.bundle.manifest.thresholds.evidence["events"]
    assert judge_of(shipped, ThresholdsConfig()).cut == CutOrigin("shipped", simulated)


def scored(capsys, lab, folder, *words):
    assert main(["score", str(lab), "--json", "--model", str(folder), *words]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_require_certificate_holds_discards_back_until_there_is_one(certified, model, lab, tmp_path, capsys):
    """One rule for the service and for `score`: it is in the judge, and in the pipeline that events name."""
    manifest = json.loads((certified / "manifest.json").read_text())
    bold = shutil.copytree(certified, tmp_path / "bold")  # half of all scores are below; no certificate covers that
    manifest["thresholds"] |= {"discard": 0.02, "keep": 0.99}
    manifest["certificate"] = None
    (bold / "manifest.json").write_text(json.dumps(manifest))
    free, strict = scored(capsys, lab, bold), scored(capsys, lab, bold, "--require-certificate")
    assert {row["verdict"] for row in free} == {"discard", "review"}
    for before, after in zip(free, strict, strict=True):
        held_back = before["verdict"] == "discard"
        assert after["verdict"] == "review"
        assert ("no_certificate" in after["reasons"]) is held_back
        assert after["score"] == before["score"]
        assert after["pipeline"] == before["pipeline"] + "|certificate:required"
    earned = scored(capsys, lab, certified, "--require-certificate")
    assert [row["verdict"] for row in earned] == [row["verdict"] for row in scored(capsys, lab, certified)]
    assert judge_of(load_model(str(certified)), ThresholdsConfig(), require_certificate=True).may_discard


def test_models_check_and_status_speak_of_it(certified, tmp_path, capsys):
    assert main(["models", "show", str(certified)]) == 0
    assert "95 % sure" in capsys.readouterr().out
    (tmp_path / "watch").mkdir()
    file = tmp_path / "afm1.toml"
    for folder, says in ((certified, "the model has one: 64 events"), ("shipped", "require_certificate = true")):
        file.write_text(f'watch = ["watch"]\nstate = "s"\nmodel = "{folder}"\nrequire_certificate = true\n')
        assert main(["check", str(file)]) == 0
        assert says in capsys.readouterr().out
    file.write_text('watch = ["watch"]\nstate = "s"\nrequire_certificate = "yes"\n')
    assert main(["check", str(file)]) == 78
    assert "require_certificate: must be true or false" in capsys.readouterr().err
    model = {"id": "ours", "certificate": msgspec.to_builtins(read(certified).certificate.promise)}
    status = {"running": True, "instrument": "afm1", "model": model, "ledger": {"review_queue": 0}, "flagged": []}
    assert any(
        "at most 4.6 % of events missed, 95 % sure, by 64 events of monday, titin" in line.plain
        for line in page(status)
    )


def test_decide_alone():
    strict = replace(JUDGE, require_certificate=True)
    earned = replace(strict, certificate={"bound": 0.05})
    found = [decide([reading()], [Scored(0.01, ())], judge)[0] for judge in (JUDGE, strict, earned)]
    assert [one.verdict for one in found] == ["discard", "review", "discard"]
    assert [one.reasons for one in found] == [("score",), ("score", "no_certificate"), ("score",)]


def test_a_calibration_of_too_few_is_an_error_whoever_asks(bundle):
    with pytest.raises(UserError, match="needs 59 events"):
        calibrate(exhibits(58, 10), bundle, "e", CalibrationTarget())
