"""Status and reload: against a service that answers, one that is down, and one that is another's."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zmq
from msgspec import convert, structs

from daemon.client.feed import ask_status
from daemon.client.service_file import find, forget, is_left, leave
from daemon.client.status import find_orphan, gather, is_well
from daemon.common.errors import UserError
from daemon.config import Config
from daemon.config.origin import SERVICE_FILE
from daemon.guard.logbook import Logbook
from daemon.labels import Label, Labels
from daemon.ledger import Ledger, events
from daemon.ledger.numbers import GuardNumbers, Told
from daemon.verbs.reload import await_answer, reload
from daemon.verbs.status import page
from models.clock import day_and_minute, minute_of
from tests.reviewhelp import fill, judged
from tests.speaker import Speaker
from tests.test_review_night import Watcher

ROOT = Path(__file__).resolve().parents[1]
NOBODY = "ipc:///nowhere/at/all"


@pytest.fixture
def speaker(tmp_path: Path) -> Iterator[Speaker]:
    with Speaker(tmp_path / "state") as speaker:
        speaker.record(12)
        yield speaker


def afm_triage(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "daemon", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def words_of(report: dict[str, Any]) -> str:
    return "\n".join(line.plain for line in page(report))


def test_a_running_service_is_told_on_one_screen(speaker: Speaker) -> None:
    done = afm_triage("status", "--state", str(speaker.state))
    assert (done.returncode, done.stderr) == (0, "")
    for told in (
        "● ready   up 2 h 13 min",
        "/data/afm1: inotify + scan every 30 s, 2 not finished yet",
        "shipped, keep from 0.62, discard to 0.04, calibrated on simulation, on torch-cpu-bf16",
        "● keep 4   ◐ review 4   ○ discard 4   (33.3% discarded)",
        "4 of 50 kept, too early to say how long",
        "12 seen = 12 decided + 0 duplicate + 0 backlog; 1 ignored",
        "p50 18 ms, p99 41 ms",
        speaker.publish,
        "✓ all well",
        "4 curves wait for a look, the first of them:",
        "run7/curve-0002.jpk-force#0  between the thresholds",
    ):
        assert told in done.stdout
    assert done.stdout.count("\n") <= 24
    assert "\x1b" not in done.stdout


def test_what_is_missed_is_told_a_line_each(tmp_path: Path) -> None:
    with Watcher(tmp_path / "state") as watcher:
        watcher.record(3)
        said = words_of(gather(Config(state=watcher.state, instrument="afm1")))
    for told in (
        "  path      1,183 of 1,204 simulated events were found",
        "  events    38 of 39 confirmed events were shown to you live",
        "  unseen    of 2,184 discards at most 64 events were lost (100 looked at, 95 %)",
        "  second    31 are disputed",
        "  tip       noise 10 pN ▄▄▄▄▄▄▄▄████, adhesion – ████████    ",
        "  health    ▲ noise doubled since 02:14: look at the tip",
    ):
        assert told in said.splitlines()


def test_what_was_told_is_not_forgotten_with_the_service(tmp_path: Path) -> None:
    """A restart makes no bad night a good one, and when none runs the files tell."""
    state, since = tmp_path / "state", "2026-11-28T02:14:00.000Z"
    moment = minute_of(since)
    lost = Told(name="contact", level="alarm", since=since, left=since, text="30 curves without contact")
    with Watcher(state) as watcher:
        watcher.record(3)
        watcher.guard = GuardNumbers(no_path="nobody watches", told=(lost,))
        said = words_of(gather(Config(state=state, instrument="afm1"))).splitlines()
    assert "  path      nobody watches" in said
    assert "  health    ✓ all well now" in said
    when = f"told since {moment}, over or not seen again since the service ended {moment}"
    assert f"  before    contact: {when}: 30 curves without contact" in said
    with Logbook(state / "guard.sqlite", "any") as logbook:
        logbook.note_told(lost)
        logbook.note_told(structs.replace(lost, name="disk", ended=since, left=None, text="full"))
    done = afm_triage("status", "--state", str(state))
    for told in (
        "  events    nobody has confirmed an event yet",
        f"  left      ▲ contact: 30 curves without contact (since {moment}, still so when the service ended {moment})",
        f"  left      disk: from {moment} to {moment}: full",
    ):
        assert told in done.stdout
    guard = json.loads(afm_triage("status", "--json", "--state", str(state)).stdout)["guard"]
    assert convert(guard, GuardNumbers).told[0] == lost


@pytest.mark.parametrize(
    ("reasons", "told"),
    [
        (["score"], "between the thresholds"),
        (["score", "sign_assumed"], "between the thresholds, sign_assumed"),
        (["score", "sign_assumed", "columns_assumed"], "sign_assumed, columns_assumed"),
        (["truncated"], "truncated"),
    ],
)
def test_why_a_curve_waits_is_told(speaker: Speaker, reasons: list[str], told: str) -> None:
    report = json.loads(afm_triage("status", "--json", "--state", str(speaker.state)).stdout)
    report["flagged"] = [{"path": "a.txt", "curve": 0, "score": 0.012, "reasons": reasons}]
    assert words_of(report).endswith(f"a.txt#0  {told}")


def test_files_that_are_passed_over_are_told_by_kind(speaker: Speaker) -> None:
    report = json.loads(afm_triage("status", "--json", "--state", str(speaker.state)).stdout)
    kinds = {"unclaimed .pfc": 12, "image": 3, "companion": 40}
    assert "ignored   12 unclaimed .pfc, 3 image; 40 companion, read" in words_of(report | {"ignored": kinds})
    assert "ignored   " not in words_of(report)  # a service of before that says nothing of kinds
    assert "\x1b" not in words_of(report | {"ignored": {"unclaimed .\x1b[7m": 1, "image": "many"}})


def test_when_the_last_curve_came_always_stands(speaker: Speaker) -> None:
    report = gather(Config(state=speaker.state))
    assert re.search(r"curves    last curve \d+ s ago", words_of(report))
    hours = time.time() - 3 * 3600 - 12 * 60
    source = {"name": "/data/afm1", "ok": True, "detail": "scan", "last_curve_s": hours}
    quiet = words_of(report | {"last_curve_s": hours, "sources": [source], "oldest_pending_s": 71.2})
    assert "curves    last curve 3 h 12 min ago; the oldest without a verdict waits for 1 min" in quiet
    assert "/data/afm1: scan, last curve 3 h 12 min ago" in quiet
    speaker.fall_silent()
    stopped = gather(Config(state=speaker.state))
    assert not stopped["running"]
    assert re.search(r"curves    last curve \d+ s ago", words_of(stopped))


def test_a_folder_that_was_not_seen_lately_is_never_called_well(speaker: Speaker) -> None:
    report = gather(Config(state=speaker.state))
    assert is_well(report)
    lately = {"name": "/data/a", "ok": True, "detail": "scan", "folder": 0, "last_seen_s": time.time() - 5}
    assert "✓ all well" in words_of(report | {"sources": [lately]})
    for seen_s in (time.time() - 45, None):
        gone = report | {"sources": [lately, lately | {"name": "/mnt/b", "folder": 1, "last_seen_s": seen_s}]}
        assert not is_well(gone)
        assert "▲ source /mnt/b: has not been seen for" in words_of(gone)
        assert "all well" not in words_of(gone)


def test_as_json_it_is_the_status_event_and_the_ledger(speaker: Speaker) -> None:
    done = afm_triage("status", "--json", "--state", str(speaker.state))
    told = json.loads(done.stdout)
    assert (told["running"], told["last_seq"], told["pid"], told["state"]) == (True, 12, os.getpid(), "ready")
    assert told["ledger"]["counts"] == told["counts"] == {"keep": 4, "review": 4, "discard": 4}
    assert [one["seq"] for one in told["flagged"]] == [2, 5, 8, 11]


def test_what_is_not_well_is_said_and_is_an_exit_code(speaker: Speaker) -> None:
    since = "2026-11-20T12:00:00.000Z"
    text = "20 curves missed \x1b[2J: look at the tip"
    speaker.health = [events.Health("contact", "alarm", text, since, False)]
    report = gather(Config(state=speaker.state))
    assert not is_well(report)
    assert f"▲ contact: 20 curves missed �[2J since {day_and_minute(since)}: look at the tip" in words_of(report)


def test_a_service_that_is_down_leaves_its_ledger(speaker: Speaker) -> None:
    speaker.fall_silent()
    leave(speaker.state, NOBODY, NOBODY, "2026-11-20T12:00:00Z")
    report = gather(Config(state=speaker.state))
    text = words_of(report)
    assert "○ not running" in text
    assert "does not answer" in text  # this very process is alive and wrote the whereabouts
    assert "12 decisions" in text
    assert "review  run7/curve-0011" not in text
    assert "keep  run7/curve-0012.jpk-force#0" in text
    assert "4 curves wait for a look" in text
    assert not is_well(report)


def test_a_service_that_died_is_said_to_have_died(tmp_path: Path) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    (tmp_path / SERVICE_FILE).write_text(json.dumps({"pid": process.pid, "publish": NOBODY, "replay": NOBODY}))
    report = gather(Config(state=tmp_path, replay=NOBODY))
    assert f"process {process.pid} and has gone without stopping in order" in words_of(report)


def test_nothing_at_all_exits_69(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFM_TRIAGE_REPLAY", NOBODY)
    done = afm_triage("status", "--state", str(tmp_path / "none"))
    assert done.returncode == 69
    assert "○ not running" in done.stdout
    assert "is --state, --config or --instrument right?" in done.stdout


def test_another_ledger_s_service_at_the_default_address_is_not_ours(tmp_path: Path, speaker: Speaker) -> None:
    other = tmp_path / "other"
    other.mkdir()
    Ledger(other / "ledger.sqlite", "afm1").close()
    assert ask_status(speaker.replay) is not None
    assert gather(Config(state=other, replay=speaker.replay))["running"] is False
    named = Config(state=tmp_path, instrument="afm2", replay=speaker.replay, origins={"instrument": "flag"})
    assert gather(named)["running"] is False
    assert gather(Config(state=tmp_path, replay=speaker.replay))["running"] is True


def test_a_ledger_of_a_newer_version_is_not_told_as_another_service_s(tmp_path: Path, speaker: Speaker) -> None:
    """Nobody can compare who answers at the usual address with a ledger that cannot be read."""
    other = tmp_path / "newer"
    other.mkdir()
    Ledger(other / "ledger.sqlite", "afm1").close()
    with closing(sqlite3.connect(other / "ledger.sqlite")) as database:
        database.execute("pragma user_version = 99")
    report = gather(Config(state=other, replay=speaker.replay))
    assert report["running"] is False
    assert "newer" in report["note"]
    assert "newer" in words_of(report)
    report["others"] = ["afm2"]
    assert words_of(report).endswith("afm2 runs too: afm-triage status --instrument afm2")


def test_file_names_cannot_steer_the_terminal(speaker: Speaker) -> None:
    speaker.record(3, path="run7/\x1b[2Jevil\r\n.jpk-force", reasons=("\x1b[31m",))
    report = gather(Config(state=speaker.state))
    report["flagged"] = [{**report["flagged"][0], "path": "\x1b[2Jevil\n"}]
    assert not {char for char in words_of(report).replace("\n", "") if not char.isprintable()}


def test_a_labelled_curve_waits_no_longer(speaker: Speaker) -> None:
    config = Config(state=speaker.state)
    first, second = gather(config)["flagged"][:2]
    with Labels(speaker.state / "labels.sqlite") as labels:
        sha256 = f"{first['seq']:064x}"
        labels.add([Label(first["path"], 0, "keep", "ana", "2026-11-20T12:00:00Z", sha256=sha256)])
        labels.add([Label(second["path"], 0, "unsure", "ana", "2026-11-20T12:00:00Z")])
    report = gather(config)
    assert [one["seq"] for one in report["flagged"]] == [8, 11]
    assert report["ledger"]["review_queue"] == 2


def test_looking_makes_no_file(speaker: Speaker) -> None:
    before = set(speaker.state.iterdir())
    gather(Config(state=speaker.state))
    assert set(speaker.state.iterdir()) == before


# whereabouts


def test_whereabouts_are_found_unless_asked_otherwise(tmp_path: Path) -> None:
    config = Config(state=tmp_path)
    assert (find(config).publish, find(config).pid) == (config.publish, None)
    leave(tmp_path, "tcp://127.0.0.1:1111", "tcp://127.0.0.1:2222", "2026-11-20T12:00:00Z")
    where = find(config)
    assert (where.publish, where.replay) == ("tcp://127.0.0.1:1111", "tcp://127.0.0.1:2222")
    assert (where.pid, where.is_alive) == (os.getpid(), True)
    asked = Config(state=tmp_path, publish="tcp://lab-pc:5795", origins={"publish": "flag", "replay": "file"})
    assert (find(asked).publish, find(asked).replay) == ("tcp://lab-pc:5795", "tcp://127.0.0.1:2222")
    forget(tmp_path)
    assert find(config).pid is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "[]", '{"pid": "1"}', '{"pid": -1, "publish": 3}', "\x00", "{" * 5000])
def test_damaged_whereabouts_are_none(content: str, tmp_path: Path) -> None:
    (tmp_path / SERVICE_FILE).write_text(content)
    where = find(Config(state=tmp_path))
    assert (where.pid, where.publish, where.is_alive) == (None, "tcp://127.0.0.1:5795", False)


# reload


@pytest.fixture
def on_hangup(speaker: Speaker) -> Iterator[list[dict[str, Any]]]:
    """What the service will say to SIGHUP; here the service is this very process."""
    answers: list[dict[str, Any]] = []
    before = signal.signal(signal.SIGHUP, lambda *_: speaker.publisher.emit(events.ConfigOutcome(**answers.pop())))
    yield answers
    signal.signal(signal.SIGHUP, before)


def test_a_reload_says_what_has_changed(speaker: Speaker, on_hangup: list[dict[str, Any]]) -> None:
    changed = {"thresholds.keep": [0.6, 0.7]}
    on_hangup.append({"result": "applied", "digest": "x", "changed": changed, "needs_restart": ["publish"]})
    said = reload(Config(state=speaker.state), patience_s=5)
    assert said == "thresholds.keep: 0.6 -> 0.7\npublish: changed, and needs a restart"


def test_a_refused_reload_is_exit_78_with_the_reason(speaker: Speaker, on_hangup: list[dict[str, Any]]) -> None:
    on_hangup.append({"result": "rejected", "reason": "afm1.toml: keep: unknown key"})
    with pytest.raises(UserError, match=r"the old settings stay: .*keep: unknown key") as caught:
        reload(Config(state=speaker.state), patience_s=5)
    assert caught.value.exit_code == 78


def test_no_signal_goes_to_a_process_that_only_has_the_number(speaker: Speaker, tmp_path: Path) -> None:
    sleeper = subprocess.Popen(["sleep", "30"])
    try:
        (tmp_path / "state" / SERVICE_FILE).write_text(
            json.dumps({"pid": sleeper.pid, "publish": speaker.publish, "replay": speaker.replay})
        )
        with pytest.raises(UserError, match="does not answer") as caught:
            reload(Config(state=speaker.state))
        assert caught.value.exit_code == 69
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


def test_reload_without_a_service_exits_69(tmp_path: Path) -> None:
    done = afm_triage("reload", "--state", str(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (69, 1)
    assert "no service runs on" in done.stderr
    hint = afm_triage("status", "--state", str(tmp_path)).stdout
    assert f"no service has run on {tmp_path} yet; start it with: afm-triage run" in hint
    assert f"start it with: afm-triage run --watch DIR --state {tmp_path}\n" in hint
    fill(tmp_path, [judged(1)])
    assert f"the service on {tmp_path} was stopped; start" in afm_triage("status", "--state", str(tmp_path)).stdout
    moved = afm_triage("stop", "--state", str(tmp_path / "away"))
    assert moved.returncode == 69
    assert "if it was moved, put it back" in moved.stderr


def test_a_reload_does_not_wait_for_a_service_that_has_ended() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    with (
        zmq.Context() as context,
        context.socket(zmq.SUB) as subscriber,
        pytest.raises(UserError, match="has ended meanwhile") as caught,
    ):
        await_answer(subscriber, ended.pid, 30.0)
    assert caught.value.exit_code == 69


@pytest.mark.parametrize("content", ["{}", "[1]", "no json", ""])
def test_a_service_file_that_somebody_has_overwritten_is_not_ours(content: str, tmp_path: Path) -> None:
    assert not is_left(tmp_path)
    leave(tmp_path, "tcp://127.0.0.1:1", "tcp://127.0.0.1:2", "2026-11-20T12:00:00Z")
    assert is_left(tmp_path)
    (tmp_path / SERVICE_FILE).write_text(content)
    assert not is_left(tmp_path)


def test_a_backup_of_the_ledger_is_no_service_without_its_state_folder(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    ledger.touch()
    script = "import sys; file = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    for word, is_service in (("backup", False), ("run", True)):
        with subprocess.Popen([sys.executable, "-c", script, str(ledger), word], **pipes) as process:
            assert process.stdout is not None
            process.stdout.readline()
            found = find_orphan(tmp_path)
            process.kill()
        assert (found is not None) == is_service
