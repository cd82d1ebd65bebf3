"""The snapshot: whole or not at all, sound, and a state that a service goes on from."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from daemon.cli import main
from daemon.common.errors import UserError
from daemon.labels import Label, Labels
from daemon.ledger import Ledger, LedgerView, snapshot
from daemon.ledger.snapshot import Damaged, known, newest_s, take, verify
from models.clock import utc_now
from tests.ledgerhelp import decision, decisions, ledger_with

NOW_S = 1.8e9


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A ledger of 300 decisions, a label, a logbook and a promoted model."""
    state = tmp_path / "state"
    (state / "models" / "mine").mkdir(parents=True)
    (state / "models" / "mine" / "weights.safetensors").write_bytes(os.urandom(2 << 20))
    (state / "models" / "serving.json").write_text("{}")
    ledger_with(state / "ledger.sqlite", 300).close()
    with Labels(state / "labels.sqlite") as labels:
        labels.add([Label(path="x", curve=0, label="keep", rater="ada", time=utc_now())])
    with closing(sqlite3.connect(state / "guard.sqlite")) as database:
        database.execute("create table told (name text)")
    return state


def of(state: Path, folder: Path, wall_s: float = NOW_S, keep: int = 3) -> Path:
    return take(state, folder, "afm1", keep=keep, wall_s=wall_s)[0]


def test_what_is_restored_by_copying_goes_on_as_another_stream(state: Path, tmp_path: Path) -> None:
    running = Ledger(state / "ledger.sqlite", "afm1")
    stream = running.stream
    running.record(decisions(301, 311))
    taken = of(state, tmp_path / "there")
    running.record(decisions(311, 321))  # announced, and not in the snapshot
    running.close()
    assert taken.name == "2027-01-15T080000Z"
    shutil.move(state, tmp_path / "state.before")
    shutil.copytree(taken, state)
    with Labels(state / "labels.sqlite", is_reading=True) as labels:
        assert len(list(labels.current())) == 1
    assert (state / "models" / "mine" / "weights.safetensors").stat().st_size == 2 << 20
    ledger = Ledger(state / "ledger.sqlite", "afm1")
    assert ledger.stream != stream, "or number 311 would mean two curves"
    assert "may have been announced" in ledger.look().text
    assert ledger.record(decisions(305, 325)) == [None] * 6 + list(range(311, 325))
    ledger.close()
    with LedgerView(state / "ledger.sqlite") as view:
        assert [row.seq for row in view.since(0)] == list(range(1, 325))


def test_a_snapshot_that_is_not_as_it_was_written_is_told(state: Path, tmp_path: Path) -> None:
    home = tmp_path / "there"
    for number in range(4):
        of(state, home, NOW_S + number)
    first, second, third = known(home)
    assert first.name.endswith("01Z"), "the newest three stay"
    assert verify(third).last_seq == 300
    os.truncate(second / "ledger.sqlite", 40_000)
    with pytest.raises(Damaged, match="cut off"):
        verify(second)
    content = bytearray((third / "labels.sqlite").read_bytes())
    content[5000] ^= 1
    (third / "labels.sqlite").write_bytes(content)
    with pytest.raises(Damaged, match=r"labels\.sqlite is not as it was written"):
        verify(third)
    (third / "labels.sqlite").unlink()
    with pytest.raises(Damaged, match="No such file"):
        verify(third)
    assert snapshot.newest_whole(home) == first
    written = (first / "snapshot.json").read_text()
    for before, after, said in (
        ('"format": 1', '"format": 2', "taken by a newer afm-triage"),
        ('"guard.sqlite"', '"guard\\u0000"', "null byte"),
    ):
        (first / "snapshot.json").write_text(written.replace(before, after))
        with pytest.raises(Damaged, match=said):
            verify(first)
    (first / "snapshot.json").write_text(written)
    (first / "guard.sqlite").unlink()
    os.mkfifo(first / "guard.sqlite")
    with pytest.raises(Damaged, match="no regular file"):
        verify(first)
    (first / "snapshot.json").write_text('{"files": ')
    with pytest.raises(Damaged, match=r"snapshot\.json"):
        verify(first)
    assert snapshot.newest_whole(home) is None


def test_a_clock_that_was_set_back_takes_no_snapshot_away_from_itself(state: Path, tmp_path: Path) -> None:
    home, week_s = tmp_path / "there", 7 * 86_400.0
    ahead = [of(state, home, NOW_S + number) for number in range(3)]
    taken = [of(state, home, NOW_S - week_s + number) for number in range(3)]
    assert known(home) == taken, "those with a name from the future have gone first"
    assert of(state, home, NOW_S - week_s + 3, keep=1).is_dir()
    assert not any(one.exists() for one in (*ahead, *taken))


def test_a_damaged_ledger_gives_no_snapshot_and_the_way_back_is_told(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--state", str(state), "--instrument", "afm1"]
    assert main(["ledger", "snapshot", *words]) == 0
    whole = capsys.readouterr().out.partition(":")[0]
    assert main(["ledger", "verify", *words]) == 0
    with closing(sqlite3.connect(state / "ledger.sqlite")) as database, database:
        database.execute("update decisions set body = cast(body || ' ' as blob) where seq = 200")
    capsys.readouterr()
    assert main(["ledger", "snapshot", *words]) == 74
    assert "decision 200" in capsys.readouterr().err
    assert [str(one) for one in known(state / "snapshots")] == [whole]
    assert list((state / "snapshots").glob(".*")) == []
    assert main(["ledger", "verify", *words]) == 74
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    before = f"{state}.before"
    assert f"mv {state} {before} && cp -a {before}/snapshots/{Path(whole).name} {state}" in said


def test_no_room_for_a_snapshot_is_said_before_anything_is_written(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "free_bytes", lambda folder: 1000)
    with pytest.raises(UserError, match="make room there") as refusal:
        of(state, tmp_path / "there")
    assert refusal.value.exit_code == 74
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EROFS, "systemctl edit afm-triage-snapshot@afm1: [Service] and ReadWritePaths={there}"),
        (errno.EACCES, "sudo chown"),
        (errno.ENOENT, "make the folder {there}"),
        (errno.ENOSPC, "make room there"),
    ],
)
def test_a_place_that_takes_no_snapshot_is_told_with_the_way_out_of_just_that(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    (tmp_path / "backup").mkdir()
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError) as refusal:
        take(state, tmp_path / "backup" / "afm1", "afm1", keep=3, wall_s=NOW_S)
    assert refusal.value.exit_code == 74
    said = str(refusal.value)
    assert advice.format(there=tmp_path / "backup") in said
    assert ("make room" in said) == (number == errno.ENOSPC)
    assert "\n" not in said


def test_one_disk_holds_a_models_weights_once_and_the_newest_is_known_by_its_time(state: Path, tmp_path: Path) -> None:
    assert math.isnan(newest_s(tmp_path / "there"))
    for number in range(2):
        of(state, tmp_path / "there", NOW_S + number)
    assert newest_s(tmp_path / "there") == NOW_S + 1
    weights = [one / "models" / "mine" / "weights.safetensors" for one in known(tmp_path / "there")]
    assert {one.stat().st_ino for one in weights} == {(state / "models/mine/weights.safetensors").stat().st_ino}


@pytest.mark.parametrize("verb", [["size"], ["verify"], ["snapshot"], ["prune", "--copies-bytes", "0"]], ids="-".join)
def test_a_ledger_of_a_newer_version_is_said_in_one_line(
    state: Path, verb: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(state / "ledger.sqlite")) as database:
        database.execute("pragma user_version = 99")
    content = (state / "ledger.sqlite").read_bytes()
    assert main(["ledger", *verb, "--state", str(state)]) == 74
    assert "was written by a newer afm-triage (schema 99" in (said := capsys.readouterr().err)
    assert said.count("\n") == 1
    assert (state / "ledger.sqlite").read_bytes() == content


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["prune"], 64),
        (["prune", "--copies-bytes", "-1"], 64),
        (["snapshot", "--keep", "0"], 64),
        (["snapshot", "--to", "WATCHED"], 64),
        (["snapshot", "--to", "/nonexistent/there"], 74),
        (["verify", "/nonexistent"], 69),
        (["size", "--instrument", "other", "--state", "/nonexistent"], 69),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_said_in_one_line(
    state: Path, tmp_path: Path, words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "w").mkdir()
    file = tmp_path / "a.toml"
    file.write_text(f'watch = ["{tmp_path / "w"}"]\nstate = "{state}"\n')
    given = [str(tmp_path / "w") if word == "WATCHED" else word for word in words]
    assert main(["ledger", *given, "--config", str(file)]) == code
    assert capsys.readouterr().err.count("\n") == 1
    assert list((tmp_path / "w").iterdir()) == []


def test_size_says_what_takes_how_much(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (state / "ingest" / "2026-11-28").mkdir(parents=True)
    (state / "ingest" / "2026-11-28" / f"{'0' * 32}.afmcurve").write_bytes(b"x" * 70_000)
    ledger = Ledger(state / "ledger.sqlite", "afm1")
    ledger.record([decision(500, verdict="review", compact_copy=b"x" * 50_000)])
    ledger.close()
    assert main(["ledger", "size", "--state", str(state), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bytes"]["copies"] == 50_000 + 100 * len(b"a curve")
    assert found["bytes"]["spool"] >= 70_000
    assert found["bytes"]["models"] > 2 << 20
    whole = sum(one.stat().st_size for one in state.rglob("*"))
    assert sum(found["bytes"].values()) == pytest.approx(whole, abs=20_000)
    assert found["growth_bytes_per_day"] > 0
    assert main(["ledger", "size", "--state", str(state)]) == 0
    assert "are free on the disk of" in capsys.readouterr().out
