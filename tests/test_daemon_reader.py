"""The reader pool with its real child processes: order, portions, and every way a file or a process can go wrong."""

from __future__ import annotations

import gzip
import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from makers import (
    a_retract,
    make_columns,
    make_ibw,
    make_ibw_pair,
    make_jpk,
    make_jpk_map,
    make_jpk_text,
    make_nanoscope,
)
from pace import allowed

from daemon.formats.afmcurve import pack
from daemon.formats.text_rule import from_mapping
from daemon.processes.child import launch
from daemon.reading import FileReading
from daemon.reading.ahead import Job, Piece, find, read_ahead, read_curves
from daemon.reading.pool import ReaderBroken, ReaderPool
from daemon.sources import Arrival, Ignored
from models.curve import Curve, Prepared
from models.frontend import prepare_to_judge
from models.raster import RasterProfile
from models.reasons import UNREADABLE

DATA = Path(__file__).resolve().parents[1] / "daemon" / "curves"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
MUTANTS = int(os.environ.get("AFM_TRIAGE_MUTANTS", "300"))
LONG_AGO_S = 1_000_000_000.0


def arrive(path: Path, content: bytes | None = None, *, final: bool = False, old: bool = True) -> Arrival:
    if content is not None:
        path.write_bytes(content)
        if old:
            os.utime(path, (LONG_AGO_S, LONG_AGO_S))
    return Arrival("test", path.name, path, size_bytes=path.stat().st_size, final=final)


def collect(pool: ReaderPool, count: int, limit_s: float = 20.0) -> list[FileReading]:
    """The next ``count`` readings."""
    found: list[FileReading] = []
    until_s = time.monotonic() + limit_s
    while len(found) < count and time.monotonic() < until_s:
        found += pool.collect(0.5)
    assert len(found) == count
    return found


def kill_in_mid_file(pool: ReaderPool, but: int = 0) -> int:
    """The process that has just begun to read."""
    worker, until_s = pool._pool._workers[0], time.monotonic() + 30
    while time.monotonic() < until_s:
        child, head = worker._child, next(iter(worker._tasks), None)
        is_another = child is not None and worker._is_ready and child.pid != but
        if is_another and child is not None and head is not None and worker._note.read(head.id):
            os.kill(child.pid, signal.SIGKILL)
            return child.pid
        time.sleep(0.002)
    raise AssertionError("nothing was read")


def reasons(reading: FileReading) -> list[str | None]:
    return [one.reason for one in reading.readings]


@pytest.fixture(scope="module")
def pool() -> Iterator[ReaderPool]:
    with ReaderPool(2) as shared:
        yield shared


def pids(pool: ReaderPool) -> list[int]:
    """Of its children, all of them ready."""
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s:
        workers = pool._pool._workers
        if all(worker._is_ready for worker in workers):
            return [worker._child.pid for worker in workers if worker._child is not None]
        time.sleep(0.01)
    raise AssertionError("the reader processes did not start")


def test_every_format_comes_through_the_pipe_unchanged(pool: ReaderPool, tmp_path: Path) -> None:
    force, _ = a_retract()
    deflection, position = make_ibw_pair()
    (tmp_path / "pairZSnsr.ibw").write_bytes(position)
    pair = replace(arrive(tmp_path / "pairDefl.ibw", deflection), companion=tmp_path / "pairZSnsr.ibw")
    files = {"a.jpk-force": make_jpk(), "a.000": make_nanoscope(), "a.ibw": make_ibw(), "a.txt": make_jpk_text()}
    pool.submit([pair, *(arrive(tmp_path / name, content) for name, content in files.items())])
    found = {reading.arrival.path: reading for reading in collect(pool, 5)}
    assert {name: reading.format for name, reading in found.items()} == {
        "pairDefl.ibw": "asylum",
        "a.jpk-force": "jpk",
        "a.000": "nanoscope",
        "a.ibw": "asylum",
        "a.txt": "text",
    }
    for reading in found.values():
        (one,) = reading.readings
        assert reading.outcome == "curves"
        assert one.curve is not None
        scale = 1.0 if one.curve.force_unit == "N" else 0.05
        np.testing.assert_allclose(one.curve.force * scale, force, atol=2e-12)
        assert one.read_s > 0
    import hashlib

    assert found["pairDefl.ibw"].readings[0].sha256 == hashlib.sha256(deflection + position).hexdigest()
    assert found["a.000"].readings[0].sha256 == hashlib.sha256(files["a.000"]).hexdigest()


def test_curves_come_prepared_as_the_service_itself_would_do_it(tmp_path: Path) -> None:
    profile = RasterProfile(columns=101, samples_per_column=3)  # odd, so that samples lie between multiples of eight
    (tmp_path / "m.jpk-force-map").write_bytes(make_jpk_map(5))
    open_sign = Curve(a_retract(400)[0], "N", notes=("sign_assumed",))
    (tmp_path / "open.afmcurve").write_bytes(pack(open_sign))
    arrivals = [*find([tmp_path]), *(arrival for arrival in find([DATA]) if arrival.path != "ORIGIN.md")]
    with ReaderPool(1, profile=profile) as pool:
        pool.submit(arrivals)
        found = [one for reading in collect(pool, len(arrivals), 60.0) for one in reading.readings]
    assert len(found) > len(arrivals)
    for one in found:
        assert one.curve is not None
        assert one.prepared is not None
        (here,) = prepare_to_judge([one.curve], profile)
        assert one.profile == profile
        assert is_alike(one.prepared, here)
    assert any(one.prepared is not None and one.prepared.flipped is not None for one in found)


def is_alike(one: Prepared | None, other: Prepared | None) -> bool:
    """To the bit, both ways."""
    if one is None or other is None:
        return one is other
    signals = [None if way.signal is None else way.signal.tobytes() for way in (one, other)]
    findings = [(way.reasons, way.noise, way.level, way.tilt, way.contact) for way in (one, other)]
    return signals[0] == signals[1] and findings[0] == findings[1] and is_alike(one.flipped, other.flipped)


def test_outcomes_follow_what_waiting_can_still_change(pool: ReaderPool, tmp_path: Path) -> None:
    whole, garbage = make_jpk(), b"PK\x03\x04" + bytes(100) + b"PK\x05\x06" + b"\xff" * 18
    cases = [
        (arrive(tmp_path / "cut.jpk-force", whole[:-100]), "unfinished", "truncated"),
        (arrive(tmp_path / "empty.jpk-force", b""), "unfinished", "empty"),
        (arrive(tmp_path / "fresh.jpk-force", garbage, old=False), "unfinished", "unreadable"),
        (arrive(tmp_path / "old.jpk-force", garbage), "curves", "unreadable"),
        (arrive(tmp_path / "final.jpk-force", whole[:-100], final=True), "curves", "truncated"),
        (arrive(tmp_path / "none.jpk-force", b"", final=True), "curves", "empty"),
        (arrive(tmp_path / "readme.txt", b"nothing to see\n"), "unclaimed", None),
        (replace(arrive(tmp_path / "gone.ibw", b"x"), final=True), "curves", "vanished"),
        (arrive(tmp_path / "halfDefl.ibw", make_ibw_pair()[0], final=True), "curves", "no_companion"),
    ]
    (tmp_path / "gone.ibw").unlink()
    pool.submit(arrival for arrival, _, _ in cases)
    found = {reading.arrival.path: reading for reading in collect(pool, len(cases))}
    for arrival, outcome, reason in cases:
        reading = found[arrival.path]
        assert reading.outcome == outcome, arrival.path
        assert (reading.reason or (reasons(reading) or [None])[0]) == reason, arrival.path
        if outcome == "curves" and reason != "vanished":
            assert reading.readings[0].sha256 is not None


def test_pipes_and_folders_are_refused_and_block_nobody(pool: ReaderPool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpk-force")
    (tmp_path / "folder.ibw").mkdir()
    began_s = time.monotonic()
    pool.submit([arrive(tmp_path / "pipe.jpk-force", final=True), arrive(tmp_path / "folder.ibw", final=True)])
    assert [reasons(reading) for reading in collect(pool, 2)] == [["unreadable"], ["unreadable"]]
    assert time.monotonic() - began_s < allowed(5)


def test_a_map_comes_in_portions_in_order(tmp_path: Path) -> None:
    (tmp_path / "m.jpk-force-map").write_bytes(make_jpk_map(70))
    (tmp_path / "z.jpk-force").write_bytes(make_jpk())
    (arrival, _) = find([tmp_path])
    with ReaderPool(1) as pool:
        found = [pool.read(arrival)]
        for first in (32, 64):
            found.append(pool.read(arrival.portion(first, found[0].readings[0].sha256, 70)))
    assert [(reading.total, [one.index for one in reading.readings]) for reading in found] == [
        (70, list(range(32))),
        (70, list(range(32, 64))),
        (70, list(range(64, 70))),
    ]
    for reading in found:
        for one in reading.readings:
            assert one.curve is not None
            np.testing.assert_allclose(one.curve.force, a_retract(128, one.index)[0], atol=5e-15)
    assert len({reading.readings[0].sha256 for reading in found}) == 1
    in_order = [(one.arrival.path, one.index) for one in read_curves(find([tmp_path]))]
    assert in_order == [*(("m.jpk-force-map", index) for index in range(70)), ("z.jpk-force", 0)]


def test_one_bad_curve_does_not_spoil_its_map(tmp_path: Path) -> None:
    path = tmp_path / "m.jpk-force-map"
    path.write_bytes(make_jpk_map(8, drop=["index/5/segments/1/channels/vDeflection.dat"]))
    assert [one.reason for one in read_curves(find([path]))] == [None] * 5 + ["no_force_channel"] + [None] * 2


def test_a_map_in_the_writing_waits_and_at_last_gives_what_it_has(pool: ReaderPool, tmp_path: Path) -> None:
    content = make_nanoscope(*a_retract(256), curves=6, sensor=False)
    half = content[: 8192 + 3 * 1024] + bytes(3 * 1024)
    arrival = arrive(tmp_path / "v.003", half)
    pool.submit([arrival])
    (reading,) = collect(pool, 1)
    assert (reading.outcome, reading.reason) == ("unfinished", "zero_tail")
    pool.submit([replace(arrival, final=True)])
    (reading,) = collect(pool, 1)
    assert reasons(reading) == [None] * 3 + ["zero_tail"] * 3


def test_one_bad_curve_of_a_map_costs_no_other(pool: ReaderPool, tmp_path: Path) -> None:
    name, bad = "index/3/segments/1/segment-header.properties", io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(make_jpk_map(6))) as good, zipfile.ZipFile(bad, "w") as damaged:
        for member in good.namelist():
            content = good.read(member)
            damaged.writestr(
                member, content.replace(b"num-points=128", b"num-points=nan") if member == name else content
            )
    pool.submit([arrive(tmp_path / "m.jpk-force-map", bad.getvalue())])
    assert reasons(collect(pool, 1)[0]) == [None] * 3 + ["unreadable"] + [None] * 2


def test_a_map_that_became_something_else_between_two_portions_still_gets_its_answers(tmp_path: Path) -> None:
    path = tmp_path / "m.spm"
    with ReaderPool(1) as pool:
        path.write_text("not a curve any more\n")
        arrival = arrive(path, path.read_bytes())
        pool.submit([arrival.portion(32, "0" * 64, 40)])
        (rest,) = collect(pool, 1)
    assert (rest.outcome, reasons(rest)) == ("curves", ["changed"] * 8)


def test_text_without_a_line_end_is_unfinished_until_waiting_has_no_point(tmp_path: Path) -> None:
    arrival = replace(arrive(tmp_path / "a.txt", make_columns(*a_retract())[:-1]), final=False)
    with ReaderPool(1) as pool:
        pool.submit([arrival])
        (first,) = collect(pool, 1)
        pool.submit([replace(arrival, final=True)])
        (last,) = collect(pool, 1)
    assert (first.outcome, first.reason) == ("unfinished", "unended")
    assert (last.outcome, reasons(last)) == ("curves", [None])
    assert "unended" not in UNREADABLE  # never the reason of an event


def test_a_file_that_grew_while_it_waited_for_its_turn_is_not_at_rest(pool: ReaderPool, tmp_path: Path) -> None:
    curve = Path(__file__).parents[1] / "daemon" / "curves" / "waite_set1_75.txt"
    text = tmp_path / "a.txt"
    rested = arrive(text, curve.read_bytes() + b"\n")
    assert pool.read(rested).outcome == "curves"
    text.write_bytes(text.read_bytes() + b"1e-9 1e-12\n")
    grown = pool.read(rested)
    assert (grown.outcome, grown.reason) == ("unfinished", "changed")
    assert pool.read(replace(rested, final=True)).outcome == "curves"


def test_a_map_that_changed_between_two_portions_is_said_to_have_changed(tmp_path: Path) -> None:
    path = tmp_path / "m.jpk-force-map"
    with ReaderPool(1) as pool:
        arrival = arrive(path, make_jpk_map(40))
        pool.submit([arrival])
        (first,) = collect(pool, 1)
        sha256 = first.readings[0].sha256
        assert sha256 is not None
        others = [arrive(tmp_path / f"{seed}.jpk-force-map", make_jpk_map(2, seed=seed)) for seed in (8, 9)]
        pool.submit(others)  # take the places in the cache
        collect(pool, 2)
        path.write_bytes(make_jpk_map(40, seed=3))
        pool.submit([arrival.portion(32, sha256, 40)])
        (rest,) = collect(pool, 1)
    assert reasons(rest) == ["changed"] * 8
    assert rest.readings[0].sha256 == sha256


def test_what_was_read_by_rules_that_no_longer_hold_is_read_again(tmp_path: Path) -> None:
    force, distance = a_retract()
    files = [tmp_path / f"{number}.csv" for number in range(20)]
    for file in files:
        file.write_bytes(make_columns(distance * 1e9, force * 1e12, separator=","))
    up, down = (from_mapping({"pattern": "*.csv", "pulling": pulling}) for pulling in ("positive", "negative"))
    with ReaderPool(1, rules=[up]) as pool:
        pool.submit(arrive(file) for file in files)
        while pool.ready < 5:
            time.sleep(0.01)
        pool.rules = [down]
        readings = collect(pool, len(files))
        assert pool.in_flight == 0
    assert sorted(reading.arrival.file for reading in readings) == sorted(files)
    for reading in readings:
        curve = reading.readings[0].curve
        assert curve is not None
        np.testing.assert_allclose(curve.force, -force * 1e12, rtol=1e-4)


def test_a_rule_that_comes_between_two_portions_loses_no_curve(tmp_path: Path) -> None:
    force, distance = a_retract(points=64)
    columns = [column for _ in range(40) for column in (distance * 1e9, force * 1e12)]
    file = tmp_path / "many.csv"
    file.write_bytes(make_columns(*columns, separator=","))
    names = ["distance", "force", *["-"] * 78]
    with ReaderPool(1) as pool:
        pool.submit([arrive(file)])
        (first,) = collect(pool, 1)
        assert (len(first.readings), first.total) == (32, 40)
        pool.rules = [from_mapping({"pattern": "*.csv", "columns": names})]
        pool.submit([first.arrival.portion(32, first.readings[0].sha256, first.total)])
        (rest,) = collect(pool, 1)
    assert [(one.index, one.reason) for one in rest.readings] == [(index, "changed") for index in range(32, 40)]


def test_files_beyond_the_limits_are_refused_quickly(pool: ReaderPool, tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "long.h5", "w") as file:
        file.create_dataset("0/force", shape=(10_000_000,), dtype="f4", chunks=(100_000,), fillvalue=1.0)
    wave = bytearray(make_ibw())
    cases = {
        "long.h5": None,
        "points.jpk-force": make_jpk(points_claimed=10_000_000),
        "bomb.jpk-force": make_jpk(extra={"segments/1/channels/vDeflection.dat": bytes(70 << 20)}),
        "big.txt": b"1.0 2.0\n" * 9_000_000,
        "many.000": make_nanoscope().replace(b"512 512", b"9999999 9999999"),
        "wave.ibw": bytes(wave[:4]) + (2**31 - 1).to_bytes(4, "little") + bytes(wave[8:]),
    }
    began_s = time.monotonic()
    pool.submit(arrive(tmp_path / name, content, final=True) for name, content in cases.items())
    found = {reading.arrival.path: reasons(reading)[0] for reading in collect(pool, len(cases))}
    assert found == {
        "long.h5": "too_long",
        "points.jpk-force": "too_long",
        "bomb.jpk-force": "bomb",
        "big.txt": "too_large",
        "many.000": "too_long",
        "wave.ibw": "too_large",
    }
    assert time.monotonic() - began_s < 10


def test_tiny_curves_and_nan_are_curves(pool: ReaderPool, tmp_path: Path) -> None:
    """The front-end judges them; a reader only reads."""
    force, distance = a_retract()
    force[100:110] = np.nan
    pool.submit(
        [
            arrive(tmp_path / "two.jpk-force", make_jpk(*a_retract(2))),
            arrive(tmp_path / "nan.ibw", make_ibw(force, distance)),
            arrive(tmp_path / "two.txt", make_columns(np.array([1.0, 2.0]), np.array([3.0, 4.0]))),
        ]
    )
    found = {reading.arrival.path: reading.readings[0].curve for reading in collect(pool, 3)}
    assert {name: len(curve) for name, curve in found.items() if curve is not None} == {
        "two.jpk-force": 2,
        "nan.ibw": 512,
        "two.txt": 2,
    }
    assert found["nan.ibw"] is not None
    assert int(np.isnan(found["nan.ibw"].force).sum()) == 10


def test_a_process_killed_once_costs_no_file(tmp_path: Path) -> None:
    """Whoever runs out of memory is killed by the system, whatever is to blame."""
    with ReaderPool(1) as pool:
        (victim,) = pids(pool)
        os.kill(victim, signal.SIGSTOP)
        pool.submit([arrive(tmp_path / "a.jpk-force", make_jpk())])
        time.sleep(0.1)
        os.kill(victim, signal.SIGKILL)
        assert reasons(collect(pool, 1)[0]) == [None]


def test_a_file_that_two_processes_died_of_is_a_crash_and_costs_no_other(tmp_path: Path) -> None:
    slow = arrive(tmp_path / "slow.txt", make_columns(*(np.linspace(0.0, 1.0, 200_000),) * 2))
    others = [arrive(tmp_path / f"{i}.jpk-force", make_jpk(*a_retract(seed=i))) for i in range(3)]
    with ReaderPool(1) as pool:
        pool.submit([slow, *others])
        first = kill_in_mid_file(pool)
        assert kill_in_mid_file(pool, but=first) != first
        found = {reading.arrival.path: reasons(reading) for reading in collect(pool, 4)}
        assert pool.in_flight == 0
    assert found == {"slow.txt": ["crash"], **{f"{i}.jpk-force": [None] for i in range(3)}}


def test_small_files_that_are_read_together_pay_for_none_of_them(tmp_path: Path) -> None:
    """What a process was lost to with several files in its hands is asked for file by file."""
    rows = gzip.compress(b"# distance (m)\tforce (N)\n" + b"1.0e-6\t2.0e-9\n" * 1_000_000)
    texts = [arrive(tmp_path / f"{i}.txt.gz", rows if i == 5 else make_columns(*a_retract(seed=i))) for i in range(16)]
    with ReaderPool(1, limit_s=0.6) as pool:
        (victim,) = pids(pool)
        os.kill(victim, signal.SIGSTOP)
        pool.submit(texts)
        assert pool.in_flight == 16
        while not (held := pool._pool._workers[0]._tasks):
            time.sleep(0.002)
        assert held[0].counts == 4
        os.kill(victim, signal.SIGKILL)
        found = {reading.arrival.path: reasons(reading) for reading in collect(pool, 16)}
        assert pool.in_flight == 0
    assert found == {**{f"{i}.txt.gz": [None] for i in range(16)}, "5.txt.gz": ["timeout"]}


def test_a_process_killed_while_idle_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    with ReaderPool(1) as pool:
        (victim,) = pids(pool)
        os.kill(victim, signal.SIGKILL)
        pool.submit([arrive(tmp_path / "a.jpk-force", make_jpk())])
        (reading,) = collect(pool, 1)
    assert reasons(reading) == [None]


def test_a_hung_process_is_ended_at_its_limit_and_its_file_read_by_the_next(tmp_path: Path) -> None:
    with ReaderPool(1, limit_s=1.0) as pool:
        (victim,) = pids(pool)
        os.kill(victim, signal.SIGSTOP)
        began_s = time.monotonic()
        pool.submit(arrive(tmp_path / f"{i}.jpk-force", make_jpk()) for i in range(2))
        found = {reading.arrival.path: reasons(reading) for reading in collect(pool, 2)}
        assert found == {"0.jpk-force": [None], "1.jpk-force": [None]}
        assert 0.9 < time.monotonic() - began_s < 15


def test_a_file_that_takes_too_long_twice_is_a_timeout(tmp_path: Path) -> None:
    with ReaderPool(1, limit_s=0.1) as pool:
        pids(pool)
        pool.submit([arrive(tmp_path / "slow.txt", make_columns(*(np.linspace(0.0, 1.0, 200_000),) * 2))])
        assert reasons(collect(pool, 1)[0]) == ["timeout"]


def test_a_slow_file_holds_back_nothing_that_came_after_it(tmp_path: Path) -> None:
    with ReaderPool(2, limit_s=4.0) as pool:
        stopped = pids(pool)[0]
        os.kill(stopped, signal.SIGSTOP)
        began_s = time.monotonic()
        pool.submit(arrive(tmp_path / f"{i}.jpk-force", make_jpk()) for i in range(10))
        quick = collect(pool, 9)
        assert time.monotonic() - began_s < allowed(3.5)
        assert [reasons(reading) for reading in quick] == [[None]] * 9
        os.kill(stopped, signal.SIGCONT)
        (slow,) = collect(pool, 1)
    assert reasons(slow) == [None]


def test_the_caller_can_sleep_until_it_is_woken(tmp_path: Path) -> None:
    bell = threading.Event()
    with ReaderPool(1, wake=bell.set) as pool:
        assert pool.collect(0.0) == []
        pool.submit([arrive(tmp_path / "a.jpk-force", make_jpk())])
        assert pool.in_flight == 1
        assert bell.wait(30)
        assert len(pool.collect()) == 1


def test_whole_files_go_before_later_portions(tmp_path: Path) -> None:
    with ReaderPool(1) as pool:
        arrival = arrive(tmp_path / "m.jpk-force-map", make_jpk_map(70))
        pool.submit([arrival])
        (first,) = collect(pool, 1)
        sha256 = first.readings[0].sha256
        assert sha256 is not None
        os.kill(pids(pool)[0], signal.SIGSTOP)
        singles = [arrive(tmp_path / f"{i}.jpk-force", make_jpk()) for i in range(4)]
        pool.submit([arrival.portion(32, sha256, 70), arrival.portion(64, sha256, 70), *singles])
        os.kill(pids(pool)[0], signal.SIGCONT)
        order = [reading.arrival.path for reading in collect(pool, 6)]
    assert sorted(order[:4]) == [single.path for single in singles]


def test_closing_ends_every_child(tmp_path: Path) -> None:
    pool = ReaderPool(2)
    children = pids(pool)
    pool.close()
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_ctrl_c_does_not_reach_a_child_that_is_just_starting() -> None:
    """It goes to the whole process group of the terminal, and a child that still loads would end in a traceback."""
    child = launch([sys.executable, "-c", "import time; time.sleep(60)"], {})
    try:
        assert os.getpgid(child.process.pid) != os.getpgid(0)
    finally:
        child.end()


def test_children_die_with_the_service(tmp_path: Path) -> None:
    """Also when it is killed while one of them is stuck in a file."""
    program = (
        "import os, signal, sys, time\n"
        "from daemon.reading.pool import ReaderPool\n"
        "pool = ReaderPool(1)\n"
        "worker = pool._pool._workers[0]\n"
        "while not worker._is_ready: time.sleep(0.01)\n"
        "print(worker._child.pid, flush=True); time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as service:
        assert service.stdout is not None
        child = int(service.stdout.readline())
        os.kill(child, signal.SIGSTOP)
        service.kill()
        service.wait()
    until_s = time.monotonic() + 5
    while time.monotonic() < until_s and _is_alive(child):
        time.sleep(0.02)
    assert not _is_alive(child)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_reader_process_has_no_torch_little_memory_and_one_thread() -> None:
    with ReaderPool(1) as pool:
        (pid,) = pids(pool)
        maps = Path(f"/proc/{pid}/maps").read_text()
        status = Path(f"/proc/{pid}/status").read_text()
        limits = Path(f"/proc/{pid}/limits").read_text()
    assert "torch" not in maps
    resident_kb = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert resident_kb < 150_000
    assert "Threads:\t1\n" in status
    assert next(line for line in limits.splitlines() if "address space" in line).split()[3] == str(2 << 30)


def test_processes_that_cannot_start_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with ReaderPool(1) as pool, pytest.raises(ReaderBroken):
        pool.collect(30)


def test_a_warm_round_trip_is_short(pool: ReaderPool, tmp_path: Path) -> None:
    arrival = arrive(tmp_path / "a.jpk-force", make_jpk(*a_retract(4096)))
    best_s = float("inf")
    for _ in range(20):
        began_s = time.monotonic()
        pool.submit([arrival])
        collect(pool, 1)
        best_s = min(best_s, time.monotonic() - began_s)
    assert best_s < allowed(0.015)


def _mutate(content: bytes, kind: str, rng: random.Random) -> bytes:
    changed = bytearray(content)
    at = rng.randrange(len(changed))
    if kind == "cut":
        return bytes(changed[:at])
    if kind == "zero":
        changed[at:] = bytes(len(changed) - at)
    elif kind == "flip":
        for _ in range(rng.choice([1, 20, 400])):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    elif kind == "junk":
        changed += rng.randbytes(rng.randrange(1, 3000))
    elif kind == "header":
        at = rng.randrange(min(len(changed), 4000))
        changed[at : at + 40] = rng.randbytes(40)
    return bytes(changed)


def test_mutants_of_real_files_end_as_curves_or_with_a_reason(tmp_path: Path) -> None:
    """No crash, no hang, and what was cut is never a curve where the format can tell (2,000: AFM_TRIAGE_MUTANTS)."""
    sources = [path for path in sorted(DATA.iterdir()) if path.suffix != ".md"]
    if SHARED.exists():
        sources += [p for p in sorted((SHARED / "open" / "formats").iterdir()) if p.stat().st_size < 600_000]
        sources += sorted((SHARED / "open" / "hooke_picoforce_000").iterdir())[:4]
    rng = random.Random(20261121)
    arrivals = []
    for number in range(MUTANTS):
        path, kind = rng.choice(sources), rng.choice(["cut", "zero", "flip", "junk", "header", "empty"])
        content = b"" if kind == "empty" else _mutate(path.read_bytes(), kind, rng)
        arrivals.append(arrive(tmp_path / f"{number}_{kind}_{path.name}", content, final=True))
    ignored, answered = Ignored(), set()
    for item in read_ahead(map(Job, arrivals), workers=2, ignored=ignored):
        assert isinstance(item, Piece)
        one, path = item.reading, item.reading.arrival.path
        answered.add(path)
        assert (one.curve is None) == (one.reason in UNREADABLE)
        assert one.reason not in ("crash", "timeout"), path
        if "_cut_" in path and one.format in ("jpk", "nanoscope", "hdf5", "afmcurve"):
            assert one.curve is None, path
    assert len(answered) + ignored.total == MUTANTS
    assert ignored.total < 0.15 * MUTANTS
