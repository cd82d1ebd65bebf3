"""`reload`: the running service takes its configuration anew, as SIGHUP does, and says what came of it.

A signal to the service, and the `config` event that it answers with.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import zmq

from daemon.client.feed import ask_status
from daemon.client.service_file import ServiceFile, find, none_runs
from daemon.common.errors import BAD_CONFIG, UNREACHABLE, UserError
from daemon.common.sockets import await_input, connect, open_socket
from daemon.config import Config, Flags, Keys, load
from daemon.ledger import wire

#: Loading another model takes a second, compiling it for a GPU minutes; the old one judges meanwhile.
PATIENCE_S = 900.0
_GREETING_S = 5.0  # until the service has noticed that somebody listens
_LOOK_S = 1.0  # between two looks whether the service is still there


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    service: Annotated[Flags, Keys("state", "instrument")]


def run(options: Options) -> int:
    """Exit 0 when the new configuration is in force, 78 when it was refused, 69 without a running service."""
    print(reload(load(options.service)))
    return 0


def reload(config: Config, patience_s: float = PATIENCE_S) -> str:
    """What has changed, in words. Raises UserError 69 without a service to ask, 78 when it refused."""
    where = find(config)
    pid = _pid(where, config)
    subscriber = open_socket(zmq.SUB)
    try:
        connect(subscriber, where.publish, where.key)
        subscriber.subscribe(f"afm.{config.instrument}.")
        if not await_input(subscriber, _GREETING_S):  # the greeting: from here on nothing is missed
            raise UserError(UNREACHABLE, f"process {pid} does not publish at {where.publish}; is it still starting?")
        os.kill(pid, signal.SIGHUP)
        return _words(await_answer(subscriber, pid, patience_s))
    except PermissionError:
        raise UserError(UNREACHABLE, f"process {pid} belongs to another user; ask for it with sudo") from None
    finally:
        subscriber.close()


def _pid(where: ServiceFile, config: Config) -> int:
    if where.pid is None or not where.is_alive:
        raise none_runs(config)
    event = ask_status(where.replay, key=where.key)
    # A process of the same number may be anybody's: only the one that answers as ours gets a signal.
    if event is None or event["data"].get("pid") != where.pid:
        raise UserError(UNREACHABLE, f"process {where.pid} does not answer at {where.replay}; its log says more")
    return where.pid


def await_answer(subscriber: zmq.Socket[bytes], pid: int, patience_s: float) -> Mapping[str, Any]:
    """The data of the next `config` event. UserError 69 when process ``pid`` ends before, or says nothing in time."""
    deadline_s = time.monotonic() + patience_s
    while (left_s := deadline_s - time.monotonic()) > 0:
        if await_input(subscriber, min(left_s, _LOOK_S)):
            topic, body = subscriber.recv_multipart(zmq.DONTWAIT)
            if topic.endswith(b".config"):
                data: Mapping[str, Any] = wire.decode(body)["data"]
                return data
        elif not os.path.exists(f"/proc/{pid}"):
            raise UserError(UNREACHABLE, f"process {pid} has ended meanwhile; its log says more")
    raise UserError(UNREACHABLE, f"the service said nothing within {patience_s:g} s; its log says more")


def _words(data: Mapping[str, Any]) -> str:
    if data.get("result") != "applied":
        raise UserError(BAD_CONFIG, f"refused, the old settings stay: {data.get('reason')}")
    changed, later = data.get("changed") or {}, data.get("needs_restart") or []
    lines = [f"{key}: {before} -> {after}" for key, (before, after) in changed.items()]
    lines += [f"{key}: changed, and needs a restart" for key in later]
    return "\n".join(lines) or "nothing has changed"
