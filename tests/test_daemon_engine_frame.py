"""The frames between processes, what the engine process answers, and how long a lost device is left alone."""

from __future__ import annotations

import json
import math
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modelhelp import make_model
from pace import allowed

from daemon.engine import EngineTimeouts
from daemon.engine.worker import RequestHandler
from daemon.processes import frames

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def soon() -> float:
    return time.monotonic() + 0.2


def test_arrays_come_back_as_they_went(pair: Pair) -> None:
    arrays = [
        np.arange(6, dtype=np.float32).reshape(1, 2, 3),
        np.zeros(0, np.float32),
        np.array([1.5, np.nan]),
        np.zeros((0, 4)),
    ]
    frames.send(pair[0], {"ask": "classify"}, arrays)
    header, found = frames.receive(pair[1], soon())
    assert header == {"ask": "classify"}
    for sent, got in zip(arrays, found, strict=True):
        assert (got.dtype, got.shape) == (sent.dtype, sent.shape)
        np.testing.assert_array_equal(got, sent)


@pytest.mark.parametrize("name", ["curve.jpk-force", "Kürve.jpk-force", "\udcff.jpk-force"])
def test_a_header_comes_back_as_it_went_whatever_the_bytes_of_a_name(pair: Pair, name: str) -> None:
    header = {"file": name, "noise": np.float64(0.1), "tilt": 5e-324, "tip": (1.0, None), "none": None, "is": True}
    frames.send(pair[0], {**header, "bad": math.nan}, [np.arange(3.0)])
    found, (array,) = frames.receive(pair[1], soon())
    assert math.isnan(found.pop("bad"))
    assert found == {**header, "tip": [1.0, None]}
    np.testing.assert_array_equal(array, np.arange(3.0))


def test_a_frame_may_only_hold_as_much_as_is_allowed(pair: Pair) -> None:
    for _ in range(2):
        frames.send(pair[0], {}, [np.zeros(100)])
    frames.receive(pair[1], soon(), 800)
    with pytest.raises(EOFError, match="too large"):
        frames.receive(pair[1], soon(), 799)


def test_silence_ends_and_so_does_a_listener_that_does_not_listen(pair: Pair) -> None:
    begun_s = time.monotonic()
    with pytest.raises(TimeoutError):
        frames.receive(pair[1], soon())
    with pytest.raises(TimeoutError):
        frames.send(pair[0], {}, [np.zeros(10_000_000, np.float32)], soon())
    assert time.monotonic() - begun_s < allowed(2.0)


def frame(header: Any, payload_bytes: int) -> bytes:
    line = json.dumps(header).encode()
    return struct.pack("<IQ", len(line), payload_bytes) + line + bytes(payload_bytes)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01",
        struct.pack("<IQ", 1 << 31, 0),
        struct.pack("<IQ", 2, 1 << 40) + b"{}",
        struct.pack("<IQ", 4, 0) + b"nope",
        frame([], 0),
        frame({}, 0),
        frame({"arrays": 1}, 0),
        frame({"arrays": [1]}, 0),
        frame({"arrays": [["|O", [1]]]}, 8),
        frame({"arrays": [["<f4", [9]]]}, 4),
        frame({"arrays": [["<f4", [-1]]]}, 8),
        frame({"arrays": [["<f4", ["1"]]]}, 4),
        frame({"arrays": [["<f4", [1 << 40, 1 << 40]]]}, 4),
    ],
)
def test_what_is_no_frame_ends_the_connection(pair: Pair, content: bytes) -> None:
    pair[0].sendall(content)
    pair[0].close()
    with pytest.raises(EOFError):
        frames.receive(pair[1], soon())


def test_the_engine_process_says_what_is_wrong_and_with_what(tmp_path: Path) -> None:
    handler, bundle = RequestHandler(), make_model(tmp_path / "small")
    assert handler.answer({"ask": "classify", "lengths": []}, [np.zeros(0, np.float32)])[0]["fault"] == "died"
    wish = {"device": "cpu", "engine": "torch", "precision": "fp32", "threads": 1, "cache": None}
    request = {"ask": "build", "engine": "torch", "folder": str(bundle.folder), "model": bundle.id, "wish": wish}
    assert handler.answer(request, [])[0]["engine"] == "torch-cpu-fp32"
    said, results = handler.answer({"ask": "classify", "lengths": [500, 600]}, [np.ones(1100, np.float32)])
    assert said.keys() == {"raster_s"}
    assert [one.shape for one in results] == [(2,), (2, 2, bundle.profile.columns)]
    assert "refused" in handler.answer({"ask": "classify", "lengths": [3]}, [np.ones(3, np.float32)])[0]
    assert "no manifest.json" in handler.answer({**request, "folder": str(tmp_path)}, [])[0]["refused"]
    assert "holds" in handler.answer({**request, "model": "other"}, [])[0]["refused"]


def test_a_lost_device_is_tried_after_5_s_then_ever_more_rarely() -> None:
    pauses_s = [EngineTimeouts().pause_s(faults) for faults in (1, 2, 3, 7, 8, 1000)]
    assert pauses_s == [5.0, 10.0, 20.0, 320.0, 600.0, 600.0]
