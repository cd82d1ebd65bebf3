import json
from dataclasses import replace
from importlib.util import find_spec

import msgspec
import numpy as np
import pytest
from modelhelp import make_model

from daemon.learn import int8
from daemon.learn.int8 import FEWEST, SAFETY, CannotQuantise, find_ranges, quantise
from deploy.classifier import EngineRequest, NoEngine
from deploy.engines import ENGINES, candidates
from deploy.openvino_engine import FILE, Int8, find, keep
from deploy.serving import TOLERANCE, Model, known_curves
from models.bundle import SHIPPED, Digests, read
from models.frontend import prepare
from models.raster import coverage, envelope
from models.simulate import simulate

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")


def signals_of(count, seed, bundle, share=0.3):
    prepared = prepare([item.curve for item in simulate(count, seed, share)], bundle.profile)
    return [one.signal for one in prepared if one.signal is not None]


@pytest.fixture(scope="module")
def bundle():
    return read(SHIPPED)


@pytest.fixture(scope="module")
def found(bundle):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "SIMULATED", (60, 300))  # in service more, which takes longer
        return quantise(bundle, signals_of(160, 31, bundle), 1)


@pytest.fixture(scope="module")
def cache(bundle, found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8") / "engines"
    keep(bundle, found, folder)
    return folder


def test_what_it_rests_on_is_said(found):
    said = found.evidence
    assert said["proved_on"]["real"] == 80
    assert said["proved_on"]["simulated"] == pytest.approx(300, abs=10)
    assert 0.05 < said["largest_error"] <= said["largest_error_anywhere"]
    assert found.margin == SAFETY * said["largest_error"] <= TOLERANCE["int8"]
    assert 0 < said["median_error"] < said["error_99"]
    assert (said["moved"], said["moved_alone"] > 0) == (0, True)  # the second look is needed, and is enough
    assert 0 < said["judged_twice"] < 0.5
    assert found.ranges["pictures"] == 1.0
    assert len(found.ranges) == 17
    assert all(value > 0 for value in found.ranges.values())


def test_verdicts_as_served_are_those_of_single_precision(bundle, cache):
    model = Model.of(bundle, EngineRequest(precision="int8", cache=cache, threads=1))
    assert (str(model.engine), str(model.reference.engine)) == ("openvino-cpu-int8", "openvino-cpu-fp32")
    assert not model.is_exact  # its verdicts are measured, not bounded
    signals = signals_of(300, 32, bundle, 0.1)
    exact = Model.of(bundle, EngineRequest(engine="openvino", precision="fp32", threads=1)).classify(signals)
    limits = [bundle.calibration.logit(score) for score in (bundle.discard, bundle.keep)]
    sides = [np.digitize(seen.logits, limits) for seen in (model.classify(signals), exact)]
    assert np.array_equal(*sides)
    rough = model.classifier.classify(signals)
    assert np.array_equal(rough.edges, exact.edges)
    assert rough.margin == find(bundle, cache).margin
    assert (rough.logits != exact.logits).mean() > 0.99  # it is another arithmetic


def test_batch_mates_change_nothing(bundle, cache):
    classifier = Model.of(bundle, EngineRequest(precision="int8", cache=cache, threads=1)).classifier
    signals = signals_of(40, 33, bundle)
    whole = classifier.classify(signals).logits
    for size in (1, 3, 16):
        parts = [classifier.classify(signals[start : start + size]).logits for start in range(0, len(signals), size)]
        assert np.array_equal(np.concatenate(parts), whole)


def test_auto_never_takes_it(bundle, cache):
    assert "int8" in next(engine for engine in ENGINES if engine.name == "openvino").precisions
    assert str(Model.of(bundle, EngineRequest(device="cpu", cache=cache)).engine) == "openvino-cpu-fp32"
    assert [engine.name for engine in candidates(EngineRequest(device="cpu", precision="int8"))] == ["openvino"]


def test_what_was_never_built_for_these_weights_is_refused_with_what_to_do(bundle, cache, tmp_path):
    small = make_model(tmp_path / "small")
    command, words = "afm-triage models build", "--precision int8 --curves DIR"
    for one, folder, says in (
        (bundle, None, f"int8 was not built: {command} {words}"),
        (bundle, tmp_path / "engines", f"(state folder {tmp_path}): {command} {words} --state {tmp_path}"),
        (small, cache, f"{command} {small.folder} {words} --state {cache.parent}"),
    ):
        with pytest.raises(NoEngine) as caught:
            Model.of(one, EngineRequest(precision="int8", cache=folder))
        assert str(caught.value).endswith(says)
    other = msgspec.structs.replace(bundle.manifest, sha256=Digests("0" * 64, "0" * 64))
    with pytest.raises(NoEngine):
        find(replace(bundle, manifest=other), cache)


def test_it_is_numbers_in_a_private_folder(bundle, found, cache):
    (entry,) = cache.iterdir()
    assert (cache.stat().st_mode & 0o777, (entry / FILE).stat().st_mode & 0o777) == (0o700, 0o600)
    assert Int8(**json.loads((entry / FILE).read_text())) == found == find(bundle, cache)
    (entry / FILE).write_text((entry / FILE).read_text().replace("margin", "marg1n"))  # damaged: gone
    with pytest.raises(NoEngine):
        find(bundle, cache)
    keep(bundle, found, cache)
    cache.chmod(0o777)
    with pytest.raises(NoEngine, match="can be written by others"):
        find(bundle, cache)
    cache.chmod(0o700)


def test_too_few_curves_are_refused(bundle):
    with pytest.raises(CannotQuantise, match=f"99 curves .* give {FEWEST} or more"):
        quantise(bundle, [np.zeros(512, np.float32)] * 99)


def test_a_model_that_eight_bits_do_not_carry_is_refused(bundle, monkeypatch):
    weights = {name: tensor.copy() for name, tensor in bundle.weights.items()}
    weights["fc.weight"] = weights["fc.weight"] * 30  # of the logits, and of the errors, which differ by processor
    monkeypatch.setattr(int8, "SIMULATED", (0, 50))
    with pytest.raises(CannotQuantise, match=r"does not stand int8: near a threshold a logit is \d"):
        quantise(replace(bundle, weights=weights), signals_of(110, 34, bundle), 1)


def test_a_range_fits_most_values_and_not_the_largest(bundle):
    signals = signals_of(20, 35, bundle)
    ranges = find_ranges(bundle, signals)
    strong = known_curves()[3]
    spike = prepare([replace(strong, force=strong.force * 50)], bundle.profile)[0].signal
    with_spike = find_ranges(bundle, [*signals, spike])
    assert max(with_spike[name] / ranges[name] for name in ranges) < 2.0
    assert coverage(envelope([spike], bundle.profile), bundle.profile).max() == 1.0
