import re
from importlib.util import find_spec

import pytest

from daemon.cli import main
from daemon.common.errors import UserError
from daemon.learn import int8
from daemon.learn.int8 import build_int8
from deploy import engines
from deploy.openvino_engine import find
from models.bundle import SHIPPED, read

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curves")
    assert main(["simulate", "--into", str(folder), "--curves", "120", "--prevalence", "0.3", "--seed", "3"]) == 0
    return folder


def test_int8_is_built_from_files_and_told_of(curves, tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "SIMULATED", (60, 200))
    bundle = read(SHIPPED)
    said = "\n".join(build_int8(bundle, [curves], tmp_path / "engines", 1))
    assert f"{bundle.id} in int8, on 60 of these curves" in said
    assert re.search(r"a logit is 0\.\d{3} off \(median\), 0\.\d{3} \(99 %\), 0\.\d{3} \(largest near", said)
    assert "not those of single precision: 0 (" in said
    assert '[engine] precision = "int8"' in said
    assert said.endswith(f"state folder is {tmp_path}")
    assert find(bundle, tmp_path / "engines").margin > 0


@pytest.mark.parametrize(
    ("folder", "code", "says"),
    [("nowhere", 65, "no such file or folder"), (".", 65, "0 curves that can be scored are too few")],
)
def test_folders_that_will_not_do_are_said(tmp_path, folder, code, says):
    with pytest.raises(UserError, match=says) as caught:
        build_int8(read(SHIPPED), [tmp_path / folder], tmp_path / "engines")
    assert caught.value.exit_code == code


def test_a_cache_that_others_can_write_is_refused(curves, tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "SIMULATED", (10, 50))
    (tmp_path / "engines").mkdir(mode=0o777)
    (tmp_path / "engines").chmod(0o777)
    with pytest.raises(UserError, match="can be written by others"):
        build_int8(read(SHIPPED), [curves], tmp_path / "engines", 1)


def test_without_openvino_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="computed by OpenVINO: openvino is not installed") as caught:
        build_int8(read(SHIPPED), [tmp_path], tmp_path / "engines")
    assert caught.value.exit_code == 69
