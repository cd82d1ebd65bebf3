"""The collector on real sockets: each decision once, whatever is killed, restored, away, full or read meanwhile."""

from __future__ import annotations

import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon.cli import main
from daemon.client.folders import note
from daemon.client.service_file import free_port, read_places
from daemon.common import keys
from daemon.common.allowed import Allowed
from daemon.common.errors import ALREADY_RUNNING, BAD_CONFIG, BAD_DATA, INPUT_OUTPUT, UNREACHABLE, USAGE, UserError
from daemon.common.keys import Key
from daemon.config import Config
from daemon.labels import Labels
from daemon.labels.sessions import Said, Sessions, answers_of
from daemon.ledger import Ledger, LedgerView
from daemon.ledger.span import Known
from daemon.ledger.wire import as_plain
from daemon.publish import Publisher
from daemon.tables import SAID_COLUMNS, event_of, said_rows
from daemon.tables.collector import FileTables, FolderTables, bring_up_to_date
from models.curve import ToldRupture
from tests.ledgerhelp import decisions, ledger_with
from tests.speaker import Speaker

duckdb = pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

ROOT = Path(__file__).resolve().parents[1]
ANY = "tcp://127.0.0.1:0"
KINDS = ("parquet", "duckdb")


def out_of(folder: Path, kind: str) -> Path:
    return folder / ("tables" if kind == "parquet" else "tables.duckdb")


def ask(out: Path, query: str) -> list[tuple[Any, ...]]:
    """Of either kind of tables, as a person asks; while somebody writes the file, again."""
    with closing(duckdb.connect()) as database:
        for name in ("decisions", *SAID_COLUMNS):
            source = f"read_parquet('{out}/{name}/**/*.parquet', hive_partitioning = true)"
            if out.is_file():
                source = f"collected.{name}"
            elif not list((out / name).rglob("*.parquet")):
                continue
            for _ in range(200):
                try:
                    if out.is_file():
                        database.execute(f"attach if not exists '{out}' as collected (read_only)")
                    database.execute(f"create view {name} as from {source}")
                    break
                except duckdb.IOException:  # it is being written, or a part became one of a larger one
                    time.sleep(0.02)
        return [tuple(row) for row in database.execute(query).fetchall()]


def counted(out: Path) -> dict[str, tuple[int, int, int]]:
    """Instrument -> decisions, different ones, the last number."""
    if not (out.is_file() or list(out.rglob("decisions/**/*.parquet"))):
        return {}
    query = "select instrument, count(*), count(distinct (stream, seq)), max(seq) from decisions group by 1"
    return {name: (count, once, last) for name, count, once, last in ask(out, query)}


def until(holds: Callable[[], bool], within_s: float = 20.0) -> bool:
    ends_s = time.monotonic() + within_s
    while time.monotonic() < ends_s:
        if holds():
            return True
        time.sleep(0.05)
    return False


def has(out: Path, instrument: str, count: int) -> bool:
    return counted(out).get(instrument) == (count, count, count)


def listed(folder: Path, **speakers: Speaker | tuple[str, str]) -> Path:
    file = folder / "instruments.toml"
    places = {name: one if isinstance(one, tuple) else (one.publish, one.replay) for name, one in speakers.items()}
    file.write_text("".join(f'[{name}]\npublish = "{p}"\nreplay = "{r}"\n' for name, (p, r) in places.items()))
    return file


@contextmanager
def following(kind: str, out: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "daemon", "events", "--follow", "--to", kind, "--out", str(out), *more]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)


def ended(process: subprocess.Popen[str]) -> str:
    """What it said, once it was asked to end."""
    process.send_signal(signal.SIGTERM)
    return process.communicate(timeout=20)[1]


SERVICE = """
import sys, time
from pathlib import Path
from daemon.ledger import Ledger
from daemon.publish import Publisher
from models.curve import ToldRupture
from tests.ledgerhelp import decisions

ledger = Ledger(Path(sys.argv[1]), "afm1")
publisher = Publisher(ledger.path, "afm1", publish=sys.argv[2], replay=sys.argv[3], heartbeat_s=0.2)
publisher.start()
seq = ledger.last_seq
while True:
    ledger.record(decisions(seq + 1, seq + 8))
    publisher.poke()
    seq += 7
    time.sleep(0.02)
"""


class Killing:
    """Processes that are killed -9 and started anew."""

    def __init__(self, **commands: list[str]) -> None:
        self._commands = commands
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        self._running[name] = subprocess.Popen(self._commands[name], cwd=ROOT, stderr=subprocess.DEVNULL)

    def kill(self, name: str) -> None:
        if (process := self._running.pop(name, None)) is not None:
            process.kill()
            process.wait(20)

    def __enter__(self) -> Killing:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._running):
            self.kill(name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.long)])
@pytest.mark.faults
@pytest.mark.timeout(240)
def test_nothing_is_left_out_and_nothing_comes_twice_whoever_is_killed(kind: str, kills: int, tmp_path: Path) -> None:
    """kill -9 of the service and of the collector, in turn, while curves come all the time."""
    out, ledger = out_of(tmp_path, kind), tmp_path / "ledger.sqlite"
    places = (f"tcp://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{free_port()}")
    once = ["events", "--to", kind, "--out", str(out), "--instruments", str(listed(tmp_path, afm1=places))]
    follow = [sys.executable, "-m", "daemon", *once, "--follow", "--every", "0.1"]
    with Killing(service=[sys.executable, "-c", SERVICE, str(ledger), *places], collector=follow) as processes:
        for number in range(kills):
            before = count_in(out)
            processes.start("service")
            processes.start("collector")
            assert until(lambda: count_in(out) > before), "it goes on after every kill"  # noqa: B023
            processes.kill("service")
            processes.start("service")
            time.sleep(0.6 + 0.37 * number % 1)
            processes.kill("collector")
            time.sleep(0.2 * (number % 2))
            processes.kill("service")
        processes.start("service")
        assert until(lambda: main(once) == 0)  # once it speaks: catches up, and ends
        processes.kill("service")
    with LedgerView(ledger) as view:
        stream, last_seq = view.stream, view.last_seq
    rows = ask(out, "select stream, seq from decisions order by seq")
    assert rows == [(stream, seq) for seq in range(1, len(rows) + 1)], "a gap, or one twice"
    assert last_seq / 2 < len(rows) <= last_seq
    with FolderTables(out) if kind == "parquet" else FileTables(out) as tables:
        assert (tables.known.missing(), tables.known.last(stream)) == (0, len(rows))


def count_in(out: Path) -> int:
    return sum(count for count, _, _ in counted(out).values())


def test_what_comes_stands_in_the_table_as_it_was_told_and_in_few_files(tmp_path: Path) -> None:
    out = out_of(tmp_path, "parquet")
    with Speaker(tmp_path / "a") as one, Speaker(tmp_path / "b", "other") as two:
        with following("parquet", out, "--instruments", str(listed(tmp_path, afm1=one, second=two)), "--every", "0.1"):
            one.record(1)
            assert until(lambda: has(out, "afm1", 1))
            for _ in range(24):
                one.record(1)
                two.record(2)
                time.sleep(0.15)
            assert until(lambda: has(out, "second", 48) and has(out, "afm1", 25))
        with FolderTables(out) as tables:
            assert tables._decisions.number > 10
            found = [event_of(row) for table in tables._decisions.read() for row in table.to_pylist()]
        assert len(list(out.glob("decisions/day=*/*.parquet"))) < 18
        with one.ledger.view() as view:
            assert [event for event in found if event["source"] == "/afm1"] == view.last(25)


@pytest.mark.parametrize("kind", KINDS)
def test_a_ledger_that_was_put_back_doubles_nothing(kind: str, tmp_path: Path) -> None:
    """An older copy of the ledger goes on as another stream; a collector that was away hears it all anew."""
    out, state = out_of(tmp_path, kind), tmp_path / "s"
    collect = ["events", "--to", kind, "--out", str(out), "--state", str(state)]
    with Speaker(state) as speaker:
        speaker.record(50)
        with closing(Ledger(state / "ledger.sqlite", "afm1")):
            pass
        assert main(collect) == 0
    shutil.copytree(state, tmp_path / "copy")
    with Speaker(state) as speaker:
        first = speaker.ledger.stream
        speaker.record(30)
        assert main(collect) == 0
    for name in ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"):
        (state / name).unlink(missing_ok=True)
        if (tmp_path / "copy" / name).exists():
            shutil.copy(tmp_path / "copy" / name, state / name)
    with Speaker(state) as speaker:
        assert speaker.ledger.stream != first
        speaker.record(15)
        assert main(collect) == 0
        assert main(collect) == 0
        second = speaker.ledger.stream
    told = ask(out, "select stream, count(*), count(distinct seq), min(seq), max(seq) from decisions group by 1")
    assert sorted(told) == sorted([(first, 80, 80, 1, 80), (second, 15, 15, 51, 65)])


@pytest.mark.faults
@pytest.mark.parametrize("away_s", [0.0, 7.5])
def test_an_instrument_that_is_away_holds_up_nobody_and_comes_back_whole(away_s: float, tmp_path: Path) -> None:
    out = out_of(tmp_path, "parquet")
    places = (f"tcp://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{free_port()}")
    with Speaker(tmp_path / "a") as here, Speaker(tmp_path / "b") as away:
        away.fall_silent()
        file = listed(tmp_path, here=here, away=places)
        with following("parquet", out, "--instruments", str(file), "--every", "0.1") as process:
            here.record(40)
            assert until(lambda: has(out, "here", 40))
            away.record(300)
            time.sleep(away_s)
            away.speak(*places)
            assert until(lambda: has(out, "away", 300))
            here.record(2)
            assert until(lambda: has(out, "here", 42))
            time.sleep(0.5)
            said = ended(process)
    told = [f"afm-triage: away: nothing answers at {places[1]}; the others go on", "afm-triage: away is heard again"]
    assert said.splitlines() == [*(told if away_s else []), f"342 new decisions, 0 labels and 0 sessions in {out}"]


@pytest.mark.faults
def test_one_whose_key_is_wrong_is_named_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own, ours = Key.new("service"), Key.new("ours")
    stranger = Key.new("facility", own.public)
    keys.write(tmp_path / "facility.key", stranger)
    (tmp_path / "allowed").mkdir()
    keys.write(tmp_path / "allowed/ours.key", Key("ours", ours.public))
    ledger = ledger_with(tmp_path / "ledger.sqlite", 5)
    with closing(ledger), Speaker(tmp_path / "a") as other, Allowed(own, tmp_path / "allowed", lambda: None) as allowed:
        allowed.start()
        at = {"publish": f"tcp://0.0.0.0:{free_port()}", "replay": f"tcp://0.0.0.0:{free_port()}"}
        publisher = Publisher(ledger.path, "afm1", **at, allowed=allowed)
        publisher.start()
        other.record(3)
        file = listed(tmp_path, keyed=tuple(one.replace("0.0.0.0", "127.0.0.1") for one in at.values()), plain=other)
        file.write_text(file.read_text().replace("[plain]", 'key = "facility.key"\n[plain]'))
        out = out_of(tmp_path, "parquet")
        assert main(["events", "--to", "parquet", "--out", str(out), "--instruments", str(file)]) == UNREACHABLE
        publisher.stop()
    (line,) = capsys.readouterr().err.splitlines()
    assert f"keyed: tcp://127.0.0.1:{at['replay'].rpartition(':')[2]} does not let in this key" in line
    assert f"keys allow NAME '{stranger.public}'" in line
    assert counted(out) == {"plain": (3, 3, 3)}


def test_one_service_under_two_names_is_collected_once(tmp_path: Path) -> None:
    out = out_of(tmp_path, "duckdb")
    with Speaker(tmp_path / "a") as one:
        one.record(9)
        assert main(["events", "--to", "duckdb", "--out", str(out), "--instruments", str(listed(tmp_path, a=one))]) == 0
        renamed = listed(tmp_path, b=one)
        with following("duckdb", out, "--instruments", str(renamed), "--every", "0.1") as process:
            one.record(3)
            assert process.stderr is not None
            told = "b: its decisions are in the tables as those of a; correct its name, or its addresses"
            assert told in process.stderr.readline()
            one.record(3)
            time.sleep(0.5)
            assert ended(process) == f"0 new decisions, 0 labels and 0 sessions in {out}\n"
    assert counted(out) == {"a": (9, 9, 9)}


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_told_once_and_what_waited_is_written_then(kind: str, tmp_path: Path) -> None:
    out = out_of(tmp_path, kind)
    with Speaker(tmp_path / "a") as one:
        file = listed(tmp_path, afm1=one)
        one.record(100)
        assert main(["events", "--to", kind, "--out", str(out), "--instruments", str(file)]) == 0
        with following(kind, out, "--instruments", str(file), "--every", "0.1") as process:
            one.record(1)
            assert until(lambda: has(out, "afm1", 101))
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
            one.record(399)
            assert process.stderr is not None
            assert "; 399 decisions wait" in process.stderr.readline()
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            assert until(lambda: has(out, "afm1", 500))
            assert "is written again" in process.stderr.readline()


@pytest.mark.faults
def test_who_reads_the_file_is_waited_for_and_gets_in_between(tmp_path: Path) -> None:
    out = out_of(tmp_path, "duckdb")
    with Speaker(tmp_path / "a") as one:
        file = listed(tmp_path, afm1=one)
        with following("duckdb", out, "--instruments", str(file), "--every", "0.1") as process:
            one.record(10)
            assert until(lambda: out.exists() and has(out, "afm1", 10))
            with closing(open_to_read(out)) as reader:
                one.record(10)
                time.sleep(1.5)
                assert reader.execute("select count(*) from decisions").fetchone() == (10,)
            assert until(lambda: has(out, "afm1", 20))
            assert main(["events", "--to", "duckdb", "--out", str(out), "--instruments", str(file)]) == ALREADY_RUNNING
            assert ended(process) == f"20 new decisions, 0 labels and 0 sessions in {out}\n"
        reader = open_to_read(out)
        with following("duckdb", out, "--instruments", str(file), "--every", "0.1") as process:  # also as it begins
            one.record(10)
            time.sleep(4.0)
            assert process.poll() is None
            reader.close()
            assert until(lambda: has(out, "afm1", 30))


def open_to_read(out: Path) -> Any:
    for _ in range(200):
        try:
            return duckdb.connect(out, read_only=True)
        except duckdb.IOException:
            time.sleep(0.02)
    raise AssertionError("no reader gets in")


@pytest.mark.parametrize("kind", KINDS)
def test_what_people_have_said_stands_beside_as_it_holds_now(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = out_of(tmp_path, kind)
    with Speaker(tmp_path / "a") as one, Labels(tmp_path / "a/labels.sqlite") as labels:
        collect = ["events", "--to", kind, "--out", str(out), "--instruments", str(listed(tmp_path, afm1=one))]
        sessions = Sessions(labels)
        sessions.begin(tip="OMCL-7", sample="titin")
        one.record(9)
        with one.ledger.view() as view:
            first, second = view.last(2)
        labels.say([Labels.of_event(first, "keep", "ada"), Labels.of_event(second, "discard", "ada")])
        labels.say([Labels.of_event(first, "unsure", "bob")])
        assert main(collect) == 0
        assert capsys.readouterr() == ("", f"9 new decisions, 3 labels and 1 session in {out}\n")
        said = "select rater, label, seq from labels order by all"
        assert ask(out, said) == [("ada", "discard", 9), ("ada", "keep", 8), ("bob", "unsure", 8)]
        assert ask(out, "select tip, first_seq, last_seq, ended from sessions") == [("OMCL-7", 1, None, None)]
        sessions.end()
        labels.say([Labels.of_event(first, "keep", "bob")])  # the later word holds
        (gone,) = [label for label in labels.current() if label.label == "discard"]
        labels.remove([gone], by="ada", reason="a slip", time=gone.time)
        assert main(collect) == 0
        assert ask(out, said) == [("ada", "keep", 8), ("bob", "keep", 8)]
        assert ask(out, "select tip, last_seq, ended is null from sessions") == [("OMCL-7", 9, False)]
        labels.undo_removal(gone.identity, "ada", time=gone.time)
        assert main(collect) == 0
        assert capsys.readouterr().err.splitlines()[-1] == f"0 new decisions, 3 labels and 1 session in {out}"
        assert len(ask(out, said)) == 3
        assert counted(out) == {"afm1": (9, 9, 9)}


def test_what_was_said_is_asked_for_anew_only_where_it_must_be(tmp_path: Path) -> None:
    file = tmp_path / "labels.sqlite"
    asked: list[tuple[str, int]] = []

    def tell(what: str, number: int) -> dict[str, Any]:
        asked.append((what, number))
        return as_plain(answers_of(file)[what](number))

    with closing(ledger_with(tmp_path / "ledger.sqlite", 3)) as ledger, Labels(file) as labels, ledger.view() as view:
        labels.say([Labels.of_event(event, "keep", "ada") for event in view.last(3)])
        said = Said()
        assert said.update(tell)
        asked.clear()
        assert not said.update(tell)
        assert asked == [("labels", 3), ("sessions", 0)]
        shutil.copy(file, tmp_path / "older")
        labels.say([Labels.of_event(event, "discard", "bob") for event in view.last(3)])
        assert said.update(tell)
        assert [one["number"] for one in said.labels()] == [1, 2, 3, 4, 5, 6]
    shutil.copy(tmp_path / "older", file)  # a copy was put back, and others have said as much since
    with Labels(file) as labels, LedgerView(tmp_path / "ledger.sqlite") as view:
        labels.say([Labels.of_event(event, "unsure", "eve") for event in view.last(3)])
        assert said.update(tell)
        assert {one["rater"] for one in said.labels()} == {"ada", "eve"}


def test_an_older_service_that_tells_no_labels_is_collected_all_the_same(tmp_path: Path) -> None:
    out = out_of(tmp_path, "parquet")
    with closing(ledger_with(tmp_path / "ledger.sqlite", 12)) as ledger:
        publisher = Publisher(ledger.path, "afm1", publish=ANY, replay=ANY)
        publisher.start()
        at = ["--publish", publisher.publish_endpoint, "--replay", publisher.replay_endpoint]
        assert main(["events", "--to", "parquet", "--out", str(out), *at]) == 0
        publisher.stop()
    assert counted(out) == {"afm1": (12, 12, 12)}


def test_tables_are_not_put_into_a_watched_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (watched := tmp_path / "afm").mkdir()
    with Speaker(tmp_path / "s"):
        note(Config(state=tmp_path / "s", watch=(watched,)))
    for kind in KINDS:
        assert main(["events", "--to", kind, "--out", str(watched / "t"), "--state", str(tmp_path / "s")]) == USAGE
        assert f"lies in the watched folder {watched}" in capsys.readouterr().err
    assert not any(watched.iterdir())


def test_the_ledger_on_this_computer_is_read_while_its_service_is_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, out = tmp_path / "s", out_of(tmp_path, "parquet")
    with Speaker(state) as one:
        one.record(30)
    assert main(["events", "--to", "parquet", "--out", str(out), "--state", str(state)]) == 0
    assert counted(out) == {"afm1": (30, 30, 30)}
    with Speaker(state) as one:
        one.record(12)
        assert main(["events", "--to", "parquet", "--out", str(out), "--state", str(state)]) == 0
    assert counted(out) == {"afm1": (42, 42, 42)}
    told = [f"{came} new decisions, 0 labels and 0 sessions in {out}" for came in (30, 12)]
    assert capsys.readouterr().err.splitlines() == told
    assert bring_up_to_date(out, state) == 0
    assert bring_up_to_date(tmp_path / "other", state) == 42
    with closing(Ledger(state / "ledger.sqlite", "afm1")) as ledger:
        ledger.record(decisions(100, 105))
    assert bring_up_to_date(tmp_path / "other", state) == 5
    assert counted(tmp_path / "other") == {"afm1": (47, 47, 47)}


def test_two_collectors_of_one_folder_are_one_too_many(tmp_path: Path) -> None:
    out = out_of(tmp_path, "parquet")
    with Speaker(tmp_path / "a") as one, FolderTables(out):
        at = ["--instruments", str(listed(tmp_path, afm1=one))]
        assert main(["events", "--to", "parquet", "--out", str(out), *at]) == ALREADY_RUNNING


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["events", *words])
    (line,) = capsys.readouterr().err.splitlines()
    return code, line


def test_what_cannot_be_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, file = str(tmp_path / "t.duckdb"), tmp_path / "instruments.toml"
    to = ("--to", "duckdb", "--out", out)
    assert refusal(capsys, "--to", "parquet")[0] == USAGE
    assert refusal(capsys, *to, "--since", "0")[0] == USAGE
    assert refusal(capsys, *to, "--instruments", str(file), "--replay", ANY)[0] == USAGE
    assert refusal(capsys, "--to", "parquet", "--out", str(tmp_path / "no/such"))[0] == USAGE
    assert refusal(capsys, *to, "--instruments", str(file))[0] == BAD_CONFIG
    wrong = '[Afm]\npublish = "tcp://a:1"\n[b]\npublish = "a"\nreplay = "tcp://a:2"\n[c]\nkeys = "x"\n'
    file.write_text(wrong + '[d]\npublish = "tcp://d:1"\nreplay = "tcp://d:2"\nkey = "gone.key"\n')
    code, line = refusal(capsys, *to, "--instruments", str(file))
    assert code == BAD_CONFIG
    for told in ('"Afm" must be a short name', "[b]", "[c]: keys: unknown key", "[d]: key", "gone.key is not there"):
        assert told in line
    file.write_text("".join(f'[{name}]\npublish = "tcp://a:1"\nreplay = "tcp://a:2"\n' for name in "ab"))
    assert "another instrument has tcp://a:2 too" in refusal(capsys, *to, "--instruments", str(file))[1]
    file.write_text("")
    assert "names no instrument" in refusal(capsys, *to, "--instruments", str(file))[1]
    nobody = ("--publish", f"tcp://127.0.0.1:{free_port()}", "--replay", f"tcp://127.0.0.1:{free_port()}")
    assert refusal(capsys, *to, *nobody)[0] == UNREACHABLE
    Path(out).write_bytes(b"something else " * 1000)
    assert refusal(capsys, *to, *nobody)[0] == BAD_DATA
    (tmp_path / "plain").write_text("")
    assert refusal(capsys, "--to", "parquet", "--out", str(tmp_path / "plain"), *nobody)[0] == INPUT_OUTPUT
    monkeypatch.setattr("daemon.tables.find_spec", lambda name: None if name == "duckdb" else name)
    code, line = refusal(capsys, *to, *nobody)
    assert code == UNREACHABLE
    assert "pip install 'afm-triage[tables]'" in line


def test_a_person_writes_the_instruments_down(tmp_path: Path) -> None:
    key = Key.new("facility", Key.new("service").public)
    keys.write(tmp_path / "afm2.key", key)
    file = tmp_path / "instruments.toml"
    file.write_text(
        '[afm1]\npublish = "tcp://127.0.0.1:5795"\nreplay = "tcp://127.0.0.1:5796"\n'
        '[afm2]\npublish = "tcp://pc2:5795"\nreplay = "tcp://pc2:5796"\nkey = "afm2.key"\n'
    )
    one, two = read_places(file)
    assert (one.name, one.key, two.name, two.key) == ("afm1", None, "afm2", key)


def test_stretches_know_what_is_there_and_what_is_missing() -> None:
    known = Known()
    assert [known.take("afm1", "s", seq) for seq in (1, 2, 2, 3, 7, 8, 1, 8)] == [
        *(True, True, False, True),
        *(True, True, False, False),
    ]
    assert (known.missing(), known.last("s"), known.at("afm1"), known.at(None)) == (3, 8, ("s", 8), ("s", 8))
    again = Known.read(known.notes())
    assert (again.missing(), again.at("afm1"), again.owner("s"), again.at("afm2")) == (3, ("s", 8), "afm1", (None, 0))
    known.noted()
    assert known.notes() == {}


QUERIES = ROOT / "deploy/facility/queries.sql"


@pytest.fixture(scope="module", params=KINDS)
def collected(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two instruments, two sessions, three labels."""
    folder = tmp_path_factory.mktemp("collected")
    out = out_of(folder, request.param)
    with Speaker(folder / "a") as one, Speaker(folder / "b") as two, Labels(folder / "a/labels.sqlite") as labels:
        for tip, count in (("old", 12), ("new", 6)):
            Sessions(labels).begin(tip=tip)
            one.record(count)
        found = [{"force_pn": 180.0, "drop_pn": 90.0, "position_nm": 70.0, "position_kind": "piezo"}]
        two.record(3, ruptures=tuple(msgspec.convert(found, list[ToldRupture])))
        with one.ledger.view() as view:
            discarded = next(event for event in view.last(6) if event["data"]["verdict"] == "discard")
            labels.say([Labels.of_event(discarded, "keep", "ada"), Labels.of_event(discarded, "discard", "bob")])
            labels.say([Labels.of_event(event, "keep", "ada") for event in view.last(1)])
        at = ["--instruments", str(listed(folder, afm1=one, afm2=two))]
        assert main(["events", "--to", request.param, "--out", str(out), *at]) == 0
    return out


def told_by(out: Path, title: str) -> list[tuple[Any, ...]]:
    """The rows of one of the queries, by the comment above it."""
    text = QUERIES.read_text()
    assert f"\n-- {title}" in text
    return ask(out, text.partition(f"\n-- {title}")[2].partition("\n")[2].partition(";\n")[0])


def test_each_query_of_the_facility_says_what_its_title_promises(collected: Path) -> None:
    titles = re.findall(r"^-- (.*)\nselect ", QUERIES.read_text(), re.MULTILINE)
    assert len(titles) == QUERIES.read_text().count("\nselect ") == 10
    found = {title: told_by(collected, title) for title in titles}
    assert all(found.values()), "a query without an answer tells nothing of itself"
    tips = found["yield by tip (without one: curves of no session)"]
    assert sorted(tips, key=str) == [
        ("afm1", "new", 6, 0.3333),
        ("afm1", "old", 12, 0.3333),
        ("afm2", None, 3, 0.3333),
    ]
    assert sum(row[2] for row in found["yield by hour of the measurement (UTC)"]) == 21
    assert [row[2:] for row in found["yield by model and cut"]] == [(21, 0.3333, 0.3333)]
    assert sorted(found["who confirmed what"]) == [
        ("ada", "keep", "discard", 1),
        ("ada", "keep", "keep", 1),
        ("bob", "discard", "discard", 1),
    ]
    assert [row[:2] for row in found["events that were discarded: a person says keep"]] == [("afm1", "ada")]
    assert [row[3] for row in found["where two people do not agree"]] == [["ada: keep", "bob: discard"]]
    assert [row[3] for row in found["how far each instrument is, and numbers that are missing: always 0"]] == [0, 0]
    assert [row[4] for row in found["ruptures of 150 pN and more, whatever the verdict"]] == [180.0] * 3


@pytest.mark.parametrize("damage", [b"", b"PAR1 no more", b"no" * 4096])
def test_a_damaged_part_stops_no_collector(tmp_path: Path, damage: bytes) -> None:
    """It is not merged, nor what lies beside it; whoever reads is told."""
    out, seq = tmp_path / "tables", 1
    with closing(ledger_with(tmp_path / "ledger.sqlite", 1)) as ledger:
        for _ in range(18):
            bring_up_to_date(out, tmp_path)
            if seq == 1:
                next(iter(out.rglob("decisions/day*/*.parquet"))).write_bytes(damage)
            ledger.record(decisions(seq + 1, seq + 2))
            seq += 1
    with FolderTables(out) as tables:
        assert tables.known.last(ledger.stream) == 18
        tables.tidy()
    assert len(list(out.rglob("decisions/day*/*.parquet"))) == 18


def test_the_name_of_a_file_is_no_address_and_a_link_is_no_second_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger_with(tmp_path / "ledger.sqlite", 3).close()
    monkeypatch.chdir(tmp_path)
    for name in (":memory:", "md:x"):
        assert main(["events", "--to", "duckdb", "--out", name, "--state", str(tmp_path)]) == 0
        assert counted(tmp_path / name) == {"afm1": (3, 3, 3)}
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "all.duckdb"
    link.symlink_to(tmp_path / "md:x")
    with FileTables(tmp_path / "md:x"), pytest.raises(UserError) as held, FileTables(link):
        pass
    assert held.value.exit_code == ALREADY_RUNNING


def test_what_a_service_calls_itself_leads_out_of_no_folder(tmp_path: Path) -> None:
    """Without a list of instruments the name is whatever the events say."""
    name = "../../../o'ut=*/\n"
    out = tmp_path / "tables"
    with FolderTables(out) as tables:
        tables.replace(name, said_rows(name, [{"path": "x", "curve": 0, "label": "keep", "rater": "me"}]))
    assert {path.name for path in tmp_path.iterdir()} == {"tables"}
    assert ask(out, "select instrument, label from labels") == [(name, "keep")]
