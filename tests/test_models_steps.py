import numpy as np
import pytest
from makers import a_retract

from models.curve import Curve
from models.frontend import prepare, turned
from models.metrics import auc
from models.raster import RasterProfile
from models.simulate import simulate
from models.steps import WINDOW, detect, falls, second_opinion, step_down, strongest_step

PROFILE = RasterProfile()


@pytest.fixture(scope="module")
def simulated():
    return list(simulate(400, seed=33))


def a_curve(drop_pn, seed=0, scale=1.0):
    """Contact, noise of 8 pN, and one step down in the middle."""
    force, _ = a_retract(points=2048, seed=seed, peak_pn=0.0)
    force[700:1200] += drop_pn * 1e-12
    return Curve(force=force * scale, force_unit="N")


def test_higher_steps_score_higher_and_units_do_not_matter():
    scores = detect([a_curve(drop) for drop in (0, 15, 30, 60)])
    assert (np.diff(scores) > 0).all()
    assert detect([a_curve(60, scale=-0.0 + 1e9)]) == pytest.approx(detect([a_curve(60)]))


def test_a_rise_is_no_step_down():
    force, _ = a_retract(points=2048, seed=1, peak_pn=0.0)
    force[1200:] += 60e-12
    assert detect([Curve(force=force, force_unit="N")])[0] < detect([a_curve(60, seed=1)])[0] / 2


def test_the_snap_off_at_the_surface_is_passed_over():
    force, _ = a_retract(points=2048, seed=2, peak_pn=0.0)
    quiet = detect([Curve(force=force.copy(), force_unit="N")])[0]
    force[103:140] += 500e-12  # within 2 % of the end of contact
    assert detect([Curve(force=force, force_unit="N")])[0] < 1.5 * quiet + 1


def test_t_is_that_of_two_samples():
    from scipy import stats

    rng = np.random.default_rng(4)
    signal = rng.normal(0, 1, 100)
    fall = step_down(signal, noise=0.0)
    assert fall.shape == (100 - 2 * WINDOW + 1,)
    expected = stats.ttest_ind(signal[20 : 20 + WINDOW], signal[20 + WINDOW : 20 + 2 * WINDOW], equal_var=False)
    assert fall[20] == pytest.approx(expected.statistic)


def test_flat_and_short_curves_score_nothing():
    still = Curve(force=np.full(500, 3e-9), force_unit="N")
    assert detect([still])[0] == 0.0
    assert detect([]).shape == (0,)
    assert np.isfinite(detect([Curve(force=np.arange(64) * 1e-12, force_unit="N")])).all()


def test_it_ranks_simulated_curves_far_better_than_chance(simulated):
    assert auc(detect([item.curve for item in simulated]), [item.label == "keep" for item in simulated]) > 0.85


def test_a_stretched_molecule_s_ruptures_are_all_marked_and_a_rise_is_not():
    rng = np.random.default_rng(5)
    rise = np.linspace(0.0, 1.0, 150) ** 3
    force = np.zeros(4096)
    ends = (900, 1400, 1650, 1900)
    for end in ends:
        force[end - 150 : end] += 60 * rise
    force[3000:] += 40.0  # upwards
    force[:100] -= np.linspace(500, 0, 100)
    found = falls(force + rng.normal(0, 2, 4096))
    assert len(found) == len(ends)
    assert all(abs(one.sample - end) <= one.width / 2 for one, end in zip(found, ends, strict=True))


def test_most_simulated_events_are_marked_and_marks_are_ruptures_as_often_as_is_said(simulated):
    hits = marks = marked_without = without = 0
    marked = {"keep": [], "discard": []}
    for item in simulated:
        found = [one.sample for one in falls(item.curve.force)]
        marked["keep" if item.label == "keep" else "discard"].append(bool(found))
        if not item.ruptures:
            without += 1
            marked_without += bool(found)
            continue
        marks += len(found)
        hits += sum(any(abs(at - one.index) < 0.012 * len(item.curve) for one in item.ruptures) for at in found)
    assert marked_without / without < 0.12
    assert hits / marks > 0.8
    assert np.mean(marked["keep"]) > 0.82
    assert np.mean(marked["discard"]) < 0.15


def signal(*pieces, seed=0):
    """512 samples of noise, a push of 40 and the pieces: (first, last, height)."""
    made = np.random.default_rng(seed).normal(0.0, 1.0, 512)
    made[:40] -= np.linspace(400.0, 0.0, 40)
    for first, last, height in pieces:
        made[first:last] += height
    return made.astype(np.float32)


def test_the_second_opinion_sees_a_step_down_more_than_a_step_up_and_where():
    down, up, none = signal((200, 300, np.linspace(0, 30, 100))), signal((300, 400, np.linspace(30, 0, 100))), signal()
    t = second_opinion([down, up, none])
    assert t[0] > t[1] > t[2] > 0
    seen, risen = strongest_step(down), strongest_step(up)
    assert seen.t == pytest.approx(t[0])
    assert abs(seen.share * 512 - 300) <= 2
    assert seen.rise == pytest.approx(-30, abs=4)
    assert risen.rise == pytest.approx(30, abs=4)


def test_the_second_opinion_of_a_signal_is_the_same_alone_in_a_batch_and_upside_down(simulated):
    signals = [item.signal for item in prepare([one.curve for one in simulated[:70]], PROFILE)]
    signals = [one for one in signals if one is not None]
    together = second_opinion(signals)
    assert together.tolist() == [second_opinion([one])[0] for one in signals]
    assert together.tolist() == second_opinion([-one for one in signals]).tolist()
    mixed = [np.concatenate((one, one)) if place % 3 else one for place, one in enumerate(signals)]
    assert second_opinion(mixed)[::3].tolist() == together[::3].tolist()


def test_the_adhesion_s_snap_off_is_no_rupture_to_the_second_opinion_and_the_one_behind_it_is():
    adhesion = (40, 120, 60 * np.sqrt(np.linspace(0, 1, 80)))
    assert second_opinion([signal(adhesion)])[0] < 1.1
    assert second_opinion([signal(adhesion, (200, 300, np.linspace(0, 12, 100)))])[0] > 1.5


def test_waves_and_drift_are_no_steps_to_the_second_opinion():
    wave = 20 * np.sin(np.arange(472) / 6) + np.linspace(60, 0, 472)
    assert second_opinion([signal((40, 512, wave))])[0] < 1.1


def test_the_second_opinion_says_nothing_of_what_is_short_flat_or_broken():
    short, flat = np.arange(79, dtype=np.float32), np.zeros(512, np.float32)
    broken = np.full(512, np.nan, np.float32)
    assert second_opinion([]).shape == (0,)
    assert second_opinion([short, flat]).tolist() == [0, 0]
    assert np.isfinite(second_opinion([broken, np.full(512, np.inf, np.float32)])).all()
    assert strongest_step(short) is None is strongest_step(flat)


def test_the_second_opinion_finds_events_whose_sign_is_wrong_at_a_level_that_few_others_reach(simulated):
    from daemon.judging.sentinel import LEVEL

    curves = simulated[:250]
    prepared = prepare([turned(one.curve) for one in curves], PROFILE)
    signals = {place: one.signal for place, one in enumerate(prepared) if one.signal is not None}
    told = [(curves[place].label, t) for place, t in zip(signals, second_opinion(list(signals.values())), strict=True)]
    assert {label for label, _ in told} >= {"keep", "discard"}
    assert np.mean([t > LEVEL for label, t in told if label == "keep"]) > 0.55
    assert np.mean([t > LEVEL for label, t in told if label == "discard"]) < 0.1
