import pytest

from deploy.engines import ENGINES, NAMES, NoEngine, Wish, candidates, named
from deploy.serving import Model


def test_names_are_those_of_the_configuration():
    assert {engine.name for engine in ENGINES} <= set(NAMES)
    assert all(named(engine.name) is engine for engine in ENGINES)


def test_torch_is_always_there(monkeypatch):
    monkeypatch.setattr("deploy.engines.find_spec", lambda name: None)
    assert [engine.name for engine in candidates(Wish(device="cpu"))] == ["torch"]


def test_a_wish_that_nothing_here_serves_says_why():
    with pytest.raises(NoEngine, match=r"^torch: runs on cpu, and cuda was asked for$"):
        list(candidates(Wish(device="cuda", engine="torch")))


def test_an_engine_that_computes_wrongly_is_passed_over():
    from deploy.torch_engine import TorchClassifier

    class Wrong(TorchClassifier):
        def logits_of(self, images):
            return super().logits_of(images) + 1.0

    def build(engine, bundle, wish):
        return (Wrong if engine.name == "openvino" else TorchClassifier)(bundle, "fp32")

    if "openvino" not in [engine.name for engine in candidates(Wish(device="cpu"))]:
        pytest.skip("there is only one engine here")
    model = Model.load(wish=Wish(device="cpu"), build=build)
    assert model.engine == "torch-cpu-fp32"
    assert len(model.passed_over) == 1
    assert model.passed_over[0].startswith("openvino: torch-cpu-fp32: a known curve is ")
