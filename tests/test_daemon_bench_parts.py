"""The bench's measurements, with real processes and real files, as short as they can be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from modelhelp import make_model
from pace import allowed

from daemon.bench import BATCH, STAGES, Plan, machine
from daemon.bench.apart import REFERENCE, ChildFailed, call, measure
from daemon.bench.line import Line, serving, split
from daemon.bench.machine import ProcessMonitor, neighbours
from daemon.cli import main
from daemon.formats import open_file
from daemon.instrument import recordings
from daemon.verbs.bench import shares
from deploy.engines import ENGINES

ROOT = Path(__file__).resolve().parents[1]
BUNDLED = ROOT / "daemon" / "curves"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model(tmp_path_factory.mktemp("models") / "small").folder)


def test_vitals_count_a_process_with_its_children_and_what_has_ended() -> None:
    parent = "import subprocess,sys,time; subprocess.run([sys.executable,'-c','sum(range(10**7))']); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", parent])
    try:
        with ProcessMonitor(process.pid, 0.01) as seen:
            until_s = time.monotonic() + 20
            while seen.samples[-1].total_s < 0.1 and time.monotonic() < until_s:
                time.sleep(0.02)
            time.sleep(0.05)
        first, last = seen.samples[0], seen.samples[-1]
        spent = seen.cpu_between(first.at_s, last.at_s)
        assert spent == {"service": pytest.approx(last.total_s - first.total_s)}
        assert spent["service"] >= 0.1
        assert len(seen.largest.rss_bytes) == 2  # the parent, and the child while it lived
        assert seen.largest.total_bytes > 5_000_000
    finally:
        process.kill()
        process.wait()
    assert machine.usage(process.pid).rss_bytes == {}


def test_neighbours_are_busy_and_end_with_the_block() -> None:
    with neighbours(2) as pids:
        before = [machine.usage(pid).total_s for pid in pids]
        time.sleep(0.5)
        assert all(machine.usage(pid).total_s > spent for pid, spent in zip(pids, before, strict=True))
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_neighbours_do_not_outlive_a_bench_that_is_killed() -> None:
    code = "import time\nfrom daemon.bench.machine import neighbours\n"
    code += "with neighbours(1) as pids: print(pids[0], flush=True); time.sleep(60)"
    bench = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert bench.stdout is not None
    pid = int(bench.stdout.readline())
    bench.send_signal(signal.SIGKILL)
    bench.communicate(timeout=10)
    until_s = time.monotonic() + 10
    while _lives(pid) and time.monotonic() < until_s:
        time.sleep(0.05)
    assert not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_a_child_that_fails_says_why_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed) as failed:
        call("engine", {"signals": str(tmp_path / "none.npz"), "model": "shipped", "wish": {}, "compare": False})
    assert "none.npz" in str(failed.value)
    assert "\n" not in str(failed.value)


@pytest.mark.study
def test_the_stages_of_each_family_add_up(model: str) -> None:
    found = call("stages", {"model": model, "folders": [str(BUNDLED)], "wish": {"engine": "torch"}, "seconds": 0.05})
    assert list(found["families"]) == ["JPK", "NanoScope", "others"]
    for family in found["families"].values():
        assert tuple(family["ms"]) == STAGES
        assert all(
            0 < milliseconds < allowed(100) for stage, milliseconds in family["ms"].items() if stage != "network"
        )
        beyond = sum(milliseconds for stage, milliseconds in family["ms"].items() if stage != "network")
        assert family["beyond_ms"] == pytest.approx(beyond, abs=0.002)
        assert family["commit_wall_ms"] > 0
    assert found["families"]["JPK"]["points"] == 4096


@pytest.mark.study
def test_every_engine_that_there_is_is_measured_and_compared(model: str) -> None:
    plan = Plan(model=model, simulated=8)
    found = measure(plan, seconds=0.02)
    usable = [engine for engine in ENGINES if engine.missing() is None]
    assert {one["engine"].split("-")[0] for one in found["engines"]} == {engine.name for engine in usable}
    assert set(found["missing"]) == {engine.name for engine in ENGINES} - {engine.name for engine in usable}
    named = {one["engine"]: one for one in found["engines"]}
    for one in (named[REFERENCE], named["torch-cpu-bf16"]):
        assert one["batches"]["1"]["latency_ms"]["count"] >= 5
        assert all(one["batches"][size]["per_s"] > 0 for size in ("1", "8", str(BATCH)))
        assert one["rebuild_s"] < one["build_s"]  # the second time nothing is imported
        assert 1e8 < one["peak_rss_bytes"] < 2e9
        assert one["in_service"]["changes"] == []
    assert named[REFERENCE]["alone"]["largest_difference"] == 0.0
    assert 0.0 < named["torch-cpu-bf16"]["alone"]["largest_difference"] < 0.2
    assert found["curves"]["simulated"] == 8
    load = {"engines": {REFERENCE: {"per_s": 100.0, "cpu_ms": 4.0}}}
    (row,) = shares(plan, load, found, cores=2)
    assert row["bare_per_s"] == named[REFERENCE]["batches"][str(BATCH)]["per_s"]
    assert row["ceiling_per_s"] == 500.0
    assert row["share"] == pytest.approx(100.0 / row["bare_per_s"], abs=1e-3)
    (row,) = shares(plan, load, None, cores=2)  # the engines were not asked for: this one is measured now
    assert row["bare_per_s"] > 10


@pytest.mark.study
def test_the_recipe_is_run_curve_by_curve_and_readers_are_compared() -> None:
    found = call("recipe", {"folders": [str(BUNDLED)], "seconds": 0.0})
    own_end, text = split(recordings([BUNDLED]))
    assert (found["files"], found["curves"]) == (len(own_end), sum(len(open_file(one.files[0])) for one in own_end))
    assert len(text) > 10
    assert found["per_s"] == pytest.approx(1000 / sum(found["ms"].values()), rel=0.01)
    if found["readers"] is None:
        pytest.skip("afmformats is not installed")
    assert len(found["readers"]) == found["by_afmformats"] >= 3
    assert all(row["afmformats_ms"] > 0 and row["ours_ms"] > 0 for row in found["readers"])


@pytest.mark.study
def test_a_line_loses_nothing_and_its_memory_is_watched(model: str) -> None:
    found, _ = split(recordings([BUNDLED]))
    with serving(Plan(model=model, engine="torch", precision="fp32")) as (trial, watched, ear):
        line = Line(trial, watched, ear)
        first = line.hold(found, 40.0, 12)
        again = line.hold(found, 200.0, 16)  # the same recordings under other names: none is a duplicate
        burst = line.sustain(found, 12)
        assert not any(trial.watch.iterdir())
        assert ear.engines == {"torch-cpu-fp32"}
        assert {name.split()[0] for name in watched.largest.rss_bytes} == {"service", "reader"}
        assert 1e8 < watched.largest.total_bytes < 2e9
    assert (first["lost"], first["latency_ms"]["count"]) == (0, 12)
    assert (again["lost"], again["latency_ms"]["count"]) == (0, 16)
    assert 0 < first["latency_ms"]["p50"] <= first["latency_ms"]["p99"] < 20_000
    assert burst["curves"] == 15  # one of the files holds four
    assert burst["per_s"] > 1
    assert burst["cpu_ms"] == pytest.approx(burst["service_cpu_ms"] + burst["reader_cpu_ms"], abs=0.01)


@pytest.mark.study
def test_a_soak_prints_one_object(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("bench", "--only", "soak", "--soak", "40", "--model", model, "--engine", "torch", "--json")
    assert main(list(words)) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert 40 <= found["soak"]["curves"] < 60
    assert found["soak"]["lost"] == 0
    assert found["soak"]["course"][-1]["curves"] == found["soak"]["curves"]
    assert [bar["holds"] for bar in found["bars"] if "without an event" in bar["name"]] == [True]
    assert threading.active_count() < 10
    assert os.environ["GOMP_SPINCOUNT"] == "0"
