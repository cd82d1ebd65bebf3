"""The unit: systemd's own checker must have nothing to say, and the unit must mean what the pages promise."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest

from daemon.cli import Parser
from daemon.common.errors import ALREADY_RUNNING, BAD_CONFIG, USAGE
from daemon.common.options import add_options, take_options
from daemon.verbs import adapt, finetune, report, run

UNITS = Path(__file__).resolve().parents[1] / "systemd"
UNIT = UNITS / "afm-triage@.service"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def verify(unit: Path) -> str:
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stderr


@needs_systemd
@pytest.mark.parametrize("unit", sorted(UNITS.iterdir()), ids=lambda unit: unit.name)
def test_systemd_has_nothing_to_say_about_the_units(unit: Path) -> None:
    assert verify(unit) == ""


@needs_systemd
def test_the_check_would_see_a_wrong_key(tmp_path: Path) -> None:
    # The exit status stays 0 for unknown keys: only standard error tells.
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("WatchdogSec=30", "WatchdogSecs=30"))
    assert "WatchdogSecs" in verify(unit)


def service() -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    parser.read(UNIT)
    return dict(parser["Service"])


def test_what_cannot_pass_is_not_tried_again() -> None:
    assert set(service()["RestartPreventExitStatus"].split()) == {str(USAGE), str(ALREADY_RUNNING), str(BAD_CONFIG)}


def test_the_configuration_is_checked_before_every_start() -> None:
    keys = service()
    assert keys["ExecStartPre"].endswith("afm-triage check /etc/afm-triage/%i.toml")
    assert keys["Type"] == "notify"
    assert "-HUP" in keys["ExecReload"]


def test_every_flag_of_the_unit_is_a_flag_of_run() -> None:
    parser = Parser()
    add_options(parser, run.Options)
    words = service()["ExecStart"].split("afm-triage run ")[1].replace("%i", "afm1").split()
    assert take_options(run.Options, parser.parse_args(words)).configuration.keys["instrument"] == "afm1"


@pytest.mark.parametrize("verb", [adapt, finetune, report], ids=["adapt", "finetune", "report"])
def test_a_timer_asks_for_the_state_of_the_service(verb: ModuleType) -> None:
    name = verb.__name__.rpartition(".")[2]
    said = (UNITS / f"afm-triage-{name}@.service").read_text()
    words = said.split(f"afm-triage {name} ")[1].splitlines()[0].replace("%i", "afm1").split()
    parser = Parser()
    add_options(parser, verb.Options)
    options = take_options(verb.Options, parser.parse_args(words))
    assert options.unattended
    assert (options.service.file, options.service.keys) == ("/etc/afm-triage/afm1.toml", {"instrument": "afm1"})
    assert f"StateDirectory={service()['StateDirectory']}" in said
    assert (UNITS / f"afm-triage-{name}@.timer").is_file()


def test_the_pages_install_every_unit_that_they_tell_to_enable() -> None:
    pages = "\n".join(page.read_text() for page in sorted((UNITS.parent / "deploy" / "docs").glob("*.md")))
    line = next(line for line in pages.splitlines() if line.strip().startswith("sudo install") and "systemd/" in line)
    patterns = [word for word in line.split("#")[0].split() if word.startswith("systemd/")]
    copied = {path.name for pattern in patterns for path in UNITS.parent.glob(pattern)}
    told = {one.replace("@afm1", "@") for one in re.findall(r"systemctl enable --now (afm-triage[\w@.-]*)", pages)}
    assert len(told) >= 2
    assert {one if "." in one else f"{one}.service" for one in told} <= copied
    assert copied == {path.name for path in UNITS.iterdir()}


def test_the_service_talks_to_systemd_as_the_unit_expects(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    command = [sys.executable, "-m", "daemon", "run", "--watch", str(tmp_path / "data"), "--metrics-port", "0"]
    command += ["--publish", "tcp://127.0.0.1:0", "--replay", "tcp://127.0.0.1:0"]
    given = {
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "1000000",
        "STATE_DIRECTORY": str(tmp_path / "s"),
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        process = subprocess.Popen(command, cwd=UNIT.parents[1], env={**os.environ, **given}, stderr=subprocess.DEVNULL)
        try:
            said = [systemd.recv(4096).decode()]
            assert said[0].startswith("READY=1\nSTATUS="), "nothing is said before READY"
            begun_s = time.monotonic()
            while time.monotonic() < begun_s + 1.2:  # no curve comes, and it is still alive
                said.append(systemd.recv(4096).decode())
            pings = sum(word == "WATCHDOG=1" for word in said)
            assert pings >= 2
            assert any(word.startswith("STATUS=") for word in said)
            begun_s = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
            assert time.monotonic() - begun_s < 5
            systemd.setblocking(False)
            assert "STOPPING=1" in list(rest(systemd))
        finally:
            process.kill()
            process.wait()


def rest(listener: socket.socket) -> Iterator[str]:
    with suppress(BlockingIOError):
        while True:
            yield listener.recv(4096).decode()
