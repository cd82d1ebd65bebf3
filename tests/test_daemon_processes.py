"""The kit for child processes: how one is spawned, limited, spoken to and ended, and what a pool makes of its loss."""

from __future__ import annotations

import ast
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pace import allowed

from daemon.processes import frames, worker_pool
from daemon.processes.child import Note, launch, spawn
from daemon.processes.lanes import Task
from daemon.processes.worker_pool import WorkerPool, WorkersBroken

ROOT = Path(__file__).resolve().parents[1]
#: Answers every request with what it was asked; "hang" and "die" it does first.
ECHO = """
import os, sys, time
from daemon.processes import frames
from daemon.processes.child import Note, serving

with serving(int(sys.argv[1])) as connection:
    note = Note(int(sys.argv[2]))
    frames.send(connection, {"ready": True})
    while True:
        request, arrays = frames.receive(connection)
        note.write(request["id"], f"{request['number']:064d}")
        if "log" in request:
            with open(request["log"], "a") as log:
                print(request["number"], file=log)
        time.sleep(request.get("hang", 0))
        if request.get("die"):
            os.kill(os.getpid(), request["die"])
        frames.send(connection, {"id": request["id"], "number": request["number"]}, arrays)
"""


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "echo_worker.py").write_text(ECHO)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "echo_worker"


def numbers(count: int, **words: Any) -> Iterator[frames.Header]:
    return ({"number": number, **words} for number in range(count))


def pid_of(pool: WorkerPool, place: int = 0) -> int:
    until_s = time.monotonic() + 30
    while not pool._workers[place]._is_ready:
        assert time.monotonic() < until_s
        time.sleep(0.01)
    child = pool._workers[place]._child
    assert child is not None
    return child.pid


def test_answers_come_in_the_order_of_the_requests(echo: str) -> None:
    with WorkerPool(echo, 3) as pool:
        requests = ({**one, "hang": 0.02 * (one["number"] % 3)} for one in numbers(40))
        assert [header["number"] for header, _ in pool.map(requests)] == list(range(40))
        assert pool.in_flight == 0


def test_requests_are_made_only_a_little_ahead(echo: str) -> None:
    made = []

    def requests() -> Iterator[frames.Header]:
        for one in numbers(100):
            made.append(one)
            yield one

    with WorkerPool(echo, 2) as pool:
        for count, _ in enumerate(pool.map(requests()), start=1):
            assert len(made) <= count + 8


@pytest.mark.parametrize(("slow_s", "most"), [(math.inf, 6), (0.05, 12)])
def test_only_where_a_pool_says_what_is_slow_is_a_request_worked_on_twice(
    echo: str, tmp_path: Path, slow_s: float, most: int
) -> None:
    """A process that has been given a request works on it, also after the pool has given it to another."""
    with WorkerPool(echo, 2, slow_s=slow_s) as pool:
        log = tmp_path / "log"
        assert len(list(pool.map(numbers(6, hang=0.15, log=str(log))))) == 6
    worked_on = log.read_text().split()
    assert 6 <= len(worked_on) <= most
    assert slow_s == math.inf or len(worked_on) > 6


def test_a_row_is_ended_by_the_loss_of_a_process_and_the_next_one_is_not(echo: str) -> None:
    with WorkerPool(echo, 2) as pool:
        with pytest.raises(WorkersBroken, match=f"a worker process ended by signal {signal.SIGKILL:d}"):
            list(pool.map(numbers(9, die=signal.SIGKILL)))
        assert len(list(pool.map(numbers(9)))) == 9


def test_a_process_that_hangs_ends_a_row(echo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "_SILENCE_S", 0.5)
    with WorkerPool(echo, 1) as pool:
        with pytest.raises(WorkersBroken, match=r"has said nothing for 0\.5 s"):
            list(pool.map(numbers(2, hang=60)))
        assert len(list(pool.map(numbers(2)))) == 2


def test_kill_9_of_any_worker_at_any_moment_loses_no_task(echo: str) -> None:
    with WorkerPool(echo, 2) as pool:
        tasks = [Task(one, limit_s=20.0, tries=100) for one in numbers(400, hang=0.005)]
        pool.submit(tasks)
        done: list[Task] = []
        for turn in range(12):
            if turn % 3:  # else also while it starts
                pid_of(pool, turn % 2)
            time.sleep(0.01 * turn)
            if child := pool._workers[turn % 2]._child:
                os.kill(child.pid, signal.SIGKILL)
            done += pool.collect()
        until_s = time.monotonic() + 40
        while len(done) < len(tasks) and time.monotonic() < until_s:
            done += pool.collect(0.5)
    assert sorted(task.id for task in done) == [task.id for task in tasks]
    assert all(task.answer and task.answer["number"] == task.request["number"] for task in tasks)


def test_what_a_lost_process_had_noted_is_known(echo: str) -> None:
    with WorkerPool(echo, 1) as pool:
        lost = Task({"number": 7, "die": signal.SIGSEGV}, limit_s=20.0)
        pool.submit([lost])
        while not pool.collect(0.5):
            pass
    assert (lost.failure, lost.last_words, lost.noted) == ("crash", "ended by signal 11", f"{7:064d}")


def test_tasks_that_come_last_wait_for_all_others(echo: str) -> None:
    with WorkerPool(echo, 1) as pool:
        pid_of(pool)
        pool.submit([Task({"number": 0, "hang": 0.2}, 20.0), Task({"number": 0}, 20.0)])
        time.sleep(0.05)  # these two are with the process
        pool.submit([Task({"number": 2}, 20.0, comes_last=True), Task({"number": 1}, 20.0)])
        done: list[Task] = []
        while len(done) < 4:
            done += pool.collect(0.5)
    assert [task.request["number"] for task in done] == [0, 0, 1, 2]


def test_ending_a_child_wakes_whoever_waits_for_it() -> None:
    child = launch([sys.executable, "-c", "import time; time.sleep(60)"], {})
    heard: list[str] = []

    def wait() -> None:
        try:
            frames.receive(child.connection)
        except EOFError:
            heard.append(child.last_words())

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.1)
    child.end()
    waiting.join(5.0)
    assert heard == ["ended by signal 9"]


def test_a_child_whose_parent_has_gone_already_does_not_begin(echo: str) -> None:
    note = Note()
    child = spawn(echo, note.descriptor)
    child.connection.close()
    assert child.process.wait(30.0) == 0
    note.close()


def test_a_child_may_not_take_more_than_its_memory_nor_leave_cores(echo: str) -> None:
    with WorkerPool(echo, 1) as pool:
        limits = Path(f"/proc/{pid_of(pool)}/limits").read_text()
    assert next(line for line in limits.splitlines() if "core file" in line).split()[4:6] == ["0", "0"]
    assert next(line for line in limits.splitlines() if "address space" in line).split()[3] == str(2 << 30)
    assert int(next(line for line in limits.splitlines() if "open files" in line).split()[3]) <= 1024
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != 2 << 30


def collected(pool: WorkerPool, count: int, limit_s: float = 30.0) -> list[Task]:
    done: list[Task] = []
    until_s = time.monotonic() + limit_s
    while len(done) < count and time.monotonic() < until_s:
        done += pool.collect(0.1)
    assert len(done) == count
    return done


def test_what_is_large_or_slow_leaves_as_many_processes_for_what_is_small(echo: str) -> None:
    """One large task at a time, and a small one that turns out slow: the others are answered meanwhile."""
    with WorkerPool(echo, 2, slow_s=0.2, has_lanes=True) as pool:
        pid_of(pool, 0), pid_of(pool, 1)
        large = [Task({"number": 100, "hang": 1.5}, 20.0, is_large=True, size_bytes=1 << 30) for _ in range(3)]
        slow = [Task({"number": 200, "hang": 1.5}, 20.0, kin="a") for _ in range(2)]
        pool.submit([*large, *slow])
        time.sleep(0.8)  # the slow ones have been seen to be slow, and others started in their places
        for number in range(5):
            begun_s = time.monotonic()
            pool.submit([Task({"number": number}, 20.0, kin="b")])
            while number not in [task.request["number"] for task in pool.collect(0.05)]:
                assert time.monotonic() - begun_s < allowed(1.0)
        until_s = time.monotonic() + 30
        while pool.in_flight and time.monotonic() < until_s:
            pool.collect(0.1)
        assert pool.in_flight == pool.large_in_flight == pool.small_in_flight == 0
        until_s = time.monotonic() + 15
        while len(pool._workers) > 2 and time.monotonic() < until_s:  # those that stood aside end
            time.sleep(0.1)
        assert len(pool._workers) == 2


def test_of_the_large_ones_the_smallest_goes_first(echo: str) -> None:
    with WorkerPool(echo, 2, slow_s=0.3, has_lanes=True) as pool:
        sizes = [5, 3, 9, 1]
        pool.submit([Task({"number": size, "hang": 0.1}, 20.0, is_large=True, size_bytes=size << 20) for size in sizes])
        order = [task.request["number"] for task in collected(pool, 4)]
    assert order[-1] == 9
    assert order.index(1) < order.index(3)


def test_twelve_processes_lost_leave_no_descriptor_thread_or_zombie(echo: str) -> None:
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    with WorkerPool(echo, 2, slow_s=0.05, has_lanes=True) as pool:
        pid_of(pool, 0), pid_of(pool, 1)
        before = held()
        for _ in range(4):
            pool.submit([Task({"number": 1, "hang": 60}, limit_s=0.1, tries=1) for _ in range(3)])
            assert {task.failure for task in collected(pool, 3, 60)} == {"timeout"}
        until_s = time.monotonic() + 20
        while time.monotonic() < until_s and (held()[0] > before[0] + 2 or held()[1] > before[1]):
            time.sleep(0.2)
        after = held()
    assert after[0] <= before[0] + 2
    assert after[1] <= before[1]
    assert not [one for one in children_of(os.getpid()) if state_of(one) == "Z"]


def children_of(parent: int) -> list[int]:
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry))
        except OSError:
            continue
    return found


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


#: What the kit does, so that nobody does it in a way of their own.
ONLY_HERE: dict[str, str | tuple[str, ...]] = {
    # Of a child, and of the service itself: how many files it may open.
    "resource.setrlimit": ("daemon/processes/child.py", "daemon/common/sockets.py"),
    "os.memfd_create": "daemon/processes/child.py",
    "libc.prctl": "daemon/processes/child.py",
    "connection.sendall": "daemon/processes",
    "connection.recv_into": "daemon/processes/frames.py",
}


def test_there_is_one_way_to_limit_a_child_and_to_speak_to_it() -> None:
    for path in [*ROOT.glob("daemon/**/*.py"), *ROOT.glob("deploy/**/*.py"), *ROOT.glob("models/**/*.py")]:
        name = str(path.relative_to(ROOT))
        for node in ast.walk(ast.parse(path.read_text())):
            home = ONLY_HERE.get(ast.unparse(node.func)) if isinstance(node, ast.Call) else None
            assert home is None or name.startswith(home), (
                f"{name}:{node.lineno}: a child process is started, limited, asked and ended by daemon/processes; "
                f"use spawn, serving, frames or WorkerPool instead of what stands in {home}"
            )


def test_the_modules_of_child_processes_are_light() -> None:
    code = "import sys, daemon.processes.worker_pool; sys.exit(bool({'torch', 'zmq', 'sqlite3'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=60).returncode == 0
