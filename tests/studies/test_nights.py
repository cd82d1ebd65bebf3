"""Nights with the truth beside them: decisions and labels as a user's state has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.formats.afmcurve import unpack
from daemon.labels import Labels
from daemon.learn.adaptation import propose
from daemon.learn.evidence import fingerprint_of
from daemon.ledger.view import LedgerView
from tests.studies.laboratories import Laboratory
from tests.studies.nights import Nights

pytestmark = pytest.mark.study


def test_curves_are_decided_and_labelled_as_in_a_users_state(tmp_path: Path) -> None:
    nights, samples = Nights(tmp_path / "state"), Laboratory(1).curves(30, 0.5)
    seqs = nights.record((one.curve, one.is_event) for one in samples)
    assert seqs == list(range(1, 31))
    assert nights.record([(samples[0].curve, samples[0].is_event)]) == []  # known already
    shown = nights.may_be_looked_at(seqs)
    nights.label(shown)
    with LedgerView(nights.state / "ledger.sqlite") as view, Labels(nights.state / "labels.sqlite") as labels:
        for seq in shown:
            copy = unpack(view.compact_copy(seq) or b"")[0]
            assert fingerprint_of(copy) == fingerprint_of(samples[seq - 1].curve)
            assert [one.label for one in labels.labelled()[seq]] == ["keep" if samples[seq - 1].is_event else "discard"]
        assert all(view.decisions([seq])[seq]["data"]["verdict"] == "discard" for seq in set(seqs).difference(shown))
    assert propose(nights.config).events == sum(samples[seq - 1].is_event for seq in shown)
