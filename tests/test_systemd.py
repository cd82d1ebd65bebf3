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
from pace import allowed

from daemon.cli import Parser, main
from daemon.common.errors import ALREADY_RUNNING, BAD_CONFIG, UNREACHABLE, USAGE
from daemon.common.options import add_options, take_options
from daemon.config.origin import PORTS
from daemon.verbs import adapt, events, finetune, ledger, notify, report, run

UNITS = Path(__file__).resolve().parents[1] / "systemd"
UNIT = UNITS / "afm-triage@.service"
COLLECTOR = UNITS.parent / "deploy" / "facility" / "afm-triage-collector.service"
SERVICES = [*sorted(UNITS.glob("*.service")), COLLECTOR]
INSTALL = UNITS.parent / "deploy" / "install"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def verify(unit: Path) -> str:
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stderr


@needs_systemd
@pytest.mark.parametrize("unit", [*SERVICES, *sorted(UNITS.glob("*.timer"))], ids=lambda unit: unit.name)
def test_systemd_has_nothing_to_say_about_the_units(unit: Path) -> None:
    assert verify(unit) == ""


@needs_systemd
@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_little_of_the_computer_lies_open_to_a_unit(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=15", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def sandbox(unit: Path) -> list[str]:
    """Its settings from the user on, without words of ours."""
    lines = unit.read_text().partition("\n[Install]")[0].replace("/collector", "/%i").splitlines()
    return [line for line in lines[lines.index("User=afm-triage") :] if line and not line.startswith("#")]


def test_every_unit_has_the_same_sandbox_and_cuda_still_finds_its_cards() -> None:
    first, *others = (sandbox(unit) for unit in SERVICES)
    assert [unit.name for unit, its in zip(SERVICES[1:], others, strict=True) if its != first] == []
    said = dict(line.split("=", 1) for line in first)
    assert {"PrivateDevices", "ProcSubset", "MemoryDenyWriteExecute"}.isdisjoint(said)  # each would end CUDA
    assert "DeviceAllow=char-nvidia-uvm rw" in first
    assert (said["ProtectSystem"], said["ProtectHome"]) == ("strict", "read-only")  # the instrument's folder


@needs_systemd
def test_the_user_of_the_units_is_one_that_systemd_makes(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    command = ["systemd-sysusers", f"--root={tmp_path}", str(UNITS / "afm-triage.conf")]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert {line.split(":")[0] for line in (tmp_path / "etc/passwd").read_text().splitlines()} == {"afm-triage"}


def test_a_failed_service_is_told_by_a_unit_that_is_there_and_what_may_pass_is_tried_anew() -> None:
    told = re.search(r"^OnFailure=(\S+)%i\.service$", UNIT.read_text(), re.MULTILINE)
    assert told is not None
    said = (UNITS / f"{told[1]}.service").read_text()
    words = said.split("afm-triage notify ")[1].splitlines()[0].replace("%i", "afm1").split()
    parser = Parser()
    add_options(parser, notify.Options)
    assert take_options(notify.Options, parser.parse_args(words)).failed
    (never,) = re.findall(r"in ([\d|]+)\) exit", said)
    assert set(never.split("|")) == set(service()["RestartPreventExitStatus"].split())


def test_the_installer_refuses_in_one_line(tmp_path: Path) -> None:
    def refusal(*words: str) -> tuple[int, str]:
        done = subprocess.run([str(INSTALL), *words], capture_output=True, text=True, timeout=60, check=False)
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stdout == ""
        return done.returncode, done.stderr

    assert refusal()[0] == USAGE
    assert "there is no --purge-all" in refusal("--purge-all")[1]
    assert refusal("afm1", "/mnt", "--purge")[0] == USAGE
    assert refusal("--rollback", "afm1")[0] == USAGE
    code, said = refusal("afm1", str(tmp_path / "gone"))  # whoever runs the tests: nothing is installed
    assert code == UNREACHABLE
    assert re.search("only root|systemd does not run|there is no folder", said)


def test_a_unit_without_its_configuration_says_who_makes_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--config", "/etc/afm-triage/nope.toml", "--instrument", "nope"]) == BAD_CONFIG
    assert "no such file; make it: sudo deploy/install nope FOLDER" in capsys.readouterr().err


def test_the_installer_reads_from_the_project_what_the_project_says() -> None:
    script = INSTALL.read_text()
    assert re.search(r"^TORCH := torch==", (UNITS.parent / "Makefile").read_text(), re.MULTILINE)
    assert "sed -n 's/^TORCH := //p'" in script
    assert f"$(({PORTS['review']} + 10 *" in script
    assert subprocess.run(["sh", "-n", str(INSTALL)], timeout=10, check=False).returncode == 0


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


def test_systemd_waits_until_it_is_ready_and_reloads_it_by_a_signal() -> None:
    keys = service()
    assert keys["Type"] == "notify"
    assert "-HUP" in keys["ExecReload"]


def test_every_flag_of_the_unit_is_a_flag_of_run() -> None:
    parser = Parser()
    add_options(parser, run.Options)
    words = service()["ExecStart"].split("afm-triage run ")[1].replace("%i", "afm1").split()
    assert take_options(run.Options, parser.parse_args(words)).configuration.keys["instrument"] == "afm1"


@pytest.mark.parametrize(
    ("name", "verb"), [("adapt", adapt), ("finetune", finetune), ("report", report), ("snapshot", ledger)]
)
def test_a_timer_asks_for_the_state_of_the_service(name: str, verb: ModuleType) -> None:
    said = (UNITS / f"afm-triage-{name}@.service").read_text()
    words = said.split("ExecStart=/usr/bin/env afm-triage ")[1].splitlines()[0].replace("%i", "afm1").split()
    assert words[0] == verb.__name__.rpartition(".")[2]
    parser = Parser()
    add_options(parser, verb.Options)
    options = take_options(verb.Options, parser.parse_args(words[1:]))
    options = getattr(options, "action", options)
    assert options.unattended
    assert (options.service.file, options.service.keys) == ("/etc/afm-triage/afm1.toml", {"instrument": "afm1"})
    assert f"StateDirectory={service()['StateDirectory']}" in said
    assert (UNITS / f"afm-triage-{name}@.timer").is_file()
    assert "\nOnFailure=afm-triage-task-failed@%i.service\n" in said


def test_the_collector_asks_for_what_events_can_do_and_writes_where_it_may() -> None:
    said = COLLECTOR.read_text()
    words = said.split("ExecStart=/usr/bin/env afm-triage events ")[1].splitlines()[0].split()
    parser = Parser()
    add_options(parser, events.Options)
    options = take_options(events.Options, parser.parse_args(words))
    assert (options.to, options.follow, str(options.instruments)) == (
        *("parquet", True),
        "/etc/afm-triage/instruments.toml",
    )
    assert f"StateDirectory={str(options.out).removeprefix('%S/').removesuffix('/tables')}\n" in said
    (never,) = re.findall(r"^RestartPreventExitStatus=(.*)$", said, re.MULTILINE)
    assert set(never.split()) == {str(USAGE), str(ALREADY_RUNNING), str(BAD_CONFIG)}


def test_the_pages_enable_units_that_are_there() -> None:
    pages = "\n".join(page.read_text() for page in sorted((UNITS.parent / "deploy" / "docs").glob("*.md")))
    told = {one.replace("@afm1", "@") for one in re.findall(r"systemctl enable --now (afm-triage[\w@.-]*)", pages)}
    assert {one if "." in one else f"{one}.service" for one in told} <= {
        path.name for path in (*UNITS.iterdir(), COLLECTOR)
    }


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
            while said[0].startswith("EXTEND_TIMEOUT_USEC="):  # this computer is busy, and patience is asked for
                said[0] = systemd.recv(4096).decode()
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
            assert time.monotonic() - begun_s < allowed(5)
            systemd.setblocking(False)
            assert "STOPPING=1" in list(rest(systemd))
        finally:
            process.kill()
            process.wait()


def rest(listener: socket.socket) -> Iterator[str]:
    with suppress(BlockingIOError):
        while True:
            yield listener.recv(4096).decode()
