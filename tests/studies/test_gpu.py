"""The study of a GPU, tried where there is none: every part runs, and says what it could not measure."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from modelhelp import make_model

from daemon.learn.int8 import PreparedCurves
from deploy.classifier import EngineId, Seen
from deploy.tensorrt_engine import flavours_here
from tests.studies import gpu_pack
from tests.studies.__main__ import main as study
from tests.studies.gpu import apart, write_page, write_text
from tests.studies.gpu_faulty import CAUSES, CUDA, MAGIC, Faulty
from tests.studies.gpu_parts import Session, rescore

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(240)  # seven parts, each in a process of its own; on busy cores they take minutes
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What the study wrote and printed."""
    folder = tmp_path_factory.mktemp("gpu")
    make_model(folder / "model")
    out = folder / "gpu.json"
    options = ["--device", "cpu", "--model", str(folder / "model"), "--simulate", "16", "--rescore", "600"]
    command = [sys.executable, "-m", "tests.studies", "gpu", *options, "--seconds", "0.01", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text()), done.stdout


def test_the_raster_is_compared_bit_by_bit(told):
    raster = told[0]["raster"]
    assert raster["curves"] > 40
    assert raster["envelopes_differ"] == 0
    assert 0 <= raster["row_error"] <= raster["row_error_allowed"]  # none at all on some processors
    assert set(raster["microseconds"]) == {"1", "8", "64", "256"}
    assert all(figure > 0 for cost in raster["microseconds"].values() for figure in cost.values())


def test_engines_are_timed_and_their_verdicts_compared(told):
    (engine,) = told[0]["engines"].values()
    assert engine["engine"] == "torch-cpu-fp32"
    assert engine["bucket_difference"] < 1e-4
    for size, speed in engine["batches"].items():
        assert 0 < speed["p50_ms"] <= speed["p99_ms"]
        assert speed["per_s"] == pytest.approx(1000 * int(size) / speed["p50_ms"], rel=0.05)
        assert 0 < speed["raster_share"] < 1
    verdicts = told[0]["verdicts"]["step by step"]
    assert verdicts["selftest"].startswith("passed")
    assert verdicts["in_service"]["changes"] == []
    assert told[0]["verdicts"]["real"] >= 30
    assert 0 < told[0]["verdicts"]["half precision"]["alone"]["largest_difference"] < 0.03


def test_as_many_curves_are_judged_again_as_were_asked_for(told):
    rescore = told[0]["rescore"]
    assert rescore["curves"] == 600
    assert rescore["bytes"] == 600 * 128 * 4
    assert rescore["step by step"]["alone_s"] > 0


def test_a_second_engine_takes_over_from_the_first(told):
    swap = told[0]["swap"]
    assert swap["engine"].startswith("torch-cpu")
    assert swap["answers"] >= 2
    assert swap["by_fallback"] == 0


def test_a_broken_process_is_replaced(told):
    (died,) = told[0]["faults"].values()
    assert died["answered_s"] < 5
    assert died["by"] == "torch-cpu-fp32"
    assert died["same_verdicts"]
    assert died["same_bits_again"]
    assert died["back_s"] > died["pause_s"]
    assert died["faults"] == {"died": 1}


def test_what_needs_a_gpu_says_so(told):
    found, text = told
    assert found["plans"] == {"skipped": "no GPU"}
    assert "plans: skipped: no GPU" in text
    for words in ("0 envelopes differ in any bit", "raster", "with the second look", "swap at 200", "real faults"):
        assert words in text


def test_the_table_tells_of_failures_and_of_a_gpu_too():
    found = {
        "machine": {"gpu": "H100"},
        "raster": {"failed": "AcceleratorError: CUDA error: unknown error"},
        "engines": {"TensorRT": {"failed": "device_lost: refused"}},
        "verdicts": {"curves": 5, "real": 1, "TensorRT": {"failed": "device_lost: refused"}},
        "rescore": {"curves": 5, "bytes": 10, "TensorRT": {"failed": "device_lost: refused"}},
        "plans": {
            "library": "tensorrt_rtx 1.4",
            "accepted": False,
            "bytes": 1_900_000,
            "build_s": 1.0,
            "load_s": 0.1,
            "refit": {"tensors": 42, "refit_s": 0.01, "done": True},
        },
        "faults": {"wedged": {"failed": "died: gone"}},
    }
    text = write_text(found)
    assert "raster: failed: AcceleratorError" in text
    assert text.count("device_lost: refused") == 3
    assert "accepts this GPU: NO" in text
    assert "42 tensors in 0.010 s" in text
    assert "died: gone" in text


def test_an_engine_that_fails_hides_no_other(tmp_path):
    def broken():
        raise ImportError("libnvinfer.so.10: cannot open shared object file")

    class Two(Session):
        def makers(self):
            return {"TensorRT": broken, **Session.makers(self)}

    noted = []
    bundle = make_model(tmp_path / "model")
    signals = tuple(np.random.default_rng(0).normal(0, 3, (4, 128)).astype(np.float32))
    curves = PreparedCurves(("a", "b", "c", "d"), signals, ((),) * 4, 0)
    found = rescore(Two(bundle, "cpu", curves, 0.01, 10, tmp_path / "engines"), noted.append)
    assert found["TensorRT"] == {"failed": "ImportError: libnvinfer.so.10: cannot open shared object file"}
    assert found["step by step"]["alone_s"] > 0


def hangs(note):
    """As a wedged kernel: something was found, then nothing more, and a process of its own is left."""
    note({"TensorRT": {"failed": "device_lost: refused"}, "child": subprocess.Popen(["sleep", "60"]).pid})
    time.sleep(60)


def test_a_part_that_hangs_is_ended_with_its_children_and_what_it_had_found_is_kept(tmp_path):
    begun_s = time.monotonic()
    found = apart(hangs, 0.8, tmp_path)
    assert time.monotonic() - begun_s < 20
    assert found["failed"] == "not done within 1 s"
    assert found["TensorRT"] == {"failed": "device_lost: refused"}
    state = Path(f"/proc/{found['child']}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_a_library_that_ends_the_process_ends_only_its_part(tmp_path):
    assert apart(lambda _: os.kill(os.getpid(), signal.SIGKILL), 20, tmp_path) == {
        "failed": "its process was ended by SIGKILL"
    }
    assert apart(lambda _: {"curves": 3}, 20, tmp_path) == {"curves": 3}  # and the next one begins anew


def test_a_page_names_card_driver_and_command():
    machine = {"torch": "2.11.0", "gpu": "NVIDIA H200", "capability": "9.0", "driver": "580.1"}
    found = {"machine": machine, "time": "2026-12-05", "raster": {"failed": "not done within 30 s"}}
    page = write_page(found, "python -m tests.studies gpu")
    assert page.startswith(
        "# The network on NVIDIA H200, 2026-12-05\n\nCard NVIDIA H200 (capability 9.0), driver 580.1."
    )
    assert "    $ python -m tests.studies gpu\n" in page
    assert "    raster: failed: not done within 30 s\n" in page


@pytest.fixture
def packed(tmp_path):
    """A pack for this Python, which holds one module and no TensorRT."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "there.py").write_text("")
    gpu_pack._write(tmp_path / gpu_pack.PACK, tmp_path / "site")
    told = {"python": f"3.{sys.version_info.minor}", "sha256": gpu_pack._digest(tmp_path / gpu_pack.PACK)}
    (tmp_path / gpu_pack.TELLS).write_text(json.dumps(told))
    return tmp_path


def test_a_pack_is_unpacked_and_the_study_run_in_one_command(packed, capfd):
    out, trial = packed / "out", ["--device", "cpu", "--simulate", "1", "--only", "plans"]
    assert gpu_pack.main(["--run", str(packed), str(out), *trial]) == 0
    assert capfd.readouterr().out.startswith("unpacked in ")
    assert json.loads((out / "gpu.json").read_text())["plans"] == {"skipped": "no GPU"}
    page = (out / "gpu.md").read_text()
    assert "**No GPU was there**" in page
    assert "    $ python -m tests.studies gpu --device cpu --simulate 1 --only plans\n" in page


def test_a_damaged_pack_or_one_for_another_python_is_refused(packed, capsys):
    (packed / gpu_pack.PACK).write_bytes(b"cut off")
    assert gpu_pack.main(["--run", str(packed), str(packed)]) == 65
    assert "copy it again" in capsys.readouterr().out
    (packed / gpu_pack.TELLS).write_text('{"python": "2.7", "sha256": ""}')
    assert gpu_pack.main(["--run", str(packed), str(packed)]) == 65
    assert "pack again with --python 3." in capsys.readouterr().out


@no_gpu
def test_without_a_gpu_it_asks_for_one(capsys):
    assert study(["gpu"]) == 69
    assert "there is no NVIDIA GPU" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--simulate", "0"], ["--rescore", "0"], ["--seconds", "0"], ["--seed", "-1"]])
def test_nonsense_is_refused(option, capsys):
    assert study(["gpu", "--device", "cpu", *option]) == 64
    assert "--simulate and --rescore" in capsys.readouterr().err


def test_only_the_magic_batch_breaks_the_device(monkeypatch):
    class Plain:
        engine, model_id = EngineId("torch", "cpu", "fp32"), "m"

        def classify(self, signals):
            return Seen(np.zeros(len(signals)), np.zeros((len(signals), 2, 4), np.float32))

    broken = []
    monkeypatch.setitem(CAUSES, "died", lambda: broken.append(1))
    faulty = Faulty(Plain(), "died")
    assert faulty.classify([np.zeros(8, np.float32)]).logits.shape == (1,)
    assert faulty.classify([]).logits.shape == (0,)
    assert not broken
    faulty.classify([np.full(8, MAGIC, np.float32)])
    assert broken
    assert set(CUDA) == set(CAUSES)


def test_it_says_which_flavours_are_here(told):
    names = ", ".join(flavour.distribution for flavour in flavours_here())
    assert told[0]["machine"]["torch-tensorrt"] == (names or "not installed")
