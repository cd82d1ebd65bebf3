"""The running service, as users and scripts meet it: real processes, real files, real sockets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pace import allowed

from daemon.client.feed import ask_status
from daemon.client.service_file import TemporaryService
from tests.faults.disorder import run as run_disorder
from tests.faults.harness import CURVES, Producer, fresh, history, identity_holds, judge, scrape
from tests.faults.kills import run as run_kills

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[TemporaryService]:
    with TemporaryService(tmp_path) as running:
        yield running


def until(condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


def score(folder: Path) -> dict[tuple[str, int], dict]:  # type: ignore[type-arg]
    run = subprocess.run(
        [sys.executable, "-m", "daemon", "score", "--json", str(folder)], capture_output=True, text=True, check=True
    )
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    return {(row["path"], row["curve"]): row for row in rows}


def test_real_files_are_decided_live_and_exactly_as_a_later_score_decides_them(trial: TemporaryService) -> None:
    for file in sorted(CURVES.iterdir()):
        shutil.copy(file, trial.watch / file.name)
    expected = score(trial.watch)
    until(lambda: len(history(trial)) >= len(expected), "every curve decided")
    live = {(event["data"]["path"], event["data"]["curve"]): event["data"] for event in history(trial)}
    assert live.keys() == expected.keys()
    for key, row in expected.items():
        same = (
            "verdict",
            "score",
            "reasons",
            "model",
            "pipeline",
            "engine",
            "sha256",
            "force_unit",
            "preview",
            "steps",
            "ruptures",
        )
        assert {name: live[key][name] for name in same} == {name: row[name] for name in same}
    assert {row["verdict"] for row in live.values()} == {"keep", "review", "discard"}
    totals_s = [row["latency_s"]["total"] for row in (*live.values(), *expected.values())]
    assert min(totals_s) > 0.0
    assert max(totals_s) < 30.0
    assert identity_holds(scrape(trial))


def test_broken_files_are_flagged_with_their_reason_and_hold_up_nobody(trial: TemporaryService) -> None:
    whole = (CURVES / "force-save-0441.jpk-force").read_bytes()
    (trial.watch / "a.pfc").write_bytes(whole)  # a kind that nobody reads
    (trial.watch / "notes.txt").write_text("the tip was changed at 14:00\n")
    (trial.watch / "pickle.jpk-force").write_bytes(b"\x80\x04\x95\x10\x00\x00\x00cos\nsystem\n")
    (trial.watch / "good.jpk-force").write_bytes(whole)
    until(lambda: len(history(trial)) == 2, "the good and the broken one decided")
    verdicts = {event["data"]["path"]: event["data"] for event in history(trial)}
    assert verdicts["pickle.jpk-force"]["verdict"] == "review"
    assert verdicts["pickle.jpk-force"]["score"] is None
    assert verdicts["good.jpk-force"]["reasons"] == ["score"]
    until(lambda: scrape(trial)['afm_triage_files_ignored_total{reason="unclaimed"}'] == 2, "two files ignored")


def test_the_same_bytes_again_are_a_duplicate_and_other_bytes_under_the_same_name_are_new(
    trial: TemporaryService,
) -> None:
    content = (CURVES / "fmt-jpk-fd_spot3-0192.jpk-force").read_bytes()
    (trial.watch / "a.jpk-force").write_bytes(content)
    until(lambda: len(history(trial)) == 1, "first decided")
    (trial.watch / "copy.jpk-force").write_bytes(content)
    until(lambda: scrape(trial)["afm_triage_curves_duplicate_total"] == 1, "copy counted")
    (trial.watch / "a.jpk-force").write_bytes(fresh(content, 7))
    until(lambda: len(history(trial)) == 2, "rewritten one decided")
    assert [event["data"]["path"] for event in history(trial)] == ["a.jpk-force", "a.jpk-force"]
    assert identity_holds(scrape(trial))


def heaps(trial: TemporaryService) -> int:
    """Those that malloc made for threads: each begins at a multiple of 64 MB."""
    assert trial.process is not None
    maps = Path(f"/proc/{trial.process.pid}/maps").read_text().splitlines()
    own = [line.split() for line in maps if " rw-p 00000000 00:00 0" in line]
    return sum(len(one) == 5 and int(one[0].split("-")[0], 16) % (64 << 20) == 0 for one in own)


def test_the_books_balance_at_every_scrape_under_load_and_sigterm_drains(trial: TemporaryService) -> None:
    producer = Producer(trial.watch)
    writer = threading.Thread(target=lambda: [producer.write() for _ in range(150)])
    writer.start()
    scrapes = [scrape(trial) for _ in range(60)]
    writer.join()
    assert all(identity_holds(numbers) for numbers in scrapes)
    assert max(numbers["afm_triage_backlog_curves"] for numbers in scrapes) > 0
    assert heaps(trial) <= 3
    begun_s = time.monotonic()
    assert trial.stop() == 0
    assert time.monotonic() - begun_s <= allowed(5.0)
    trial.start()
    trial.wait_ready()
    until(lambda: not judge(producer.written, history(trial)).lost, "the rest decided after the restart")
    findings = judge(producer.written, history(trial))
    assert (findings.decided, findings.doubled, findings.gaps) == (150, [], [])


def test_kill_9_at_random_moments_loses_and_doubles_nothing() -> None:
    findings = run_kills(curves=120, kills=3, seed=3, rate=60.0)
    assert findings.decided == 120
    assert (findings.lost, findings.doubled, findings.gaps) == ([], [], [])


def test_the_log_says_what_is_not_there_yet_and_what_ended_it(tmp_path: Path) -> None:
    late = tmp_path / "late"
    with TemporaryService(tmp_path / "trial", options=("--watch", str(late))) as running:
        assert running.stop() == 0
        words = running.log.read_text()
    assert f"{late} (not there yet)" in words
    assert f"{running.watch} (not" not in words
    assert "stopped by SIGTERM; the ledger ends at seq 0" in words


def test_a_second_service_on_the_same_state_exits_73(trial: TemporaryService) -> None:
    second = subprocess.run(trial.command(), capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 73
    assert second.stderr.count("\n") == 1
    assert "already runs" in second.stderr


def test_the_same_instrument_on_another_state_exits_73_and_leaves_no_folder(
    trial: TemporaryService, tmp_path: Path
) -> None:
    pid = json.loads((trial.state / "service.json").read_bytes())["pid"]
    words = trial.command()
    words[words.index("--state") + 1] = str(tmp_path / "other")
    second = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert (second.returncode, second.stderr.count("\n")) == (73, 1)
    assert f"is already running as process {pid}" in second.stderr
    assert not (tmp_path / "other").exists()


def test_ready_comes_after_the_self_test_and_the_watchdog_is_fed_while_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "1500000")
        with TemporaryService(tmp_path / "trial") as trial:
            heard: list[str] = []
            while heard.count("WATCHDOG=1") < 3:
                heard += listener.recv(4096).decode().split("\n")
            assert heard[0] == "READY=1"
            assert trial.stop() == 0
        listener.settimeout(0.2)
        heard += listener.recv(4096).decode().split("\n")
        while "STOPPING=1" not in heard:
            heard += listener.recv(4096).decode().split("\n")


def test_reload_takes_new_thresholds_and_refuses_a_broken_file(tmp_path: Path) -> None:
    def state() -> dict[str, Any]:
        found = ask_status(trial.replay)
        assert found is not None
        return found["data"]

    config = tmp_path / "afm.toml"
    config.write_text("[thresholds]\nkeep = 0.9\n")
    with TemporaryService(tmp_path / "trial", options=("--config", str(config))) as trial:
        assert trial.process is not None
        producer = Producer(trial.watch)
        producer.write()
        until(lambda: len(history(trial)) == 1, "first decided")
        config.write_text("[thresholds]\nkep = 0.5\n")
        trial.process.send_signal(signal.SIGHUP)
        until(lambda: "did you mean" in trial.log.read_text(), "refusal in the log")
        (trouble,) = [one for one in state()["health"] if not one["ok"]]  # for whoever looks later
        assert (trouble["name"], trouble["level"]) == ("configuration", "degraded")
        assert "\n" not in trouble["text"]
        config.write_text("[thresholds]\nkeep = 0.5\n")
        trial.process.send_signal(signal.SIGHUP)
        until(lambda: "applied ['thresholds.keep']" in trial.log.read_text(), "applied in the log")
        until(lambda: state()["state"] == "ready", "well again")
        producer.write()
        until(lambda: len(history(trial)) == 2, "second decided")
        assert [event["data"]["thresholds"]["keep"] for event in history(trial)] == [0.9, 0.5]


def test_a_full_disk_pauses_loses_nothing_and_announces_nothing(tmp_path: Path) -> None:
    script = 'mkdir -p "$1" && mount -t tmpfs -o size=4m tmpfs "$1" && shift && exec "$@"'
    inside = ["unshare", "-rm", "sh", "-c", script, "sh"]
    if subprocess.run([*inside, str(tmp_path / "probe"), "true"], capture_output=True, check=False).returncode:
        pytest.skip("no private mounts on this machine")
    trial = TemporaryService(tmp_path / "trial")
    command = [*inside, str(trial.state), *trial.command()]
    with trial.log.open("ab") as log:
        trial.process = subprocess.Popen(command, stdout=log, stderr=log)
    state = Path(f"/proc/{trial.process.pid}/root{trial.state}")
    try:
        until(lambda: "ready after" in trial.log.read_text(), "service ready")
        filler = state / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(b"\0" * 4096):
                    pass
            except OSError:
                pass
        producer = Producer(trial.watch)
        for _ in range(60):
            producer.write()
        until(lambda: "disk" in trial.log.read_text().split("ready after")[1], "the alarm")
        announced = len(history(trial))
        assert announced < 60
        os.unlink(filler)
        until(lambda: len(history(trial)) == 60, "everything decided once there is room")
        findings = judge(producer.written, history(trial))
        assert (findings.lost, findings.doubled, findings.gaps) == ([], [], [])
    finally:
        assert trial.stop() == 0


@pytest.mark.faults
def test_a_folder_in_disorder_leaves_no_whole_curve_undecided_and_none_decided_twice() -> None:
    there, lost, doubled, balanced = run_disorder(seed=2, seconds=6.0)
    assert there > 20
    assert (lost, doubled, balanced) == (0, 0, True)
