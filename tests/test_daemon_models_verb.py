"""`models` as a user types it: quick, sound or refused in one line; and what judges a file beside a service."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from makers import a_retract, make_jpk
from modelhelp import make_model
from pace import allowed

from daemon.cli import main
from daemon.judging.registry import SERVING, Registry
from models.bundle import CONFIRMED, SHIPPED, WEIGHTS, Bundle, read, write
from models.gate import Finding, Report, log_of, note_last

ROOT = Path(__file__).resolve().parents[1]


def a_cut(registry: Registry, base: Bundle, name: str, share: float = 0.5) -> Bundle:
    discard = base.discard + share * (base.keep - base.discard)
    evidence = {"basis": CONFIRMED, "events": 5, "band": [base.discard, discard], "group": ""}
    return registry.write_cut(base, name, discard, evidence)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def run(*words: str | Path) -> tuple[int, str, float]:
    """Exit code, what it said, and seconds of processor: the clock tells what else this machine does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-X", "importtime", "-m", "daemon", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "torch" not in done.stderr, "it would take seconds to load"
    took_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.returncode, done.stdout, took_s


def test_fifty_models_are_listed_shown_promoted_and_taken_back_at_once(state: Path) -> None:
    registry, base = Registry(state / "models"), read(SHIPPED)
    cuts = [a_cut(registry, base, f"cut-{number:02d}", number / 60) for number in range(1, 50)]
    own = write(registry.models / "own", base.weights, msgspec.structs.replace(base.manifest, name="own"), "# own\n")
    at = ("--state", state)
    code, said, took_s = run("models", "list", "--json", *at)
    rows = [json.loads(line) for line in said.splitlines()]
    assert (code, len(rows)) == (0, 51)
    assert {row["id"] for row in rows} == {base.id, own.id, *(one.id for one in cuts)}
    assert [row["problem"] for row in rows] == [None] * 51
    times = {"list": took_s}
    for words in (("promote", "cut-07", "--by", "ann"), ("promote", cuts[8].id), ("show",), ("rollback",)):
        code, said, times[words[0]] = run("models", *words, *at)
        assert code == 0, words
        if words == ("show",):
            assert cuts[8].id in said.splitlines()[0], "without a name: what serves"
    assert max(times.values()) < allowed(1.0), times
    rows = [json.loads(line) for line in run("models", "list", "--json", *at)[1].splitlines()]
    assert [row["id"] for row in rows if row["is_promoted"]] == [cuts[6].id]
    told = run("models", "list", *at)[1].splitlines()
    assert "ann" in told[-1]
    assert [f"from {base.id}, " in line for line in told[:-1] if line.startswith(("shipped ", "cut-07 "))] == [
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["promote"], 64),
        (["rollback", "x"], 64),
        (["rollback"], 65),
        (["promote", "no-such"], 65),
        (["promote", "damaged"], 65),
        (["show", "damaged"], 65),
        (["promote", "../models"], 65),
        (["promote", "shipped\x1b[31m"], 65),
    ],
)
def test_a_mistake_is_one_line_and_moves_nothing(
    words: list[str], code: int, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(state / "models")
    bad = a_cut(registry, read(SHIPPED), "damaged")
    weights = (bad.folder / WEIGHTS).read_bytes()
    (bad.folder / WEIGHTS).unlink()
    (bad.folder / WEIGHTS).write_bytes(weights[:-1] + b"\x07")
    capsys.readouterr()
    assert main(["models", *words, "--state", str(state)]) == code
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert "\x1b" not in told.err
    assert not (registry.models / SERVING).exists()


def test_a_state_that_is_not_there_is_refused_and_not_made(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("list", "rollback"):
        assert main(["models", word, "--state", str(state)]) == 69
        assert capsys.readouterr().err.count(f"no ledger at {state}") == 1
    assert not state.exists()


def test_the_list_says_who_took_back_what(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry, base = Registry(state / "models"), read(SHIPPED)
    cut = a_cut(registry, base, "cut")
    registry.promote("cut", base=base, why="", by="ann")
    registry.rollback("ada", "it kept rubbish", base_id=base.id)
    assert main(["models", "list", "--state", str(state)]) == 0
    (told,) = [line for line in capsys.readouterr().out.splitlines() if "taken back" in line]
    assert told.startswith(f"{cut.id}: ")
    assert told.endswith("was taken back, by ada: it kept rubbish")


def test_a_state_that_cannot_be_written_is_told(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_cut(Registry(state / "models"), read(SHIPPED), "good")
    (state / "models" / ".lock").mkdir()
    assert main(["models", "promote", "good", "--state", str(state)]) == 74
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.timeout(120)
def test_what_is_passed_over_does_not_serve_in_the_list(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry, base = Registry(state / "models"), read(SHIPPED)
    promoted = a_cut(registry, base, "cut")
    registry.promote("cut", base=base, why="", by="ann")
    own = write(registry.models / "own", base.weights, msgspec.structs.replace(base.manifest, name="own"), "# own\n")

    def listed(*words: str) -> tuple[str, list[str]]:
        assert main(["models", "list", "--state", str(state), *words]) == 0
        last = capsys.readouterr().out.splitlines()[-1]
        assert main(["models", "list", "--json", "--state", str(state), *words]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return last, [row["id"] for row in rows if row["is_promoted"]]

    registry.rollback("ann", "to see what is said")
    assert listed() == ("shipped serves: the configured model, with nothing promoted in its place", [])
    registry.promote("cut", base=base, why="", by="ann")
    said, serving = listed()
    assert (said.startswith("cut serves"), serving) == (True, [promoted.id])
    registry.note_base("own")  # by a service that is configured with it
    said, serving = listed()
    assert (f"the configured model is {own.id}, which judges" in said, serving) == (True, [])
    shutil.rmtree(own.folder)
    assert "no model 'own'" in listed()[0]


def test_a_file_is_judged_with_what_serves_or_with_any_that_ever_judged(
    tmp_path: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`score` and `explain`, by the state of a service that nobody has to run."""
    base = make_model(tmp_path / "base", "base")
    registry = Registry(state / "models")
    registry.note_base(str(base.folder))  # as the service does
    registry.note_served("base", base)
    cut = a_cut(registry, base, "cut")
    curve = tmp_path / "c.jpk-force"
    curve.write_bytes(make_jpk(*a_retract(256, seed=1)))

    def judged_by(*words: str) -> str:
        capsys.readouterr()
        assert main(["score", "--json", str(curve), *words, "--engine", "torch", "--device", "cpu"]) == 0
        told = capsys.readouterr()
        assert told.err in ("", warned)
        model: str = json.loads(told.out)["model"]
        return model

    at, warned = ("--state", str(state)), ""
    assert main(["models", "promote", "cut", *at]) == 0
    assert judged_by(*at) == cut.id
    config = tmp_path / "afm.toml"
    config.write_text(f'watch = ["{tmp_path / "watch"}"]\nstate = "{state}"\nmodel = "{base.folder}"\n')
    assert judged_by("--config", str(config)) == cut.id
    assert main(["check", str(config)]) == 0
    assert f"in its place {cut.id} serves" in capsys.readouterr().out
    shutil.rmtree(base.folder)
    shutil.rmtree(cut.folder)
    assert judged_by(*at, "--model", cut.id) == cut.id
    assert main(["explain", str(curve), *at, "--model", base.id, "--out", str(tmp_path / "x.png")]) == 0
    config.write_text(config.read_text().replace(str(base.folder), "shipped"))
    shipped = read(SHIPPED).id
    what = f"{cut.id} was promoted in the place of {base.id}"
    warned = f"afm-triage: {what}; the configured model is {shipped}, which judges\n"
    assert judged_by("--config", str(config)) == shipped


def test_what_the_gate_has_refused_serves_with_a_word(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, registry = read(SHIPPED), Registry(state / "models")
    made = a_cut(registry, base, "tuned")
    found = (Finding("pile", False, "pile: it grows"), Finding("ranking", True, "ranking: as before"))
    refused = Report(candidate=made.id, parent=base.id, network=base.weights_sha256, cut=0.1, night="2026-11-20",
                     time="2026-11-20T18:00:00Z", look=1, alpha=0.025, passed=False, findings=found)  # fmt: skip
    log_of(state).parent.mkdir()
    note_last(state, refused)
    for words in (["promote", "tuned"], ["list"]):
        assert main(["models", *words, "--state", str(state)]) == 0
        told = [line for line in capsys.readouterr().out.splitlines() if "▲ the gate has refused it at " in line]
        assert len(told) == 1
        assert ": pile" in told[0]
    note_last(state, replace(refused, passed=True))
    assert main(["models", "promote", "tuned", "--state", str(state)]) == 0
    assert "▲ the gate" not in capsys.readouterr().out
