"""The watch over tip and run: what is told, since when, and when it is over."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pace import allowed

from daemon.config import ThresholdsConfig
from daemon.guard.tip import BLOCK, BLOCKS_SHOWN, RunWatch, TipWatch
from daemon.judging import Decision, Judge
from daemon.judging.judge import judge_of
from daemon.ledger.numbers import Advice
from daemon.reading import Reading
from daemon.sources import Arrival
from deploy.serving import Model
from models.clock import day_and_minute
from models.curve import Curve, ForceUnit
from models.tip import TipState

NIGHT_S = datetime(2026, 11, 28, 1, 0, tzinfo=UTC).timestamp()
CURVE = Curve(np.zeros(0), "N")
USUAL: Mapping[str, float] = {"noise": 8e-12, "tilt": 50e-12, "wave": 10e-12, "slope": 0.03, "adhesion": 250e-12}
ARRIVAL = Arrival("watch", "a.jpk-force", Path("/lab/a.jpk-force"))


@pytest.fixture(scope="module")
def judge() -> Judge:
    return judge_of(Model.load(), ThresholdsConfig())


class Night:
    """A curve a second for a watch over the tip."""

    def __init__(self, judge: Judge, unit: ForceUnit | None = "N", format: str = "jpk", seed: int = 0) -> None:
        self.now_s, self.seq, self.session = NIGHT_S, 0, 1
        self.unit, self.format, self.judge = unit, format, judge
        self.watch, self.run = TipWatch(lambda: self.now_s), RunWatch(lambda: self.now_s)
        self._rng = np.random.default_rng(seed)

    def go_on(self, curves: int, **factors: float) -> None:
        """So many curves more, each number a ``factor`` times what is usual."""
        for _ in range(curves):
            told = {
                name: usual * factors.get(name, 1.0) * float(self._rng.lognormal(0, 0.15))
                for name, usual in USUAL.items()
            }
            self.observe(TipState(**told, samples=round(2000 * factors.get("samples", 1.0))))

    def observe(self, tip: TipState | None) -> None:
        self.now_s += 1.0
        self.seq += 1
        reading = Reading(ARRIVAL, 0, "a" * 64, CURVE, format=self.format, tip=tip)
        self.watch.observe(reading, a_decision(self.judge, self.now_s, self.unit), self.seq, self.session)

    def told(self) -> dict[str, Advice]:
        return {one.kind: one for one in self.watch.advice}


def a_decision(
    judge: Judge, acquired_s: float | None, unit: ForceUnit | None = "N", verdict: str = "discard", *reasons: str
) -> Decision:
    told = ("score", *reasons)
    return Decision("id", "watch", "a", 0, None, verdict, 0.01, told, judge, unit, 0.0, acquired_s=acquired_s)  # type: ignore[arg-type]


def test_noise_that_doubles_is_told_within_300_curves_with_the_time_it_began_and_its_end(judge: Judge) -> None:
    night = Night(judge)
    night.go_on(830)
    assert night.told() == {}
    began_s, curves = night.now_s, 0
    while not night.told():
        night.go_on(1, noise=2.0)
        curves += 1
    assert curves <= 3 * BLOCK
    (told,) = night.watch.advice
    assert told.kind == "noise"
    since_s = datetime.fromisoformat(told.since).timestamp()
    assert began_s - BLOCK <= since_s <= began_s + BLOCK
    minute = day_and_minute(told.since)[11:]  # as the clock on the wall shows it
    assert told.text == f"noise doubled since {minute}: look at the tip"
    night.go_on(300, noise=2.0)
    assert night.watch.advice == (told,), "a state that lasts is not what is usual"
    night.go_on(150)
    assert night.told() == {}
    assert night.watch.advice == ()


def test_an_adhesion_that_is_gone_and_a_tilt_that_turns_are_told_as_such(judge: Judge) -> None:
    night = Night(judge)
    night.go_on(600)
    night.go_on(200, adhesion=0.0, tilt=-20.0)
    told = night.told()
    assert told.keys() == {"adhesion", "tilt"}
    assert told["adhesion"].text.startswith("adhesion gone since ")
    assert told["tilt"].text.startswith("baseline tilts by -")


@pytest.mark.parametrize("unit", ["N", "m", "V", None])
def test_forces_a_thousand_times_as_large_are_another_unit_and_no_tip(judge: Judge, unit: ForceUnit | None) -> None:
    night = Night(judge, unit)
    night.go_on(500)
    night.go_on(150, noise=1e3, tilt=1e3, wave=1e3, slope=1e3, adhesion=1e3)
    (told,) = night.watch.advice
    assert told.kind == "unit"
    assert re.match(r"forces are (9\d0|1,[01]00) times larger than they were since ", told.text)
    night.go_on(150)
    night.go_on(150, noise=1e-3, tilt=1e-3, wave=1e-3, slope=1e-3, adhesion=1e-3)
    assert " times smaller than they were since " in night.watch.advice[0].text


def test_one_bad_place_is_no_change(judge: Judge) -> None:
    night = Night(judge)
    night.go_on(600)
    night.go_on(BLOCK, noise=3.0)
    night.go_on(400)
    assert night.told() == {}


def test_another_session_unit_format_or_setting_begins_anew(judge: Judge) -> None:
    def changed(**what: object) -> Night:
        night = Night(judge)
        night.go_on(600)
        for name, value in what.items():
            setattr(night, name, value)
        night.go_on(400, noise=2.0, adhesion=3.0, samples=1.0 if what else 4.0)
        return night

    for what in ({"session": 2}, {"unit": "V"}, {"format": "nanoscope"}, {}):
        assert changed(**what).told() == {}, what
    assert changed(seq=0).told().keys() == {"noise", "adhesion"}, "the test can fail"


def test_advice_about_a_format_that_no_longer_comes_ends(judge: Judge) -> None:
    night = Night(judge)
    night.go_on(600)
    night.go_on(200, noise=2.0)
    assert night.told().keys() == {"noise"}
    night.format = "nanoscope"
    night.go_on(350)
    assert night.told() == {}


def test_two_folders_in_turn_are_each_beside_their_own(judge: Judge) -> None:
    night = Night(judge)
    for number in range(1600):
        night.format = ("jpk", "nanoscope")[number % 2]
        night.go_on(1, **({"noise": 20.0, "adhesion": 0.1} if number % 2 else {}))
    assert night.told() == {}
    assert len(night.watch.blocks) == 32


def test_blocks_are_told_in_units_that_people_use_and_only_the_last_are_kept(judge: Judge) -> None:
    night = Night(judge)
    night.go_on(BLOCK)
    (point,) = night.watch.blocks
    assert night.watch.unit == "pN"
    assert point.noise == pytest.approx(8.0, rel=0.1)
    assert point.adhesion == pytest.approx(250.0, rel=0.1)
    assert point.slope == pytest.approx(0.03e12 * 1e-6, rel=0.1)  # pN/µm
    assert (point.seq, point.time) == (BLOCK, "2026-11-28T01:00:01.000Z")
    night.go_on(BLOCK * (BLOCKS_SHOWN + 5))
    assert [len(night.watch.blocks), night.watch.blocks[-1].seq] == [BLOCKS_SHOWN, BLOCK * (BLOCKS_SHOWN + 6)]


def test_another_unit_in_between_throws_no_points_away_and_a_session_does_not_either(judge: Judge) -> None:
    night = Night(judge)
    night.go_on(BLOCK * 17)
    for unit in ("m", "V", "N"):
        night.unit = unit
        night.go_on(BLOCK)
    assert (night.watch.unit, len(night.watch.blocks)) == ("pN", 18)
    night.session = 2
    night.go_on(BLOCK)
    assert (night.watch.unit, len(night.watch.blocks)) == ("pN", 19)
    night.unit = "m"
    night.go_on(BLOCK * 12)
    assert (night.watch.unit, len(night.watch.blocks)) == ("nm", 13)


def test_what_a_curve_does_not_tell_is_null_and_what_tells_nothing_is_passed_over(judge: Judge) -> None:
    night = Night(judge)
    for number in range(2 * BLOCK):
        state = TipState(8e-12, 0.0, 0.0, None, None if number % 3 else 1e-12, 2000)
        night.observe(state if number % 2 else None)
    (point,) = night.watch.blocks
    assert (point.noise, point.tilt, point.wave, point.slope, point.adhesion) == (8.0, 0.0, 0.0, None, None)
    for odd in (math.inf, math.nan, 0.0, 1e-320):
        night.watch = TipWatch(lambda: night.now_s)
        for _ in range(10 * BLOCK):
            night.observe(TipState(odd, odd, odd, odd, odd, 64))
        assert night.told() == {}


def test_a_time_of_another_day_is_not_that_of_the_night(judge: Judge) -> None:
    night = Night(judge)
    reading = Reading(ARRIVAL, 0, "a" * 64, CURVE, tip=TipState(1e-12, 0, 0, 1, 1, 2000))
    for _ in range(BLOCK):
        night.watch.observe(reading, a_decision(judge, NIGHT_S - 10 * 365 * 86400.0), 1)
    assert night.watch.blocks[0].time.startswith("2026-11-28")


def run_of(judge: Judge, reasons: Iterator[tuple[str, ...]] | list[tuple[str, ...]], **more: str) -> RunWatch:
    watch = RunWatch(lambda: NIGHT_S + 3600)
    for at, some in enumerate(reasons):
        watch.observe(a_decision(judge, NIGHT_S + at, "N", more.get("verdict", "review"), *some))
    return watch


def test_a_run_of_one_reason_is_told_once_fifty_carry_it_and_ends_when_few_do(judge: Judge) -> None:
    quiet = [("sign_assumed",)] * 10
    assert run_of(judge, [*quiet, *[("saturated",)] * 49]).advice == ()
    (told,) = run_of(judge, [*quiet, *[("saturated", "sign_assumed")] * 50]).advice
    assert (told.kind, told.since) == ("reason", "2026-11-28T01:00:10.000Z")
    assert "carries `saturated`: the pull is cut off" in told.text
    lasting = [*quiet, *[("saturated",)] * 60, (), *[("saturated",)] * 20]
    assert run_of(judge, lasting).advice == (told,)
    assert run_of(judge, [*lasting, *[()] * 26]).advice == ()


def test_what_all_files_of_a_kind_carry_is_no_news(judge: Judge) -> None:
    for word in ("sign_assumed", "columns_assumed", "no_contact", "no_certificate"):
        assert run_of(judge, [(word,)] * 200).advice == ()


def test_a_yield_that_falls_is_told_with_both_shares_and_a_new_session_begins_anew(judge: Judge) -> None:
    rng = np.random.default_rng(5)
    watch = RunWatch(lambda: NIGHT_S + 3600)
    for at in range(2600):
        keeps = rng.random() < (0.2 if at < 2000 else 0.02)
        watch.observe(a_decision(judge, NIGHT_S + at, "N", "keep" if keeps else "discard"), "one")
    (told,) = watch.advice
    assert told.kind == "yield"
    assert "the yield fell: of the 300 curves since " in told.text
    assert NIGHT_S + 1700 <= datetime.fromisoformat(told.since).timestamp() <= NIGHT_S + 2100
    watch.observe(a_decision(judge, NIGHT_S + 2600), "another")
    assert watch.advice == ()


def test_both_watches_cost_the_loop_little(judge: Judge) -> None:
    reading = Reading(ARRIVAL, 0, "a" * 64, CURVE, tip=TipState(1e-12, 0.0, 0.0, 1.0, 1.0, 2000))
    decisions = [replace(a_decision(judge, NIGHT_S + at), reasons=("score", "saturated")) for at in range(3000)]
    took_s = []
    for _ in range(3):
        tip, run = TipWatch(lambda: NIGHT_S + 3600), RunWatch(lambda: NIGHT_S + 3600)
        begun_s = time.thread_time()
        for at, one in enumerate(decisions):
            tip.observe(reading, one, at)
            run.observe(one)
        took_s.append((time.thread_time() - begun_s) / len(decisions))
    assert min(took_s) < allowed(100e-6)  # 10 µs of a quiet core
    assert run.advice
