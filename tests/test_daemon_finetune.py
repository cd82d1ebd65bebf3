"""`finetune`: what is missing is said, a candidate is a child of what serves, and it serves only past the gate."""

from __future__ import annotations

import errno
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from daemon.cli import main
from daemon.common.errors import UserError
from daemon.common.locks import lock_work_folder
from daemon.config import Config, FinetuneConfig, ThresholdsConfig
from daemon.judging.registry import Registry
from daemon.learn import finetuning, teaching
from daemon.learn.adaptation import propose
from daemon.learn.evidence import TrainingRecord
from daemon.learn.finetuning import FOLDER, Night, finetune
from daemon.learn.lessons import is_held_out
from models.bundle import SHIPPED, Bundle, read
from models.clock import night_of, utc_now
from models.files import append_line
from models.finetune import TuningRecipe
from models.gate import Finding, Report, last_said, log_of
from tests.studies.laboratories import Laboratory
from tests.studies.nights import Nights

SMALL = {"events": 20, "simulate": 100, "held_out": 200, "recipe": TuningRecipe(epochs=1, threads=1)}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state with 40 labelled curves of two days, and one more that nobody has said a word about."""
    nights = Nights(tmp_path_factory.mktemp("labelled") / "state")
    seqs: list[int] = []
    for day, seed in (("2026-11-20", 1), ("2026-11-21", 2)):
        samples = Laboratory(1).curves(40, 0.7, seed)
        seqs += nights.record(((one.curve, one.is_event) for one in samples), day=day)
    shown = nights.may_be_looked_at(seqs)
    events = [seq for seq in shown if nights.truth[seq]]
    others = [seq for seq in shown if not nights.truth[seq]]
    nights.label([*events[:30], *others[:10]])
    return nights.state


@pytest.fixture(scope="module")
def taught(labelled: Path) -> Path:
    """The same after a first night: there is a candidate, and the gate has had too little to judge it by."""
    outcome = finetune(Config(state=labelled), Night(by="ada", **SMALL))
    assert outcome.kind == "refused"
    assert outcome.sentences[0].endswith("more"), outcome.sentences
    return labelled


@pytest.fixture
def state(taught: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(taught, tmp_path / "state"))


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], object]]]:
    """In the place of the gate one that lets everything through, after doing what is in the list."""
    meanwhile: list[Callable[[], object]] = []

    def look(config: Config, candidate: Bundle, parent: Bundle, cut: float, *_: Any, **__: Any) -> Report:
        for one in meanwhile:
            one()
        found = (Finding("pile", True, "pile: 30.0 to 20.0 % of 2,000 curves go to review"),)
        return Report(candidate=candidate.id, parent=parent.id, network=parent.weights_sha256, cut=cut, night="",
                      time="", look=1, alpha=0.025, passed=True, findings=found)  # fmt: skip

    monkeypatch.setattr(finetuning, "look", look)
    return meanwhile


def test_what_is_missing_is_said_and_nothing_is_written(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(one.name for one in labelled.iterdir())
    assert main(["finetune", "--state", str(labelled)]) == 0
    said = capsys.readouterr().out
    assert said.count("30 of 100 confirmed events: 70 more") == 1
    assert "afm-triage review" in said
    assert main(["finetune", "--state", str(labelled), "--json", "--events", "50"]) == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == "waits"
    assert FOLDER not in before
    assert sorted(one.name for one in labelled.iterdir()) == before


def test_user_errors_are_one_line(labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "no-model").mkdir()
    words = ["finetune", "--state", str(labelled)]
    cases = {
        ("finetune", "--state", str(tmp_path / "empty")): 69,
        (*words, "--epochs", "0"): 64,
        (*words, "--held-out", "3"): 64,
        (*words, "--candidate", str(tmp_path / "no-model"), "--epochs", "3"): 64,
        (*words, "--candidate", str(tmp_path / "no-model")): 65,
        (*words, "--candidate", str(tmp_path / "nowhere")): 65,
    }
    for said, code in cases.items():
        assert main(list(said)) == code, said
        told = capsys.readouterr()
        assert told.err.count("\n") == 1, told.err
        assert not told.out
    assert not list((tmp_path / "empty").iterdir())
    with lock_work_folder(labelled / FOLDER):
        assert main([*words, "--events", "20"]) == 73
    assert "another finetune works on this state" in capsys.readouterr().err
    shutil.rmtree(labelled / FOLDER)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("51200 requested and 23520 written"), "not all of one could be written"),  # as numpy says it
    ],
)
def test_a_full_disk_is_one_line_whoever_meets_it(
    labelled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: OSError, why: str
) -> None:
    def fill_up(*_: Any) -> None:
        raise error

    monkeypatch.setattr(finetuning, "finetune", fill_up)
    assert main(["finetune", "--state", str(labelled)]) == 74
    said = f"afm-triage: {labelled} takes no file: {why}; make room, then go on with the same command\n"
    assert capsys.readouterr().err == said


def test_a_candidate_is_a_child_of_what_serves(taught: Path) -> None:
    (folder,) = (taught / FOLDER).glob("tuned-*")
    child, parent = read(folder), read(SHIPPED)
    changed = [name for name, tensor in parent.weights.items() if tensor.tobytes() != child.weights[name].tobytes()]
    assert changed
    assert all(name.startswith(("layer4.", "fc.")) for name in changed)
    manifest, cut = child.manifest, child.manifest.thresholds
    assert (manifest.parent, manifest.certificate, child.profile) == (parent.id, None, parent.profile)
    assert child.calibration.prevalence == parent.calibration.prevalence
    crossed = cut.evidence["cross_fitted"]
    assert len(crossed) >= 10
    assert child.calibration.logit(child.discard) < min(crossed)
    assert cut.evidence["simulated_loss"] <= cut.evidence["simulated_loss_of_parent"]
    record = TrainingRecord.of(manifest.training)
    assert len(record.curves) == cut.evidence["labels"]["curves"]
    assert not any(map(is_held_out, record.curves))
    assert not (taught / FOLDER / "checkpoint").exists()


def test_a_candidate_is_found_again_until_people_have_said_more(state: Path) -> None:
    (before,) = (state / FOLDER).glob("tuned-*")
    made_ns = (before / "manifest.json").stat().st_mtime_ns
    outcome = finetune(Config(state=state), Night(by="ada", **SMALL))
    assert outcome.folder == before
    assert outcome.report is not None
    assert last_said(state) == outcome.report, "`status` tells it, be it that no look was spent"
    assert (before / "manifest.json").stat().st_mtime_ns == made_ns
    other = finetune(Config(state=state), Night(by="ada", **{**SMALL, "simulate": 101}))
    assert other.folder is not None
    assert [other.folder] == list((state / FOLDER).glob("tuned-*")), "the older one is gone"
    assert other.folder != before


def test_what_passes_serves_and_a_timer_leaves_what_a_person_took_back(
    state: Path, gate: list[Callable[[], object]]
) -> None:
    config, registry = Config(state=state), Registry(state / "models")
    timer, ada = Night(by="timer", is_unattended=True, **SMALL), Night(by="ada", **SMALL)
    dry = finetune(config, Night(by="ada", dry_run=True, **SMALL))
    assert (dry.kind, registry.serving()) == ("held", None)
    outcome = finetune(config, timer)
    serving = registry.serving()
    assert outcome.kind == "promoted"
    assert serving is not None
    assert (serving.id, serving.by) == (outcome.model, "timer")
    assert registry.folder_of(serving).is_dir()
    assert propose(config).old == read(registry.folder_of(serving)).discard, "adapt goes on from its cut"
    assert finetune(config, ada).sentences[0].startswith("nothing new to learn")
    registry.rollback("ada", "too many lost")
    held = finetune(config, timer)
    assert held.kind == "waits"
    assert "ada took the last promotion back, too many lost" in held.sentences[0]
    finetune(config, Night(by="ada", dry_run=True, **SMALL))
    assert finetune(config, timer).kind == "waits", "a dry run sets nothing free"
    finetune(config, Night(by="ada", **{**SMALL, "events": 90}))
    assert finetune(config, timer).kind == "promoted", "a person has taught on, though there was too little"


def test_what_was_compared_with_another_cut_does_not_serve(state: Path, gate: list[Callable[[], object]]) -> None:
    registry, base = Registry(state / "models"), read(SHIPPED)

    def adapt() -> None:
        registry.write_cut(base, "cut", 2 * base.discard, {"basis": "labels: confirmed events", "events": 5})
        registry.promote("cut", base=base, why="w", by="ben")

    gate.append(adapt)
    outcome = finetune(Config(state=state), Night(by="ada", **SMALL))
    assert outcome.kind == "held"
    assert "have changed meanwhile" in outcome.sentences[0]
    serving = registry.serving()
    assert serving is not None
    assert serving.name == "cut"


def test_only_what_the_gate_has_looked_at_serves(state: Path, gate: list[Callable[[], object]]) -> None:
    """The folder holds another model by the time it is promoted: it is that of whoever named it."""
    (own,) = (state / FOLDER).glob("tuned-*")
    named = Path(shutil.copytree(own, state / "named"))

    def swap() -> None:
        manifest = json.loads((named / "manifest.json").read_bytes())
        manifest["thresholds"]["discard"] = 0.9 * manifest["thresholds"]["keep"]
        (named / "manifest.json").write_text(json.dumps(manifest))

    gate.append(swap)
    with pytest.raises(UserError, match="holds another model by now") as refused:
        finetune(Config(state=state), Night(by="ada", candidate=named, **SMALL))
    assert refused.value.exit_code == 65
    assert Registry(state / "models").serving() is None


def test_nothing_is_promoted_where_it_would_not_judge_as_it_was_looked_at(
    state: Path, gate: list[Callable[[], object]]
) -> None:
    """A cut of the configuration overrides the candidate's, at scores that are another network's."""
    (own,) = (state / FOLDER).glob("tuned-*")
    gate.append(lambda: pytest.fail("a look was spent"))
    config = Config(state=state, thresholds=ThresholdsConfig(discard=0.3))
    for candidate in (None, own):
        outcome = finetune(config, Night(by="ada", candidate=candidate, **SMALL))
        assert outcome.kind == "waits"
        assert outcome.sentences[0].startswith("[thresholds] discard = 0.3 of the configuration overrides every cut")


def test_a_timer_does_not_promote_a_candidate_by_name_either(state: Path, gate: list[Callable[[], object]]) -> None:
    (own,) = (state / FOLDER).glob("tuned-*")
    config, registry = Config(state=state), Registry(state / "models")
    assert finetune(config, Night(by="ada", **SMALL)).kind == "promoted"
    registry.rollback("ada", "too many lost")
    held = finetune(config, Night(by="timer", is_unattended=True, candidate=own, **SMALL))
    assert (held.kind, registry.serving()) == ("waits", None)


def test_what_was_damaged_is_made_anew(state: Path, gate: list[Callable[[], object]]) -> None:
    (own,) = (state / FOLDER).glob("tuned-*")
    (own / "manifest.json").write_bytes(b"{")
    (state / FOLDER / "plan.json").write_bytes(b"\xff\xfe{")
    for file in (state / FOLDER).glob("*-edges.npy"):
        np.save(file, np.load(file)[:, 0, 0])
    outcome = finetune(Config(state=state), Night(by="ada", dry_run=True, **SMALL))
    assert (outcome.kind, outcome.folder) == ("held", own)
    assert read(own).id == outcome.model


def test_what_the_gate_cannot_let_pass_is_not_taught(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too few decisions, or the look of tonight taken: both are known before the minutes of teaching."""
    monkeypatch.setattr(teaching, "_drawn", lambda *_: pytest.fail("it teaches"))
    config, parent = Config(state=state, finetune=FinetuneConfig(events=20)), read(SHIPPED)
    more = {**SMALL, "simulate": 102}
    few = finetune(config, Night(by="ada", **{**more, "events": None}))
    assert (few.kind, few.report) == ("waits", None)
    assert few.sentences[0].startswith("nothing is taught")
    assert few.sentences[0].endswith(" more")
    night, begun = night_of(time.time()), utc_now("seconds")
    spent = Report(candidate="tuned-0-1", parent=parent.id, network=parent.weights_sha256, cut=0.1, night=night,
                   time=begun, look=1, alpha=0.025, passed=False, findings=())  # fmt: skip
    append_line(log_of(state), msgspec.json.encode(spent))
    taken = finetune(config, Night(by="ada", **more))
    assert taken.kind == "waits"
    assert "nothing is taught: look: one a night, and number 1 was taken at " in taken.sentences[0]
    assert "12:00" in taken.sentences[0]


def test_an_answer_of_before_says_so(state: Path) -> None:
    (own,) = (state / FOLDER).glob("tuned-*")
    group = finetuning._survey(Config(state=state), Night(by="ada", **SMALL))[0].group
    parent, found = read(SHIPPED), (Finding("raster", True, "raster: it is"), Finding("pile", False, "pile: it grows"),
                                     Finding("ranking", False, "ranking: none"))  # fmt: skip
    refused = Report(candidate=read(own).id, parent=parent.id, network=parent.weights_sha256, cut=0.1, look=1,
                     night="2026-11-20", time="2026-11-20T18:00:00Z", alpha=0.025, passed=False,
                     findings=found, group=group)  # fmt: skip
    append_line(log_of(state), msgspec.json.encode(refused))
    assert finetune(Config(state=state), Night(by="ada", candidate=SHIPPED, **SMALL)).sentences[0] == (
        f"{parent.id} serves already"
    )
    said = finetune(Config(state=state), Night(by="ada", **SMALL)).sentences
    assert said[2].startswith("✗ ranking")
    assert said[3].startswith("✓ raster")
    assert said[1].startswith("this is the answer of 2026-11-20 ")
