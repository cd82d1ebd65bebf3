"""What lies beside a live curve: large files, slow ones, a share that does not answer, readers that are killed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from daemon.formats import limits
from daemon.formats.base import AWAY
from daemon.reading import FileReading
from daemon.reading.pool import ReaderPool
from daemon.sources import Arrival
from tests.faults.harness import CURVES
from tests.faults.lab import Lab, Share, put, share, until
from tests.makers import make_jpk_map
from tests.pace import allowed

_GIB = 1 << 30
_HEADS = {
    ".000": (CURVES / "fsas_mica_fz.000").read_bytes(),
    ".jpk-qi-data": (CURVES / "fmt-jpk-fd_2020.02.07-16.29.05.036.jpk-qi-data").read_bytes(),
    ".h5": b"\x89HDF\r\n\x1a\n",
    ".txt": b"# force\n1 2\n",
}


def sparse(folder: Path, name: str, size_bytes: int) -> Path:
    """A file of that size whose end is a hole, moved into the folder."""
    hidden = folder / f".{name}"
    with hidden.open("wb") as file:
        file.write(_HEADS[Path(name).suffix])
        file.truncate(size_bytes)
    return hidden.rename(folder / name)


def waited_s(lab: Lab, number: int, folder: Path | None = None, limit_s: float = 20.0) -> float:
    """How long one more live curve waits for its decision to be on disk."""
    name = put(folder or lab.watch, number).name
    return until(lambda: any(event["data"]["path"] == name for event in lab.history()), limit_s)


def readers_of(lab: Lab) -> list[int]:
    found = []
    for pid in lab.processes():
        with suppress(OSError):
            if b"daemon.reading.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("count", "name", "gib"),
    [(2, "big.000", 2), (2, "big.jpk-qi-data", 2), (2, "big.000", 8), (2, "big.txt", 20), (12, "big.h5", 60)],
    ids=["2-of-2-GB", "2-maps-of-2-GB", "2-of-8-GB", "2-texts-of-20-GB", "12-of-60-GB"],
)
def test_a_live_curve_does_not_wait_for_large_files(tmp_path: Path, count: int, name: str, gib: int) -> None:
    with Lab(tmp_path / "lab") as lab:
        waited_s(lab, 0)
        for number in range(count):
            sparse(lab.watch, f"{number}-{name}", gib * _GIB)
        waits_s = []
        for number in range(1, 9):
            waits_s.append(waited_s(lab, number))
            time.sleep(0.4)
        assert max(waits_s) < allowed(1.0), waits_s
        assert lab.pss_mb() < 450
        begun_s = time.monotonic()
        assert lab.stop() == 0
        assert time.monotonic() - begun_s < 8


@pytest.mark.timeout(120)
def test_what_cannot_be_read_for_its_size_is_answered_with_the_sha256_of_its_bytes(tmp_path: Path) -> None:
    with Lab(tmp_path / "lab") as lab:
        sparse(lab.watch, "big.h5", _GIB)
        lab.wait_decided(1, 90)
        (found,) = (event["data"] for event in lab.history())
    assert (found["path"], found["verdict"], found["reasons"]) == ("big.h5", "review", ["too_large"])
    digest = hashlib.sha256(_HEADS[".h5"])
    hole = bytes(1 << 20)
    left = _GIB - len(_HEADS[".h5"])
    while left:
        digest.update(hole[:left])
        left -= min(left, len(hole))
    assert found["sha256"] == digest.hexdigest()


def write_text(path: Path, rows: int, number: int) -> Path:
    distance = np.linspace(0.0, 1e-6, rows)
    lines = [f"{a:.9e}\t{b:.9e}\n" for a, b in zip(distance, np.sin(distance * 3e7) * 1e-10, strict=True)]
    path.write_text(f"# distance (m)\tforce (N)\n# {number}\n" + "".join(lines))
    return path


SLOW_TEXTS = [
    pytest.param(100, 30_000, id="100-of-1-MB"),
    pytest.param(12, 300_000, id="12-of-10-MB", marks=pytest.mark.long),
]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("count", "rows"), SLOW_TEXTS)
def test_a_live_curve_does_not_wait_for_slow_texts(tmp_path: Path, count: int, rows: int) -> None:
    with Lab(tmp_path / "lab") as lab:
        waited_s(lab, 0)
        stock = tmp_path / "stock"
        stock.mkdir()
        text = write_text(stock / "slow-0.txt", rows, 0).read_text()
        for number in range(1, count):
            (stock / f"slow-{number}.txt").write_text(text.replace("# 0\n", f"# {number}\n", 1))
        stock.rename(lab.watch / "texts")
        waits_s, number = [], 0
        until_s = time.monotonic() + 200
        while lab.count() < number + 1 + count and time.monotonic() < until_s:
            number += 1
            waits_s.append(waited_s(lab, number))
            time.sleep(0.2)
        assert max(waits_s) < allowed(1.0), waits_s
        paths = Counter(event["data"]["path"] for event in lab.history())
        assert len(paths) == count + number + 1
        assert set(paths.values()) == {1}


@pytest.mark.timeout(120)
def test_a_reader_that_is_stopped_or_killed_holds_up_nobody(tmp_path: Path) -> None:
    with Lab(tmp_path / "lab") as lab:
        waited_s(lab, 0)
        for turn in range(4):
            os.kill(readers_of(lab)[0], signal.SIGKILL if turn % 2 else signal.SIGSTOP)
            first = 10 * (turn + 1)
            for number in range(first, first + 6):
                put(lab.watch, number)
            lab.wait_decided(1 + 6 * (turn + 1), 10)  # also those that it held
            until(lambda: len(readers_of(lab)) >= 2, 10)
            time.sleep(1.0)
        paths = Counter(event["data"]["path"] for event in lab.history())
        reasons = {tuple(event["data"]["reasons"]) for event in lab.history()}
        assert len(paths) == 25
        assert set(paths.values()) == {1}
        assert not reasons & {("timeout",), ("crash",)}
        lab.stop()


def arrivals(folder: Path, numbers: range) -> list[Arrival]:
    paths = [put(folder, number) for number in numbers]
    return [Arrival("watch", path.name, path, size_bytes=path.stat().st_size, folder=str(folder)) for path in paths]


def gather(pool: ReaderPool, is_enough: Callable[[list[FileReading]], bool], limit_s: float) -> list[FileReading]:
    found: list[FileReading] = []
    until_s = time.monotonic() + limit_s
    while not is_enough(found):
        assert time.monotonic() < until_s, [(one.arrival.path, one.outcome, one.reason) for one in found]
        found += pool.collect(0.1)
    return found


@pytest.mark.smoke
@pytest.mark.timeout(120)
def test_a_share_that_stalls_in_the_readers_hands_holds_up_no_other_folder(tmp_path: Path) -> None:
    """At most one reader waits there; what it held comes back as away, and all is read when the share is back."""
    local = tmp_path / "local"
    local.mkdir()
    with share(tmp_path) as stalled, ReaderPool(2, limit_s=2.0, is_live=True) as pool:
        pool.submit(arrivals(local, range(2)))
        gather(pool, lambda found: len(found) == 2, 30)
        away = arrivals(stalled.point, range(100, 120))
        stalled.stall()
        pool.submit(away)
        begun_s = time.monotonic()
        pool.submit(arrivals(local, range(10, 20)))
        found = gather(pool, lambda found: sum(one.arrival.folder == str(local) for one in found) == 10, 10)
        assert time.monotonic() - begun_s < allowed(1.0)
        assert {one.outcome for one in found if one.arrival.folder == str(local)} == {"curves"}
        lost = [one for one in found if one.outcome == "unfinished"]
        lost += gather(pool, lambda found: len(lost) + len(found) >= 1, 20)  # which the kernel does not let go
        for number in range(30, 33):
            (one,) = arrivals(local, range(number, number + 1))
            begun_s = time.monotonic()
            pool.submit([one])
            (answer,) = gather(pool, lambda found: len(found) == 1, 5)
            assert answer.outcome == "curves"
            assert time.monotonic() - begun_s < allowed(1.0)
        assert [one.reason for one in lost] == [AWAY]
        assert sum(worker.seat.is_stuck for worker in pool._pool._workers) <= 1
        stalled.resume()
        pool.submit([one.arrival for one in lost])
        back = gather(pool, lambda found: len(found) >= 20, 20)
        assert {one.outcome for one in back} == {"curves"}
        assert sorted(one.arrival.path for one in back) == sorted(one.path for one in away)
        assert pool.in_flight == 0


@pytest.mark.timeout(120)
def test_closing_waits_for_no_reader_that_the_kernel_holds(tmp_path: Path) -> None:
    with share(tmp_path) as stalled:
        pool = ReaderPool(2, is_live=True)
        pool.submit(arrivals(stalled.point, range(2)))
        gather(pool, lambda found: len(found) == 2, 30)
        later = arrivals(stalled.point, range(10, 14))
        stalled.stall()
        pool.submit(later)
        time.sleep(1.0)
        begun_s = time.monotonic()
        pool.close()
        assert time.monotonic() - begun_s < allowed(2.5)
        stalled.resume()


@pytest.mark.timeout(180)
def test_a_stalled_share_costs_no_verdict_of_its_own_files_either(tmp_path: Path) -> None:
    """The whole service: the share stalls while its files are read, readers are killed meanwhile, it comes back."""
    local = tmp_path / "local"
    local.mkdir()
    with share(tmp_path) as stalled, Lab(tmp_path / "lab", watch=stalled.point, also=[local]) as lab:
        put(stalled.point, 0)
        waited_s(lab, 1, local)
        lab.wait_decided(2, 20)
        for number in range(100, 160):
            put(stalled.remote, number)
        until(lambda: lab.count() > 2, 40)  # its files are in the readers' hands
        stalled.stall()
        waits_s = []
        for number in range(10, 26):
            waits_s.append(waited_s(lab, number, local))
            if number % 5 == 0:
                os.kill(readers_of(lab)[-1], signal.SIGKILL)
            time.sleep(0.7)
        stalled.resume()
        lab.wait_decided(2 + 60 + 16, 60)
        paths = Counter((event["data"]["folder"], event["data"]["path"]) for event in lab.history())
        assert len(paths) == 78
        assert set(paths.values()) == {1}
        reasons = {event["data"]["path"]: event["data"]["reasons"] for event in lab.history()}
        assert not {path: why for path, why in reasons.items() if {"timeout", "vanished", "crash"} & set(why)}
        assert max(waits_s) < allowed(1.5), waits_s  # a killed reader of two is one of them


@pytest.mark.timeout(240)
@pytest.mark.parametrize("fault", ["its client dies", "it is unmounted"])
def test_a_share_that_goes_in_the_middle_of_a_large_map_costs_no_curve_of_it(tmp_path: Path, fault: str) -> None:
    """Large: more than is kept of it in memory, so that later curves are read from the share later."""
    content = make_jpk_map(300, points=70_000)
    assert len(content) > 2.2 * limits.SNAPSHOT_BYTES
    with share(tmp_path) as far, Lab(tmp_path / "lab", watch=far.point) as lab:
        (far.remote / "m.jpk-force-map").write_bytes(content)
        until(lambda: lab.count() >= 32, 60)
        if fault == "its client dies":
            far._client.kill()
            far._client.wait()
            time.sleep(5.0)
        subprocess.run(["umount", "-l", str(far.point)], check=True)
        time.sleep(5.0)
        assert lab.count() < 300
        back = Share(far.remote, far.point)
        try:
            lab.wait_decided(300, 60)
        finally:
            back.close()
        assert {tuple(event["data"]["reasons"]) for event in lab.history()} <= {("score",)}
        assert len({event["data"]["curve"] for event in lab.history()}) == len(lab.history()) == 300


@pytest.mark.timeout(120)
def test_a_service_whose_reader_is_stuck_ends_in_time(tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.mkdir()
    with share(tmp_path) as stalled, Lab(tmp_path / "lab", watch=stalled.point, also=[local]) as lab:
        put(stalled.point, 0)
        lab.wait_decided(1, 20)
        for number in range(100, 200):
            put(stalled.remote, number)
        until(lambda: lab.count() > 1, 40)
        stalled.stall()
        time.sleep(1.5)
        assert lab.process is not None
        begun_s = time.monotonic()
        lab.process.send_signal(signal.SIGTERM)
        try:
            until(lambda: lab.process is not None and lab.process.poll() is not None, 8.5)
        finally:
            stalled.resume()
        assert time.monotonic() - begun_s < 8.5
