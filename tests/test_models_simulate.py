"""The row of curves of a seed: the same each time, in the promised mix and ranges."""

import collections
import hashlib
import subprocess
import sys
import time

import numpy as np
import pytest

from models.simulate import EVENTS, simulate
from models.simulate.background import BACKGROUNDS, UNTOUCHED


@pytest.fixture(scope="module")
def curves():
    return list(simulate(1200, 21))


def digest(simulated):
    curve, mark = simulated.curve, hashlib.sha256()
    for samples in (curve.force, curve.distance, curve.approach_force):
        mark.update(b"-" if samples is None else samples.tobytes())
    mark.update(repr((curve.force_unit, curve.spring_constant_n_per_m, simulated.label, simulated.ruptures)).encode())
    return mark.hexdigest()


def test_curve_i_is_the_same_whatever_came_before(curves):
    assert [digest(s) for s in simulate(5, 21, start=40)] == [digest(s) for s in curves[40:45]]
    assert digest(next(simulate(1, 22))) != digest(curves[0])


def test_another_process_makes_the_same_bytes(curves):
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from test_models_simulate import digest\nfrom models.simulate import simulate\n"
        "print([digest(s) for s in simulate(8, 21)])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == str([digest(s) for s in curves[:8]])


def test_keep_means_ruptures_and_discard_means_none(curves):
    assert all((s.label == "keep") == bool(s.ruptures) for s in curves)
    assert {s.family for s in curves if s.label == "keep"} == set(EVENTS)
    assert {s.family for s in curves if s.label == "discard"} == set(BACKGROUNDS) | set(UNTOUCHED)


def test_prevalence_is_the_share_of_events(curves):
    assert 0.45 < np.mean([s.label == "keep" for s in curves]) < 0.55
    assert 0.05 < np.mean([s.label == "keep" for s in simulate(300, 9, prevalence=0.1)]) < 0.16
    assert {s.label for s in simulate(20, 9, prevalence=0.0)} == {"discard"}
    assert {s.label for s in simulate(20, 9, prevalence=1.0)} == {"keep"}


def test_every_curve_is_whole(curves):
    for s in curves:
        curve = s.curve
        assert 200 <= len(curve) <= 20000
        assert np.isfinite(curve.force).all()
        assert np.ptp(curve.force) > 0
        assert curve.force.dtype == np.float64
        assert (curve.distance is None) == (curve.distance_kind is None)
        if curve.distance is not None:
            assert curve.distance.shape == curve.force.shape
            assert curve.distance[-1] > curve.distance[0]
        if curve.force_unit == "N":
            assert 0.005 < curve.spring_constant_n_per_m < 0.5
        assert list(s.ruptures) == sorted(s.ruptures, key=lambda r: r.index)
        assert all(0 < r.index < len(curve) and r.force_pn > 0 for r in s.ruptures)


def test_the_mix_of_files_is_wide(curves):
    units = collections.Counter(s.curve.force_unit for s in curves)
    assert set(units) == {"N", "m", "V"}
    assert units["N"] > 0.7 * len(curves)
    kinds = collections.Counter(s.curve.distance_kind for s in curves)
    assert set(kinds) == {None, "piezo", "separation"}
    assert 0.25 < np.mean([s.curve.approach_force is not None for s in curves]) < 0.36
    sizes = np.array([len(s.curve) for s in curves])
    assert np.median(sizes) == pytest.approx(2000, rel=0.25)  # log-uniform
    ramps = np.array([np.ptp(s.curve.distance) * 1e9 for s in curves if s.curve.distance_kind == "piezo"])
    assert ramps.min() < 100
    assert ramps.max() > 2000
    assert 250 < np.median(ramps) < 700


def test_a_rupture_is_a_drop_where_the_truth_says_so(curves):
    drops, others = [], []
    for s in curves:
        force = s.curve.force
        dot = max(len(force) // 256, 2)
        noise = np.abs(np.diff(force[-len(force) // 4 :])).mean() + 1e-30
        for rupture in s.ruptures[:1]:
            at = rupture.index
            after = force[at + dot : at + 2 * dot]
            if at >= dot and len(after):
                drops.append((force[at - dot // 2 : at].mean() - after.mean()) / noise)
                others.append((force[-2 * dot : -dot].mean() - force[-dot:].mean()) / noise)
    assert np.mean(np.array(drops) > 0) > 0.97
    assert np.median(drops) > 5
    assert abs(np.median(others)) < 1


def test_labels_cannot_be_told_from_the_settings(curves):
    """Length, unit and approach say nothing about the label: only the shape does."""
    keep, discard = ([s for s in curves if s.label == label] for label in ("keep", "discard"))
    for trait in (
        lambda s: len(s.curve) > 2000,
        lambda s: s.curve.force_unit == "N",
        lambda s: s.curve.approach_force is not None,
        lambda s: s.curve.distance_kind == "piezo",
    ):
        assert abs(np.mean([trait(s) for s in keep]) - np.mean([trait(s) for s in discard])) < 0.1


def test_it_is_fast_enough_to_train_on():
    begun_s = time.process_time()
    for _ in simulate(150, 5):
        pass
    assert 150 / (time.process_time() - begun_s) > 100  # about 2,000 on an idle core, 200 on a slow and busy one
