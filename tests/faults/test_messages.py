"""A real service with a receiver that hangs: the alarm reaches the others within a minute, and no verdict waits."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import scrape
from tests.faults.lab import Lab, put, until
from tests.test_notify import SECRET, http_receiver

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]  # a minute: tests/test_notify.py has the rules and senders
CURVES = 10


def verdicts_after_s(lab: Lab, first: int) -> list[float]:
    """How long each of some curves, put one by one, waited from its file's end to its verdict."""
    for number in range(first, first + CURVES):
        put(lab.watch, number)
        lab.wait_decided(number + 1, 20)
    return [float(event["data"]["latency_s"]["total"]) for event in lab.history()[first:]]


def test_an_alarm_is_told_within_a_minute_and_a_receiver_that_hangs_delays_no_verdict(tmp_path: Path) -> None:
    with http_receiver(hang_s=60.0) as hanging, http_receiver() as well:
        toml = f"""
            [alarm]
            unread_files = 3
            [notify]
            ntfy = "http://127.0.0.1:{hanging.port}/{SECRET}"
            webhook = "http://127.0.0.1:{well.port}/{SECRET}"
        """
        with Lab(tmp_path, toml=toml) as lab:
            before_s = verdicts_after_s(lab, 0)
            elsewhere = lab.watch / "other"
            elsewhere.mkdir()
            begun_s = time.monotonic()
            for number in range(60):  # of a kind that nobody reads, and no curve since
                (elsewhere / f"x{number}.xyz").write_bytes(b"no curve")
            said: dict[str, Any] = json.loads(well.got.get(timeout=60).body)
            assert time.monotonic() - begun_s < 60.0
            assert said["title"].startswith("afm1 ▲ folder: ")
            assert "none is a kind that is read" in said["text"]
            assert said["picture"].startswith("iVBOR")
            hanging.got.get(timeout=60)
            during_s = verdicts_after_s(lab, CURVES)  # while it hangs
            assert statistics.median(during_s) < statistics.median(before_s) + 0.1
            until(lambda: scrape(lab)['afm_triage_notifications_total{result="failed"}'] >= 1, 60)
            status = lab.status()
            assert status["messages"]["waiting"] == 1  # for ntfy alone
            assert SECRET not in json.dumps(status) + lab.log_text()
