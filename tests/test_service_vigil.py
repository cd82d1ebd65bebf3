"""The vigil: what stands still is told, and what only rests is not."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from daemon.client.service_file import TemporaryService
from daemon.config import AlarmConfig, Config
from daemon.config.rule import FolderSettings
from daemon.metrics import Accounts
from daemon.service.health import Condition, Health, Vigil
from daemon.sources import Source, SourceHealth

FOLDERS = (Path("/data/local"), Path("/mnt/share"))


class Still:
    """A source that says what it is told to, and a clock."""

    name = "watch"

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.pending_s: float | None = None
        self.folders = [SourceHealth(str(path), True, "scan", 0, place, 5.0) for place, path in enumerate(FOLDERS)]

    def health(self) -> list[SourceHealth]:
        return list(self.folders)

    def oldest_pending_s(self) -> float | None:
        return self.pending_s

    def see(self, *places: int, **changes: float) -> None:
        for place in places:
            self.folders[place] = replace(self.folders[place], **{"last_seen_s": self.now_s, **changes})


@pytest.fixture
def source() -> Still:
    return Still()


Watch = Callable[..., tuple[Vigil, Health, list[Condition], Accounts]]


@pytest.fixture
def watch(source: Still) -> Watch:
    def made(**changes: object) -> tuple[Vigil, Health, list[Condition], Accounts]:
        heard: list[Condition] = []
        health, accounts = Health(heard.append), Accounts()
        config = replace(Config(state=Path("/state"), watch=FOLDERS), **changes)  # type: ignore[arg-type]  # as given
        vigil = Vigil(config, [cast(Source, source)], accounts, health, lambda: source.now_s)
        return vigil, health, heard, accounts

    return made


def pass_time(vigil: Vigil, source: Still, seconds: int, *seen: int) -> None:
    """The loop turns and looks once a second, and these folders answer."""
    for _ in range(seconds):
        source.now_s += 1
        source.see(*seen)
        vigil.turned()
        vigil.look()


def test_a_folder_that_is_not_seen_is_no_quiet_folder(source: Still, watch: Watch) -> None:
    vigil, health, heard, _ = watch()
    pass_time(vigil, source, 100, 0, 1)
    assert (health.level, heard) == ("ok", [])
    pass_time(vigil, source, 30, 0)
    assert health.level == "ok"
    pass_time(vigil, source, 2, 0)
    assert [(one.name, one.text) for one in heard] == [
        ("source /mnt/share", "has not been seen for 31 s; scan"),
    ]
    pass_time(vigil, source, 1, 0, 1)
    assert (health.level, heard[-1].is_ok) == ("ok", True)


def test_the_clock_of_the_computer_may_be_set(source: Still, watch: Watch) -> None:
    vigil, health, _, _ = watch()
    pass_time(vigil, source, 5, 0, 1)
    source.see(0, 1, last_seen_s=9e9)
    pass_time(vigil, source, 5)
    source.see(0, 1, last_seen_s=3.0)
    pass_time(vigil, source, 5)
    assert health.level == "ok"


def test_a_finished_file_without_a_verdict_is_told_after_a_minute(source: Still, watch: Watch) -> None:
    vigil, health, heard, accounts = watch()
    accounts.seen("watch", 3)
    source.pending_s = 59.9
    pass_time(vigil, source, 1, 0, 1)
    assert health.level == "ok"
    source.pending_s = 71.4
    pass_time(vigil, source, 1, 0, 1)
    assert heard[-1].name == "pending"
    assert heard[-1].text == "3 curves wait for a verdict, the oldest for 71 s"
    source.pending_s = None
    pass_time(vigil, source, 1, 0, 1)
    assert (health.level, heard[-1].is_ok) == ("ok", True)


def test_an_instrument_may_rest_unless_somebody_has_asked(source: Still, watch: Watch) -> None:
    vigil, health, _, _ = watch()
    pass_time(vigil, source, 4000, 0, 1)
    assert health.level == "ok"
    vigil.config = replace(vigil.config, alarm=AlarmConfig(silence_s=3600))  # a reload: counted from the start
    pass_time(vigil, source, 1, 0, 1)
    (alarm,) = [one for one in health.conditions() if not one.is_ok]
    assert alarm.name == "silence"
    assert alarm.text.startswith("no curve has come for 1 h 6 min;")
    source.see(1, last_curve_s=77.0)
    pass_time(vigil, source, 1, 0, 1)
    assert health.level == "ok"


def test_curves_over_a_socket_break_the_silence_too(source: Still, watch: Watch) -> None:
    vigil, health, _, accounts = watch(alarm=AlarmConfig(silence_s=60))
    for _ in range(10):
        pass_time(vigil, source, 50, 0, 1)
        accounts.seen("ingest")
    assert health.level == "ok"
    pass_time(vigil, source, 62, 0, 1)
    assert health.level == "alarm"


def test_one_folder_may_have_a_silence_of_its_own(source: Still, watch: Watch) -> None:
    vigil, health, _, _ = watch(folder=(FolderSettings(FOLDERS[1], silence_s=60.0),))
    for _ in range(4):
        source.see(0, last_curve_s=source.now_s)
        pass_time(vigil, source, 30, 0, 1)
    assert [one.name for one in health.conditions() if not one.is_ok] == ["silence /mnt/share"]


def test_a_loop_that_hangs_is_seen_by_whoever_asks(source: Still, watch: Watch) -> None:
    vigil, health, _, _ = watch()
    source.now_s += 100
    vigil.look()
    assert health.level == "ok"  # a service that starts has not turned yet
    pass_time(vigil, source, 1, 0, 1)
    source.now_s += 31
    source.see(0, 1)
    vigil.look()
    assert [one.name for one in health.conditions() if not one.is_ok] == ["judging"]
    assert "has stood still for 31 s" in health.line()


def test_a_reload_takes_the_silence_of_a_folder_and_leaves_its_mounts_to_a_restart(tmp_path: Path) -> None:
    file, watch = tmp_path / "afm.toml", tmp_path / "trial" / "watch"
    file.write_text(f'watch = "{watch}"\n')
    with TemporaryService(tmp_path / "trial", options=("--config", str(file))) as trial:
        assert trial.process is not None
        file.write_text(f'watch = "{watch}"\n[[folder]]\npath = "{watch}"\nsilence_s = 1\n')
        trial.process.send_signal(signal.SIGHUP)
        wait_for(trial, "applied ['folder']; needs a restart: nothing")
        wait_for(trial, f"silence {watch}: no curve has come for")
        file.write_text(f'watch = "{watch}"\n[[folder]]\npath = "{watch}"\nmounts = "network"\n')
        trial.process.send_signal(signal.SIGHUP)
        wait_for(trial, "applied nothing; needs a restart: ['folder']")
        wait_for(trial, f"silence {watch}: curves come")


def wait_for(trial: TemporaryService, words: str) -> None:
    deadline_s = time.monotonic() + 15
    while words not in trial.log.read_text():
        assert time.monotonic() < deadline_s, trial.log.read_text()
        time.sleep(0.05)
