import json
from collections import Counter

import numpy as np
import pytest
from modelhelp import make_model
from test_daemon_few_labels_train import write_curves

from tests.studies.__main__ import main as study
from tests.studies.few_labels import half_width, summarise, write_text
from tests.studies.few_labels_trial import ALL, AS_IS, LEAST, RIVALS, Result, draw, settings

pytest.importorskip("sklearn")


def a_collection():
    """Eight experiments of 6 events, 6 event-free and 2 unsure; one of events alone; two of a world apart."""
    experiments, labels = [], []
    for name in [f"day{number}" for number in range(8)] + ["alone", "apart1", "apart2"]:
        for label, count in (("keep", 6 if name[0] == "d" else 16), ("discard", 6 if name[0] == "d" else 16)):
            size = 0 if (name, label) == ("alone", "discard") else count
            experiments += [name] * size
            labels += [label] * size
        experiments += [name] * 2
        labels += ["unsure"] * 2
    return np.array(experiments), np.array(labels)


def test_no_experiment_stands_on_both_sides_and_no_curve_either():
    experiments, labels = a_collection()
    found = {setting.name: setting for setting in settings(experiments, labels, ["apart*"], 5, seed=1)}
    assert {"other experiments", "other experiments apart*", "within apart1", "within apart2"} <= found.keys()
    assert not {"within alone", "within day0"} & found.keys()  # of one kind, too few
    for name, setting in found.items():
        assert len(setting.splits) == 5
        for split in setting.splits:
            assert not set(split.pool) & set(split.test)
            assert not set(split.unlabelled) & set(split.test)
            assert set(split.pool) <= set(split.unlabelled)
            assert "unsure" not in {*labels[split.pool], *labels[split.test]}
            if name.startswith("other"):
                assert not set(experiments[split.unlabelled]) & set(experiments[split.test])
                for side in (split.pool, split.test):
                    assert min((labels[side] == kind).sum() for kind in ("keep", "discard")) >= LEAST
            else:
                assert len(set(experiments[np.concatenate((split.unlabelled, split.test))])) == 1
    rest = np.concatenate([np.concatenate((one.pool, one.test)) for one in found["other experiments"].splits])
    assert not any(str(name).startswith("apart") for name in experiments[rest])


def test_repeats_differ_and_the_same_seed_repeats_itself():
    experiments, labels = a_collection()
    first, again, other = (settings(experiments, labels, [], 4, seed=seed) for seed in (1, 1, 2))
    tests = [tuple(split.test) for split in first[0].splits]
    assert len(set(tests)) > 1
    assert tests == [tuple(split.test) for split in again[0].splits]
    assert tests != [tuple(split.test) for split in other[0].splits]


def test_too_few_experiments_or_curves_are_no_setting():
    experiments = np.array(["one"] * 40 + ["small"] * 6)
    labels = np.array(["keep", "discard"] * 20 + ["keep", "discard"] * 3)
    assert [setting.name for setting in settings(experiments, labels, [], 3, seed=1)] == ["within one"]


def test_labels_are_drawn_mixed_and_nested():
    events = np.arange(200) < 40
    pool = np.arange(0, 200, 2)  # 20 events, 80 others
    draws = {count: draw(pool, events, count, seed=3) for count in (8, 16, 32, 64)}
    for count, chosen in draws.items():
        assert len(set(chosen)) == count
        assert set(chosen) <= set(pool)
        assert events[chosen].sum() == max(round(0.2 * count), count // 4)
    assert set(draws[8]) <= set(draws[16]) <= set(draws[32]) <= set(draws[64])
    assert draw(pool, events, 101, seed=3) is None
    scarce = draw(np.arange(38, 60), events, 16, seed=3)  # two events are all there is
    assert events[scarce].sum() == 2
    assert len(scarce) == 16


def test_half_an_interval_is_students():
    assert half_width(np.array([1.0, 2.0, 3.0])) == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)
    assert half_width(np.array([1.0])) is None


def test_marks_are_of_the_paired_difference():
    """Far apart from repeat to repeat, yet always a little better: only the pairs can tell."""
    experiments, labels = a_collection()
    setting = settings(experiments, labels, [], 4, seed=1)[0]
    base = [0.6, 0.9, 0.7, 0.8]
    better, worse = list(RIVALS)[:2]
    results = [Result(setting.name, place, AS_IS, 0, "", value, value) for place, value in enumerate(base)]
    for place, value in enumerate(base):
        results.append(Result(setting.name, place, better, 8, ALL, value + 0.01 + 1e-4 * place, value))
        results.append(Result(setting.name, place, worse, 8, ALL, value - 0.01 - 1e-4 * place, value))
    rows = summarise([setting], results)
    text = write_text({"model": "m", "curves": 1, "seed": 1, "cpu_s": 1, "settings": rows})
    lines = {line.split("  ")[0]: line for line in text.split("AP by")[0].splitlines()}
    assert lines[better].endswith(">")
    assert lines[worse].endswith("<")
    assert lines[AS_IS].split()[-2:] == ["0.750", "±0.205"]
    assert lines[better].split()[-3] == "+0.010"


def test_the_study_on_real_files(tmp_path, capsys):
    make_model(tmp_path / "model")
    folder = write_curves(tmp_path / "lab", range(8))
    words = ["--model", str(tmp_path / "model"), "--repeats", "2", "--tuned-repeats", "1", "--simulate", "40"]
    assert study(["few-labels", str(folder), *words, "--out", str(tmp_path / "found.json")]) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert [one["name"] for one in found["settings"]] == ["other experiments"]
    counts = Counter(row["rival"] for row in found["settings"][0]["rivals"])
    assert set(counts) == {AS_IS, *RIVALS} | {"all weights fine-tuned", "all weights from scratch"}
    assert all(0 <= row[figure]["mean"] <= 1 for row in found["settings"][0]["rivals"] for figure in ("auc", "ap"))
    assert "## other experiments" in printed
    assert "AUC by labelled curves" in printed


def test_what_cannot_be_split_is_said(tmp_path, capsys):
    make_model(tmp_path / "model")
    folder = write_curves(tmp_path / "lab", (1,))
    assert study(["few-labels", str(folder), "--model", str(tmp_path / "model")]) == 65
    assert "to learn from some and test on others" in capsys.readouterr().err
    assert study(["few-labels", str(folder), "--repeats", "1"]) == 64
    assert "2 or more" in capsys.readouterr().err
