"""Where OpenVINO serves, nobody pays for torch: not at the start, not for a curve, not for another model."""

from __future__ import annotations

import signal
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from modelhelp import make_model

from daemon.client.service_file import TemporaryService
from tests.faults.harness import Producer, history

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")


def libraries_of(trial: TemporaryService) -> str:
    assert trial.process is not None
    return Path(f"/proc/{trial.process.pid}/maps").read_text()


def decided(trial: TemporaryService, count: int) -> list[dict]:  # type: ignore[type-arg]
    deadline_s = time.monotonic() + 30
    while len(found := history(trial)) < count:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    return found


def test_the_service_never_loads_torch(tmp_path: Path) -> None:
    make_model(tmp_path / "other")
    config = tmp_path / "lab.toml"
    config.write_text('model = "shipped"\n')
    with TemporaryService(tmp_path / "trial", options=("--config", str(config))) as trial:
        producer = Producer(trial.watch)
        producer.write()
        decided(trial, 1)
        config.write_text(f'model = "{tmp_path / "other"}"\n')
        assert trial.process is not None
        trial.process.send_signal(signal.SIGHUP)
        deadline_s = time.monotonic() + 30
        while not decided(trial, 1)[-1]["data"]["model"].startswith("small-"):
            assert time.monotonic() < deadline_s
            producer.write()
            time.sleep(0.2)
        assert all(event["data"]["engine"].startswith("openvino-cpu-") for event in history(trial))
        assert "libopenvino" in libraries_of(trial)
        assert "libtorch" not in libraries_of(trial)
