"""What labels of a real ledger teach, and what nothing may ever be trained on."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from modelhelp import noisy

from daemon.common.errors import UserError
from daemon.config import Config
from daemon.formats.afmcurve import pack
from daemon.labels import Label, Labels, Word
from daemon.labels.raters import Bar
from daemon.learn.evidence import TrainingRecord, fingerprint_of
from daemon.learn.ground import survey
from daemon.learn.lessons import Taught, is_held_out, lessons_of, untaught
from daemon.ledger.view import LedgerView
from deploy.serving import known_curves
from models.bundle import Bundle
from models.curve import Curve
from models.finetune import REPLAY
from models.frontend import OPEN
from models.network import ResNet18, load
from tests.studies.laboratories import Laboratory
from tests.studies.nights import Nights

LABORATORY = Laboratory(0)  # its event-free curves resemble weak events, so that the ledger keeps copies of some
Small = tuple[Nights, list[int], list[int]]
NOW = "2026-11-28T12:00:00.000Z"


def curves(count: int, seed: int) -> list[tuple[Curve, bool]]:
    """Half of them hold an event."""
    return [(one.curve, one.is_event) for one in LABORATORY.curves(count, 0.5, seed)]


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """Two days, a sample each; what a copy is kept of is labelled."""
    made = Nights(tmp_path_factory.mktemp("lessons") / "state")
    for day, sample in ((20, "gel"), (21, "glass")):
        made.begin(sample)
        seqs = made.record(curves(25, day), day=f"2026-11-{day}", sample=sample)
        made.label(made.may_be_looked_at(seqs))
    return made


def taught_by(config: Config, *, blocks: str = "", events: int = 5) -> Taught:
    with LedgerView(config.state / "ledger.sqlite") as view, Labels(config.state / "labels.sqlite") as labels:
        ground = survey(config, view, labels)
        ground = replace(ground, bar=Bar(bool(blocks), blocks)) if blocks else ground
        return lessons_of(config, view, labels, ground, events=events)


def network_of(config: Config) -> tuple[ResNet18, Bundle]:
    with LedgerView(config.state / "ledger.sqlite") as view, Labels(config.state / "labels.sqlite") as labels:
        bundle = survey(config, view, labels).network
    return load(bundle.width, {name: torch.from_numpy(one) for name, one in bundle.weights.items()}), bundle


def test_every_labelled_curve_teaches_and_three_in_ten_never(nights: Nights) -> None:
    taught = taught_by(nights.config)
    assert len(taught) > 25
    assert (taught.missing, taught.left_aside) == (None, {})
    truth = np.array([nights.truth[int(seq)] for seq in taught.seqs])
    assert np.array_equal(taught.targets > 0.5, truth)
    assert np.array_equal(taught.is_event, truth)
    assert np.array_equal(taught.is_free, ~truth)
    assert taught.experiments == tuple(f"{sample}||2026-11-{day}" for sample, day in (("gel", 20), ("glass", 21)))
    held = np.array([is_held_out(name) for name in taught.fingerprints])
    assert np.array_equal(taught.is_held_out, held)
    assert 0 < held.sum() < len(taught)
    assert taught.curves == {name for name in taught.fingerprints if not is_held_out(name)}
    network, bundle = network_of(nights.config)
    lessons = taught.lessons(network, bundle.profile)
    assert len(lessons) == len(taught) - held.sum()
    assert (lessons.groups != REPLAY).all()
    assert np.array_equal(lessons.targets, taught.targets[~held])


def test_the_logits_are_those_of_service(nights: Nights) -> None:
    taught = taught_by(nights.config)
    network, bundle = network_of(nights.config)
    with LedgerView(nights.state / "ledger.sqlite") as view:
        decided = view.decisions(taught.seqs.tolist())
    scores = np.array([decided[int(seq)]["data"]["score"] for seq in taught.seqs])
    found = bundle.calibration.score(taught.logits(network, bundle.profile))
    assert np.abs(found - scores).max() < 0.02


def test_every_night_begins_at_the_network_that_no_label_has_taught(nights: Nights) -> None:
    """Else what is said by cross-fit would come from a network that has seen the curve, the night before."""
    taught = taught_by(nights.config)
    with LedgerView(nights.state / "ledger.sqlite") as view, Labels(nights.state / "labels.sqlite") as labels:
        ground = survey(nights.config, view, labels)
    base = ground.base
    tuned = replace(base, id="tuned", weights={**base.weights, "fc.bias": base.weights["fc.bias"] + 1})
    other = replace(base, id="other", weights={**base.weights, "conv1.weight": -base.weights["conv1.weight"]})
    assert untaught(ground, taught) is base
    assert untaught(replace(ground, network=tuned), taught) is base
    assert untaught(replace(ground, network=other), taught) is other
    record = TrainingRecord.of(base.manifest.training).with_more({}, taught.fingerprints[:1])
    manifest = msgspec.structs.replace(base.manifest, training={**base.manifest.training, **record.for_manifest()})
    knowing = replace(base, manifest=manifest)
    assert taught.unseen_by(knowing).tolist() == [False] + [True] * (len(taught) - 1)
    assert untaught(replace(ground, base=knowing, network=tuned), taught) is tuned


def test_three_in_ten_is_three_in_ten() -> None:
    names = [hashlib.sha256(bytes([seed % 256, seed // 256])).hexdigest()[:12] for seed in range(1000)]
    assert 0.26 < np.mean([is_held_out(name) for name in names]) < 0.34


def test_too_few_events_are_said_and_nothing_is_opened(nights: Nights) -> None:
    taught = taught_by(nights.config, events=100)
    with Labels(nights.state / "labels.sqlite") as labels:
        have = sum(nights.truth[seq] is True for seq in labels.words())
        assert taught.missing == f"{have} of 100 confirmed events: {100 - have} more"
    assert len(taught) == 0
    assert list(taught.sentences()) == []


def test_a_night_opens_no_more_than_it_has_time_for(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = taught_by(nights.config)
    monkeypatch.setattr("daemon.learn.lessons.MOST", len(everything) - 3)
    taught = taught_by(nights.config)
    gone = sorted(set(everything.seqs.tolist()) - set(taught.seqs.tolist()))
    assert gone == everything.seqs[everything.is_free].tolist()[:3]
    assert list(taught.left_aside.values()) == [3]


def test_golden_curves_of_the_program_teach_nothing(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    name = taught_by(nights.config).fingerprints[0]
    monkeypatch.setattr("daemon.learn.lessons.golden_fingerprints", lambda: frozenset([name]))
    taught = taught_by(nights.config)
    assert name not in taught.fingerprints
    assert taught.left_aside["they are golden curves of the program"] == 1


@pytest.fixture
def small(tmp_path: Path) -> Small:
    """Events and event-free curves of which copies are kept, and which nobody has labelled."""
    made = Nights(tmp_path / "state")
    seqs = made.may_be_looked_at(made.record(curves(16, 5)))
    return made, [seq for seq in seqs if made.truth[seq]], [seq for seq in seqs if not made.truth[seq]]


def say(nights: Nights, seq: int, **by_rater: Word) -> None:
    with LedgerView(nights.state / "ledger.sqlite") as view, Labels(nights.state / "labels.sqlite") as labels:
        event = view.decisions([seq])[seq]
        labels.say([Labels.of_event(event, word, rater) for rater, word in by_rater.items()])


def test_where_raters_differ_the_target_lies_between(small: Small) -> None:
    nights, events, free = small
    say(nights, events[0], ada="keep", bo="discard")
    say(nights, events[1], ada="keep", bo="unsure")
    say(nights, events[2], ada="unsure", bo="unsure")
    say(nights, events[3], ada="keep")
    say(nights, free[0], ada="discard")
    taught = taught_by(nights.config, events=1)
    found = dict(zip(taught.seqs.tolist(), taught.targets.tolist(), strict=True))
    assert found == {events[0]: 0.5, events[1]: 0.75, events[3]: 1.0, free[0]: 0.0}
    assert taught.is_event.sum() == taught.is_free.sum() == 1
    assert taught.left_aside == {"nobody is sure of them": 1}
    assert "2 on which raters differ" in next(taught.sentences())


def test_bad_labels_are_refused_in_one_line(small: Small) -> None:
    nights, events, free = small
    for seq in events[:3]:
        say(nights, seq, ada="keep")
    with pytest.raises(UserError, match="all 3 labels say keep") as kinds:
        taught_by(nights.config, events=3)
    with pytest.raises(UserError, match="kappa") as raters:
        taught_by(nights.config, blocks="ada and bo: kappa 0.31")
    say(nights, free[0], ada="discard")
    with Labels(nights.state / "labels.sqlite") as labels:
        labels.add([Label("elsewhere.txt", 2, "discard", "ada", NOW, sha256="0" * 64)])
    with pytest.raises(UserError, match="1 label is on a curve that nobody knows here, the first elsewhere") as none:
        taught_by(nights.config, events=3)
    for error in (kinds, raters, none):
        assert error.value.exit_code == 65
        assert "\n" not in str(error.value)


def test_labels_of_a_ledger_before_are_left_aside(small: Small) -> None:
    nights, events, free = small
    say(nights, events[0], ada="keep")
    say(nights, free[0], ada="discard")
    with Labels(nights.state / "labels.sqlite") as labels:
        before = Label("old.txt", 0, "keep", "ada", NOW, sha256="0" * 64, stream="another", seq=7)
        labels.add([before])
    assert taught_by(nights.config, events=1).left_aside == {"no copy is kept, and the file is gone or changed": 1}


def test_without_a_copy_the_file_is_read_while_it_holds_the_same_bytes(small: Small, tmp_path: Path) -> None:
    nights, events, _ = small
    say(nights, events[0], ada="keep")
    curve = noisy(known_curves()[0], 3)  # discarded, so that no copy is kept
    file = tmp_path / "exports" / "flat.afmcurve"
    file.parent.mkdir()
    file.write_bytes(pack(curve))
    with Labels(nights.state / "labels.sqlite") as labels:
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        labels.add([Label(file.name, 0, "discard", "ada", NOW, sha256=sha256, folder=str(file.parent))])
    taught = taught_by(nights.config, events=1)
    assert sorted(taught.seqs.tolist()) == [0, events[0]]
    assert fingerprint_of(curve) in taught.fingerprints
    file.write_bytes(pack(noisy(curve, 4)))
    with pytest.raises(UserError, match="nobody knows"):
        taught_by(nights.config, events=1)


def test_a_copy_under_another_name_is_the_same_curve(small: Small, tmp_path: Path) -> None:
    nights, events, _ = small
    say(nights, events[0], ada="keep")
    with LedgerView(nights.state / "ledger.sqlite") as view:
        (tmp_path / "again.afmcurve").write_bytes(view.compact_copy(events[0]) or b"")
    sha256 = hashlib.sha256((tmp_path / "again.afmcurve").read_bytes()).hexdigest()
    with Labels(nights.state / "labels.sqlite") as labels:
        labels.add([Label("again.afmcurve", 0, "discard", "bo", NOW, sha256=sha256, folder=str(tmp_path))])
    taught = taught_by(nights.config, events=1)
    assert taught.targets.tolist() == [0.5]


def test_an_open_sign_is_judged_both_ways(tmp_path: Path) -> None:
    upright = noisy(known_curves()[3], 1, 1e-12)
    wrong = replace(upright, force=-upright.force, notes=(OPEN,))
    made = Nights(tmp_path / "state")
    made.label(made.record([(wrong, True), *curves(2, 9)]))
    taught = taught_by(made.config, events=1)
    network, bundle = network_of(made.config)
    place = taught.seqs.tolist().index(1)
    assert taught.turned_of.tolist() == [place]
    assert taught.logits(network, bundle.profile)[place] > bundle.calibration.logit(bundle.keep)
