"""Messages to a person: what is told, how seldom, and that it arrives, by real servers on loopback."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from daemon.cli import main
from daemon.client.service_file import free_port
from daemon.common.errors import UserError
from daemon.config import Config, Flags, changes, load, values
from daemon.config.rule import NotifyConfig, SecretUrl
from daemon.notify import GATHER_S, OWN, Fault, Notifier, Rules, channels, kind_of
from daemon.verbs import doctor
from models.clock import Clock, rfc3339
from tests.reviewhelp import SAWTOOTH, copy_of, fill, judged

#: 2026-11-20 20:00 UTC, an evening wherever the tests run in Europe; each rule asks only for differences.
EVENING_S = 1_795_291_200.0
SECRET = "hunter2-topic"


# The rules.


def fault(name="source /data", at_s=EVENING_S, level="alarm", **more):
    return Fault(name, level, "has not been seen", rfc3339(at_s), **more)


def night(rules, events, until_s):
    """What is told, and when: (second, message). ``events``: (second, fault), in order; looked at every half second."""
    told, waiting = [], list(events)
    for step in range(int(2 * until_s)):
        now_s = EVENING_S + step / 2
        while waiting and EVENING_S + waiting[0][0] <= now_s:
            rules.hear(waiting.pop(0)[1], now_s)
        if (message := rules.letter(now_s)) is not None:
            told.append((step / 2, message))
    return told


def test_a_fault_is_told_at_once_and_once_that_it_is_over():
    ends = fault(level="ok")
    told = night(Rules(NotifyConfig()), [(10, fault(at_s=EVENING_S + 10)), (100, ends)], 1_000)
    assert [at for at, _ in told] == [13.0, 160.0]
    assert told[0][1].title == "▲ source: has not been seen"
    assert told[1][1].title == "over: source"
    assert [message.level for _, message in told] == ["alarm", "ok"]


def test_a_thousand_faults_of_a_kind_in_a_night_are_three_messages_and_one_says_it_is_over():
    comings = []
    for number in range(1_000):
        at_s = 20.0 * number
        name = f"source /data/afm{number % 7}"
        comings += [(at_s, fault(name, EVENING_S + at_s)), (at_s + 9.0, fault(name, level="ok"))]
    rules = Rules(NotifyConfig())
    told = night(rules, comings, 24_000)
    titles = [message.title for _, message in told]
    assert len(told) == 3
    assert [title.startswith("over:") for title in titles] == [False, False, True]
    assert told[1][0] - told[0][0] >= 900
    assert "came 45 times" in told[1][1].text
    assert told[2][0] > 20_000  # not while it still comes


def test_a_thousand_at_once_are_one_message_that_names_some():
    told = night(Rules(NotifyConfig()), [(0, fault(f"folder /data/{number}")) for number in range(1_000)], 60)
    assert len(told) == 1
    assert told[0][1].text.count("▲") == 6
    assert "994 more" in told[0][1].text


def test_another_kind_is_told_within_a_minute_beside_the_first():
    comings = [(0, fault()), (5, fault("disk", EVENING_S + 5)), (7, fault("pending", EVENING_S + 7))]
    told = night(Rules(NotifyConfig()), comings, 120)
    assert [at for at, _ in told] == [GATHER_S, 45.0]
    assert "disk" in told[1][1].text
    assert "pending" in told[1][1].text


def test_only_what_was_asked_for_is_told_and_never_of_messages_themselves():
    advice = fault("advice tip", level="degraded", is_advice=True)
    some = [(0, one) for one in (fault("engine", level="degraded"), advice, fault(OWN), fault("path"))]
    for config, kinds in (
        (NotifyConfig(), {"path"}),
        (NotifyConfig(level="degraded"), {"path", "engine"}),
        (NotifyConfig(level="advice"), {"path", "engine", "tip"}),
        (NotifyConfig(level="advice", kinds=("tip", "disk")), {"tip"}),
    ):
        told = night(Rules(config), some, 20)
        assert {kind_of(line.split(",")[0][2:]) for line in told[0][1].text.splitlines() if "▲" in line} == kinds


def test_the_next_night_is_counted_anew_and_a_restart_goes_on_counting():
    rules = Rules(NotifyConfig(most_a_night=1))
    assert (
        len(night(rules, [(0, fault()), (5_000, fault(level="ok")), (6_000, fault(at_s=EVENING_S + 6_000))], 9_000))
        == 1
    )
    again = Rules(NotifyConfig(most_a_night=1))
    again.restore(json.loads(json.dumps(rules.state())), EVENING_S + 9_000)
    again.hear(fault(at_s=EVENING_S + 9_000), EVENING_S + 9_000)
    assert again.letter(EVENING_S + 9_010) is None
    assert again.letter(EVENING_S + 86_400) is not None


def test_a_clock_that_was_set_back_holds_no_message_back():
    rules = Rules(NotifyConfig())
    assert len(night(rules, [(0, fault())], 100)) == 1
    for name in ("source /b", "disk"):
        rules.hear(fault(name), EVENING_S - 18_000)
    told = [at for at in range(0, 1_000, 10) if rules.letter(EVENING_S - 18_000 + at)]
    assert told == [40, 900]  # the other kind; and the first again after its cool-down


# The channels.


@dataclass
class Post:
    path: str
    headers: dict
    body: bytes


@dataclass
class Receiver:
    """An HTTP server on loopback that answers with ``status``, or takes ``hang_s`` over it."""

    status: int = 200
    hang_s: float = 0.0
    most_bytes: int = 1 << 30
    says_it_again: bool = False
    got: queue.Queue = field(default_factory=queue.Queue)
    port: int = 0


@contextmanager
def http_receiver(**settings):
    receiver = Receiver(**settings)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.got.put(Post(self.path, dict(self.headers), body))
            end_s = time.monotonic() + receiver.hang_s
            while time.monotonic() < end_s:
                time.sleep(0.1)
                self.wfile.write(b"H")  # a byte now and then: no time limit of a socket ends that
            self.send_response(receiver.status if len(body) <= receiver.most_bytes else 413)
            self.end_headers()
            if receiver.says_it_again:
                self.wfile.write(f"{'.' * 150} Cannot POST {self.path} with\n{self.headers}".encode())

        def log_message(self, *_):
            pass

        def handle_one_request(self):
            try:
                super().handle_one_request()
            except OSError:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    receiver.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()


class Letters:
    """What a mail server keeps of what it is sent."""

    def __init__(self):
        self.got = queue.Queue()

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd calls it so
        self.got.put((envelope, message_from_bytes(envelope.content, policy=policy.default)))
        return "250 taken"


def known(server, session, envelope, mechanism, data):
    return AuthResult(success=data.login == b"ada" and data.password == b"hunter2")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificate")
    key, found = folder / "key.pem", folder / "cert.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run(
        [*request, "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(found)],
        check=True,
        capture_output=True,
        timeout=30,
    )
    return found, key


def mail_server(letters, **settings):
    return Controller(letters, hostname="127.0.0.1", port=free_port(), **settings)


@contextmanager
def serving(controller):
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


@pytest.fixture
def state(tmp_path):
    kept = judged(12, verdict="keep", compact_copy=copy_of(SAWTOOTH))
    fill(tmp_path / "state", [*(judged(number) for number in range(1, 12)), kept])
    return tmp_path / "state"


def alarm():
    return channels.Message("a" * 32, "▲ source: gone", "▲ source /data/µ: has not been seen\nsince 22:10", "alarm")


def test_a_mail_arrives_over_starttls_with_password_and_picture(state, tmp_path, certificate, monkeypatch):
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    password = tmp_path / "password"
    password.write_text("hunter2\n")
    password.chmod(0o600)
    letters = Letters()
    server = mail_server(letters, tls_context=context, require_starttls=True, authenticator=known, auth_required=True)
    with serving(server) as port:
        config = NotifyConfig(
            to=("ada@example.org", "bo@example.org"),
            smtp_host="localhost",
            smtp_port=port,
            smtp_user="ada",
            password_file=password,
        )
        assert channels.deliver(config, {"mail": alarm()}, state) == {"mail": channels.Result(True)}
        envelope, letter = letters.got.get(timeout=5)
        assert envelope.rcpt_tos == ["ada@example.org", "bo@example.org"]
        assert (letter["Subject"], letter["From"]) == ("▲ source: gone", "ada@example.org")
        assert "since 22:10" in letter.get_body().get_content()
        (picture,) = letter.iter_attachments()
        assert picture.get_content().startswith(b"\x89PNG")
        password.chmod(0o644)  # anybody may read it now
        refused = channels.deliver(config, {"mail": alarm()}, tmp_path)["mail"]  # no ledger there: no picture is drawn
        assert not refused.is_sent
        assert "chmod 600" in refused.text
        assert "hunter2" not in refused.text
    assert [channels.noted(place)["mail"]["is_sent"] for place in (state, tmp_path)] == [True, False]


@pytest.mark.faults
def test_a_server_that_offers_no_encryption_gets_no_mail(tmp_path):
    letters = Letters()
    with serving(mail_server(letters)) as port:
        config = NotifyConfig(to=("ada@example.org",), smtp_host="localhost", smtp_port=port)
        found = channels.deliver(config, {"mail": alarm()}, tmp_path)["mail"]
    assert not found.is_sent
    assert "starttls" in found.text
    assert letters.got.empty()


def test_ntfy_and_webhook_take_picture_and_words_and_words_alone_where_they_refuse_pictures(state):
    with http_receiver() as receiver:
        base = f"http://127.0.0.1:{receiver.port}"
        config = NotifyConfig(ntfy=SecretUrl(f"{base}/{SECRET}"), webhook=SecretUrl(f"{base}/hook"))
        found = channels.deliver(config, {"ntfy": alarm(), "webhook": alarm()}, state)
        assert found == {"ntfy": channels.Result(True), "webhook": channels.Result(True)}
        posts = {post.path: post for post in (receiver.got.get(timeout=5), receiver.got.get(timeout=5))}
        assert posts[f"/{SECRET}"].body.startswith(b"\x89PNG")
        assert posts[f"/{SECRET}"].headers["Priority"] == "5"
        hook = json.loads(posts["/hook"].body)
        assert hook["text"].startswith("▲ source: gone\n▲ source /data/µ")
        assert hook["picture"].startswith("iVBOR")
        receiver.most_bytes = 2_000
        found = channels.deliver(config, {"ntfy": alarm()}, state)["ntfy"]
        assert found == channels.Result(True, "without the picture, which its server does not take")
        assert [receiver.got.get(timeout=5).body[:4] for _ in range(2)] == [b"\x89PNG", "▲ ".encode()]


def test_a_receiver_that_says_again_what_it_was_sent_tells_nobody_a_secret(tmp_path):
    token = tmp_path / "token"
    token.write_text("tk_hunter2\n")
    token.chmod(0o600)
    with http_receiver(status=404, says_it_again=True) as receiver:
        url = SecretUrl(f"http://127.0.0.1:{receiver.port}/hooks/{SECRET}?key=abcdef")
        config = NotifyConfig(ntfy=url, webhook=url, ntfy_token_file=token)
        found = channels.deliver(config, {"ntfy": alarm(), "webhook": alarm()}, tmp_path)
    for result in found.values():
        assert "answered 404 Not Found" in result.text
        assert "Cannot POST /…" in result.text
    told = str(found) + (tmp_path / channels.NOTE).read_text()
    assert not [secret for secret in ("hunter2", "topic", "abcdef", "tk_") if secret in told]
    mail = channels.Mail(NotifyConfig(smtp_user="ada", password_file=token))
    again = "500 what is AUTH PLAIN AGFkYQB0a19odW50ZXIy"  # NUL ada NUL tk_hunter2
    assert channels.without_secrets(again, mail) == "500 what is AUTH PLAIN …"


@pytest.mark.faults
def test_whoever_hangs_or_dribbles_is_left_in_time_and_nothing_secret_stands_in_ps(tmp_path, monkeypatch):
    monkeypatch.setattr(channels, "SEND_S", 8.0)
    with http_receiver(hang_s=30.0) as receiver, http_receiver() as well:
        hook, topic = f"http://127.0.0.1:{well.port}/hook", f"http://127.0.0.1:{receiver.port}/{SECRET}"
        config = NotifyConfig(ntfy=SecretUrl(topic), webhook=SecretUrl(hook))
        told = queue.Queue()
        sender = threading.Thread(
            target=lambda: told.put(channels.deliver(config, {"ntfy": alarm(), "webhook": alarm()}, tmp_path))
        )
        begun_s = time.monotonic()
        sender.start()
        receiver.got.get(timeout=10)
        assert SECRET not in "".join(command_lines())
        found = told.get(timeout=15)
        assert time.monotonic() - begun_s < 11.0
        assert found["webhook"].is_sent
        assert found["ntfy"].text == "not taken within 8 s"
        sender.join(5)


def command_lines():
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                yield (process / "cmdline").read_text(errors="replace")
            except OSError:
                continue


# The whole.


def test_what_did_not_arrive_is_kept_over_a_restart_and_comes_as_one_message(tmp_path):
    state = tmp_path
    steady, port, counted = [0.0], free_port(), []
    wall = [EVENING_S]
    clock = Clock(lambda: wall[0], lambda: steady[0])
    config = NotifyConfig(webhook=SecretUrl(f"http://127.0.0.1:{port}/hook"), cool_down_s=0.0)
    first = Notifier(
        config, state, instrument="afm2", clock=clock, count=lambda result, times: counted.append((result, times))
    )

    def pass_s(notifier, seconds):
        wall[0], steady[0] = wall[0] + seconds, steady[0] + seconds
        notifier.step()

    first.hear("source /data", "alarm", "has not been seen", rfc3339(wall[0]))
    pass_s(first, 5.0)  # nobody is there
    first.hear("disk", "alarm", "is full", rfc3339(wall[0]))
    assert first.trouble == ""  # it may come yet
    pass_s(first, 100.0)
    assert "2 messages to a person not arrived since" in first.trouble
    assert "Connection refused" in first.trouble
    told = first.status()
    assert (told.waiting, told.last_arrived) == (2, None)
    assert ("failed", 1) in counted
    second = Notifier(config, state, instrument="afm2", clock=clock)
    assert second.status().waiting == 2
    with http_receiver() as receiver:
        second.adopt(NotifyConfig(webhook=SecretUrl(f"http://127.0.0.1:{receiver.port}/hook"), cool_down_s=0.0))
        pass_s(second, 1.0)
        said = json.loads(receiver.got.get(timeout=5).body)
        assert receiver.got.empty()
    assert said["title"] == "afm2 ▲ disk: is full (and 1 message before it)"  # two instruments may tell one person
    assert "ago: afm2 ▲ source: has not been seen" in said["text"]
    assert "What to do: make room on the disk" in said["text"]
    assert second.status().waiting == 0
    assert second.status().last_arrived is not None
    assert Notifier(config, state, clock=clock).status().waiting == 0


def configuration(tmp_path, text):
    file = tmp_path / "afm.toml"
    file.write_text(f'state = "{tmp_path / "state"}"\nwatch = ["{tmp_path / "watched"}"]\n[notify]\n{text}\n')
    return str(file)


def test_a_test_takes_the_real_path_and_fails_whenever_that_would(tmp_path, capfd):
    with http_receiver() as receiver:
        url = f"http://127.0.0.1:{receiver.port}/{SECRET}"
        file = configuration(tmp_path, f'webhook = "{url}"')
        assert main(["notify", "--test", "--config", file]) == 0
        assert "a test" in json.loads(receiver.got.get(timeout=5).body)["title"]
    assert main(["notify", "--test", "--config", file]) == 69
    assert main(["notify", "--test", "--config", configuration(tmp_path, "")]) == 78
    assert main(["notify"]) == 64
    said = capfd.readouterr()
    assert "Connection refused" in said.err
    assert "Warning" not in said.err  # of the sender's process, which writes there too
    assert SECRET not in said.out + said.err


def test_that_a_nightly_task_failed_is_told_beside_the_running_service(tmp_path, monkeypatch, capfd):
    (tmp_path / "state").mkdir()
    journal = tmp_path / "journalctl"
    journal.write_text('#!/bin/sh\ncase "$*" in *snapshot@afm1.service) echo no snapshot was taken;; esac\n')
    journal.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    told = {"UNIT": "afm-triage-snapshot@afm1.service", "SERVICE_RESULT": "exit-code", "EXIT_STATUS": "74"}
    for name, value in told.items():
        monkeypatch.setenv(f"MONITOR_{name}", value)
    with http_receiver() as receiver:
        hook = f'webhook = "http://127.0.0.1:{receiver.port}/hook"\n'
        file = configuration(tmp_path, hook)
        assert main(["notify", "--failed", "--config", file]) == 0
        said = json.loads(receiver.got.get(timeout=5).body)
        assert said["title"].startswith("afm1 ▲ snapshot by night: it ended with exit code 74")
        assert "  no snapshot was taken" in said["text"]
        assert main(["notify", "--failed", "--config", configuration(tmp_path, f'{hook}kinds = ["source"]')]) == 0
        assert receiver.got.empty()
    assert not (tmp_path / "state" / "notify.json").exists()  # the service's own
    assert main(["notify", "--failed", "--config", configuration(tmp_path, hook)]) == 69
    assert "of afm1 failed" in capfd.readouterr().err


def test_that_the_service_is_down_is_told_with_its_last_words_and_that_it_is_back(tmp_path, monkeypatch, capfd):
    (tmp_path / "state").mkdir()
    monkeypatch.setattr("daemon.notify.GATHER_S", 0.2)
    monkeypatch.setattr("daemon.notify.GATHER_AFTER_S", 0.2)
    journal = tmp_path / "journalctl"  # stands in for the journal, which only systemd has
    journal.write_text('#!/bin/sh\necho "afm-triage: /etc/afm-triage/afm1.toml: 2 errors"; echo "$@" >&2\n')
    journal.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name, value in {"UNIT": "afm-triage@afm1.service", "SERVICE_RESULT": "exit-code", "EXIT_STATUS": "78"}.items():
        monkeypatch.setenv(f"MONITOR_{name}", value)
    with http_receiver() as receiver:
        hook = f'webhook = "http://127.0.0.1:{receiver.port}/hook"\n'
        file = configuration(tmp_path, f'{hook}level = "advice"\ncool_down = 3')  # and that is why it failed
        older = Notifier(NotifyConfig(webhook=SecretUrl(f"http://127.0.0.1:{free_port()}/hook")), tmp_path / "state")
        older.hear("disk", "alarm", "is full", rfc3339(time.time()))
        while older.status().waiting == 0:
            older.step()
        assert main(["notify", "--failed", "--config", file]) == 0
        assert "disk" in json.loads(receiver.got.get(timeout=5).body)["title"]  # what had not arrived goes first
        said = json.loads(receiver.got.get(timeout=5).body)
        assert said["title"].startswith("afm1 ▲ service down: it ended with exit code 78: wrong configuration")
        assert "Its last words:\n  afm-triage: /etc/afm-triage/afm1.toml: 2 errors" in said["text"]
        steady, wall = [0.0], [time.time()]
        back = Notifier(
            NotifyConfig(webhook=SecretUrl(f"http://127.0.0.1:{receiver.port}/hook")),
            tmp_path / "state",
            clock=Clock(lambda: wall[0], lambda: steady[0]),
        )
        for _ in range(3):
            back.step()
            wall[0], steady[0] = wall[0] + 40.0, steady[0] + 40.0
        assert json.loads(receiver.got.get(timeout=5).body)["title"] == "over: disk, service down"
    assert main(["notify", "--failed", "--config", configuration(tmp_path, "")]) == 0
    assert "[notify] names nobody" in capfd.readouterr().out


def test_nothing_secret_is_shown_and_every_mistake_is_said_at_once(tmp_path, capsys):
    (tmp_path / "watched").mkdir()
    good = configuration(tmp_path, f'ntfy = "https://ntfy.example.org/{SECRET}"\nwebhook = "https://x.org/{SECRET}"')
    assert main(["check", good]) == 0
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    assert "tells a person of an alarm by ntfy at ntfy.example.org, webhook at x.org" in said.out
    config = load(Flags(good))
    assert SECRET not in json.dumps(values(config)) + repr(config)
    other = load(Flags(configuration(tmp_path, 'ntfy = "https://ntfy.example.org/other"')))
    assert "notify.ntfy" in changes(config, other)
    bad = 'to = ["ada"]\nwebhook = "ftp://x.org/hunter2"\nsmtp_user = "ada"\nkinds = ["Disk!"]\nmost_a_night = 0'
    with pytest.raises(UserError) as refusal:
        load(Flags(configuration(tmp_path, bad)))
    assert refusal.value.exit_code == 78
    assert all(f"notify.{key}" in str(refusal.value) for key in ("to", "webhook", "kinds", "most_a_night"))
    assert "hunter2" not in str(refusal.value)
    with pytest.raises(UserError) as refusal:
        load(Flags(configuration(tmp_path, 'to = ["a@b.org"]\nsmtp_host = "x"\nsmtp_user = "ada"')))
    assert "notify.password_file" in str(refusal.value)
    assert Config(state=tmp_path).notify.is_on is False
    assert os.environ.get("AFM_TRIAGE_NOTIFY__TO") is None


def test_doctor_says_of_each_channel_whether_its_last_message_was_taken(tmp_path):
    config = load(Flags(configuration(tmp_path, 'ntfy = "https://ntfy.example.org/t"\nwebhook = "https://x.org/h"')))
    assert [one.level for one in doctor.messages(Config(state=tmp_path))] == ["note"]
    assert [one.level for one in doctor.messages(config)] == ["note", "note"]
    (tmp_path / "state").mkdir()
    channels.note(config.state, {"ntfy": channels.Result(True), "webhook": channels.Result(False, "x.org: refused")})
    taken, failed = doctor.messages(config)
    assert (taken.level, failed.level) == ("ok", "problem")
    assert "x.org: refused" in failed.text
    assert "notify --test" in failed.advice
