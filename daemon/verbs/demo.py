"""`demo`: the main job on bundled real curves, written as an instrument writes them; then a summary."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from daemon.client.feed import ask_status
from daemon.client.service_file import TemporaryService
from daemon.client.status import lines
from daemon.common import ending
from daemon.common.errors import UNREACHABLE, USAGE, UserError
from daemon.common.options import Option
from daemon.common.stdio import check_rate
from daemon.processes.child import run_errand

CURVES = Path(__file__).resolve().parents[1] / "curves"
#: Text files show no end of their own: their last one is judged so long after it was written.
LAST_TEXT_S = 30.0
_CONSOLE_S = 5.0  # until it has given the terminal back


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    curves: Annotated[int, Option("files to write", "N")] = 60
    rate: Annotated[float, Option("files a second", "R")] = 4.0


def run(options: Options) -> int:
    """A minute of an instrument's life, then a summary; everything is cleaned up."""
    if options.curves < 1:
        raise UserError(USAGE, f"--curves {options.curves}: give 1 or more")
    check_rate(options.rate)
    print(f"{options.curves} real force curves will be written into a folder, {options.rate:g} a second,")
    print("and a service beside it judges each one. It starts in a few seconds …", flush=True)
    with TemporaryService() as trial:
        console = _verb("console", trial, "--publish", trial.publish, "--replay", trial.replay)
        try:
            ending.pause(1.0)  # the console has drawn its first picture
            _play(trial, options.curves, options.rate)
            status = _wait_until_decided(trial)
            ending.pause(2.0 if sys.stdout.isatty() else 0.5)  # the last curve deserves a look
        finally:
            _close(console)
        _summarise(status)
    return 0


def _verb(verb: str, trial: TemporaryService, *words: str) -> subprocess.Popen[bytes]:
    service = ("--state", str(trial.state), "--instrument", trial.instrument)
    return subprocess.Popen([sys.executable, "-m", "daemon", verb, *service, *words], cwd=trial.folder)


def _close(console: subprocess.Popen[bytes]) -> None:
    console.terminate()
    try:
        console.wait(_CONSOLE_S)
    except subprocess.TimeoutExpired:  # somebody has stopped its terminal
        console.kill()


def _play(trial: TemporaryService, curves: int, rate: float) -> None:
    words = ["--into", str(trial.watch), "--rate", str(rate), "--count", str(curves), "--writer", "grow"]
    command = [sys.executable, "-m", "daemon", "replay", str(CURVES), *words]
    played = run_errand(command, cwd=trial.folder)
    if played.returncode:
        raise UserError(played.returncode, played.stderr.strip().removeprefix("afm-triage: "))


def _wait_until_decided(trial: TemporaryService) -> dict[str, Any]:
    """The service's status once nothing waits any more."""
    deadline_s = time.monotonic() + LAST_TEXT_S
    status = _status(trial)
    while time.monotonic() < deadline_s:
        if not status["session"]["backlog"] and not sum(source["waiting"] for source in status["sources"]):
            break
        ending.pause(0.2)
        status = _status(trial)
    return status


def _status(trial: TemporaryService) -> dict[str, Any]:
    event = ask_status(trial.replay, timeout_s=10.0)
    if event is None:
        raise UserError(UNREACHABLE, f"the service does not answer any more: {trial.last_words()}")
    return event["data"]  # type: ignore[no-any-return]  # JSON


def _summarise(status: dict[str, Any]) -> None:
    total = sum(status["counts"].values())
    print(f"\n{total} curves decided, each on disk before it was announced (some files hold several):")
    print(*lines(status["counts"], status["latency_s"], status["model"]["id"], status["engine"]), sep="\n")
    print("\nNext: afm-triage run --watch FOLDER-OF-YOUR-INSTRUMENT, and in another terminal: afm-triage console")
