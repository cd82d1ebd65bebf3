"""`models build`, `doctor` and `check`, as the person meets them who sets a machine with a GPU up."""

from __future__ import annotations

from pathlib import Path

import pytest
from modelhelp import make_model

import deploy.engines
from daemon.cli import main
from daemon.config import Config, EngineConfig
from daemon.engine import supervisor
from daemon.verbs.check import describe
from daemon.verbs.doctor import engines
from deploy.engines import ENGINES
from tests.faults.fake_engine import FAKE, NAME, ORDERS, WORKER


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ORDERS, str(tmp_path / "orders"))
    monkeypatch.setattr(deploy.engines, "ENGINES", (FAKE, *ENGINES[-2:]))
    monkeypatch.setattr(supervisor, "COMMAND", WORKER)
    make_model(tmp_path / "ours")
    return tmp_path / "orders"


def build(folder: Path, *words: str) -> int:
    return main(["models", "build", str(folder / "ours"), "--state", str(folder / "state"), *words])


def test_an_engine_is_built_ahead_in_a_process_of_its_own(
    tmp_path: Path, orders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(tmp_path) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(str(NAME))
    assert "judges known curves right" in said[0]
    assert said[-1].endswith("state/engines")


def test_an_engine_that_cannot_be_built_is_exit_69_with_the_reason(
    tmp_path: Path, orders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    orders.write_text("no build")
    assert build(tmp_path) == 69
    said = capsys.readouterr()
    assert "busy or unavailable" in said.out
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(("words", "code"), [((), 69), (("--device", "cuda"), 69), (("--precision", "int8"), 64)])
def test_where_there_is_nothing_to_build_one_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: tuple[str], code: int
) -> None:
    monkeypatch.setattr(deploy.engines, "ENGINES", ENGINES[-1:])
    make_model(tmp_path / "ours")
    assert build(tmp_path, *words) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_the_doctor_says_which_engine_could_not_serve_and_why(tmp_path: Path, orders: Path) -> None:
    orders.write_text("wrong")
    found = list(engines(Config(state=tmp_path / "state", model=str(tmp_path / "ours"))))
    assert [one.level for one in found if one.topic == "engine"] == ["problem", "ok"]
    problem = next(one for one in found if one.level == "problem")
    assert "off its logit" in problem.text
    assert problem.advice
    assert "fake" in next(one.text for one in found if one.topic == "engines")


def test_check_says_what_was_asked_of_the_engine(tmp_path: Path) -> None:
    plain = "\n".join(describe(Config(state=tmp_path)))
    assert "judges with the model shipped on the best device there is; what a GPU does not answer in 2 s" in plain
    asked = Config(state=tmp_path, device="cpu", engine=EngineConfig(name="openvino", precision="fp32"))
    assert "on the CPU, by openvino in fp32 alone" in "\n".join(describe(asked))
