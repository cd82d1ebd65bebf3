"""The unit: systemd's own checker must have nothing to say, and the unit must mean what the README promises."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from daemon.errors import ALREADY_RUNNING, BAD_CONFIG, USAGE

UNIT = Path(__file__).resolve().parents[1] / "systemd" / "afm-triage@.service"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def verify(unit: Path) -> str:
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stderr


@needs_systemd
def test_systemd_has_nothing_to_say_about_the_unit() -> None:
    assert verify(UNIT) == ""


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
    import argparse

    from daemon.config import add_run_options

    parser = argparse.ArgumentParser(exit_on_error=False)
    add_run_options(parser)
    words = service()["ExecStart"].split("afm-triage run ")[1].replace("%i", "afm1").split()
    assert parser.parse_args(words).instrument == "afm1"
