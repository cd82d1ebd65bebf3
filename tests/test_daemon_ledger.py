"""The ledger: once, in order, whole batches or nothing, on a real disk."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.common.errors import UserError
from daemon.judging import FileMark
from daemon.judging.audit import AUDIT_SHARE, draw
from daemon.ledger import Ledger, LedgerView, NotRecorded, care, file
from daemon.ledger.wire import Named, checksum, decode
from models.clock import Clock
from tests.ledgerhelp import as_version_2, decision, decisions, ledger_with

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def test_seq_counts_from_one_without_a_gap_and_survives_a_restart(path: Path) -> None:
    ledger = Ledger(path, "afm1")
    assert ledger.last_seq == 0
    assert ledger.record(decisions(1, 4)) == [1, 2, 3]
    stream = ledger.stream
    ledger.close()
    ledger = Ledger(path, "afm1")
    assert ledger.stream == stream
    assert ledger.record(decisions(4, 6)) == [4, 5]
    assert ledger.verdict_counts() == {"keep": 1, "review": 2, "discard": 2}
    assert ledger.review_count() == 2
    ledger.close()


def test_nothing_is_decided_twice(path: Path) -> None:
    ledger = Ledger(path, "afm1")
    ledger.record(decisions(1, 3))
    again = [decision(2, verdict="keep"), decision(3), decision(3), decision(4)]
    assert ledger.record(again) == [None, 3, None, 4]
    assert ledger.known([decision(2).identity, "new#0"]) == {decision(2).identity}
    assert sum(ledger.verdict_counts().values()) == 4
    with ledger.view() as view:
        assert [decode(body)["data"]["verdict"] for _, body in view.bodies_since(0)][1] == "review"
    ledger.close()


def test_a_ledger_that_was_moved_away_takes_nothing_until_it_is_back(path: Path) -> None:
    ledger, away = Ledger(path, "afm1"), path.with_name("away")
    assert ledger.record([decision(1)]) == [1]
    path.rename(away)
    with pytest.raises(NotRecorded, match="moved or deleted"):
        ledger.record([decision(2)])
    path.touch()  # another file of that name is not it
    with pytest.raises(NotRecorded):
        ledger.record([decision(2)])
    away.rename(path)
    assert ledger.record([decision(2)]) == [2]
    ledger.close()


def test_a_batch_with_an_impossible_decision_changes_nothing(path: Path) -> None:
    ledger = Ledger(path, "afm1")
    with pytest.raises(sqlite3.IntegrityError):
        ledger.record([decision(1), decision(2, verdict="perhaps")], [FileMark("/w", "a", 1, 1, None, 1)])
    assert ledger.last_seq == 0
    with ledger.view() as view:
        assert view.finished("/w", "a") is None
    assert ledger.record([decision(2)]) == [1]
    ledger.close()


def test_every_review_enters_the_queue_with_its_compact_copy(path: Path) -> None:
    ledger = Ledger(path, "afm1")
    unreadable = decision(
        3, identity="f#bad.txt", verdict="review", score=None, reasons=("truncated",), compact_copy=None
    )
    ledger.record([decision(1), decision(2), unreadable])
    with ledger.view() as view:
        first, second = view.queue()
        assert (first.seq, first.path, first.score, first.reasons) == (2, decision(2).path, 0.25, ("score",))
        assert (second.score, second.reasons) == (None, ("truncated",))
        assert view.compact_copy(2) == b"a curve"
        assert view.compact_copy(3) is None
        assert view.flagged(1) is None
        assert view.find_flagged(0, sha256=decision(2).sha256) == [2]
        assert view.find_flagged(0, path=decision(2).path) == [2]
        assert [event["seq"] for event in view.last(2)] == [2, 3]
    ledger.close()


def test_a_finished_file_is_known_in_its_own_folder(path: Path) -> None:
    ledger = Ledger(path, "afm1")
    ledger.record([], [FileMark("/mnt/a", f"file{number}", 10, number, None, 1) for number in range(2500)])
    ledger.record([], [FileMark("/mnt/a", "file7", 99, 7, "ab" * 32, 3), FileMark("/mnt/b", "file8", 5, 6, None, 1)])
    with ledger.view() as view:
        assert view.finished("/mnt/a", "file7") == (99, 7, 0)
        assert view.finished("/mnt/a", "file8") == (10, 8, 0)
        assert view.finished("/mnt/b", "file8") == (5, 6, 0)
        assert view.finished("/mnt/b", "file7") is None
        assert [view.has_files(folder) for folder in ("/mnt/a", "/mnt/b", "/mnt")] == [True, True, False]
    ledger.close()


def test_a_view_may_be_asked_from_any_thread(path: Path) -> None:
    ledger = ledger_with(path, 20)
    with ledger.view() as view, ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: view.last_seq, range(200))) == [20] * 200
    ledger.close()


def test_every_decision_on_a_name_is_found(path: Path) -> None:
    ledger = Ledger(path, "afm1")
    two = [decision(n, path="a/x.txt", folder=folder) for n, folder in ((1, "/mnt/a"), (2, "/mnt/b"))]
    third = decision(3, path="a/x.txt", folder="/mnt/a", curve=1)
    ledger.record([*two, third, decision(4)])
    with ledger.view() as view:
        assert [one.seq for one in view.named("a/x.txt")] == [1, 2, 3]
        assert [one.seq for one in view.named("a/x.txt", 0)] == [1, 2]
        assert [one.folder for one in view.named("a/x.txt", 0, "/mnt/b")] == ["/mnt/b"]
        assert view.named("a/x.txt", 1) == [Named(3, "/mnt/a", "a/x.txt", 1, third.sha256, "keep")]
        assert view.named("x.txt") == []
    ledger.close()


def test_names_that_are_not_utf8_are_held(path: Path) -> None:
    ledger = Ledger(path, "afm1")
    name = os.fsdecode(b"caf\xe9.txt")
    odd = decision(2, identity=f"ab#{name}", path=name)
    assert ledger.record([odd], [FileMark(name, name, 1, 1, "ab", 1)]) == [1]
    assert ledger.known([odd.identity]) == {odd.identity}
    with ledger.view() as view:
        assert decode(view.bodies_since(0)[0][1])["data"]["path"] == name
        assert view.finished(name, name) == (1, 1, 0)
        assert [one.seq for one in view.named(name)] == [1]
    ledger.close()


def test_latency_counts_from_the_finished_file_and_never_below_zero(path: Path) -> None:
    steady_s = [100.0]
    ledger = Ledger(path, "afm1", clock=Clock(wall_s=lambda: 1.8e9, steady_s=lambda: steady_s[0]))
    ledger.record([decision(1, noticed_s=99.5), decision(2, noticed_s=101.0)])
    with ledger.view() as view:
        first, second = (decode(body) for _, body in view.bodies_since(0))
    assert first["data"]["latency_s"]["total"] == 0.5
    assert second["data"]["latency_s"]["total"] == 0.0
    assert first["time"] == "2027-01-15T08:00:00.000Z"
    ledger.close()


def test_the_history_can_be_read_beside_the_service_and_after_it(path: Path) -> None:
    ledger = ledger_with(path, 6)
    with LedgerView(path) as beside:
        assert [seq for seq, _ in beside.bodies_since(2, 3)] == [3, 4, 5]
        ledger.record([decision(7)])
        assert beside.last_seq == 7
        with pytest.raises(UserError):
            beside._select("delete from decisions")
    ledger.close()
    with LedgerView(path) as after:
        assert (after.last_seq, after.stream) == (7, ledger.stream)


def test_no_ledger_is_said_in_one_line(path: Path) -> None:
    with pytest.raises(UserError, match="start the service") as refusal:
        LedgerView(path)
    assert refusal.value.exit_code == 69


def test_a_newer_or_foreign_file_is_refused_and_left_alone(path: Path) -> None:
    ledger_with(path, 1).close()
    with sqlite3.connect(path) as connection:
        connection.execute("pragma user_version = 99")
    connection.close()
    for opening in (lambda: Ledger(path, "afm1"), lambda: LedgerView(path)):
        with pytest.raises(UserError, match="newer afm-triage") as refusal:
            opening()
        assert refusal.value.exit_code == 74
    foreign = path.with_name("other.sqlite")
    with sqlite3.connect(foreign) as connection:
        connection.execute("create table notes (line)")
    connection.close()
    with pytest.raises(UserError, match="no ledger of afm-triage"):
        Ledger(foreign, "afm1")


def test_an_older_file_is_migrated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger_with(path, 3).close()
    later = (*file.MIGRATIONS, "alter table files add column format text;")
    monkeypatch.setattr(file, "VERSIONS", replace(file.VERSIONS, scripts=later))
    ledger = Ledger(path, "afm1")
    assert ledger.last_seq == 3
    ledger.close()


def test_numbers_that_were_announced_never_come_again(path: Path) -> None:
    """A copy from before is put back: what follows is another stream."""
    ledger = ledger_with(path, 3)
    stream = ledger.stream
    ledger.close()
    copy = path.read_bytes()
    ledger = Ledger(path, "afm1")
    assert (ledger.stream, ledger.look().is_well) == (stream, True)
    assert ledger.record(decisions(4, 6)) == [4, 5]
    ledger.close()
    path.write_bytes(copy)
    ledger = Ledger(path, "afm1")
    assert ledger.stream != stream
    assert "decisions 4 to 5 were announced" in ledger.look().text
    assert ledger.record([decision(5)]) == [4]
    again = ledger.stream
    ledger.close()
    ledger = Ledger(path, "afm1")
    assert (ledger.stream, ledger.look().is_well) == (again, True)
    ledger.close()


def test_names_of_a_ledger_from_before_are_found_while_they_are_noted_and_after(path: Path) -> None:
    shutil.copy(ROOT / "tests" / "faults" / "ledger-schema-1.sqlite", path)
    with LedgerView(path) as before:
        assert [one.seq for one in before.named("c1.jpk-force")] == [2]
    ledger = Ledger(path, "afm1")
    with ledger.view() as view:
        assert [(one.seq, one.curve, one.folder) for one in view.named("c1.jpk-force")] == [(2, 0, "")]
        assert view.finished("/any", "c1.jpk-force") is not None
        assert view.finished("/any", "c1.jpk-force", of_any=False) is None
        assert view.has_files("/any")
        while ledger.do_chore():
            pass
        assert [one.seq for one in view.named("c1.jpk-force", 0)] == [2]
        assert [one.seq for one in view.named("c1.jpk-force", 0, "/any")] == [2]
    ledger.close()


def test_the_check_tells_sound_damaged_and_altered_apart(path: Path) -> None:
    assert care._checksum(7, "keep", b"body") == checksum(7, "keep", b"body")
    ledger_with(path, 60).close()
    assert care.look_through(path) == "sound"
    with sqlite3.connect(path) as connection:
        connection.execute("update decisions set verdict = 'keep' where seq = 4")
    connection.close()
    assert care.look_through(path) == "altered decision 4 does not match its checksum"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(os.urandom(8192))
    assert care.look_through(path).startswith("damaged ")


def test_damage_is_refused_or_at_least_never_served(path: Path, tmp_path: Path) -> None:
    """Bits are flipped in copies: the ledger refuses, or what it hands out is what was recorded."""
    ledger = ledger_with(path, 60)
    with ledger.view() as view:
        true = dict(view.bodies_since(0))
    ledger.close()
    size, exits = path.stat().st_size, []
    for trial in range(60):
        copy = tmp_path / "copy.sqlite"
        content = bytearray(path.read_bytes())
        content[(trial * 7919 * 13) % size] ^= 1 << (trial % 8)
        copy.write_bytes(content)
        try:
            Ledger(copy, "afm1").close()
            with LedgerView(copy) as view:
                served = dict(view.bodies_since(0))
        except UserError as error:
            exits.append(error.exit_code)
        else:
            assert all(true.get(seq) == body for seq, body in served.items())
        for left in tmp_path.glob("copy.sqlite*"):
            left.unlink()
    assert set(exits) == {74}


WRITER = """
import sys, pathlib
from daemon.judging import FileMark
from daemon.ledger import Ledger
from tests.ledgerhelp import decisions
ledger = Ledger(pathlib.Path(sys.argv[1]), "afm1")
start = ledger.last_seq
print("ready", flush=True)
for first in range(max(start - 20, 1), 10**6, 7):  # begins again a little earlier, as a rescan does
    batch = decisions(first, first + 7)
    ledger.record(batch, [FileMark("/w", one.path, 1, 1, one.sha256, 1) for one in batch])
    print(ledger.last_seq, flush=True)
    ledger.do_chore()
"""


@pytest.mark.timeout(120)
def test_kill_9_at_any_moment_leaves_no_gap_and_nothing_twice(path: Path) -> None:
    """Nor in what may be looked at, which a chore still fills for the decisions of the version before."""
    before, announced = 4_000, 0
    ledger_with(path, before).close()
    as_version_2(path)
    for trial in range(40):
        if trial >= 20 and announced > before + 40:  # a busy machine takes longer to announce as much
            break
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep((0.004 * (trial % 10) + 0.0013 * trial) * (1 if trial < 20 else 5))
        writer.kill()
        seen = writer.stdout.read().split("\n")[:-1]  # the last line may be cut
        writer.stdout.close()
        writer.wait()
        announced = max([announced, *map(int, seen)])
        with LedgerView(path) as view:
            rows = view.bodies_since(0, 10**6)
            assert [seq for seq, _ in rows] == list(range(1, len(rows) + 1))
            assert len(rows) >= announced, "what had been announced is gone"
            assert view.last_seq == sum(view.verdict_counts().values())
            assert all(view.finished("/w", decode(body)["data"]["path"]) for _, body in rows[before:])
            new = Counter(decode(body)["data"]["verdict"] for _, body in rows[before:])
            assert view.count_looks("keep", after=before) == new["keep"]
            assert view.count_looks("review", after=before) == new["review"]
            audits = view.audits()
            assert sum(one.discards for one in audits) == new["discard"]
            draws = view.draws(one.number for one in audits)
            assert [one.seq for one in draws] == [one.seq for one in view.looks("discard", after=before, order="seq")]
    assert announced > before + 40
    identities = [decode(body)["data"]["sha256"] for _, body in rows]
    assert len(set(identities)) == len(identities)
    ledger = Ledger(path, "afm1")
    with ledger.view() as view:
        while ledger.do_chore():
            pass
        assert view.count_looks("keep") == view.verdict_counts()["keep"]
        drawn = [one.identity for one in decisions(1, view.last_seq + 1) if one.verdict == "discard"]
        assert view.count_looks("discard") == sum(draw(identity) < AUDIT_SHARE for identity in drawn)
    ledger.close()


DISK_FULL = """
import pathlib, sys
from daemon.ledger import Ledger, NotRecorded, LedgerView
from daemon.ledger.file import open_for_reading
from tests.ledgerhelp import decision
folder = pathlib.Path(sys.argv[1])
ledger = Ledger(folder / "ledger.sqlite", "afm1")
filler = folder / "filler"
filler.write_bytes(bytes(1 << 20))
number, full = 1, 0
while full < 3:  # full, tried again, still full
    batch = [decision(n, verdict="review", compact_copy=bytes(4000)) for n in range(number, number + 8)]
    try:
        assert ledger.record(batch) == list(range(number, number + 8))
        assert full == 0, "wrote to a full disk"
        number += 8
    except NotRecorded:
        full += 1
        assert ledger.last_seq == number - 1
with LedgerView(folder / "ledger.sqlite") as view:
    assert view.last_seq == number - 1
    assert len(view.bodies_since(0)) == number - 1
filler.unlink()
assert ledger.record(batch) == list(range(number, number + 8))
ledger.close()
ledger = Ledger(folder / "ledger.sqlite", "afm1")
assert ledger.last_seq == number + 7 and number > 8
print("ok")
"""


def test_a_full_disk_costs_nothing_but_time(tmp_path: Path) -> None:
    trial = ["unshare", "-rm", "true"]
    if shutil.which("unshare") is None or subprocess.run(trial, check=False, capture_output=True).returncode:
        pytest.skip("no user namespaces here: cannot mount a small disk")
    script = f'mount -t tmpfs -o size=2m none "{tmp_path}" && exec "$@"'
    words = ["unshare", "-rm", "sh", "-c", script, "sh", sys.executable, "-c", DISK_FULL, str(tmp_path)]
    done = subprocess.run(words, check=False, cwd=ROOT, text=True, capture_output=True)
    assert (done.stdout, done.returncode) == ("ok\n", 0), done.stderr


def test_a_state_folder_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refusal:
        Ledger(tmp_path / "absent" / "ledger.sqlite", "afm1")
    assert refusal.value.exit_code == 74
    assert "\n" not in str(refusal.value)


def test_many_decisions_cost_no_memory(path: Path) -> None:
    ledger = ledger_with(path, 500)
    tracemalloc.start()
    try:
        for start in range(501, 4501, 500):
            ledger.record(decisions(start, start + 500))
        grown_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        ledger.close()
    # 4 MB where every event were held; CPython alone puts by up to 2000 tuples of 20, the arguments of DecisionData
    assert grown_bytes < 500_000
