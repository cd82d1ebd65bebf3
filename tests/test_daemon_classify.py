"""Classifying what the readers have prepared, and what they have not."""

from dataclasses import replace
from pathlib import Path

from daemon.judging import Thresholds, classify
from daemon.reading.ahead import find
from daemon.reading.pool import ReaderPool
from deploy.serving import Model
from models.curve import Curve

CURVES = Path(__file__).resolve().parents[1] / "daemon" / "curves"
AROUND = Thresholds(0.3, 0.7)


def test_prepared_or_not_or_for_another_model_a_curve_gets_the_same_answer():
    model = Model.load()
    profile = model.bundle.profile
    arrivals = [arrival for arrival in find([CURVES]) if arrival.path.endswith((".jpk-force", ".000", ".spm"))]
    with ReaderPool(1, profile=profile) as pool:
        pool.submit(arrivals)
        files = []
        while len(files) < len(arrivals):
            files += pool.collect(1.0)
    readings = [reading for file in files for reading in file.readings]
    assert all(reading.profile == profile and reading.prepared is not None for reading in readings)
    other = replace(profile, columns=64)
    for_another = [
        replace(reading, prepared=replace(reading.prepared, signal=None), profile=other) for reading in readings
    ]
    bare = [replace(reading, prepared=None, profile=None) for reading in readings]
    told = [
        [(one.logit, one.reasons) for one in classify(some, model, AROUND)] for some in (readings, for_another, bare)
    ]
    assert told[0] == told[1] == told[2]
    assert all(logit is not None for logit, _ in told[0])


def test_what_the_front_end_fails_on_goes_to_review_and_costs_no_other():
    model = Model.load()
    (arrival,) = [arrival for arrival in find([CURVES]) if arrival.path == "force-save-0441.jpk-force"]
    with ReaderPool(1) as pool:
        pool.submit([arrival])
        (good,) = pool.collect(30.0)[0].readings
    bad = replace(good, curve=Curve(force=None, force_unit="N"))
    first, failed, last = classify([good, bad, good], model, AROUND)
    assert first.logit == last.logit is not None
    assert (failed.score, failed.reasons) == (None, ("engine_fault",))
