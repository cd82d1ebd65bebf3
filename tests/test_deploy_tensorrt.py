"""TensorRT as far as a machine without a GPU goes: everything but the running of a compiled engine."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.classifier import EngineFault
from deploy.engine_cache import EngineCache
from deploy.tensorrt_engine import FLAVOURS, TensorRtClassifier, driver, flavours_here, loaded, missing
from models.bundle import SHIPPED, read

ROOT = Path(__file__).resolve().parents[1]
rtx_here = pytest.mark.skipif(
    importlib.util.find_spec("torch_tensorrt") is None or importlib.util.find_spec("tensorrt_rtx") is None,
    reason="torch-tensorrt-rtx is not installed: pip install 'torch==2.13.*' 'torch-tensorrt-rtx==2.13.*'",
)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What came out of the whole way in a process of its own, which torch-tensorrt leaves its marks in."""
    folder = tmp_path_factory.mktemp("tensorrt")
    command = [sys.executable, str(ROOT / "tests" / "tensorrt_on_a_cpu.py"), str(folder)]
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@rtx_here
def test_the_shipped_model_converts_whole(seen):
    assert seen["inputs"] == [["FLOAT", [-1, 2, 256]]]
    assert seen["outputs"] == [["FLOAT", [-1, 128]]]
    assert seen["layers"]["CONVOLUTION"] == 20  # all of the network is in the one engine, batch norm folded
    assert seen["layers"]["ACTIVATION"] == 17
    assert seen["layers"]["UNARY"] == 1  # asinh: and the raster's dense half is in it too
    assert seen["layers"]["CAST"] == 2  # to half after the picture, back before the average


@rtx_here
def test_the_compiled_engine_holds_the_weights_in_half_precision(seen):
    weights = sum(tensor.size for tensor in read(SHIPPED).weights.values())
    assert 2 * weights < seen["bytes"] < 3.5 * weights


@rtx_here
def test_the_engine_around_it_gives_the_logits_of_torch(seen):
    assert seen["engine"] == "tensorrt-rtx-cuda-fp16"
    assert seen["edges_equal"]
    assert seen["worst"] < 1e-4


@rtx_here
def test_it_is_built_once_and_again_when_damaged(seen):
    assert seen["built"] == [1, 1, 2]
    assert not [name for name in seen["left"] if name.startswith("torch_tensorrt")]  # its own caches stay off the disk


@rtx_here
def test_the_key_names_all_that_an_engine_depends_on(seen):
    key = seen["key"]
    assert set(key) >= {"weights", "profile", "code", "torch", "driver", "gpu", "capability", "batch"}
    assert key["torch-tensorrt-rtx"].startswith("2.")
    assert key["tensorrt_rtx"].startswith("1.")
    assert key["capability"] == "8.9"
    assert key["weights"] == read(SHIPPED).weights_sha256


@rtx_here
@pytest.mark.parametrize("what", ["not runs", "not loads"])
def test_an_engine_that_does_not_run_is_a_fault_of_the_device(seen, what):
    kind, text = seen[what]
    assert kind == "device_lost"
    assert "GPU" in text


def install(folder, *names):
    for name in names:
        (folder / f"{name.replace('-', '_')}-2.13.0.dist-info").mkdir()
        (folder / f"{name.replace('-', '_')}-2.13.0.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.13.0\n"
        )


def test_the_flavour_is_the_one_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert "not installed" in missing()
    install(tmp_path, "torch-tensorrt-rtx")
    assert flavours_here() == [FLAVOURS[1]]
    assert missing() is None
    assert FLAVOURS[1].rtx


def test_the_other_flavour(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    install(tmp_path, "torch-tensorrt")
    assert [str(flavour.engine) for flavour in flavours_here()] == ["tensorrt-cuda-fp16"]
    assert missing() is None
    assert not FLAVOURS[0].rtx


def test_both_flavours_are_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    install(tmp_path, "torch-tensorrt", "torch-tensorrt-rtx")
    assert missing() == "torch-tensorrt and torch-tensorrt-rtx overwrite each other: uninstall both, then install one"
    with pytest.raises(EngineFault, match="uninstall both"):
        TensorRtClassifier(read(SHIPPED), None)


def test_looking_for_it_imports_nothing():
    code = (
        "import sys; from deploy.tensorrt_engine import missing; missing();"
        "print(*sorted(name for name in sys.modules if 'tensorrt' in name))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["deploy.tensorrt_engine"]


def test_a_plan_that_is_kept_is_loaded_and_one_that_fails_is_made_again(tmp_path):
    cache, made = EngineCache(tmp_path / "engines"), []

    def make():
        made.append(f"plan {len(made)}".encode())
        return made[-1]

    def load(plan):
        return plan.decode() if plan != b"plan 0" or len(made) == 1 else None

    assert loaded(cache, {"gpu": "a"}, load, make) == "plan 0"
    assert loaded(cache, {"gpu": "a"}, load, make) == "plan 0"
    assert loaded(cache, {"gpu": "b"}, load, make) == "plan 1"
    assert loaded(cache, {"gpu": "a"}, load, make) == "plan 2"  # a new driver refuses the first
    assert loaded(cache, {"gpu": "a"}, load, make) == "plan 2"
    assert loaded(None, {"gpu": "a"}, load, make) == "plan 3"
    with pytest.raises(EngineFault, match="refuses its own engine on this GPU"):
        loaded(cache, {"gpu": "c"}, lambda plan: None, make)
    assert cache.get({"gpu": "c"}) is None


def test_a_disk_that_refuses_costs_nothing_but_the_next_build(tmp_path, caplog):
    cache = EngineCache(tmp_path / "engines")
    (tmp_path / "engines").rmdir()
    assert loaded(cache, {"gpu": "a"}, bytes.decode, lambda: b"plan") == "plan"
    assert "could not be kept" in caplog.text


def test_a_machine_without_a_driver_says_so():
    if not Path("/proc/driver/nvidia/version").exists():
        assert driver().startswith("CUDA ")
