"""The certificate of a blind sheet: 59 events and none missed are in the model; anything less is not, and said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from daemon.cli import main
from daemon.judging.judge import judge_of
from daemon.judging.registry import Registry
from daemon.labels import Labels
from daemon.labels.sessions import Sessions
from daemon.labels.sheets import Sheets
from daemon.learn.adaptation import certify
from daemon.ledger.view import LedgerView
from deploy.classifier import EngineRequest
from deploy.serving import Model
from models.bundle import Bundle, read
from tests.adapthelp import Night

DISCARDED = -1.5  # a logit below the shipped cut
EVENTS = tuple(np.linspace(1.0, 5.0, 60))


def night_with(state: Path, missed: int = 0, events: int = 60) -> Night:
    """A night of 200 curves: the first ones are events, of which the shipped cut discards ``missed``."""
    night = Night(state)
    night.decide([*EVENTS[missed:events], *[DISCARDED] * missed])
    night.decide([DISCARDED] * 140)
    return night


def label_sheet(night: Night, events: int = 60, second: str = "") -> None:
    """Draw a uniform sheet and answer all of it, blind; ``second``: a rater who calls the first event a discard."""
    with LedgerView(night.state / "ledger.sqlite") as view, Labels(night.state / "labels.sqlite") as labels:
        group = Sessions.group(Sessions(labels).current())
        sheets = Sheets(labels)
        sheet = sheets.draw(view, "uniform", [(1, None)], group)
        told = view.decisions(range(1, view.last_seq + 1))
        with labels.together():
            for seq, event in told.items():
                labels.say([Labels.of_event(event, "keep" if seq <= events else "discard", "ada", queue="sheet")])
                sheets.note(sheet, seq, "ada")
        if second:
            labels.say([Labels.of_event(told[1], "discard", second)])


def serving(night: Night) -> Bundle | None:
    registry = Registry(night.state / "models")
    promotion = registry.for_group(registry.group(), night.base.id)
    return None if promotion is None else read(registry.folder_of(promotion))


def test_a_sheet_without_a_miss_is_the_certificate_of_the_model_that_serves(tmp_path, capsys):
    night = night_with(tmp_path)
    assert certify(night.config, "ada") is None  # nothing was drawn
    label_sheet(night)
    told = certify(night.config, "ada")
    assert told is not None
    assert told.promotion is not None
    assert "60 events, 0 missed → at most 4.9 % missed, 95 % sure" in told.text
    bundle = serving(night)
    assert bundle is not None
    assert bundle.discard == night.base.discard
    assert bundle.weights_sha256 == night.base.weights_sha256
    promise = bundle.certificate
    assert promise is not None
    assert (promise.events, promise.missed, list(promise.experiments)) == (
        60,
        0,
        ["sessions without a sample, sheet 1"],
    )
    assert promise.limit_logit == pytest.approx(EVENTS[0], abs=1e-6)
    assert certify(night.config, "ada") is None  # it is there
    assert main(["adapt", "--state", str(tmp_path), "--dry-run"]) == 0
    assert "sheet" not in capsys.readouterr().out


@pytest.mark.parametrize(("word", "seq", "why"), [("keep", 61, "discards 1 of its"), (None, 1, "it is open again")])
def test_a_certificate_goes_with_the_answers_that_earned_it(tmp_path, capsys, word, seq, why):
    night = night_with(tmp_path)
    label_sheet(night)
    assert main(["adapt", "--state", str(tmp_path)]) == 0
    assert serving(night).certificate is not None
    if word:  # looked at again, it is an event, and the cut discards it
        night.say(word, [seq])
    else:
        with Labels(tmp_path / "labels.sqlite") as labels:
            first = [one for one in labels.current() if one.seq in (1, 2)]
            labels.remove(first, by="ada", reason="", time="2030-01-01T00:00:00Z")
    assert main(["adapt", "--state", str(tmp_path)]) == 0
    assert why in capsys.readouterr().out
    assert serving(night) is None
    assert main(["adapt", "--state", str(tmp_path)]) == 0
    assert serving(night) is None


def test_adapt_moves_the_cut_and_then_certifies_what_it_moved_to(tmp_path, capsys):
    """Between the base's cut and the lowest event of the sheet any cut keeps the promise."""
    night = night_with(tmp_path)
    night.decide([0.1] * 300)
    label_sheet(night)
    with LedgerView(tmp_path / "ledger.sqlite") as view:
        assert view.last_seq == 500
    assert main(["adapt", "--state", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    bundle = serving(night)
    assert bundle is not None
    assert bundle.discard > night.base.discard, said
    assert bundle.certificate is not None
    assert "sheet 1: 60 events, 0 missed" in said.splitlines()[-1]
    assert bundle.manifest.thresholds.band == (night.base.discard, bundle.discard)  # still audited


@pytest.mark.parametrize(
    ("missed", "events", "second", "why"),
    [
        (1, 60, "", "the cut in force discards 1 of its 60 events"),
        (0, 40, "", "40 events are too few to promise at most 5 % missed"),
        (0, 60, "ben", "raters differ on 1 of its events, or no copy is left to score them: `labels disagree`"),
    ],
)
def test_anything_less_earns_nothing_and_moves_nothing(tmp_path, missed, events, second, why):
    night = night_with(tmp_path, missed, events)
    label_sheet(night, events, second)
    told = certify(night.config, "ada")
    assert told is not None
    assert (told.promotion, told.text) == (None, f"sheet 1 earns no certificate: {why}")
    assert serving(night) is None


def test_a_sheet_of_another_sample_certifies_nothing_here(tmp_path):
    night = night_with(tmp_path)
    label_sheet(night)
    with Labels(tmp_path / "labels.sqlite") as labels:
        Sessions(labels).begin(sample="another")
    assert certify(night.config, "ada") is None
    assert serving(night) is None


def test_the_promise_stands_in_every_verdict_of_an_exact_engine(tmp_path):
    night = night_with(tmp_path)
    label_sheet(night)
    certify(night.config, "ada")
    bundle = serving(night)
    assert bundle is not None
    model = Model.load(str(bundle.folder), EngineRequest("cpu", precision="fp32"))
    judge = judge_of(model, night.config.thresholds)
    assert judge.certificate is not None
    assert (judge.certificate.events, judge.certificate.missed) == (60, 0)
    assert judge.cut.origin == "adapted"
