"""What serves a state: promoted, taken back, by session group, and never half."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import msgspec
import pytest
from modelhelp import SMALL, make_model, some_examples, untrained

from daemon.config import ThresholdsConfig
from daemon.judging import CutOrigin
from daemon.judging.judge import choose, judge_of
from daemon.judging.registry import HISTORY, JUDGED, SERVING, Registry
from daemon.learn.training import Origin, assemble
from deploy.classifier import EngineRequest
from deploy.serving import Model
from models.bundle import MANIFEST, SHIPPED, WEIGHTS, BadBundle, Bundle, read, write
from models.certificate import Certificate, Experiment, miss_bound

EVIDENCE = {"basis": "labels: confirmed events", "events": 5, "group": ""}


@pytest.fixture
def base(tmp_path: Path) -> Bundle:
    return make_model(tmp_path / "base", "base")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "state" / "models")


def a_cut(registry: Registry, base: Bundle, name: str, share: float = 0.5) -> Bundle:
    """Between the base's discard and its keep."""
    discard = base.discard + share * (base.keep - base.discard)
    return registry.write_cut(base, name, discard, {**EVIDENCE, "band": [base.discard, discard]})


def test_a_cut_is_a_child_with_the_same_weights(registry: Registry, base: Bundle) -> None:
    one, other = a_cut(registry, base, "one", 0.25), a_cut(registry, base, "other", 0.5)
    for cut in (one, other):
        assert cut.manifest.parent == base.id
        assert cut.weights_sha256 == base.weights_sha256
        assert (cut.keep, cut.calibration, cut.certificate) == (base.keep, base.calibration, None)
        assert cut.id != base.id
    inodes = {(one.folder / WEIGHTS).stat().st_ino, (other.folder / WEIGHTS).stat().st_ino}
    assert len(inodes) == 1, "one file for all"
    assert (base.folder / WEIGHTS).stat().st_ino not in inodes, "and not the one outside, which somebody may write into"
    model = Model.load(one.folder, EngineRequest(device="cpu", engine="torch"))
    judge = judge_of(model, ThresholdsConfig())
    assert judge.band == (base.discard, one.discard)
    assert judge.cut == CutOrigin("adapted", 5)
    assert judge_of(model, ThresholdsConfig(discard=base.discard)).band is None
    assert "another discard threshold" in (one.folder / "card.md").read_text()


@pytest.mark.parametrize("name", ["", "shipped", "a/b", "../a", ".a", "."])
def test_a_cut_needs_a_name_of_its_own(registry: Registry, base: Bundle, name: str) -> None:
    with pytest.raises(BadBundle):
        a_cut(registry, base, name)
    a_cut(registry, base, "taken")
    with pytest.raises(BadBundle, match="holds a model"):
        a_cut(registry, base, "taken")


@pytest.mark.parametrize("discard", [float("nan"), -0.1, 1.0, float("inf")])
def test_no_cut_is_made_of_a_number_that_is_none(registry: Registry, base: Bundle, discard: float) -> None:
    with pytest.raises(BadBundle, match="discard threshold"):
        registry.write_cut(base, "x", discard, EVIDENCE)
    assert not (registry.models / "x").exists()


def test_a_cut_carries_only_a_certificate_of_its_own(registry: Registry, base: Bundle) -> None:
    """Of these weights, and of a threshold that is not lower: then its decisions say what is promised."""
    cut = a_cut(registry, base, "plain")
    limit = float(base.calibration.logit(cut.discard)) + 0.01
    said = {"kept queue": Experiment(events=59, missed=0, labels_sha256="0" * 64)}
    bound = miss_bound(59, 0, 0.95)
    earned = Certificate(0.05, 0.95, bound, 59, 0, 0, limit, said, base.weights_sha256, "torch-cpu-fp32", "2026-11-28")
    evidence = {**EVIDENCE, "band": [base.discard, cut.discard], "events": 59}
    made = registry.write_cut(base, "earned", cut.discard, evidence, earned)
    model = Model.load(made.folder, EngineRequest(device="cpu", engine="torch", precision="fp32"))
    assert judge_of(model, ThresholdsConfig()).certificate == earned.promise
    assert (made.manifest.score_basis, made.calibration) == (base.manifest.score_basis, base.calibration)
    for wrong in (
        dataclasses.replace(earned, weights_sha256="1" * 64),
        dataclasses.replace(earned, limit_logit=limit - 0.02),
        dataclasses.replace(earned, bound=0.01),
    ):
        with pytest.raises(BadBundle):
            registry.write_cut(base, "wrong", cut.discard, evidence, wrong)
        assert not (registry.models / "wrong").exists()


def test_promoted_and_taken_back(registry: Registry, base: Bundle) -> None:
    assert registry.serving() is None
    assert registry.stamp() is None
    one, other = a_cut(registry, base, "one", 0.25), a_cut(registry, base, "other", 0.5)
    first = registry.promote("one", base=base, group=None, why="five events", by="ann")
    assert (first.name, first.id, first.base_id, first.group, first.why, first.by) == (
        "one", one.id, base.id, "", "five events", "ann",
    )  # fmt: skip
    assert registry.serving() == registry.serving(base.id) == first
    stamp = registry.stamp()
    assert registry.promote(one.id, base=base, group=None, why="again", by="bob") == first, "it holds already"
    assert registry.stamp() == stamp
    second = registry.promote(other.folder, base=base, group=None, why="ten events", by="ann")
    assert registry.stamp() != stamp
    assert registry.serving() == second
    assert registry.serving("another-base") is None, "it was made from another model than the configured one"
    assert registry.rollback("bob", "an event in the band", only=one.id) == second, "somebody was faster"
    assert registry.rollback("bob", "an event in the band", only=other.id) == first
    assert registry.rollback("bob", "again") is None
    assert registry.serving() is None
    with pytest.raises(BadBundle, match="nothing to roll back"):
        registry.rollback("bob", "once more")
    told = [(one.number, one.act, one.id, one.before, one.by) for one in registry.history()]
    assert told == [
        (1, "promote", one.id, None, "ann"),
        (2, "promote", other.id, one.id, "ann"),
        (3, "rollback", one.id, other.id, "bob"),
        (4, "rollback", None, one.id, "bob"),
    ]


def test_each_session_group_has_its_own(registry: Registry, base: Bundle) -> None:
    a_cut(registry, base, "dna", 0.25)
    a_cut(registry, base, "any", 0.5)
    nowhere = registry.promote("any", base=base, group="", why="w", by="ann")
    dna = registry.promote("dna", base=base, group="dna", why="w", by="ann")
    assert registry.serving() == nowhere
    assert registry.for_group("dna") == dna
    assert registry.turn_to("dna", by="ann") == dna
    assert (registry.group(), registry.serving()) == ("dna", dna)
    assert registry.turn_to("titin", by="ann") is None
    assert registry.serving() is None
    assert registry.rollback("ann", "w", group="dna") is None, "a group that is not the present one"
    assert registry.turn_to("dna", by="ann") is None
    assert registry.turn_to("", by="ann") == nowhere
    assert [one.act for one in registry.history()].count("group") == 4
    before = registry.stamp()
    registry.turn_to("", by="ann")
    assert registry.stamp() == before


def test_what_is_promoted_is_here_for_good(registry: Registry, base: Bundle, tmp_path: Path) -> None:
    """By its id and its name, whatever becomes of its folder."""
    outside = write(tmp_path / "mine", base.weights, msgspec.structs.replace(base.manifest, name="mine"), "# mine\n")
    made = registry.promote(outside.folder, base=base, group=None, why="w", by="ann")
    shutil.rmtree(outside.folder)
    assert read(registry.folder_of(made)).id == outside.id
    assert read(registry.find(outside.id)).id == read(registry.find("mine")).id == outside.id
    with pytest.raises(BadBundle, match="no model"):
        registry.find("theirs")


def _wrong_hash(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).write_bytes(data)


def _not_a_number(folder: Path) -> None:
    stored = json.loads((folder / MANIFEST).read_bytes())
    stored["thresholds"]["discard"] = float("nan")
    (folder / MANIFEST).write_text(json.dumps(stored))


def _foreign_weights(folder: Path) -> None:
    """Whole and sound, and not those that its manifest was written for."""
    theirs = assemble(folder.with_name("theirs"), untrained(seed=9), SMALL, some_examples(), Origin("theirs", "0", {}))
    stored = json.loads((folder / MANIFEST).read_bytes())
    stored["sha256"][WEIGHTS] = theirs.weights_sha256
    (folder / WEIGHTS).unlink()
    shutil.copy(theirs.folder / WEIGHTS, folder / WEIGHTS)
    (folder / MANIFEST).write_text(json.dumps(stored))


def _another_raster(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(SHIPPED, folder)


def _hostile_name(folder: Path) -> None:
    stored = json.loads((folder / MANIFEST).read_bytes())
    stored["name"] = "../../../outside"
    (folder / MANIFEST).write_text(json.dumps(stored))


@pytest.mark.parametrize(
    "damage", [_wrong_hash, _not_a_number, _foreign_weights, _another_raster, _hostile_name, shutil.rmtree]
)
def test_what_is_not_sound_moves_nothing(registry: Registry, base: Bundle, damage) -> None:
    a_cut(registry, base, "good", 0.25)
    bad = a_cut(registry, base, "bad", 0.5)
    good = registry.promote("good", base=base, group=None, why="w", by="ann")
    before = registry.stamp(), registry.history(), sorted((registry.models / JUDGED).iterdir())
    damage(bad.folder)
    with pytest.raises(BadBundle):
        registry.promote("bad", base=base, group=None, why="w", by="ann")
    assert (registry.stamp(), registry.history(), sorted((registry.models / JUDGED).iterdir())) == before
    assert registry.serving() == good


def test_trained_weights_that_prove_themselves_may_serve(registry: Registry, base: Bundle, tmp_path: Path) -> None:
    tuned = assemble(tmp_path / "tuned", untrained(seed=9), SMALL, some_examples(), Origin("tuned", "0", {}))
    assert registry.promote(tuned.folder, base=base, group=None, why="w", by="ann").id == tuned.id


def test_what_cannot_serve_is_passed_over_and_told(registry: Registry, base: Bundle) -> None:
    """The base judges then: it discards less than any cut that was made from it."""
    cut = a_cut(registry, base, "cut")
    made = registry.promote("cut", base=base, group=None, why="w", by="ann")

    def chosen(override: ThresholdsConfig | None = None) -> tuple[str, str, bool]:
        one = choose(str(base.folder), registry.models, override or ThresholdsConfig())
        return one.id, one.passed_over or "", one.is_broken

    assert chosen() == (cut.id, "", False)
    assert chosen(ThresholdsConfig(discard=base.discard))[0] == cut.id, "the threshold goes before it, the model is it"
    between = (base.discard + cut.discard) / 2
    id, told, is_broken = chosen(ThresholdsConfig(keep=between))
    assert (id, is_broken) == (base.id, False)
    assert "does not lie below the configured keep" in told
    other = make_model(registry.models / "other", "other")
    one = choose("other", registry.models, ThresholdsConfig())
    assert (one.id, one.promotion) == (other.id, None)
    assert f"in the place of {base.id}" in str(one.passed_over)
    weights = registry.folder_of(made) / WEIGHTS
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + b"\x07")  # in place: every cut here has this one file
    id, told, is_broken = chosen()
    assert (id, is_broken) == (base.id, True)
    assert "differs from its SHA-256" in told
    registry.rollback("ann", "damaged")
    again = registry.write_cut(base, "again", cut.discard, cut.manifest.thresholds.evidence)
    registry.promote("again", base=base, group=None, why="mended", by="ann")
    assert chosen()[0] == again.id, "from the base, whose own folder is whole"


def test_a_crash_between_the_two_files_is_made_up_for(registry: Registry, base: Bundle) -> None:
    for name in ("one", "other", "third"):
        a_cut(registry, base, name)
    for name in ("one", "other"):
        registry.promote(name, base=base, group=None, why="w", by="ann")
    lines = (registry.models / HISTORY).read_bytes()
    (registry.models / HISTORY).write_bytes(lines[: len(lines) - 30])  # in the middle of the last line
    assert [one.name for one in registry.history()] == ["one", "other"]
    registry.promote("third", base=base, group=None, why="w", by="ann")
    assert [one.name for one in registry.history()] == ["one", "other", "third"]
    (registry.models / SERVING).write_text('{"format": 2}')
    for ask in (registry.serving, lambda: registry.promote("one", base=base, group=None, why="w", by="ann")):
        with pytest.raises(BadBundle, match="another version"):
            ask()
