"""Chains, bonds, surfaces and nuisances against what theory says of them."""

import numpy as np
import pytest

from models.simulate import background, events, recording
from models.simulate.background import visible
from models.simulate.mechanics import (
    FORCE_PN,
    KT_PN_NM,
    Rupture,
    bond_with_mode,
    freely_jointed,
    log_uniform,
    overstretching,
    pick,
    worm_like,
)
from models.simulate.recording import Instrument, draw_instrument


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def an_instrument(samples=4000, ramp=500.0, contact=50.0, spring=20.0, noise=5.0):
    return Instrument(np.linspace(0.0, ramp, samples), contact, spring, 1.0, 1000.0, noise, 0.5)


def test_the_worm_like_chain_follows_marko_and_siggia():
    chain, persistence, contour = worm_like(0.4, 1e12), 0.4, 100.0
    for x in (0.2, 0.5, 0.8, 0.95):
        force = KT_PN_NM / persistence * (0.25 / (1 - x) ** 2 - 0.25 + x)
        assert chain.extension_nm(force, contour) == pytest.approx(x * contour, rel=0.01)


def test_the_freely_jointed_chain_follows_langevin():
    chain, kuhn = freely_jointed(0.7, 1e12), 0.7
    for force in (2.0, 20.0, 200.0):
        a = force * kuhn / KT_PN_NM
        assert chain.extension_nm(force, 1.0) == pytest.approx(1 / np.tanh(a) - 1 / a, rel=0.01)


def test_dna_gains_seventy_per_cent_at_the_overstretch():
    chain = overstretching(65.0, 1.5)
    assert chain.extension_nm(55.0, 1000.0) < 1.05 * 1000.0
    assert 1.65 * 1000.0 < chain.extension_nm(85.0, 1000.0) < 1.85 * 1000.0


@pytest.mark.parametrize("chain", [worm_like(0.4), freely_jointed(0.7), overstretching(65.0, 1.5)])
def test_every_chain_gets_longer_under_more_force(chain):
    assert (np.diff(chain.relative * 100.0 + FORCE_PN / 50.0) > 0).all()


def test_a_chain_and_the_cantilever_share_the_travel():
    chain, spring, contour = worm_like(0.4), 15.0, 120.0
    travel = np.linspace(0.0, 125.0, 300)
    force = chain.pull(travel, contour, spring)
    extension = np.array([chain.extension_nm(f, contour) for f in force])
    assert np.abs(extension + force / spring - travel).max() < 0.05


def test_contour_length_and_extension_are_inverse():
    chain = worm_like(0.5)
    assert chain.extension_nm(90.0, chain.contour_nm(90.0, 77.0)) == pytest.approx(77.0)


def test_rupture_forces_have_the_mode_and_the_spread_of_bell_and_evans(rng):
    barrier, rate, mode = 0.5, 1e4, 120.0
    bond = bond_with_mode(mode, barrier, rate)
    forces = np.array([bond.rupture_pn(rng, rate) for _ in range(4000)])
    counts, edges = np.histogram(forces, bins=40)
    scale = KT_PN_NM / barrier
    assert edges[counts.argmax()] == pytest.approx(mode, abs=scale)
    assert forces.std() == pytest.approx(scale * np.pi / np.sqrt(6), rel=0.06)


def test_ten_times_the_loading_rate_adds_kt_over_x_ln_ten(rng):
    bond = bond_with_mode(100.0, 0.4, 1e4)
    slow, fast = (np.mean([bond.rupture_pn(rng, rate) for _ in range(4000)]) for rate in (1e4, 1e5))
    assert fast - slow == pytest.approx(KT_PN_NM / 0.4 * np.log(10), rel=0.06)


def test_after_a_rupture_the_force_drops_at_constant_travel():
    instrument = an_instrument()
    past = instrument.travel_nm - instrument.contact_nm
    pulled = events.sawtooth(np.random.default_rng(3), instrument, past, 20.0)
    assert pulled.ruptures
    for rupture in pulled.ruptures:
        assert pulled.force[rupture.index - 1] == rupture.force_pn
        assert pulled.force[rupture.index] < rupture.force_pn
    assert (pulled.force[past < 0] == 0.0).all()


def test_sawtooth_peaks_of_one_protein_are_equally_spaced(rng):
    instrument = an_instrument(samples=20000, ramp=1500.0)
    past = instrument.travel_nm - instrument.contact_nm
    even = 0
    for _ in range(40):
        lengths = [r.contour_length_nm for r in events.sawtooth(rng, instrument, past, 20.0).ruptures]
        steps = np.diff(lengths)
        even += len(steps) > 2 and steps[:-1].std() < 0.1 * steps[:-1].mean()
    assert even > 5


@pytest.mark.parametrize(
    "make",
    [
        events.polymer,
        events.polymers,
        events.far_out,
        events.after_adhesion,
        events.sawtooth,
        events.dna,
        events.plateaus,
        events.soft_bonds,
        events.cell,
    ],
)
def test_events_pull_and_break_after_contact_only(make, rng):
    broken = 0
    for _ in range(30):
        instrument = an_instrument(spring=float(rng.uniform(8, 80)))
        past = instrument.travel_nm - instrument.contact_nm
        pulled = make(rng, instrument, past, 25.0)
        assert pulled.force.shape == past.shape
        assert np.isfinite(pulled.force).all()
        assert pulled.force.min() >= 0.0
        assert (pulled.force[past <= 0] == 0.0).all()
        assert all(0 < r.index < len(past) and past[r.index] > 0 for r in pulled.ruptures)
        broken += bool(pulled.ruptures)
    assert broken >= 20


def test_hard_contact_has_the_slope_of_the_cantilever():
    instrument = an_instrument()
    force = background.contact(np.random.default_rng(0), instrument, soft=False)
    pushing = instrument.travel_nm < 45.0
    assert np.gradient(force[pushing], instrument.travel_nm[pushing]) == pytest.approx(instrument.spring)
    assert (force[instrument.travel_nm > 50.0] == 0.0).all()


def test_a_soft_sample_pushes_back_less(rng):
    instrument = an_instrument(contact=300.0)
    hard = background.contact(rng, instrument, soft=False)
    for _ in range(20):
        soft = background.contact(rng, instrument, soft=True)
        assert (soft >= hard - 1e-6).all()
        assert (np.diff(soft) >= 0.0).all()


def test_adhesion_ends_near_the_surface(rng):
    for _ in range(50):
        instrument = draw_instrument(rng)
        past = instrument.travel_nm - instrument.contact_nm
        assert background.snap_off(rng, instrument, past, 25.0).end_nm <= 25.0
        assert background.ragged(rng, instrument, past).end_nm <= 28.0


def test_a_viscous_fade_has_no_step(rng):
    instrument = an_instrument(samples=20000)
    past = instrument.travel_nm - instrument.contact_nm
    for _ in range(50):
        force = background.fade(rng, instrument, past).force
        beyond = force[past > 10.0]
        assert -np.diff(beyond).min() < 0.05 * force.max()


def test_noise_has_unit_rms_for_any_length_and_differs_each_time(rng):
    rms = [recording.noise(rng, count).std() for count in (200, 997, 4096, 19997) for _ in range(15)]
    assert 0.7 < np.mean(rms) < 1.1
    assert not np.array_equal(recording.noise(rng, 500), recording.noise(rng, 500))


def test_the_lag_keeps_levels_and_softens_steps():
    step = np.where(np.arange(500) < 250, 100.0, 0.0)
    lagged = recording.lag(step, 3.0)
    assert lagged.shape == step.shape
    assert lagged[:250] == pytest.approx(100.0)
    assert 60.0 < lagged[250] < 90.0
    assert lagged[-1] == pytest.approx(0.0, abs=1e-9)


def _seen(drop, noise, width=2000, mountain=0.0):
    tethers = np.zeros(8000)
    tethers[4000 - width : 4000] = drop
    clean = tethers + mountain * np.linspace(1.0, 0.0, 8000)
    return visible((Rupture(4000, drop, None),), tethers, clean, noise)


def test_a_clear_step_is_visible_and_one_in_the_noise_is_not(rng):
    noise = rng.normal(0.0, 5.0, 8000)
    assert _seen(40.0, noise)
    assert not _seen(4.0, noise)


def test_what_is_finer_than_a_plot_is_not_visible(rng):
    noise = rng.normal(0.0, 5.0, 8000)
    assert not _seen(60.0, noise, width=1)


def test_a_crack_in_a_mountain_is_not_visible(rng):
    noise = rng.normal(0.0, 5.0, 8000)
    assert not _seen(60.0, noise, mountain=5000.0)


def test_a_peak_no_larger_than_the_waves_around_it_is_not_visible(rng):
    noise = rng.normal(0.0, 5.0, 8000)
    assert _seen(40.0, noise, width=100)
    assert not _seen(40.0, noise + 40.0 * np.sin(np.arange(8000) / 25.0), width=100)


def test_a_notch_in_the_swell_is_not_visible(rng):
    noise = rng.normal(0.0, 2.0, 8000)
    swell = 200.0 * np.sin(np.arange(8000) / 900.0)
    assert _seen(30.0, noise)
    assert not _seen(30.0, noise + swell)
    assert _seen(30.0, noise + 0.05 * np.arange(8000))  # a tilt is no swell


def test_a_step_among_spikes_is_not_visible(rng):
    noise = rng.normal(0.0, 5.0, 8000)
    assert _seen(60.0, noise)
    assert not _seen(60.0, noise + recording.spikes(rng, 8000, 60.0, many=True) * 5)


def test_a_soft_body_crumbles_in_drops_that_are_small_beside_its_peak(rng):
    past = np.linspace(0.0, 500.0, 5000)
    hump = 1000.0 * np.exp(-past / 100.0)
    for _ in range(20):
        left = background._crumble(rng, past, hump, 50.0, 5.0)
        assert (left <= hump + 1e-9).all()
        assert (left >= -1e-9).all()
        lost = np.diff(left[500:] / hump[500:]) * hump[501:]
        steps = np.convolve(lost, np.ones(100), mode="valid")  # over the 10 nm that the longest fall takes
        assert steps.min() > -0.6 * hump.max()


def test_draws_stay_in_range_and_follow_weights(rng):
    values = [log_uniform(rng, 2.0, 200.0) for _ in range(500)]
    assert min(values) >= 2.0
    assert max(values) <= 200.0
    assert 15 < np.median(values) < 27
    picks = [pick(rng, {"rare": 1.0, "common": 9.0}) for _ in range(1000)]
    assert 60 < picks.count("rare") < 150
