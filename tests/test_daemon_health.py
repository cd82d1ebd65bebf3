"""Health: datagrams over a real socket, conditions announced once."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import daemon.guard
import daemon.service
from daemon.ledger.events import Health as Told
from daemon.metrics import CONDITIONS, Metrics
from daemon.notify import kind_of
from daemon.service.health import Condition, Health, notify, watchdog_interval_s


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket systemd would listen on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(2)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener


def test_notify_reaches_systemd(systemd: socket.socket) -> None:
    assert notify("READY=1\nSTATUS=watching /data")
    assert systemd.recv(4096) == b"READY=1\nSTATUS=watching /data"


def test_notify_reaches_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"afm-triage-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        listener.settimeout(2)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        assert notify("WATCHDOG=1")
        assert listener.recv(64) == b"WATCHDOG=1"


@pytest.mark.parametrize("address", [None, "", "relative/path", "/nowhere/at/all"])
def test_notify_without_a_listener_is_no_error(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify("READY=1")


@pytest.mark.parametrize(
    ("period_us", "pid", "expected_s"),
    [
        ("30000000", None, 15.0),
        ("30000000", "me", 15.0),
        ("30000000", "1", None),  # meant for another process, e.g. a child that inherited the environment
        ("0", None, None),
        ("soon", None, None),
        (None, None, None),
    ],
)
def test_watchdog_interval(
    period_us: str | None, pid: str | None, expected_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = str(os.getpid()) if pid == "me" else pid
    for name, value in (("WATCHDOG_USEC", period_us), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert watchdog_interval_s() == expected_s


def health() -> tuple[Health, list[Condition]]:
    heard: list[Condition] = []
    times = iter(f"2026-11-20T12:00:0{second}.000Z" for second in range(10))
    return Health(heard.append, now=lambda: next(times)), heard


def test_a_condition_is_announced_when_it_comes_and_when_it_goes() -> None:
    one, heard = health()
    for level, text in (
        ("ok", "tip ok"),
        ("alarm", "20 missed"),
        ("alarm", "21 missed"),
        ("ok", "tip ok"),
        ("ok", "tip ok"),
    ):
        one.report("contact", level, text)  # type: ignore[arg-type]
    assert [(c.level, c.text) for c in heard] == [("alarm", "20 missed"), ("ok", "tip ok")]


def test_every_kind_is_as_grave_as_its_worst_and_has_a_metric() -> None:
    health, metrics = Health(), Metrics()
    health.report("source /a", "ok", "fine")
    health.report("source /b", "alarm", "gone")
    health.report("engine", "degraded", "cpu judges")
    health.report("advice tilt", "degraded", "tilted", is_advice=True)
    assert health.grave() == {"source": 3, "engine": 2, "tilt": 1}
    metrics.felt(health.grave())
    health.report("source /b", "ok", "back")
    before = metrics.registry.get_sample_value("afm_triage_condition", {"kind": "source"})
    metrics.felt(health.grave())
    assert (before, metrics.registry.get_sample_value("afm_triage_condition", {"kind": "source"})) == (3, 0)


def test_no_condition_is_reported_that_the_metrics_do_not_know() -> None:
    rooms = [Path(daemon.service.__path__[0]), Path(daemon.guard.__path__[0])]
    sources = "".join(path.read_text() for room in rooms for path in room.glob("*.py"))
    named = re.findall(r"""(?:\breport|_say|Finding|Advice)\((?:kind=)?f?"([a-z ]+)(?= \{|")""", sources)
    assert len(named) > 15
    assert {kind_of(name) for name in named} <= set(CONDITIONS)


def test_the_text_follows_but_since_stays() -> None:
    one, _ = health()
    one.report("contact", "alarm", "20 missed")
    one.report("contact", "alarm", "35 missed")
    assert one.for_status() == [
        Told(name="contact", level="alarm", text="35 missed", since="2026-11-20T12:00:00.000Z", ok=False)
    ]


def test_the_gravest_comes_first_and_gives_the_line() -> None:
    one, _ = health()
    assert (one.level, one.line()) == ("ok", "")
    one.report("engine", "ok", "cpu")
    one.report("folder", "degraded", "/data is gone")
    one.report("contact", "alarm", "20 missed")
    assert [c.name for c in one.conditions()] == ["contact", "folder", "engine"]
    one.report("orientation jpk", "alarm", "3 upside down")  # a cause, though it was found later
    assert [c.name for c in one.conditions()] == ["orientation jpk", "contact", "folder", "engine"]
    one.report("orientation jpk", "ok", "none")
    assert one.level == "alarm"
    assert one.line() == "contact: 20 missed; folder: /data is gone"
