"""Keys on real sockets: who is let in, who is not, who is hung up on; files, and the verb."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import zmq
import zmq.auth
from pace import allowed
from sourcehelp import until

from daemon.cli import main
from daemon.client.feed import Feed, SilenceLimit, ask, why_deaf
from daemon.client.service_file import free_port
from daemon.common import keys
from daemon.common.allowed import Allowed
from daemon.common.errors import UserError
from daemon.common.keys import Key
from daemon.ledger import Ledger
from daemon.publish import Publisher
from daemon.sources.ingest import IngestSource
from tests.ledgerhelp import decisions, ledger_with

OWN = Key.new("afm1")
ANNA, BELA = Key.new("anna", OWN.public), Key.new("bela", OWN.public)


@dataclass
class Lab:
    """A publisher that other machines can reach, its list, and its addresses as one of this machine writes them."""

    folder: Path
    ledger: Ledger
    allowed: Allowed
    publisher: Publisher
    refused: list[None]

    @property
    def publish(self) -> str:
        return self.publisher.publish_endpoint.replace("0.0.0.0", "127.0.0.1")

    @property
    def replay(self) -> str:
        return self.publisher.replay_endpoint.replace("0.0.0.0", "127.0.0.1")

    def let_in(self, key: Key) -> None:
        keys.write(self.folder / f"{key.name}.key", Key(key.name, key.public))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    folder, refused = tmp_path / "allowed", list[None]()
    folder.mkdir()
    for key in (ANNA, BELA):
        keys.write(folder / f"{key.name}.key", Key(key.name, key.public))
    ledger = ledger_with(tmp_path / "ledger.sqlite", 5)
    with Allowed(OWN, folder, lambda: refused.append(None)) as allowed:
        allowed.start()
        places = {"publish": f"tcp://0.0.0.0:{free_port()}", "replay": f"tcp://0.0.0.0:{free_port()}"}
        publisher = Publisher(ledger.path, "afm1", **places, allowed=allowed, heartbeat_s=0.3)
        publisher.start()
        yield Lab(folder, ledger, allowed, publisher, refused)
        publisher.stop()
    ledger.close()


def heard(feed: Feed, for_s: float) -> list[int]:
    deadline_s, found = time.monotonic() + for_s, list[int]()
    while (left_s := deadline_s - time.monotonic()) > 0:
        found += [event["seq"] for event in feed.read(left_s) if event["type"].endswith("decision.v1")]
    return found


def test_who_is_on_the_list_hears_everything_and_nobody_else_anything(lab: Lab) -> None:
    for key in (ANNA, lab.allowed.local):
        assert why_deaf(lab.replay, key) == ""
        assert len(ask(lab.replay, b"since", b"0", key=key) or []) == 5
    stranger, fooled = Key.new("eve", OWN.public), replace(ANNA, server=BELA.public)
    strangers = {
        None: "give --key FILE",
        stranger: f"keys allow NAME '{stranger.public}'",
        fooled: "is not the service",
    }
    with zmq.Context() as context:
        subscribers = []
        for key in strangers:
            subscriber = context.socket(zmq.SUB)
            subscriber.linger = 0
            subscriber.subscribe(b"")
            if key is not None:
                key.apply(subscriber)
            subscriber.connect(lab.publish)
            subscribers.append(subscriber)
        for key, said in strangers.items():
            assert said in why_deaf(lab.replay, key)
            assert ask(lab.replay, b"status", timeout_s=0.2, key=key) is None
        assert not any(one.poll(0) for one in subscribers)  # heartbeats went out meanwhile
        for one in subscribers:
            one.close()
    assert lab.refused
    assert why_deaf(f"tcp://127.0.0.1:{free_port()}", ANNA) == "", "where nobody listens, keys are not the reason"


def test_who_is_revoked_hears_nothing_more_and_the_others_lose_nothing(lab: Lab) -> None:
    with (
        Feed(lab.publish, lab.replay, since=0, key=ANNA) as anna,
        Feed(lab.publish, lab.replay, since=0, key=BELA) as bela,
    ):
        assert (heard(anna, 0.7), heard(bela, 0.7)) == ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
        (lab.folder / "bela.key").unlink()
        until(lambda: lab.allowed.revocations == 1, 3)
        before = lab.publisher._requests
        until(lambda: lab.publisher._requests is not before or not lab.publisher._has_revoked(), 3)
        lab.ledger.record(decisions(6, 9))
        lab.publisher.poke()
        found = list[int]()
        until(lambda: (found.extend(heard(anna, 0.2)), len(found) >= 3)[1], 8)
        assert found == [6, 7, 8]
        assert heard(bela, 0.3) == []
        silence = SilenceLimit(60.0, lab.replay, BELA)
        silence._silent_s = 5.0
        with pytest.raises(UserError, match="does not let in this key"):
            silence.note(heard=False)
    lab.let_in(BELA)  # and back, without a restart
    until(lambda: why_deaf(lab.replay, BELA) == "", 4)


def test_a_script_sends_curves_only_with_a_key(tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    keys.write(tmp_path / "allowed" / "anna.key", Key("anna", ANNA.public))
    with Allowed(OWN, tmp_path / "allowed") as allowed:
        allowed.start()
        source = IngestSource(f"tcp://0.0.0.0:{free_port()}", tmp_path / "spool", wake=lambda: None, allowed=allowed)
        source.start()
        try:
            place = source.endpoint.replace("0.0.0.0", "127.0.0.1")
            assert ask(place, b"{}", timeout_s=0.3) is None
            assert b"refused" in (ask(place, b"{}", key=ANNA) or [b""])[0]
            (tmp_path / "allowed" / "anna.key").unlink()
            until(lambda: ask(place, b"{}", timeout_s=0.3, key=ANNA) is None, 4)
        finally:
            source.stop()


def test_what_strangers_send_to_a_keyed_address_stops_nobody(lab: Lab) -> None:
    """Garbage, half a greeting, and a frame of a gigabyte that is announced before any handshake."""
    place = ("127.0.0.1", int(lab.replay.rpartition(":")[2]))
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(48)
    held = []
    for number in range(60):
        one = socket.create_connection(place, 2)
        held.append(one)
        one.sendall((os.urandom(4096), greeting[:11], greeting + b"\x02" + (1 << 30).to_bytes(8, "big"))[number % 3])
    try:
        begun_s = time.monotonic()
        assert len(ask(lab.replay, b"since", b"0", timeout_s=5, key=ANNA) or []) == 5
        assert time.monotonic() - begun_s < allowed(2)
    finally:
        for one in held:
            one.close()


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        (None, 0o600, "is not there"),
        ("", 0o600, "is no key"),
        ('public-key = "short"', 0o600, "is no key"),
        (f'public-key = "{ANNA.public}"', 0o600, "has no secret key"),
        (f'public-key = "{ANNA.public}"\nsecret-key = "{ANNA.secret}"', 0o600, "does not say which service"),
        (f'public-key = "{ANNA.public}"\nsecret-key = "{ANNA.secret}"', 0o604, "can be read by everybody"),
    ],
    # Keys are drawn anew in each worker, and a test has one name in all of them.
    ids=["missing", "empty", "short", "public_only", "no_server", "world_readable"],
)
def test_a_key_that_cannot_be_used_is_told_in_one_line(
    text: str | None, mode: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.key"
    if text is not None:
        file.write_text(text)
        file.chmod(mode)
    for verb in (["events", "--follow"], ["console"], ["status"]):
        assert main([*verb, "--key", str(file), "--replay", "tcp://127.0.0.1:9"]) == 78
        told = capsys.readouterr().err
        assert (told.count("\n"), said in told) == (1, True), told


def test_what_is_no_file_of_a_key_holds_nobody_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "a.key", 0o600)
    for called in (["events", "--key", "a.key"], ["review", "--state", ".", "--token-file", "a.key"]):
        called[-1] = str(tmp_path / called[-1])
        assert main(called) == 78
        assert "it is no regular file" in capsys.readouterr().err
    (tmp_path / "token").write_text("x" * 5000)
    (tmp_path / "token").chmod(0o600)
    with pytest.raises(UserError, match="over 1000 characters"):
        keys.secret_line(tmp_path / "token", "token_file")
    (tmp_path / "token").write_text("two words; and more")
    assert main(["review", "--port", "0", "--state", str(tmp_path), "--token-file", str(tmp_path / "token")]) == 78
    assert "a token is of letters, digits" in capsys.readouterr().err


def test_a_list_with_spoilt_files_in_it_is_still_looked_at(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "link.key").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.key")
    keys.write(tmp_path / "anna.key", Key("anna", ANNA.public))
    keys.write(tmp_path / "bela.key", BELA, 0o644)  # as copied whole: its secret could be read by everybody
    with Allowed(OWN, tmp_path) as allowed:
        allowed.start()
        assert sum("lets nobody in" in one for one in caplog.messages) == 3
        (tmp_path / "bela.key").chmod(0o600)
        until(lambda: "bela may listen" in "".join(allowed_lines(caplog)), 4)
        (tmp_path / "anna.key").unlink()
        until(lambda: allowed.revocations == 1, 4)
    assert sum("lets nobody in" in one for one in caplog.messages) == 3, "once each"


def allowed_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one for one in caplog.messages if "may listen" in one]


def test_who_is_on_the_list_twice_is_told_to_the_one_that_revokes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = ("--state", str(tmp_path))
    assert main(["keys", "allow", "anna", ANNA.public, *state]) == 0
    keys.write(tmp_path / "keys" / "allowed" / "copy.key", Key("copy", ANNA.public))
    capsys.readouterr()
    assert main(["keys", "revoke", "anna", *state]) == 0
    assert "still on it as copy: afm-triage keys revoke copy" in capsys.readouterr().out


def test_ingest_comes_back_when_its_address_was_taken_as_somebody_was_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.sources.ingest._CLOSED_S", 0.05)
    for key in (ANNA, BELA):
        (tmp_path / "allowed").mkdir(exist_ok=True)
        keys.write(tmp_path / "allowed" / f"{key.name}.key", Key(key.name, key.public))
    with Allowed(OWN, tmp_path / "allowed") as allowed:
        allowed.start()
        port = free_port()
        source = IngestSource(f"tcp://0.0.0.0:{port}", tmp_path / "spool", wake=lambda: None, allowed=allowed)
        source._bind()  # by hand, so that the thief comes in between
        source._socket.close()
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            until(lambda: takes(thief, port), 5)  # ZeroMQ closes in a thread of its own
            thief.listen()
            with pytest.raises(UserError, match="is taken"):
                source._hang_up()
        source._hang_up()
        source._thread.start()
        try:
            assert b"refused" in (ask(f"tcp://127.0.0.1:{port}", b"{}", key=ANNA) or [b""])[0]
        finally:
            source.stop()


def takes(thief: socket.socket, port: int) -> bool:
    """Whether the port was free."""
    try:
        thief.bind(("0.0.0.0", port))
    except OSError:
        return False
    return True


def test_the_verb_makes_allows_lists_and_revokes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state").mkdir()
    state, out = ("--state", str(tmp_path / "state")), tmp_path / "laptop.key"
    own = tmp_path / "state" / "keys" / "service.key"
    assert main(["keys", "new", "laptop", "--out", str(out), *state]) == 0
    assert (own.stat().st_mode & 0o777, out.stat().st_mode & 0o777) == (0o600, 0o600)
    made, service = keys.read_client(out, "--key"), keys.read(own, "keys.secret")
    assert (made.name, made.server) == ("laptop", service.public)
    public, secret = zmq.auth.load_certificate(out)  # as the libraries of ZeroMQ read it
    assert (public.decode(), (secret or b"").decode()) == (made.public, made.secret)
    assert main(["keys", "new", "laptop", "--out", str(tmp_path / "b.key"), *state]) == 64
    there = tmp_path / "there.key"
    assert main(["keys", "new", "desk", "--out", str(there), "--server", service.public]) == 0
    desk = keys.read_client(there, "--key")
    assert main(["keys", "allow", "desk", desk.public, *state]) == 0
    capsys.readouterr()
    assert main(["keys", "list", "--json", *state]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["server_key"] == service.public
    assert {one["name"]: one["public"] for one in listed["allowed"]} == {"laptop": made.public, "desk": desk.public}
    assert main(["keys", "revoke", "laptop", *state]) == 0
    assert main(["keys", "revoke", "laptop", *state]) == 65
    assert "on it: desk" in capsys.readouterr().err
    for wrong, code in ((["allow", "x", "no key"], 65), (["allow", "../x", desk.public], 64), (["revoke"], 64)):
        assert main(["keys", *wrong, *state]) == code
        assert capsys.readouterr().err.count("\n") == 1
    assert keys.read(own, "keys.secret") == service, "the service's own key is never made anew"
    second = tmp_path / "second.toml"
    second.write_text(f'watch = ["{tmp_path}/w"]\nnumber = 2\nstate = "{tmp_path}/state"\n')
    assert main(["keys", "new", "third", "--out", str(tmp_path / "third.key"), "--config", str(second)]) == 0
    told = capsys.readouterr().out
    assert 'publish = "tcp://0.0.0.0:5805" and replay = "tcp://0.0.0.0:5806"' in told, "its own ports"


def test_check_says_what_is_protected_and_by_which_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, state = tmp_path / "afm.toml", tmp_path / "state"
    file.write_text(
        f'watch = ["{tmp_path}/watch"]\nstate = "{state}"\npublish = "tcp://0.0.0.0:5795"\n'
        '[metrics]\nbind = "0.0.0.0"\n'
    )
    assert main(["check", str(file)]) == 78
    told = capsys.readouterr().err
    assert "publish: tcp://0.0.0.0:5795 could be reached from other machines, and no CURVE keys protect it" in told
    assert "metrics.token_file: is missing" in told
    token = tmp_path / "token"
    token.write_text("a-long-line")
    token.chmod(0o600)
    file.write_text(file.read_text() + f'token_file = "{token}"\n')
    assert main(["keys", "new", "laptop", "--out", str(tmp_path / "laptop.key"), "--config", str(file)]) == 0
    capsys.readouterr()
    assert main(["check", str(file)]) == 0
    told = capsys.readouterr().out
    assert "at publish other machines are asked for a key" in told
    assert "laptop may listen" in told
    assert "which can be read on the way" in told
    assert "a-long-line" not in told
    there = tmp_path / "lab.toml"  # on the laptop
    there.write_text(
        'instrument = "afm1"\npublish = "tcp://afm-pc:5795"\nreplay = "tcp://afm-pc:5796"\nkey = "laptop.key"\n'
    )
    assert main(["check", str(there)]) == 0
    assert "shows the key laptop" in capsys.readouterr().out
    there.write_text(there.read_text().replace("laptop.key", "none.key"))
    assert main(["check", str(there)]) == 78
    told = capsys.readouterr().err
    assert ("1 to correct" in told, "none.key is not there" in told) == (True, True)
    (state / "keys" / "service.key").chmod(0o644)
    assert main(["check", str(file)]) == 78
    assert "can be read by everybody" in capsys.readouterr().err


def test_check_looks_for_the_keys_where_the_service_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unit, file = tmp_path / "units" / "afm2", tmp_path / "afm2.toml"
    unit.mkdir(parents=True)
    (unit / "ledger.sqlite").touch()
    monkeypatch.setattr("daemon.config.origin.UNITS", unit.parent)
    monkeypatch.setattr("daemon.config.origin.default_state.__kwdefaults__", {"units": unit.parent})
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "mine"))
    file.write_text(f'watch = ["{tmp_path}/watch"]\ninstrument = "afm2"\npublish = "tcp://0.0.0.0:5805"\n')
    assert main(["keys", "new", "laptop", "--out", str(tmp_path / "laptop.key"), "--config", str(file)]) == 0
    capsys.readouterr()
    assert main(["check", str(file)]) == 0
    told = capsys.readouterr().out
    assert f"keeps ledger and labels in {unit}" in told
    assert "laptop may listen" in told
