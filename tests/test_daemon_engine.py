"""The guarded engine: a real engine process with a device that fails on command, and what becomes of the batch."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from modelhelp import make_model, noisy
from pace import allowed

import deploy.engines
from daemon.engine import EngineTimeouts, GuardedClassifier, builder, engine_status
from deploy.classifier import EngineRequest
from deploy.engines import ENGINES
from deploy.serving import Model, known_curves
from deploy.torch_engine import TorchClassifier
from models.bundle import Bundle
from models.curve import Curve
from tests.faults.fake_engine import FAKE, NAME, ORDERS, WORKER

QUICK = EngineTimeouts(deadline_s=1.0, first_pause_s=0.1, longest_pause_s=0.4, canary_s=0.5)
CURVES = [noisy(curve, seed) for seed in range(2) for curve in known_curves()]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    file = tmp_path_factory.mktemp("orders") / "orders"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ORDERS, str(file))
        patch.setattr(deploy.engines, "ENGINES", (FAKE, *ENGINES))
        yield file


@pytest.fixture(scope="module")
def served(bundle: Bundle, orders: Path) -> Iterator[Model]:
    model = Model.of(bundle, EngineRequest(), builder(QUICK, WORKER))
    with guard(model):
        yield model


@pytest.fixture
def model(served: Model, orders: Path) -> Iterator[Model]:
    """In good health before and after each test: starting a process costs two seconds."""
    assert not trouble(served)
    yield served
    orders.unlink(missing_ok=True)
    until(lambda: not trouble(served))


def guard(model: Model) -> GuardedClassifier:
    assert isinstance(model.classifier, GuardedClassifier)
    return model.classifier


def trouble(model: Model) -> str:
    return "; ".join(engine_status(model).troubles)


def until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def judged(model: Model, curves: list[Curve]) -> tuple[set[str | None], list[float | None], float]:
    begun_s = time.monotonic()
    scored = model.judge(curves)
    return {one.engine for one in scored}, [one.logit for one in scored], time.monotonic() - begun_s


@pytest.fixture(scope="module")
def expected(bundle: Bundle) -> list[float | None]:
    model = Model(bundle, TorchClassifier(bundle, "fp32"))
    return [one.logit for one in model.judge(CURVES)]


def test_the_best_engine_serves_from_a_process_of_its_own(model: Model, expected: list[float | None]) -> None:
    assert model.engine == NAME
    engines, logits, _ = judged(model, CURVES)
    assert engines == {NAME}
    assert logits == pytest.approx(expected, abs=0.03)
    assert guard(model).pid != os.getpid()
    assert (engine_status(model).engine, trouble(model)) == (NAME, "")
    assert model.engine.device == "cuda"
    assert model.judge([]) == []


@pytest.mark.parametrize(
    ("order", "kind"),
    [("out of memory", "out_of_memory"), ("illegal access", "illegal_access"), ("exit", "died"), ("wedge", "wedged")],
)
def test_a_fault_costs_no_curve_and_the_device_is_won_back(
    model: Model, orders: Path, expected: list[float | None], order: str, kind: str
) -> None:
    before, pid = engine_status(model), guard(model).pid
    orders.write_text(order)
    engines, logits, took_s = judged(model, CURVES)
    assert took_s < allowed(5.0)
    assert logits == pytest.approx(expected, abs=0.03)
    standing = engine_status(model)
    assert engines == {standing.engine}
    assert standing.engine.device == "cpu"
    assert f"({kind})" in trouble(model)
    assert standing.faults[kind] >= before.faults.get(kind, 0) + 1
    assert judged(model, CURVES)[0] == engines  # a poisoned device is not asked again
    orders.unlink()
    until(lambda: not trouble(model))
    assert judged(model, CURVES)[0] == {NAME}
    assert guard(model).pid != pid


def test_kill_9_between_two_batches(model: Model, expected: list[float | None]) -> None:
    pid = guard(model).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    engines, logits, _ = judged(model, CURVES)
    assert NAME not in engines
    assert logits == pytest.approx(expected, abs=0.03)
    assert "ended by signal 9" in trouble(model)


def test_a_device_that_computes_wrongly_is_found_by_known_curves(model: Model, orders: Path) -> None:
    judged(model, CURVES)
    orders.write_text("wrong")
    until(lambda: trouble(model))  # nothing asked: the canary
    said = trouble(model)
    assert "(wrong)" in said
    assert re.search(r"\d+ curves judged since .* should be scored again", said)
    until(lambda: engine_status(model).faults["wrong"] >= 2)  # tried again, and refused by the proof each time
    assert NAME not in judged(model, CURVES)[0]


def test_logits_that_are_no_numbers_are_computed_again(
    model: Model, orders: Path, expected: list[float | None]
) -> None:
    orders.write_text("nan")
    engines, logits, _ = judged(model, CURVES)
    assert NAME not in engines
    assert logits == pytest.approx(expected, abs=0.03)
    until(lambda: trouble(model))  # the known curves are no numbers either


def test_a_batch_too_large_for_the_memory_is_halved_once(
    model: Model, orders: Path, expected: list[float | None]
) -> None:
    before, pid = engine_status(model).faults.get("out_of_memory", 0), guard(model).pid
    orders.write_text("small memory")
    engines, logits, _ = judged(model, CURVES)
    orders.unlink()
    assert engines == {NAME}
    assert logits == pytest.approx(expected, abs=0.03)
    assert engine_status(model).faults["out_of_memory"] == before + 1
    assert (trouble(model), guard(model).pid) == ("", pid)


@pytest.fixture
def ordered(orders: Path) -> Iterator[Path]:
    yield orders
    orders.unlink()


def test_a_build_that_fails_makes_the_next_engine_serve_and_says_so(bundle: Bundle, ordered: Path) -> None:
    ordered.write_text("no build")
    model = Model.of(bundle, EngineRequest(), builder(QUICK, WORKER))
    assert model.engine.device == "cpu"
    assert "fake: " in trouble(model)
    assert "busy or unavailable" in trouble(model)


def test_another_model_in_the_folder_is_not_served_under_the_old_name(tmp_path: Path, orders: Path) -> None:
    bundle = make_model(tmp_path / "small")
    shutil.rmtree(tmp_path / "small")
    make_model(tmp_path / "small", "other")
    model = Model.of(bundle, EngineRequest(), builder(QUICK, WORKER))
    assert "holds other-" in trouble(model)


def test_the_process_ends_with_its_classifier(bundle: Bundle, orders: Path) -> None:
    classifier = guard(Model.of(bundle, EngineRequest(), builder(QUICK, WORKER)))
    pid = classifier.pid
    classifier.close()
    assert not Path(f"/proc/{pid}").exists()
    signals = [np.zeros(500, np.float32)]
    assert classifier.classify(signals).engine != NAME  # and the batch is still answered
