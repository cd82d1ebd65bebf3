"""What the page says of the night: the numbers of the service while one runs, else those of ledger and labels."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from daemon.guard.logbook import NAME, Logbook
from daemon.ledger import events, numbers
from daemon.ledger.view import LedgerView
from daemon.review.night import Hours
from models.clock import minute_of
from tests.reviewhelp import SAWTOOTH, Page, copy_of, fill, judged
from tests.speaker import Speaker

ADVICE = "noise doubled since 02:14: look at the tip"
SINCE = "2026-11-28T02:14:00.000Z"


def guard(count: int = 12, change: int = 8) -> numbers.GuardNumbers:
    """Of a night in which the noise doubled."""
    return numbers.GuardNumbers(
        path=numbers.Path(
            canaries=1204, missed=21, lost=0, event_free=240, false_kept=2, lower_bound=0.96349, null=0.0205,
            since=SINCE, pending=1, is_well=True, text="1,183 of 1,204 simulated events were found",
        ),
        events=numbers.YourEvents(
            confirmed=39, kept_live=31, shown_live=38, shown_low=0.865, shown_high=0.999, live_low=0.635,
            live_high=0.907, scored_now=39, found_now=38, low=0.865, high=0.999, session=None,
            text="38 of 39 confirmed events were shown to you live",
        ),
        unseen=numbers.Unseen(
            discards=2184, drawn=112, looked_at=100, found=0, estimate=0.0, at_most=64, nights=3,
            text="of 2,184 discards at most 64 events were lost (100 looked at, 95 %)",
        ),
        second=numbers.SecondOpinion(
            seen=2410, disputed=31, looked_at=12, confirmed=2, least_in_all=41, least_missed=1, text="31 are disputed",
        ),
        tip=numbers.Tip(
            unit="pN",
            blocks=tuple(
                numbers.TipPoint(
                    seq=50 * number, time=f"2026-11-28T02:{number:02}:00.000Z", noise=10.0 if number > change else 5.0,
                    tilt=1.0, slope=1.0, adhesion=None if number > change else 300.0,
                )
                for number in range(1, count + 1)
            ),
            advice=(numbers.Advice(kind="noise", since=SINCE, text=ADVICE),),
        ),
    )  # fmt: skip


class Watcher(Speaker):
    """A service whose guard has these numbers."""

    guard: numbers.GuardNumbers | None = guard()

    def status(self) -> events.Status:
        return msgspec.structs.replace(super().status(), guard=self.guard)


def wait_for(until: Callable[[], bool], seconds: float = 5.0) -> None:
    end_s = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_the_service_s_numbers_are_told_and_never_merged(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Watcher(state) as speaker, Page(state) as page:
        told = page.ask("/api/state").json
        assert told["promises"] == ["path ≥ 96.3 %", "events 38 of 39 shown", "unseen ≤ 64 of 2,184"]
        assert told["advice"] == [ADVICE]
        night = page.ask("/api/night").json
        assert [night[name] for name in ("from", "alarms", "advice", "notes")] == ["service", [], [ADVICE], []]
        assert msgspec.convert(night["guard"], numbers.GuardNumbers) == speaker.guard
        told = numbers.Told(name="contact", level="alarm", since=SINCE, left=SINCE, text="lost")
        speaker.guard = numbers.GuardNumbers(no_path="nobody watches", told=(told,))
        wait_for(lambda: page.ask("/api/state").json["promises"] == ["path not watched"])
        when = f"told since {minute_of(SINCE)}, over or not seen again since the service ended {minute_of(SINCE)}"
        assert page.ask("/api/night").json["notes"] == [f"{when}: lost"]
        speaker.guard = None
        speaker.health = [
            events.Health("second opinion", "alarm", "look at the queue of disagreements", SINCE, False),
            events.Health("engine", "degraded", "the processor judges", SINCE, False),
            events.Health("advice noise", "degraded", ADVICE, SINCE, False, is_advice=True),
        ]
        wait_for(lambda: page.ask("/api/night").json["from"] == "off")
        assert page.ask("/api/night").json == {
            "guard": {},
            "from": "off",
            "alarms": [f"look at the queue of disagreements since {minute_of(SINCE)}"],
            "advice": [],
            "left": [],
            "notes": [f"the processor judges since {minute_of(SINCE)}"],
        }


def test_without_a_service_ledger_labels_and_logbook_tell(tmp_path: Path) -> None:
    """Curve 3 was kept, curve 4 discarded and curve 5 sent to review; all three are events.

    The logbook, once there is one, says how the tip was, and what was advised, until when.
    """
    state = tmp_path / "state"
    stream = fill(state, [judged(number) for number in range(1, 13)])
    tip = guard().tip
    assert tip is not None
    with Page(state) as page:
        for seq in (3, 4, 5):
            assert page.label(f"{stream}:{seq}").status == 201
        night = page.ask("/api/night").json
        assert (night["from"], night["notes"]) == ("files", [])
        assert (night["guard"]["path"], night["guard"]["tip"]) == (None, None)
        told = night["guard"]["events"]
        assert (told["confirmed"], told["kept_live"], told["shown_live"]) == (3, 1, 2)
        with Logbook(state / NAME, stream) as logbook:
            for block in tip.blocks:
                logbook.note_block(block, tip.unit)
            over = numbers.Told(
                name="advice noise", level="degraded", since=SINCE, ended="2026-11-28T06:30:00.000Z", text=ADVICE
            )
            logbook.note_told(over)
            logbook.note_told(
                msgspec.structs.replace(over, name="contact", level="alarm", text="lost: engage anew", ended=None)
            )
            logbook.leave("2026-11-28T06:40:00.000Z")
        began, ended, left = (minute_of(one) for one in (SINCE, "2026-11-28T06:30:00Z", "2026-11-28T06:40:00Z"))
        wait_for(lambda: page.ask("/api/night").json["notes"] == [f"from {began} to {ended}: {ADVICE}"])
        night = page.ask("/api/night").json
    text = f"lost (since {began}, still so when the service ended {left}): engage anew"
    assert night["left"] == [{"level": "alarm", "text": text}]
    told = night["guard"]["tip"]
    assert msgspec.convert(told, numbers.Tip) == msgspec.structs.replace(tip, advice=())


def test_a_disputed_discard_is_shown_with_its_step_but_not_to_a_blind_eye(tmp_path: Path) -> None:
    disputed = judged(1, verdict="discard", compact_copy=copy_of(SAWTOOTH), steps=31.5, is_disputed=True)
    stream = fill(tmp_path / "state", [disputed, judged(2)])
    with Page(tmp_path / "state") as page:
        shown = page.ask(f"/api/curve/{stream}:1").json
        assert shown["disagreement"].startswith("the second opinion sees the force fall by ")
        assert shown["step"]["x"] == pytest.approx(shown["ruptures"][-1]["x"], abs=5.0)  # nm: each is placed on its own
        assert shown["step"]["rise"] == pytest.approx(-shown["ruptures"][-1]["drop"], rel=0.3)
        for hidden in (f"{stream}:1?blind=1", f"{stream}:2"):
            told = page.ask(f"/api/curve/{hidden}").json
            assert (told["step"], told["disagreement"]) == (None, None)


class Kept:
    """Decisions of these times, all kept."""

    stream = "s"

    def __init__(self, *times: str) -> None:
        self._times, self.last_seq = times, len(times)

    def decisions(self, seqs: range) -> dict[int, Any]:
        return {seq: {"time": self._times[seq - 1], "data": {"verdict": "keep"}} for seq in seqs}


def test_of_less_than_a_quarter_of_an_hour_no_rate_is_told(tmp_path: Path) -> None:
    """An hour that follows on another counts whole, one that begins anew from its first curve on."""
    day = "2026-11-28T"
    for times, now, seconds in (
        (["10:50:00Z"] * 9, "10:59:00Z", 540.0),
        (["10:50:00Z", "11:20:00Z"], "11:30:00Z", 600.0 + 1800.0),
        (["03:30:00Z", "10:50:00Z"], "10:59:00Z", 1800.0 + 540.0),
    ):
        hours = Hours()
        hours.last(cast("LedgerView", Kept(*(day + one for one in times))), day + now)
        assert hours.yielded() == (len(times), seconds)
    fill(tmp_path / "state", [judged(number) for number in range(1, 13)])
    with Page(tmp_path / "state") as page:
        told = page.ask("/api/state?night=1").json
        assert told["night"] == page.ask("/api/night").json
        assert (told["yield"]["per_hour"], told["yield"]["kept"]) == (None, 4)
        assert "night" not in page.ask("/api/state").json
