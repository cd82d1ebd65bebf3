"""`notify`: a message to the person whom `[notify]` names, on the way that an alarm takes.

`--test` sends one to try the way. `--failed` is what systemd runs when the service has failed, as it then cannot speak
for itself: the unit's ``OnFailure=`` gives the facts in MONITOR_… variables (systemd.exec(5)).
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from daemon.client import status
from daemon.client.service_file import find
from daemon.common import ending
from daemon.common.errors import ALREADY_RUNNING, BAD_CONFIG, BAD_DATA, INPUT_OUTPUT, UNREACHABLE, USAGE, UserError
from daemon.common.options import Group, Option
from daemon.common.text import clean
from daemon.config import Config, ConfigError, Flags, Keys, load
from daemon.notify import DOWN, GATHER_AFTER_S, Notifier
from daemon.notify.channels import SEND_S, Message, channels_of, deliver
from models.clock import utc_now

_WHICH = Group("which message", is_choice=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    service: Annotated[Flags, Keys("state", "instrument")]
    test: Annotated[
        bool, Option("send one now, by every channel of [notify], and say what came of it", group=_WHICH)
    ] = False
    failed: Annotated[
        bool, Option("for systemd: say that the service has failed, with its last words", group=_WHICH)
    ] = False


def run(options: Options) -> int:
    """Exit 0 where every channel has taken it, 69 where one has not, 78 where `[notify]` names nobody."""
    if options.failed:
        return _failed(options)
    if not options.test:
        raise UserError(USAGE, "say --test: the service itself sends alarms, as [notify] in its configuration says")
    config = load(options.service)
    channels = channels_of(config.notify)
    if not channels:
        told = status.gather(config).get("messages")
        names = f"{config.file or 'no --config, and so'}: [notify] names nobody"
        if told:
            to = ", ".join(told.get("to") or ())
            how = f"the running {config.instrument} tells {to}: give the --config that it was started with"
            raise UserError(BAD_CONFIG, clean(f"{names}; {how}"))
        raise UserError(BAD_CONFIG, f"{names}; {HOW}")
    title = f"afm-triage {config.instrument}: a test"
    text = (
        f"Sent by hand on {socket.gethostname()}. An alarm of {config.instrument} would take the same way;"
        " nothing is wrong."
    )
    message = Message(uuid.uuid4().hex, title, text, "ok")
    results = deliver(config.notify, dict.fromkeys(channels, message), config.state)
    for name, result in results.items():
        mark, more = "✓" if result.is_sent else "✗", f": {result.text}" if result.text else ""
        print(clean(f"{mark} {channels[name]}{more}"))
    if missing := [name for name, result in results.items() if not result.is_sent]:
        said = "; ".join(f"{name}: {results[name].text}" for name in missing)
        raise UserError(UNREACHABLE, f"an alarm would not arrive: {said}")
    print("taken by every channel; look whether it has come")
    return 0


HOW = (
    'write to = ["you@example.org"] and smtp_host = "…", or ntfy = "https://…/TOPIC", or webhook = "https://…" into it'
)


#: What systemd says of the end of a service (MONITOR_SERVICE_RESULT), and what an exit code of ours means.
_RESULTS = {
    "watchdog": "it hung, and systemd ended it",
    "timeout": "it took too long to start or to end",
    "oom-kill": "the computer had no memory left for it",
    "start-limit-hit": "it ended again and again, and is tried anew in five minutes",
}
_CODES = {
    USAGE: "wrong usage",
    BAD_DATA: "bad data",
    UNREACHABLE: "something it needs is not there",
    ALREADY_RUNNING: "another service has its state folder",
    INPUT_OUTPUT: "its disk does not take what it writes",
    BAD_CONFIG: "wrong configuration",
}
_LAST_LINES, _ASKED_S = 6, 10.0
#: What a timer runs, in the name of its unit; and the kind of its messages in [notify].
_TASK = re.compile(r"afm-triage-(adapt|finetune|report|snapshot)@")
TASK = "nightly task"


def _failed(options: Options) -> int:
    """Exit 0 where it is told, or was told before, or nobody is to be told; 69 where it could not be sent yet."""
    try:
        config = load(options.service)
    except ConfigError as error:  # which may be why it failed; what is right of the file says whom to tell
        config = error.config
    unit = os.environ.get("MONITOR_UNIT", "")
    if (task := _TASK.match(unit)) is not None:
        return _tell_of_task(config, task[1], unit)
    if not unit and (running := find(config)).is_alive:
        raise UserError(USAGE, f"{config.instrument} runs (process {running.pid}): --failed is for systemd; try --test")
    if not config.notify.is_on:
        print(f"{config.instrument} is down, and no message says so: [notify] names nobody")
        return 0
    return _tell(config, _why(os.environ), _last_words(f"afm-triage@{config.instrument}.service"))


def _tell(config: Config, why: str, words: str) -> int:
    """By the rules of every message: how seldom, kept where it does not arrive; the service says when it is over."""
    counts: Counter[str] = Counter()

    def count(result: str, times: int) -> None:
        counts[result] += times

    notifier = Notifier(config.notify, config.state, instrument=config.instrument, about=lambda: words, count=count)
    notifier.hear(DOWN, "alarm", why, utc_now())
    ending.allow(SEND_S)
    until_s = time.monotonic() + SEND_S + GATHER_AFTER_S
    is_news = notifier.gathers()
    notifier.step()  # what has not arrived yet
    while notifier.gathers() and time.monotonic() < until_s:
        ending.pause(0.2)
        notifier.step()
    if counts["failed"]:
        trouble = "kept, and sent when the service is back or has failed again"
        raise UserError(UNREACHABLE, f"not every channel has taken that {config.instrument} is down: {trouble}")
    print("told" if is_news else "told before: no message on the same so soon, or none more tonight")
    return 0


def _why(said: Mapping[str, str]) -> str:
    result, status_ = said.get("MONITOR_SERVICE_RESULT", ""), said.get("MONITOR_EXIT_STATUS", "")
    if result in _RESULTS:
        return _RESULTS[result]
    if result in ("signal", "core-dump"):
        return f"it was killed (signal {status_})"
    if not status_.isdigit():
        return "it has ended, and is not started again"
    meaning = _CODES.get(int(status_), "its log says more")
    return f"it ended with exit code {status_}: {meaning}"


def _tell_of_task(config: Config, task: str, unit: str) -> int:
    """At once and by every channel: the running service keeps account of all else, and a timer runs once a night.

    Exit 0 where it is told, or nobody is to be told; 69 where a channel has not taken it.
    """
    said = config.notify
    if not said.is_on or (said.kinds and TASK not in said.kinds):
        print(f"{task} of {config.instrument} failed, and no message says so: [notify] names nobody for it")
        return 0
    title = f"{config.instrument} ▲ {task} by night: {_why(os.environ)}"
    deed = f"The service goes on. Look with: journalctl -u {unit} -n 20; once more: sudo systemctl start {unit}"
    message = Message(uuid.uuid4().hex, title, "\n".join(filter(None, (deed, _last_words(unit)))), "alarm")
    ending.allow(SEND_S)
    results = deliver(said, dict.fromkeys(channels_of(said), message), config.state)
    if missing := [f"{name}: {one.text}" for name, one in results.items() if not one.is_sent]:
        why = clean("; ".join(missing))
        raise UserError(UNREACHABLE, f"not every channel has taken that {task} of {config.instrument} failed: {why}")
    print("told")
    return 0


def _last_words(unit: str) -> str:
    """The last lines that this run of the unit wrote into the journal; "" where there are none to be read."""
    invocation = os.environ.get("MONITOR_INVOCATION_ID")
    of_run = [f"_SYSTEMD_INVOCATION_ID={invocation}"] if invocation else []
    command = ["journalctl", "--quiet", "--no-pager", "--output=cat", f"--lines={_LAST_LINES}", *of_run]
    command += [f"_SYSTEMD_UNIT={unit}"]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASKED_S, check=True, errors="replace")
        if lines := [clean(line) for line in done.stdout.splitlines() if line.strip()]:
            return "\n".join(["Its last words:", *(f"  {line}" for line in lines)])
    return ""
