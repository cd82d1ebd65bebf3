"""Copies are true: what the ledger keeps of a flagged curve is judged, wherever it goes, as the curve itself was."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from makers import a_retract

from daemon.config import ThresholdsConfig
from daemon.explain import explain, find_reading
from daemon.formats import open_file
from daemon.formats.afmcurve import MOST_POINTS, compact_copy_of, pack, unpack
from daemon.judging import Decision, Judge, audit, classify, decide, with_compact_copy
from daemon.judging.judge import judge_of, load_model
from daemon.ledger import Ledger, LedgerView
from daemon.reading import Reading
from daemon.reading.ahead import find, read_curves
from daemon.reading.pool import ReaderPool
from daemon.sources.message import content_of, parse
from deploy.classifier import EngineRequest
from deploy.serving import Model
from models.curve import Curve
from models.frontend import prepare, prepare_to_judge, turned
from models.raster import RasterProfile

ROOT = Path(__file__).resolve().parents[1]
BUNDLED = ROOT / "daemon" / "curves"
SHARED = ROOT.parent / "shared" / "data"
ALL_FLAGGED = ThresholdsConfig(discard=0.0, keep=1.0)  # so that every curve is one


@cache
def model() -> Model:
    return load_model("shipped", EngineRequest(device="cpu"))


def judged(readings: Sequence[Reading], judge: Judge, wary_of: Sequence[str] = ()) -> list[Decision]:
    return decide(readings, classify(readings, model(), judge.thresholds, wary_of), judge)


def live(files: Sequence[Path], profile: RasterProfile) -> list[Reading]:
    """As the service reads: prepared by the reader, with the samples."""
    with ReaderPool(2, profile=profile) as pool:
        readings: list[Reading] = []
        for arrival in find(files):
            part = pool.read(arrival)
            while part.readings:
                readings += part.readings
                if part.readings[-1].index + 1 >= part.total:
                    break
                part = pool.read(arrival.portion(part.readings[-1].index + 1, part.readings[0].sha256, part.total))
        return readings


def essence(decision: Decision) -> tuple[object, ...]:
    return decision.score, decision.verdict, decision.reasons, decision.force_unit, decision.preview


def kept(decisions: Sequence[Decision], readings: Sequence[Reading], folder: Path) -> Iterator[tuple[Decision, Path]]:
    """Every flagged curve with its copy, as the ledger exports it."""
    folder.mkdir(exist_ok=True)
    for number, pair in enumerate(zip(decisions, readings, strict=True)):
        copy = with_compact_copy(*pair, model().bundle.profile, audit.Past()).compact_copy
        if copy is not None:
            file = folder / f"{number:05d}.afmcurve"
            file.write_bytes(copy)
            yield pair[0], file


def assert_true(files: Sequence[Path], thresholds: ThresholdsConfig, folder: Path, least: int) -> None:
    judge = judge_of(model(), thresholds)
    readings = live(files, model().bundle.profile)
    flagged = list(kept(judged(readings, judge), readings, folder))
    assert len(flagged) >= least
    for again in (live([folder], model().bundle.profile), list(read_curves(find([folder])))):
        assert [(essence(one)) for one, _ in flagged] == [essence(one) for one in judged(again, judge)]
    curves = [open_file(file)[0] for _, file in flagged]  # as `train`, `calibrate` and `evaluate` read
    scores = [one.score for one in model().judge(curves, judge.thresholds.both)]
    assert scores == [decision.score for decision, _ in flagged]


def test_copies_of_bundled_curves_are_judged_as_the_curves_were(tmp_path: Path) -> None:
    assert_true([BUNDLED], ThresholdsConfig(), tmp_path / "flagged", least=1)
    assert_true([BUNDLED], ALL_FLAGGED, tmp_path / "all", least=30)


def test_what_may_be_looked_at_has_a_copy_and_nothing_else() -> None:
    """All that is kept or flagged; the discards that the draw falls on, more of them in the band of a raised cut."""
    judge = judge_of(model(), ThresholdsConfig())
    raised = replace(judge, band=(0.002, 0.004))
    reading = live([BUNDLED], model().bundle.profile)[0]
    base = judged([reading], judge)[0]

    def copied(**changes: object) -> int:
        some = [replace(base, identity=f"{number}#0", **changes) for number in range(300)]
        made = (with_compact_copy(one, reading, model().bundle.profile, audit.Past()) for one in some)
        return sum(one.compact_copy is not None for one in made)

    assert copied(verdict="keep") == copied(verdict="review", score=None) == 300
    drawn = [audit.draw(f"{number}#0") for number in range(300)]
    few, more = (sum(one < share for one in drawn) for share in (audit.AUDIT_SHARE, audit.BAND_SHARE))
    assert 0 < few < more < 60
    assert copied(verdict="discard", score=0.003) == few
    assert copied(verdict="discard", score=0.002, judge=raised) == few
    assert copied(verdict="discard", score=0.003, judge=raised) == more
    assert copied(verdict="discard", is_disputed=True) == 300


def test_batch_after_batch_the_copies_are_those_of_the_discards_that_the_ledger_draws(tmp_path: Path) -> None:
    """The copy is made before the commit that notes the draw: both follow from the same past, after a restart too."""
    judge = replace(judge_of(model(), ThresholdsConfig()), band=(0.003, 0.004))
    reading = live([BUNDLED], model().bundle.profile)[0]
    base = replace(judged([reading], judge)[0], verdict="discard")
    dice, copied = random.Random(12), set[str]()
    for batch in range(20):
        if batch % 5 == 0:
            ledger = Ledger(tmp_path / "ledger.sqlite", "afm1")
        past = ledger.past(judge.pipeline)
        made = [
            replace(base, identity=f"{batch}-{n}#0", score=min(dice.expovariate(800), 0.004), is_disputed=n == 7)
            for n in range(100)
        ]
        made = [with_compact_copy(one, reading, model().bundle.profile, past) for one in made]
        copied |= {one.identity for one in made if one.compact_copy is not None}
        ledger.record(made)
        if batch % 5 == 4:
            ledger.close()
    with LedgerView(ledger.path) as view:
        looks = view.looks("discard")
        assert all(view.compact_copy(look.seq) for look in looks)
        assert len(looks) == len(copied) > 20 + 20
        assert len({look.probability for look in looks}) > 10


@pytest.mark.timeout(300)
@pytest.mark.faults
@pytest.mark.skipif(not SHARED.exists(), reason="the curves that are not bundled are not here")
def test_copies_of_every_flagged_curve_are_judged_as_the_curves_were(tmp_path: Path) -> None:
    assert_true([SHARED], ThresholdsConfig(), tmp_path / "flagged", least=100)


@pytest.mark.timeout(600)
@pytest.mark.faults
@pytest.mark.skipif(not SHARED.exists(), reason="the curves that are not bundled are not here")
def test_copies_of_every_curve_would_be(tmp_path: Path) -> None:
    assert_true([SHARED], ALL_FLAGGED, tmp_path / "all", least=900)


def a_message(force: np.ndarray, **more: object) -> bytes:
    header = {
        "id": "c",
        "name": "c",
        "dtype": "<f8",
        "force_unit": "N",
        "pulling": "positive",
        "distance_grows": "away",
    }
    return content_of(parse([json.dumps(header | more).encode(), force.tobytes(), b""]))


def test_copies_of_curves_that_were_sent_are_too(tmp_path: Path) -> None:
    """Long ones, with an approach that alone says that something holds on, and what single precision loses."""
    rng = np.random.default_rng(3)
    sent = tmp_path / "sent"
    sent.mkdir()
    force, _ = a_retract(60_000)
    approach = rng.normal(0.0, 8e-12, 9_000)
    segments = [["approach", 0, 9_000], ["retract", 9_000, 69_000]]
    contents = [
        a_message(np.concatenate([approach, force + 2e-9]), segments=segments),
        a_message(np.minimum(force + rng.normal(0, 1e-11, 60_000), 1e-10)),  # saturated
        a_message(force + 1.0),  # far from zero
        a_message(force[:70]),
        a_message(np.where(np.arange(60_000) == 59, np.nan, force)),
        a_message(np.full(4000, 7e-9)),
        a_message(force * 1e-45),  # below what single precision has
    ]
    for number, content in enumerate(contents):
        (sent / f"{number}.afmcurve").write_bytes(content)
    assert_true([sent], ALL_FLAGGED, tmp_path / "copies", least=len(contents))
    reasons = [one.reasons for one in judged(live([sent], model().bundle.profile), judge_of(model(), ALL_FLAGGED))]
    assert "still_attached" in reasons[0]
    assert "saturated" in reasons[1]
    assert "nonfinite" in reasons[4]
    assert "constant" in reasons[5]


def test_what_was_judged_upside_down_is_so_again(tmp_path: Path) -> None:
    """An open sign, and a format of whose sign the service has become wary."""
    judge, profile = judge_of(model(), ThresholdsConfig(discard=0.9, keep=0.95)), model().bundle.profile
    (reading,) = live([BUNDLED / "force-save-0441.jpk-force"], profile)
    assert reading.curve is not None
    upside_down = turned(reading.curve)
    wrong = replace(reading, curve=upside_down, prepared=prepare([upside_down], profile)[0])
    cases = [wrong, replace(wrong, curve=replace(upside_down, notes=("sign_assumed",)), prepared=None)]
    decisions = judged(cases, judge, wary_of=["jpk"])
    assert "flipped" in decisions[0].reasons
    assert "sign_turned" in decisions[1].reasons
    review = [replace(one, verdict="review") for one in decisions]
    copies = [file for _, file in kept(review, cases, tmp_path / "copies")]
    again = judged(live(copies, profile), judge)
    assert [essence(one) for one in again] == [essence(one) for one in decisions]
    shown = explain(find_reading(copies[1], 0), model(), judge)
    assert essence(shown.decision) == essence(decisions[1])
    assert shown.prepared.signal is not None
    assert shown.prepared.signal.tobytes() == prepare([turned(cases[1].curve)], profile)[0].signal.tobytes()


def a_long_curve() -> Curve:
    force, distance = a_retract(30_000)
    noise = np.random.default_rng(1).normal(0, 2e-11, force.shape)
    return Curve(force + noise, "N", distance, "piezo", approach_force=force[::-1], spring_constant_n_per_m=0.05)


def copy_of(curve: Curve) -> bytes:
    profile = RasterProfile()
    return compact_copy_of(curve, profile, prepare_to_judge([curve], profile)[0])


def test_a_copy_is_compact() -> None:
    """Before it was 33 kB of two axes; what makes it true adds less than a quarter."""
    assert len(pack(a_long_curve())) > 300_000
    assert len(copy_of(a_long_curve())) < 42_000


def test_for_another_profile_a_copy_is_prepared_from_its_samples() -> None:
    other = RasterProfile(columns=64, rows=64)
    copy = unpack(copy_of(a_long_curve()))[0]
    (fresh,) = prepare([replace(copy, original=None)], other)
    (known,) = prepare([copy], other)
    assert known.signal is not None
    assert fresh.signal is not None
    assert known.signal.tobytes() == fresh.signal.tobytes()


def test_whoever_changes_the_samples_of_a_copy_has_another_curve() -> None:
    copy = unpack(copy_of(a_long_curve()))[0]
    changed = replace(copy, force=copy.force + np.linspace(0, 1e-9, len(copy)))
    (one,), (other,) = (prepare([curve], RasterProfile()) for curve in (copy, changed))
    assert one.signal is not None
    assert other.signal is not None
    assert one.signal.tobytes() != other.signal.tobytes()


def test_a_copy_of_a_copy_is_the_same() -> None:
    first = copy_of(a_long_curve())
    curve = unpack(first)[0]
    again = unpack(copy_of(curve))[0]
    (one,), (other,) = (prepare([each], RasterProfile()) for each in (curve, again))
    assert one.signal is not None
    assert other.signal is not None
    assert one.signal.tobytes() == other.signal.tobytes()
    assert one.reasons == other.reasons


def _with_header(content: bytes, **changes: object) -> bytes:
    line, _, payload = content.partition(b"\n")
    return json.dumps(json.loads(line) | changes).encode() + b"\n" + payload


def test_copies_of_before_still_open() -> None:
    """They have no word of an original: their samples must do."""
    curve = a_long_curve()
    line, _, payload = pack(replace(curve, approach_force=None)).partition(b"\n")
    header = json.loads(line)
    del header["original"], header["acquired_s"]
    old = unpack(json.dumps(header).encode() + b"\n" + payload)[0]
    assert old.original is None
    assert prepare([old], RasterProfile())[0].signal is not None


@pytest.mark.parametrize(
    "said",
    [
        7,
        {},
        {"profile": "x"},
        {
            "profile": RasterProfile().id,
            "prepared": {"reasons": ["made_up"], "noise": 1, "level": 0, "tilt": 0, "contact": 0},
        },
        {"profile": RasterProfile().id, "prepared": {"reasons": 3, "noise": 1, "level": 0, "tilt": 0, "contact": 0}},
        {"profile": RasterProfile().id, "prepared": {"reasons": [], "noise": "1", "level": 0, "tilt": 0, "contact": 0}},
        {"profile": RasterProfile().id, "prepared": []},
        {"profile": RasterProfile().id, "prepared": {"reasons": []}},
    ],
)
def test_a_header_that_lies_about_an_original_is_not_believed(said: object) -> None:
    curve = unpack(_with_header(copy_of(a_long_curve()), original=said))[0]
    assert curve.original is None
    assert prepare([curve], RasterProfile())[0].signal is not None


@pytest.mark.parametrize("points", [0, 1, 511, 513, 100_000])
def test_a_signal_that_fits_no_picture_is_not_used(points: int) -> None:
    curve = a_long_curve()
    (known,) = prepare([curve], RasterProfile())
    strange = replace(known, signal=np.zeros(points, np.float32))
    copy = unpack(compact_copy_of(curve, RasterProfile(), strange))[0]
    signal = prepare([copy], RasterProfile())[0].signal
    assert signal is not None
    assert signal.shape == (512,)
    assert len(copy) == MOST_POINTS
