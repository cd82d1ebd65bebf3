"""The feed: what a subscriber hears, without a gap, across lost messages and restarts of the service.

The rule (the clone pattern of the ZeroMQ guide): subscribe first, then ask for what came before, drop what is already
known, and on a gap ask again. What is missed live is never guessed at; the ledger has it.
"""

from __future__ import annotations

import argparse
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator
from typing import Self

import zmq

from daemon.common import ending
from daemon.common.ending import Closing
from daemon.common.errors import UNREACHABLE, UserError
from daemon.common.keys import Key
from daemon.common.options import Option
from daemon.common.sockets import await_input, connect, open_socket
from daemon.common.text import duration
from daemon.ledger import events, wire
from daemon.ledger.wire import Event

#: Between two requests that brought nothing.
_PAUSE_S = 0.2
#: So long words of a service that was replaced may still be on the way.
_LATE_S = 10.0


class Silent(Exception):
    """Nobody answers at this address."""


class Feed(Closing):
    """Decoded events of one service: decisions in order and gap-free, other kinds as they come.

    ``since``: the last ``seq`` already known; None begins now. ``stream``: the ledger that ``since`` belongs to. When
    the service comes back with another ledger, or with an older copy that was put back, all of its decisions that were
    not delivered before are: a ledger may hold decisions of several streams, each going on where the one before ends.
    ``key``: what the service asks for, where it asks for one. One that ``is_held`` asks for nothing: its history waits.
    """

    def __init__(
        self,
        publish: str,
        replay: str,
        *,
        since: int | None = None,
        stream: str | None = None,
        answer_s: float = 3.0,
        key: Key | None = None,
    ) -> None:
        self.last, self.stream = since, stream
        self._answer_s = answer_s
        self._head = 0  # how far the ledger is known to be
        self._is_complete = False  # whether an answer has said that there is no more
        self._heard: dict[str, tuple[int, int]] = {}  # stream -> first and last seq that is known of it
        self._at = stream  # of the decision that was taken last
        self._known_to = 0  # how far it was delivered when another stream took over
        self._has_met_known = False  # whether the ledger, read anew, has come to a stream that was heard before
        self._is_live_known = False  # whether a live word has said which stream goes on
        self._left_s: dict[str, float] = {}  # stream -> when another took its place
        self._replay, self._key = replay, key
        self.is_held, self.is_asking = False, False  # is_asking: an answer is on its way, of some megabytes perhaps
        self._wait_until_s = 0.0  # no request before
        self._answers = 0
        self._ready: deque[Event] = deque()
        self.heard_s: float | None = None  # time.monotonic() of the last sign of life
        self._live = self._connect(zmq.SUB, publish, key)
        self._requests = self._connect(zmq.DEALER, replay, key)
        self._poller = zmq.Poller()
        self._poller.register(self._live, zmq.POLLIN)
        self._poller.register(self._requests, zmq.POLLIN)

    def close(self) -> None:
        self._live.close()
        self._requests.close()

    def __iter__(self) -> Iterator[Event]:
        """For ever; while the service is away it waits."""
        while True:
            self._ready += self.read(1.0)
            while self._ready:  # one at a time: what a caller who stops does not take stays here
                yield self._ready.popleft()

    def read(self, timeout_s: float) -> list[Event]:
        """What has come, waiting at most ``timeout_s`` for the first of it, or until it is known that there is no more.

        Raises KeyboardInterrupt when the process is asked to end meanwhile.
        """
        deadline_s = time.monotonic() + timeout_s
        if self._ready:
            left = list(self._ready)
            self._ready.clear()
            return left
        was_complete = self._is_complete
        while True:
            ending.check()
            self._ask()
            left_s = deadline_s - time.monotonic()
            ready = dict(self._poller.poll(int(max(min(left_s, ending.LOOK_S), 0.0) * 1000)))
            found = self._listen() if self._live in ready else []
            if self._requests in ready:
                found += self._take(self._requests.recv_multipart(zmq.DONTWAIT))
            if found or left_s <= 0 or self._is_complete > was_complete:
                return found

    def history(self) -> Iterator[Event]:
        """Decisions up to now, then the end. Raises Silent when no answer comes within ``answer_s``."""
        silent_s, answers = 0.0, self._answers
        while not self._is_complete:
            began_s = time.monotonic()
            found = self.read(_PAUSE_S)  # heartbeats may come all the time: only answers count
            silent_s = 0.0 if self._answers > answers else silent_s + time.monotonic() - began_s
            answers = self._answers
            if silent_s > self._answer_s:
                raise Silent
            yield from (event for event in found if events.kind_of(event) == "decision")

    def _connect(self, kind: int, endpoint: str, key: Key | None) -> zmq.Socket[bytes]:
        socket = open_socket(kind)
        socket.set_hwm(100_000)
        socket.setsockopt(zmq.IMMEDIATE, 1)  # no request is queued for a service that is away
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)  # a cable that was pulled says nothing by itself
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6000)
        if kind == zmq.SUB:
            socket.subscribe(b"")
        connect(socket, endpoint, key)
        return socket

    def _ask(self) -> None:
        """Ask for what is missing, one request at a time."""
        now_s = time.monotonic()
        if self.is_held or now_s < self._wait_until_s:
            return
        if self.last is None:
            request = [b"status"]
        elif not self._is_complete or self._head > self.last:
            request = [b"since", b"%d" % self.last]
        else:
            return
        try:
            self._requests.send_multipart(request, zmq.DONTWAIT)
            self._wait_until_s, self.is_asking = now_s + self._answer_s, True
        except zmq.Again:
            self._wait_until_s = now_s + _PAUSE_S / 4

    def _take(self, bodies: list[bytes]) -> list[Event]:
        """An answer. Without a word that is new it means that there is no more."""
        before, ends = self.last, bodies == [b""]
        found = [event for body in bodies for event in self._accept(body, is_live=False)]
        self._answers += self.last != before or ends  # one that brings nothing of what was asked for is none
        self._wait_until_s, self.is_asking = 0.0, False
        if self.last == before:
            self._is_complete |= ends
            self._wait_until_s = time.monotonic() + _PAUSE_S
        return found

    def _listen(self) -> list[Event]:
        found: list[Event] = []
        for _ in range(1000):
            try:
                frames = self._live.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
            found += self._accept(frames[-1], is_live=True)
        return found

    def _accept(self, body: bytes, *, is_live: bool) -> list[Event]:
        """The event, unless it is known, too early, of a ledger that is gone, or none at all."""
        try:
            event = wire.decode(body)
            kind, stream, data = events.kind_of(event), str(event["stream"]), event["data"]
            seq = int(event["seq"]) if kind == "decision" else int(data["last_seq"])
        except (ValueError, KeyError, TypeError):
            return []
        self.heard_s = time.monotonic()
        is_decision = kind == "decision"
        if not kind or not self._belongs(stream, is_current=is_live or not is_decision, is_decision=is_decision):
            return []
        self._head = max(self._head, seq)
        if kind == "hello":  # the service may have come back, without the request that was under way
            self._wait_until_s = 0.0
        if self.last is None:
            self.last = seq - is_decision
            self._is_complete = True
        if not self._heard:
            self._heard[stream] = (0, self.last)
        if not is_decision:
            return [event]
        if seq != self.last + 1:  # known, or a gap: then the head is ahead, and the ledger is asked
            return []
        self.last, self._at = seq, stream
        return [] if self._is_known(stream, seq) else [event]

    def _belongs(self, stream: str, *, is_current: bool, is_decision: bool) -> bool:
        """Whether it is this ledger's.

        What is said now (``is_current``) is of the stream that goes on; the history that is asked for may begin with
        older ones. Where another stream goes on, the history is read anew, as it may have parted at any number. Words
        of the one before may still be on the way; later it has come back.
        """
        if not is_current:
            left = self.stream
            if not self._is_live_known:
                self.stream = stream
            # Nothing follows the stream that goes on: another service is answering.
            if left is not None and left == self._at != stream and left not in self._left_s:
                self._begin_anew(left)
                self.stream = None
            return True
        if stream in self._left_s and (is_decision or time.monotonic() - self._left_s[stream] < _LATE_S):
            return stream == self.stream
        has_changed = self.stream is not None and stream != self.stream
        # Before the first live word nobody could say whether all the answers were of one service.
        if has_changed or (not self._is_live_known and len(self._heard) > 1):
            self._begin_anew(self.stream if has_changed else None)
        self.stream, self._is_live_known = stream, True
        return True

    def _begin_anew(self, left: str | None) -> None:
        if left is not None:
            self._left_s[left] = time.monotonic()
        self._known_to = max(self._known_to, self.last or 0)
        self.last, self._head, self._is_complete, self._wait_until_s = 0, 0, False, 0.0
        self._has_met_known, self._at, self.is_asking = False, None, False
        self._poller.unregister(self._requests)  # with what the service before has answered
        self._requests.close()
        self._requests = self._connect(zmq.DEALER, self._replay, self._key)
        self._poller.register(self._requests, zmq.POLLIN)

    def _is_known(self, stream: str, seq: int) -> bool:
        """Whether it was delivered, or lies before what was: else it is noted that it is now."""
        if stream in self._heard:
            self._has_met_known = True
            first, last = self._heard[stream]
            if first <= seq <= last:
                return True
            self._heard[stream] = (first if seq == last + 1 else seq, seq)
            return False
        if not self._has_met_known and stream != self.stream and seq <= self._known_to:
            return True  # older than all that this feed ever heard of
        self._heard[stream] = (seq, seq)
        return False


# The listener: receives a service's events and notes when the verdict of each file came.

_JOIN_S = 10.0


class EventListener(threading.Thread, Closing):
    """``with EventListener(endpoint) as listener: …; listener.wait(paths, 60)``.

    The block begins once the service has greeted it.
    """

    def __init__(self, endpoint: str) -> None:
        super().__init__(daemon=True)
        self._endpoint = endpoint
        self._joined, self._ending = threading.Event(), threading.Event()
        self.heard_s: dict[str, float] = {}  # path of an event -> time.monotonic() of the last one
        self.curves_s: list[float] = []  # of every decision, in order
        self.engines: set[str] = set()  # that scored

    def run(self) -> None:
        with open_socket(zmq.SUB) as socket:
            socket.setsockopt(zmq.RCVHWM, 0)
            socket.subscribe(b"")
            socket.connect(self._endpoint)
            while not self._ending.is_set():
                if socket.poll(100):
                    self._note(socket.recv_multipart(zmq.DONTWAIT)[-1])

    def _note(self, body: bytes) -> None:
        now_s, event = time.monotonic(), wire.decode(body)
        self._joined.set()
        if events.kind_of(event) != "decision":
            return
        self.curves_s.append(now_s)
        self.heard_s[event["data"]["path"]] = now_s
        self.engines.add(event["data"]["engine"])

    def wait(self, paths: Collection[str], timeout_s: float) -> bool:
        """Until every one of ``paths`` was heard of; False when the time is up before."""
        deadline_s, missing = time.monotonic() + timeout_s, set(paths)
        while missing and time.monotonic() < deadline_s:
            ending.pause(0.01)
            missing = {path for path in missing if path not in self.heard_s}
        return not missing

    def forget(self) -> None:
        """For the next measurement."""
        self.heard_s, self.curves_s = {}, []

    def __enter__(self) -> Self:
        self.start()
        self._joined.wait(_JOIN_S)
        return self

    def close(self) -> None:
        self._ending.set()
        self.join(_JOIN_S)


# The silence: how long no service has answered, and when whoever follows one has waited long enough.

#: A script that nobody looks at gives up after so long; a service is back from a restart by then.
PATIENCE_S = 60.0
#: Heartbeats come at most 5 s apart.
SILENCE_S = 7.0
_STEP_S = 3.0  # between two looks; a process that was stopped for an hour has not waited for it


def seconds(text: str) -> float:
    """Of a flag; argparse says what is wrong."""
    try:
        given_s = float(text)
    except ValueError:
        given_s = math.nan
    if not given_s >= 0:  # NaN compares false
        raise argparse.ArgumentTypeError(f"{text!r}: give seconds, 0 or more, or inf")
    return given_s


PATIENCE = Option(
    "give up (exit 69) once no service has answered for so long, from the start or later",
    "SECONDS",
    parse=seconds,
    unless=f"{PATIENCE_S:g}; never where standard output is a terminal; inf: never",
)


def patience_of(given_s: float | None) -> float:
    """Seconds; as long as somebody sees a screen, for ever."""
    if given_s is not None:
        return given_s
    return math.inf if sys.stdout.isatty() else PATIENCE_S


class SilenceLimit:
    """Of a service at ``place``, towards one that has ``patience_s``."""

    def __init__(self, patience_s: float, place: str, key: Key | None = None) -> None:
        self._patience_s, self._place, self._key = patience_s, place, key
        self._silent_s, self._noted_s = 0.0, time.monotonic()
        self._knock_after_s = _STEP_S

    def note(self, *, heard: bool) -> None:
        """Called after each look. Raises UserError 69 once the patience is at its end, or we are not let in."""
        now_s = time.monotonic()
        self._silent_s = 0.0 if heard else self._silent_s + min(now_s - self._noted_s, _STEP_S)
        self._noted_s = now_s
        if heard:  # from now on it may be silent between two heartbeats
            self._patience_s = max(self._patience_s, SILENCE_S)
            self._knock_after_s = SILENCE_S
            return
        if self._silent_s >= self._knock_after_s:
            self._knock_after_s = self._silent_s + PATIENCE_S
            if why := why_deaf(self._place, self._key):
                raise UserError(UNREACHABLE, why)
        if self._silent_s >= self._patience_s:
            start = "start one with: afm-triage run --watch DIR, or wait longer with --patience"
            raise UserError(
                UNREACHABLE, f"no service has answered at {self._place} for {duration(self._silent_s)}; {start}"
            )


# Asking: one question to a running service, one answer or none in time.


def ask(endpoint: str, *request: bytes, timeout_s: float = 1.0, key: Key | None = None) -> list[bytes] | None:
    """The frames of the answer; None when nobody answered in time (or nobody could at such an address).

    Raises KeyboardInterrupt when the process is asked to end meanwhile.
    """
    with open_socket(zmq.DEALER) as socket:
        try:
            connect(socket, endpoint, key)
            socket.send_multipart(list(request), zmq.DONTWAIT)
            return socket.recv_multipart(zmq.DONTWAIT) if await_input(socket, timeout_s) else None
        except zmq.ZMQError:
            return None


def ask_status(endpoint: str, timeout_s: float = 1.0, key: Key | None = None) -> wire.Event | None:
    """The status event of the service whose replay socket is at ``endpoint``."""
    answer = ask(endpoint, b"status", timeout_s=timeout_s, key=key)
    try:
        event = wire.decode(answer[0]) if answer else {}
    except ValueError:
        return None
    return event if events.kind_of(event) == "status" and isinstance(event.get("data"), dict) else None


# Why nothing is heard: what a keyed service says to whoever it does not let in.

_HUNG_UP = 4  # times, before it is no accident
_KNOCK_S = 1.5  # a machine that is there answers within milliseconds
#: The other side asks for keys, or for none.
_NO_SUCH_MECHANISM = zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH
_SHOWN = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_CLOSED  # nobody listens there
)


def why_deaf(endpoint: str, key: Key | None) -> str:
    """One line that says why a service at ``endpoint`` does not let us in; "" where keys are not the reason."""
    with open_socket(zmq.DEALER) as socket:
        watch = socket.get_monitor_socket(_SHOWN)
        try:
            connect(socket, endpoint, key)
            return _refusal(watch, endpoint, key)
        except zmq.ZMQError:
            return ""
        finally:
            socket.disable_monitor()
            watch.close(linger=0)


def _refusal(watch: zmq.Socket[bytes], endpoint: str, key: Key | None) -> str:
    from zmq.utils.monitor import parse_monitor_message  # it brings asyncio, which no verb shall wait for

    deadline_s, hung_up = time.monotonic() + _KNOCK_S, 0
    while hung_up < _HUNG_UP and (left_s := deadline_s - time.monotonic()) > 0 and await_input(watch, left_s):
        told = parse_monitor_message(watch.recv_multipart())
        if told["event"] in (zmq.EVENT_HANDSHAKE_SUCCEEDED, zmq.EVENT_CLOSED):
            return ""
        if told["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH and key is not None:
            return f"{endpoint} does not let in this key; there: afm-triage keys allow NAME '{key.public}'"
        if told["event"] == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and told["value"] == _NO_SUCH_MECHANISM:
            if key is None:
                return f"{endpoint} asks for a key: give --key FILE, which `afm-triage keys new NAME` makes there"
            return f"{endpoint} asks for no key: leave --key out, or correct the address"
        hung_up += 1
    if hung_up and key is not None:
        return f"what answers at {endpoint} is not the service that this key is for: get a new key from it"
    return ""
