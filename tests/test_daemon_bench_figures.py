"""The bench's figures: what is counted, what a bar says, and that nothing missed is hidden."""

from __future__ import annotations

import argparse
import copy
import os
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from modelhelp import SHARED, make_model

from daemon.bench import BATCH, STAGES, Plan, compare, cpu_ms, spread_ms
from daemon.bench.line import slope_mb, thin
from daemon.bench.machine import Machine, Others, Sample, families, look
from daemon.bench.table import Bar, bars, draw, factor_of
from daemon.common.errors import UserError
from daemon.common.options import add_options, take_options
from daemon.learn.int8 import PreparedCurves, gather, load
from daemon.verbs import bench as verb
from daemon.verbs.bench import write_page, write_report
from models.bundle import Bundle

BUNDLED = Path(__file__).resolve().parents[1] / "daemon" / "curves"


def speed(per_s: float) -> dict[str, Any]:
    batches: dict[str, Any] = {size: {"per_s": per_s, "cpu_ms": 1000 / per_s} for size in ("1", "8", str(BATCH))}
    batches["1"]["latency_ms"] = {"p50": 1.0, "p99": 2.0, "max": 3.0, "count": 100}
    return {"batches": batches, "build_s": 1.5, "rebuild_s": 0.05, "peak_rss_bytes": 400_000_000}


def agreed(share: float, *jumps: str) -> dict[str, Any]:
    change = {
        "curve": "a.txt#0",
        "verdicts": ["discard", "review"],
        "scores": [0.0041, 0.0042],
        "logit_difference": 0.1,
    }
    changes = [change] if share else []
    return {"largest_difference": 0.04, "share_changed": share, "changes": changes, "jumps": list(jumps)}


def held(rate: float, p99: float, lost: int = 0) -> dict[str, Any]:
    latency = {"p50": p99 / 3, "p99": p99, "max": p99, "count": 100}
    return {"rate_per_s": rate, "lost": lost, "latency_ms": latency, "cpu_ms": 3.0}


@pytest.fixture
def found() -> dict[str, Any]:
    """What a whole run measures, with every bar kept."""
    family = {"points": 4096, "files": 5, "ms": dict.fromkeys(STAGES, 0.2), "beyond_ms": 0.9, "commit_wall_ms": 0.3}
    sustained = {"curves": 100.0, "per_s": 900.0, "service_cpu_ms": 1.0, "reader_cpu_ms": 1.0, "cpu_ms": 2.0}
    engine = "openvino-cpu-bf16"
    share = {"engine": engine, "line_per_s": 900.0, "bare_per_s": 1000.0, "share": 0.9, "ceiling_per_s": 1000.0}
    share |= {"line_cpu_ms": 2.0, "engine_cpu_ms": 1.0, "beyond_cpu_ms": 1.0}
    return {
        "time": "2026-11-21T10:15:00Z",
        "machine": {"cores": 2, "processor": "P", "architecture": "x86_64", "load": 0.0, "others_cores": 0.0},
        "warning": None,
        "versions": "Python 3.11",
        "model": "shipped-1",
        "settings": Plan().settings(),
        "batch": BATCH,
        "threads": 1,
        "others_cores": 0.0,
        "took_s": {"stages": 1.0},
        "stages": {"engine": engine, "families": {"JPK": family, "others": {**family, "points": None}}},
        "engines": {
            "curves": {"real": 30, "simulated": 1000},
            "thresholds": {"discard": 0.0041, "keep": 0.27},
            "missing": {"tensorrt": "there is no NVIDIA GPU"},
            "engines": [{"engine": engine, **speed(1000), "alone": agreed(0.002), "in_service": agreed(0.0)}],
        },
        "load": {
            "engine": engine,
            "quiet": [held(1, 20), held(10, 25), held(100, 30)],
            "busy": [held(1, 40), held(10, 60), held(100, 80)],
            "text": held(10, 2013),
            "sustained": {"the bundled mix": sustained},
            "engines": {engine: sustained},
            "memory": {"largest_bytes": 600_000_000, "processes": {"service 1": 500_000_000, "reader 2": 100_000_000}},
        },
        "shares": [share],
        "recipe": {
            "per_s": 30.0,
            "ms": {"read": 1.0, "picture": 2.0, "network": 30.0},
            "files": 12,
            "by_afmformats": 1,
            "threads": 2,
            "readers": [{"file": "a.jpk-force", "curves": 1, "afmformats_ms": 20.0, "ours_ms": 0.6}],
        },
        "soak": {
            "curves": 50_000,
            "files": 40_000,
            "per_s": 700.0,
            "lost": 0,
            "largest_bytes": 610_000_000,
            "slope_mb": 0.2,
            "course": [{"curves": n * 500, "rss_bytes": {"service 1": 500_000_000, "reader 2": n}} for n in range(101)],
        },
    }


def missed(found: dict[str, Any]) -> list[str]:
    return [bar.name for bar in bars(found) if not bar.holds]


def test_a_bar_is_met_at_its_very_limit_and_says_so() -> None:
    assert Bar("p99", 50.0, 50.0, "ms").row() == ["p99", "50 ms", "<= 50 ms", "holds"]
    assert Bar("p99", 50.1, 50.0, "ms").row()[-1] == "missed"
    assert Bar("share", 0.349, 0.65, "%", at_most=False).row() == ["share", "34.9 %", ">= 65 %", "missed"]
    assert Bar("lost", 0, 0, "").row() == ["lost", "0", "<= 0", "holds"]


def test_every_bar_of_a_good_run_holds(found: dict[str, Any]) -> None:
    assert missed(found) == []
    assert len(bars(found)) == 12


@pytest.mark.parametrize(
    ("path", "value", "names"),
    [
        (("stages", "families", "JPK", "beyond_ms"), 1.1, ["beyond the engine, JPK (4096 points)"]),
        (("stages", "families", "others", "beyond_ms"), 9.0, []),  # nothing was promised for text
        (("engines", "engines", 0, "in_service"), agreed(0.002), ["verdicts changed, openvino-cpu-bf16"]),
        (("engines", "engines", 0, "in_service"), agreed(0.0, "a"), ["keep turned discard or back, openvino-cpu-bf16"]),
        (("load", "quiet", 1), held(10, 51), ["p99 at 10 curves/s"]),
        (("load", "quiet", 2), held(100, 500), []),  # the promise is for 10 a second
        (("load", "busy", 1), held(10, 101), ["p99 at 10 curves/s, 2 busy neighbours"]),
        (("load", "text"), held(10, 2000, lost=1), ["files without an event"]),
        (("load", "memory", "largest_bytes"), 1.3e9, ["memory of the service"]),
        (("shares", 0, "share"), 0.64, ["end to end of the bare engine, openvino-cpu-bf16"]),
        (("recipe", "per_s"), 100.0, ["times the published recipe"]),
        (("soak", "slope_mb"), 50.0, ["its growth for 10,000 curves, second half"]),
    ],
)
def test_each_bar_can_be_missed_alone(found: dict[str, Any], path: tuple, value: Any, names: list[str]) -> None:
    place: Any = found
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert missed(found) == names
    assert all(f"{name}  " in write_report(found) for name in names)
    assert write_report(found).count("missed") == len(names)


def test_the_table_of_a_soak_has_a_line_for_each_process(found: dict[str, Any]) -> None:
    lines = [line.split() for line in write_report(found).splitlines()]
    assert [words[-1] for words in lines if words[:1] == ["service"]] == ["500"]
    assert [words[-1] for words in lines if words[:1] == ["together"]] == ["500"]


def test_a_part_that_was_not_measured_has_no_bar_and_no_table(found: dict[str, Any]) -> None:
    alone = {key: value for key, value in found.items() if key not in ("stages", "engines", "load", "shares", "soak")}
    assert bars(alone) == []
    assert factor_of(alone) is None
    assert "published recipe" in write_report(alone)
    assert "stage by stage" not in write_report(alone)


def test_the_table_tells_what_could_not_be_measured(found: dict[str, Any]) -> None:
    whole = copy.deepcopy(found)
    whole["engines"]["engines"] += [
        {"engine": "cuda-cuda-fp16", "failed": "out of memory"},
        {"engine": "openvino-cpu-int8", **speed(3000), "alone": agreed(0.01), "refused": "a known curve is 2.0 off"},
    ]
    whole["recipe"]["readers"] = None
    whole["warning"] = "the machine is busy"
    text = write_report(whole)
    for words in (
        "out of memory",
        "a known curve is 2.0 off",
        "there is no NVIDIA GPU",
        "not installed",
        "WARNING: the",
    ):
        assert words in text
    assert "openvino-cpu-bf16, without the second look: a.txt#0: discard -> review" in text
    assert "thresholds: discard 0.004100, keep 0.270000" in text


def test_the_page_shows_the_command_above_what_it_printed(found: dict[str, Any]) -> None:
    page = write_page(found, "afm-triage bench --markdown")
    assert page.startswith("# Engines and speed, 2026-11-21\n")
    assert "\n    $ afm-triage bench --markdown\n    2 cores" in page
    assert not any(line != line.rstrip() for line in page.splitlines())


def test_the_picture_is_an_svg_and_the_same_each_time(found: dict[str, Any]) -> None:
    svg = draw(found)
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert draw(found) == svg
    quiet = {**found, "load": {**found["load"], "busy": []}}
    assert len(draw(quiet)) < len(svg)
    silent = {**found, "load": {**found["load"], "quiet": [{**held(10, 1), "latency_ms": {"count": 0}}]}}
    assert ElementTree.fromstring(draw(silent)).tag.endswith("svg")


def test_a_spread_names_the_tail_of_what_it_was_given() -> None:
    assert spread_ms([n / 1000 for n in range(200)]) == {"p50": 100.0, "p99": 198.0, "max": 199.0, "count": 200}
    assert spread_ms([0.004]) == {"p50": 4.0, "p99": 4.0, "max": 4.0, "count": 1}
    assert spread_ms([]) == {"count": 0}


def test_cpu_time_leaves_waiting_out() -> None:
    assert cpu_ms(lambda: time.sleep(0.02), seconds=0.05) < 5.0
    assert cpu_ms(lambda: sum(range(100_000)), seconds=0.05) > 0.3


def test_the_machine_warns_when_somebody_computes() -> None:
    quiet = Machine(2, "P", "x86_64", "3.11", load=0.3, others_cores=0.02)
    assert quiet.warning is None
    assert "1.00 of 2 cores" in str(Machine(2, "P", "x86_64", "3.11", load=0.3, others_cores=1.0).warning)
    assert "load 4.00" in str(Machine(2, "P", "x86_64", "3.11", load=4.0, others_cores=0.0).warning)
    seen = look(0.02)
    assert seen.cores >= 1
    assert seen.processor


def test_what_this_process_does_itself_is_not_counted_as_others() -> None:
    others, begun_s, spent_s = Others(), time.monotonic(), time.process_time()
    while time.monotonic() < begun_s + 0.4:
        pass
    own = (time.process_time() - spent_s) / (time.monotonic() - begun_s)
    assert others.cores() < (os.cpu_count() or 1) - own + 0.15


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_model(tmp_path_factory.mktemp("models") / "small")


def test_curves_are_gathered_in_one_order_and_come_back_the_same(bundle: Bundle, tmp_path: Path) -> None:
    curves = gather([BUNDLED], 3, 1, bundle.profile)
    again = gather([BUNDLED], 3, 1, bundle.profile)
    assert curves.names == again.names
    assert curves.names[curves.real :] == ("simulated 0", "simulated 1", "simulated 2")
    assert curves.real >= 25
    curves.save(tmp_path / "signals.npz")
    stored = load(tmp_path / "signals.npz")
    assert all(np.array_equal(one, two) for one, two in zip(stored, curves.signals, strict=True))


def test_agreement_finds_each_verdict_that_moved(bundle: Bundle) -> None:
    edges = [bundle.calibration.logit(score) for score in (bundle.discard, bundle.keep)]
    wanted = [edges[0] - 0.01, edges[0] - 5.0, edges[1] + 5.0, sum(edges) / 2]
    found = [edges[0] + 0.01, edges[1] + 5.0, edges[1] + 5.0, sum(edges) / 2]
    none = (np.zeros(1, np.float32),) * 4
    curves = PreparedCurves(("a", "b", "c", "d"), none, ((),) * 4, 4)
    told = compare(curves, bundle, wanted, found)
    assert [(change["curve"], change["verdicts"]) for change in told["changes"]] == [
        ("a", ["discard", "review"]),
        ("b", ["discard", "keep"]),
    ]
    assert told["jumps"] == ["b"]
    assert told["share_changed"] == 0.5
    assert told["largest_difference"] == pytest.approx(edges[1] - edges[0] + 10.0, abs=1e-4)
    lifted = PreparedCurves(("a", "b", "c", "d"), none, (("saturated",),) * 4, 4)  # a reason lifts both alike
    assert [change["curve"] for change in compare(lifted, bundle, wanted, found)["changes"]] == ["b"]


def test_families_take_the_files_whose_size_the_bars_speak_of() -> None:
    found = {family.name: family for family in families([BUNDLED])}
    assert list(found) == ["JPK", "NanoScope", "others"]
    assert found["JPK"].points == 4096
    assert all(arrival.path.startswith("force-save") for arrival in found["JPK"].arrivals)
    assert len(found["others"].arrivals) > 10


def test_a_family_prefers_a_curve_of_4096_points_wherever_it_lies() -> None:
    if not SHARED.is_dir():
        pytest.skip("no shared data here")
    found = {family.name: family for family in families([BUNDLED, SHARED / "data" / "open" / "hooke_picoforce_000"])}
    assert found["NanoScope"].points == 2048
    assert len(found["NanoScope"].arrivals) == 8


def test_growth_is_that_of_the_second_half() -> None:
    def at(curves: int, size: float) -> tuple[int, Sample]:
        return curves, Sample(0.0, {}, {"service 1": int(size)})

    warm_up = [at(n, 1e8 + n * 1e5) for n in range(0, 5000, 500)]
    assert slope_mb([*warm_up, *(at(n, 6e8) for n in range(5000, 10_001, 500))]) == pytest.approx(0.0, abs=1e-6)
    assert slope_mb([at(n, 1e8 + 1000 * n) for n in range(0, 10_001, 500)]) == pytest.approx(10.0, rel=1e-3)
    assert slope_mb([at(0, 1e8)]) == 0.0
    long = [at(n, 1e8) for n in range(1001)]
    assert len(thin(long)) <= 202
    assert (thin(long)[0], thin(long)[-1]) == (long[0], long[-1])


def words(*more: str) -> verb.Options:
    parser = argparse.ArgumentParser()
    add_options(parser, verb.Options)
    return take_options(verb.Options, parser.parse_args(more))


def test_the_command_line_becomes_a_plan(tmp_path: Path) -> None:
    plan = verb.plan_of(words())
    assert plan == Plan(soak=plan.soak)
    plan = verb.plan_of(words("--only", "soak", "--only", "stages"))
    assert (plan.parts, plan.soak) == (("stages", "soak"), 50_000)
    plan = verb.plan_of(words("--rates", "100,5,5", "--soak", "7", "--curves", str(tmp_path), "--engine", "torch"))
    assert (plan.rates, plan.soak, plan.curves, plan.wish.engine) == ((5.0, 100.0), 7, (tmp_path,), "torch")
    assert plan.parts[-1] == "soak"
    assert [plan.count(rate) for rate in (0.01, 5.0, 100.0)] == [1, 40, 300]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (("--rates", "0"), 64),
        (("--rates", "fast"), 64),
        (("--rates", "nan"), 64),
        (("--rates", ""), 64),
        (("--files", "0"), 64),
        (("--burst", "0"), 64),
        (("--hold", "0"), 64),
        (("--busy", "-1"), 64),
        (("--soak", "0"), 64),
        (("--curves", "/no/such/folder"), 65),
        (("--only", "stages", "--picture", "a.svg"), 64),
        (("--picture", "/no/such/folder/a.svg"), 74),
        (("--model", "/no/such/model"), 65),
        (("--engine", "torch", "--precision", "int8"), 69),
    ],
)
def test_nonsense_is_refused_before_anything_is_measured(given: tuple[str, ...], code: int) -> None:
    with pytest.raises(UserError) as refused:
        verb.run(words(*given))
    assert refused.value.exit_code == code
