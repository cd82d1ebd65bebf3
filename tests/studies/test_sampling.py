import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from daemon.cli import main
from deploy.classifier import EngineId
from models.curve import Curve
from tests.studies.__main__ import main as study
from tests.studies.sampling import Row, table, thin


def test_averaging_keeps_the_signal_and_picking_does_not():
    force = np.random.default_rng(1).normal(0.0, 1.0, 4003)
    curve = Curve(force=force, force_unit="N", distance=np.arange(4003.0), notes=("sign_assumed",))
    averaged, picked = (thin(curve, 4, way) for way in ("averaged", "every k-th"))
    assert len(averaged) == len(picked) == 1000
    assert averaged.force[3] == pytest.approx(force[12:16].mean())
    assert picked.force[3] == force[12]
    assert averaged.force.std() == pytest.approx(0.5, rel=0.1)
    assert averaged.distance is None  # it would have another length
    assert averaged.notes == curve.notes


def test_the_table_counts_what_moved(tmp_path: Path, capsys):
    words = ["--into", str(tmp_path), "--curves", "40", "--prevalence", "0.5", "--seed", "3", "--truth"]
    assert main(["simulate", *words, str(tmp_path.parent / "truth.csv")]) == 0
    (tmp_path.parent / "truth.csv").rename(tmp_path / "labels.csv")
    capsys.readouterr()
    assert study(["sampling", str(tmp_path), "--out", str(tmp_path / "found.json")]) == 0
    rows = [Row(**row) for row in json.loads((tmp_path / "found.json").read_text())]
    assert capsys.readouterr().out.splitlines() == table(rows)
    assert [(row.way, row.step) for row in rows] == [(w, k) for w in ("averaged", "every k-th") for k in (2, 4, 8)]
    assert rows[0].curves > rows[2].curves  # those with too few points left are not asked
    assert all(row.moved_far <= row.moved <= row.curves for row in rows)


def test_a_verdict_that_moves_is_seen():
    from daemon.judging import Judge, Thresholds
    from daemon.learn.evidence import LabelledCurve
    from tests.studies.sampling import sample

    class Fickle:
        """Keeps long curves and discards short ones."""

        bundle = SimpleNamespace(profile=SimpleNamespace(columns=256))

        def judge(self, curves):
            from deploy.serving import Scored

            return [Scored(0.9 if len(curve) > 1500 else 0.1, ()) for curve in curves]

    judge = Judge("m", "p", EngineId("torch", "cpu", "fp32"), Thresholds(0.2, 0.8), "simulation", 0.02)
    row = SimpleNamespace(label="keep")
    items = [LabelledCurve(row, Curve(force=np.zeros(n), force_unit="N")) for n in (2000, 4000, 8000)]
    averaged = list(sample(items, Fickle(), judge))[:3]
    assert [(one.curves, one.moved, one.moved_far, one.newly_discarded) for one in averaged] == [
        (3, 1, 1, 1),
        (2, 1, 1, 1),
        (1, 1, 1, 1),
    ]
