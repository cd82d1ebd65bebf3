"""The small parts of the service: contact watch, rates, lock, log lines, progress."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ledgerhelp import decision

from daemon.common.errors import UserError
from daemon.common.locks import StateLock
from daemon.common.stdio import progress
from daemon.config import Config
from daemon.judging import decide
from daemon.judging.sentinel import Sentinel
from daemon.service import Service
from daemon.service.health import ContactWatch
from daemon.service.report import Rates
from tests.test_daemon_decide import JUDGE, reading

ROOT = Path(__file__).resolve().parents[1]


def test_twenty_curves_without_contact_in_a_row_raise_the_alarm_and_one_with_contact_ends_it() -> None:
    watch = ContactWatch(20)
    assert not watch.observe([("score", "no_contact")] * 19)
    assert watch.observe([("score", "no_contact")])
    assert "20 curves" in watch.text
    assert not watch.observe([("score",)])
    assert not watch.observe([("score", "no_contact")] * 19)


def test_where_the_sign_seems_wrong_nobody_is_told_to_engage_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An alarm is an error in the log, advice a warning."""
    config = Config(state=tmp_path)
    service = Service(config, lambda: config)
    sentinel, lost = Sentinel(), replace(decision(1), reasons=("flipped", "no_contact"))

    def told(curves: int) -> list[tuple[str, str]]:
        for _ in range(curves):
            sentinel.observe("jpk", lost.reasons)
        service._look_at_surface(sentinel, [lost] * curves)
        return [(one.name, one.level) for one in service._health.conditions()]

    assert told(2) == [("contact", "ok")]
    assert told(30) == [("orientation jpk", "alarm"), ("contact", "ok")]
    (said,) = [one.text for one in service._health.conditions() if one.name == "contact"]
    assert said.endswith("as their sign seems wrong: see orientation jpk")
    service._health.report("advice noise", "degraded", "noise doubled", is_advice=True)
    assert [one.levelname for one in caplog.records] == ["ERROR", "WARNING"]
    sentinel = Sentinel()
    service._look_at_surface(sentinel, [lost])
    assert [one.name for one in service._health.conditions() if one.level == "alarm"] == ["orientation jpk", "contact"]


def test_an_unreadable_file_says_nothing_about_the_tip() -> None:
    watch = ContactWatch(2)
    unreadable = decide([reading(curve=False, reason="truncated")], [None], JUDGE)[0]
    assert watch.observe([("no_contact",), unreadable.reasons, ("no_contact",)])


def test_tempo_knows_percentiles_and_rate() -> None:
    rates = Rates(begun_s=0.0)
    assert rates.latency_s() == {"p50": None, "p99": None}
    for second in range(100):
        rates.observe([second / 1000], now_s=float(second))
    assert rates.latency_s() == {"p50": 0.05, "p99": 0.099}
    assert rates.rate_per_s(now_s=99.0) == pytest.approx(1.0, abs=0.05)


def test_a_second_service_on_the_same_state_is_refused_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from daemon.common.locks import StateLock; "
        f"lock = StateLock(Path({str(tmp_path)!r})); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"pid {holder.pid}") as refused:
            StateLock(tmp_path)
        assert refused.value.exit_code == 73
        holder.kill()
    StateLock(tmp_path).release()


def test_progress_passes_items_through_and_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(5), "counting")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err == ""
