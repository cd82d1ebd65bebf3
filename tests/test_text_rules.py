"""[[text]] from the configuration to the verdict: `check`, `score --config`, `explain --config` and the service."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.client.service_file import TemporaryService
from tests.faults.harness import history
from tests.makers import a_retract, make_columns
from tests.test_service import until

COMPARED = ("verdict", "score", "reasons", "pipeline", "sha256")

RULE = """
[[text]]
pattern = "*.csv"
pulling = "{pulling}"
columns = ["time (s)", "distance", "force"]
force_unit = "pN"
distance_unit = "nm"
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A folder with one nameless table, and two configurations of opposite opinion."""
    (tmp_path / "in").mkdir()
    force, distance = a_retract(points=1024, peak_pn=400)
    time = distance / 1e-6
    (tmp_path / "in" / "a.csv").write_bytes(make_columns(time, distance * 1e9, force * 1e12, separator=","))
    for pulling in ("positive", "negative"):
        text = f'watch = ["in"]\nstate = "state"\nmetrics_port = 0\n{RULE.format(pulling=pulling)}'
        (tmp_path / f"{pulling}.toml").write_text(text)
    return tmp_path


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "daemon", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


def scored(lab: Path, *words: object) -> dict[str, object]:
    done = run("score", "--json", lab / "in", *words)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    return json.loads(line)


def test_without_a_rule_columns_are_a_guess_and_nothing_is_discarded(lab: Path) -> None:
    data = scored(lab)
    assert "columns_assumed" in data["reasons"]
    assert data["verdict"] != "discard"


def test_a_rule_settles_it_and_the_event_says_so(lab: Path) -> None:
    right, wrong = (scored(lab, "--config", lab / f"{pulling}.toml") for pulling in ("positive", "negative"))
    assert right["reasons"] == ["score", "text_rule"]
    assert right["verdict"] == "keep"
    assert right["force_unit"] == "N"
    assert wrong["score"] < right["score"]
    assert "|text:" in str(right["pipeline"])
    assert right["pipeline"] != wrong["pipeline"]


def test_check_says_it_in_words_and_every_error_at_once(lab: Path) -> None:
    told = run("check", lab / "positive.toml")
    assert told.returncode == 0
    assert "text files that match *.csv: pulling is positive; the columns are time (s), distance, force" in told.stdout
    tables = ('pattern = "*.csv"\npulling = "up"\n', 'patern = "*.csv"\n')
    (lab / "bad.toml").write_text('watch = ["in"]\n' + "".join(f"[[text]]\n{table}" for table in tables))
    bad = run("check", lab / "bad.toml")
    assert bad.returncode == 78
    assert 'text: table 1: pulling is "positive" or "negative"' in bad.stderr
    assert 'text: table 2: has no key "patern"' in bad.stderr
    (lab / "flat.toml").write_text('watch = ["in"]\n[text]\npattern = "*.csv"\n')
    assert "[[text]]" in run("check", lab / "flat.toml").stderr


def test_a_rule_holds_for_a_file_wherever_it_is_asked_for(lab: Path) -> None:
    config = lab / "afm1.toml"
    config.write_text((lab / "positive.toml").read_text().replace('"*.csv"', '"in/*.csv"'))
    rows = [run("score", "--json", path, "--config", config).stdout for path in (lab, lab / "in", lab / "in" / "a.csv")]
    assert [json.loads(row)["reasons"] for row in rows] == [["score", "text_rule"]] * 3


def test_explain_takes_the_configuration_too(lab: Path) -> None:
    done = run("explain", lab / "in" / "a.csv", "--config", lab / "positive.toml", "--out", lab / "why.png")
    assert done.returncode == 0, done.stderr
    assert "keep" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_live_equals_score_and_a_reload_takes_another_rule(lab: Path) -> None:
    config = lab / "afm1.toml"
    config.write_bytes((lab / "positive.toml").read_bytes())
    with TemporaryService(lab / "live", options=("--config", str(config))) as trial:
        shutil.copy(lab / "in" / "a.csv", trial.watch)
        until(lambda: len(history(trial)) == 1, "the verdict")
        live = history(trial)[0]["data"]
        later = scored(lab, "--config", lab / "positive.toml")
        assert [live[key] for key in COMPARED] == [later[key] for key in COMPARED]
        config.write_bytes((lab / "negative.toml").read_bytes())
        assert run("reload", "--config", config, "--state", trial.state, "--instrument", "demo").returncode == 0
        until(lambda: "'text'" in trial.log.read_text().rpartition("reload: applied")[2], "the reload")
        (trial.watch / "b.csv").write_bytes((lab / "in" / "a.csv").read_bytes() + b"# another file\n")
        until(lambda: len(history(trial)) == 2, "the second verdict")
        assert history(trial)[1]["data"]["pipeline"] == scored(lab, "--config", lab / "negative.toml")["pipeline"]
