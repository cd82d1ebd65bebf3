import pytest

from deploy.classifier import EngineId, EngineRequest, NoEngine
from deploy.engines import ENGINES, NAMES, PRECISIONS, candidates, named
from deploy.serving import TOLERANCE, Model


def test_names_are_those_of_the_configuration():
    assert NAMES == ("auto", "torch", "openvino", "cuda", "tensorrt")
    assert all(named(engine.name) is engine for engine in ENGINES)


def test_how_far_off_each_precision_may_be_is_said():
    used = {precision for engine in ENGINES for precision in engine.precisions}
    assert used <= set(PRECISIONS), "a precision that no one can ask for: add it to deploy.classifier.Precision"
    assert set(TOLERANCE) == set(PRECISIONS) - {"auto"}, "say in deploy.serving.TOLERANCE what its logits may be off"


@pytest.mark.parametrize("text", ["torch-cpu-fp32", "tensorrt-rtx-cuda-fp16", "openvino-cpu-int8", "torch-cuda-fp16"])
def test_an_engine_is_named_by_maker_device_and_precision(text):
    engine = EngineId.parse(text)
    assert (str(engine), engine.device) == (text, text.split("-")[-2])
    assert engine.maker in ("torch", "tensorrt-rtx", "openvino")


@pytest.mark.parametrize("text", ["", "torch", "cpu-fp32", "-cpu-fp32", "torch-tpu-fp32", "torch-cpu-fp64"])
def test_what_names_no_engine_is_refused(text):
    with pytest.raises(ValueError, match="no engine"):
        EngineId.parse(text)


def test_torch_is_always_there(monkeypatch):
    monkeypatch.setattr("deploy.engines.find_spec", lambda name: None)
    assert [engine.name for engine in candidates(EngineRequest(device="cpu"))] == ["torch"]


def test_a_wish_that_nothing_here_serves_says_why():
    with pytest.raises(NoEngine, match=r"^torch: runs on cpu, and cuda was asked for$"):
        list(candidates(EngineRequest(device="cuda", engine="torch")))


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr("deploy.engines._NVIDIA", ())


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        (
            EngineRequest(device="cuda"),
            "there is no NVIDIA GPU here; leave device away (or auto), and the processor judges",
        ),
        (
            EngineRequest(engine="cuda"),
            "cuda: there is no NVIDIA GPU here; leave engine away (or auto), and the processor judges",
        ),
        (
            EngineRequest(device="cuda", engine="cuda"),
            "cuda: there is no NVIDIA GPU here; leave device and engine away (or auto), and the processor judges",
        ),
        (EngineRequest(precision="fp16"), "fp16 runs on a GPU only, and there is none; here: fp32, bf16"),
        (
            EngineRequest(device="cpu", precision="fp16"),
            "fp16 runs on a GPU only, and the processor was asked for; here: fp32, bf16",
        ),
    ],
)
def test_a_refusal_says_what_to_ask_for_instead(no_gpu, wish, says):
    with pytest.raises(NoEngine) as caught:
        list(candidates(wish))
    assert str(caught.value) == says


def test_int8_without_openvino_says_only_that(no_gpu, monkeypatch):
    monkeypatch.setattr("deploy.engines.find_spec", lambda name: None)
    with pytest.raises(NoEngine, match=r"^openvino: openvino is not installed"):
        list(candidates(EngineRequest(precision="int8")))


def test_an_engine_that_computes_wrongly_is_passed_over():
    from deploy.torch_engine import TorchClassifier

    class Wrong(TorchClassifier):
        def logits_of(self, images):
            return super().logits_of(images) + 1.0

    def build(engine, bundle, wish):
        return (Wrong if engine.name == "openvino" else TorchClassifier)(bundle, "fp32")

    if "openvino" not in [engine.name for engine in candidates(EngineRequest(device="cpu"))]:
        pytest.skip("there is only one engine here")
    model = Model.load(wish=EngineRequest(device="cpu"), build=build)
    assert str(model.engine) == "torch-cpu-fp32"
    assert len(model.passed_over) == 1
    assert model.passed_over[0].startswith("openvino: torch-cpu-fp32: a known curve is ")
