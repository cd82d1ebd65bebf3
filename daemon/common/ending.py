"""The ending: SIGINT and SIGTERM are noted here, and whoever waits or works for long looks whether one came.

Nothing is raised out of a signal handler. A handler runs between any two instructions of the main thread: an exception
in the middle of making a socket leaves one behind that nobody can close, and ZeroMQ then waits for it for ever. Not
even an event is set in one, as the main thread may just hold the lock of that event. So the interpreter writes the
number of each signal into a socket, and a thread reads it there.

What never looks (a long computation, a write into a terminal that was stopped) is ended by that thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Self

#: From the signal to the end of a verb that does not look; all its files are written whole or can be gone on with.
LAST_RESORT_S = 0.8
#: What waits in a library that cannot be woken looks this often.
LOOK_S = 0.1

_ENDS = (signal.SIGINT, signal.SIGTERM)


class _SignalListener(threading.Thread):
    """Reads the numbers of signals; ``asked`` is set by the first that asks for the end."""

    def __init__(self) -> None:
        super().__init__(name="signals", daemon=True)
        self.asked = threading.Event()
        self.number = 0
        self.patience_s = LAST_RESORT_S
        self.others: dict[int, Callable[[], bool]] = {}
        self._receiver, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        self._before: dict[int, signal._HANDLER] = {}

    def install(self, numbers: tuple[signal.Signals, ...]) -> None:
        """On the main thread, as all that changes handlers."""
        if not self._before:
            self._fd_before = signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        for number in numbers:
            self._before.setdefault(number, signal.signal(number, _note_nothing))

    @property
    def handled(self) -> frozenset[int]:
        return frozenset(self._before)

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd_before)
        self._wakeup.close()  # which ends the thread
        self.join(1.0)
        self._receiver.close()

    def run(self) -> None:
        asked_s = 0.0
        while True:
            left_s = asked_s + self.patience_s - time.monotonic()  # somebody may have allowed more meanwhile
            if self.number and left_s <= 0:
                os._exit(128 + self.number)
            self._receiver.settimeout(left_s if self.number else None)
            try:
                heard = self._receiver.recv(64)
            except TimeoutError:
                continue
            if not heard:
                return
            for number in heard:
                ends = self.others[number]() if number in self.others else number in _ENDS
                if ends and not self.number:
                    self.number, asked_s = number, time.monotonic()
                    self.asked.set()


_listeners: list[_SignalListener] = []  # the one that listens
_never = threading.Event()  # while nobody listens nobody asks, and Ctrl-C is Python's own


def _note_nothing(number: int, where: FrameType | None) -> None:
    """The interpreter has written the number into the socket."""


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Signals are noted as long as the block lasts. Inside another such block, or off the main thread: no more."""
    if _listeners or threading.current_thread() is not threading.main_thread():
        yield
        return
    listener = _SignalListener()
    _listeners.append(listener)
    # A shell that starts us in the background has Ctrl-C ignored for us: it is for what is in the foreground.
    listener.install(tuple(number for number in _ENDS if signal.getsignal(number) is not signal.SIG_IGN))
    listener.start()
    try:
        yield
    finally:
        _listeners.remove(listener)
        listener.restore()


def allow(seconds: float) -> None:
    """An end takes longer here, because others are ended or what is in hand is finished first."""
    for listener in _listeners:
        listener.patience_s = max(listener.patience_s, seconds)


def also(number: signal.Signals, call: Callable[[], bool]) -> None:
    """``call`` on the listening thread whenever this other signal comes; it says whether that asks for the end."""
    for listener in _listeners:
        listener.others[number] = call
        listener.install((number,))


def insist() -> None:
    """SIGINT ends us in the background too: a service that a script has started is stopped by it."""
    for listener in _listeners:
        listener.install((signal.SIGINT,))


def again() -> None:
    """A library has set handlers of its own meanwhile: signals are noted here again."""
    for listener in _listeners:
        listener.install(tuple(number for number in _ENDS if number in listener.handled))


class Terminal:
    """The one that we were started from, if any: a signal that comes with its end is not one that somebody sends.

    Who was told to outlive it (nohup) has none.
    """

    _JUST_S = 5.0

    def __init__(self) -> None:
        is_to_stay = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._descriptors = [] if is_to_stay else [number for number in range(3) if os.isatty(number)]
        self._seen_s = time.monotonic()

    def look(self) -> bool:
        """Whether it is there; called about once a second."""
        is_there = any(os.isatty(number) for number in self._descriptors)
        if is_there:
            self._seen_s = time.monotonic()
        return is_there

    def has_just_gone(self) -> bool:
        """As one that is closed, or whose connection broke. One that went an hour ago has nothing to do with now."""
        was_there = bool(self._descriptors) and time.monotonic() - self._seen_s < self._JUST_S
        return was_there and not self.look()


def write_in_background() -> None:
    """A service that a shell has put into the background writes on its terminal, also where `stty tostop` forbids it.

    Else its first line would stop it.
    """
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)


def is_asked() -> bool:
    return _asked().is_set()


def asked_by() -> signal.Signals:
    """The signal; SIGINT where it was none that was noted here."""
    return signal.Signals(next((listener.number for listener in _listeners if listener.number), signal.SIGINT))


def exit_code() -> int:
    """As a shell names the end by a signal: 130 or 143."""
    return 128 + asked_by()


def wait(seconds: float) -> bool:
    """Sleep so long at most; whether the end was asked for."""
    return _asked().wait(max(seconds, 0.0))


def check() -> None:
    """Called where work may stop. Raises KeyboardInterrupt on the main thread once the end was asked for."""
    if is_asked() and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt


def pause(seconds: float) -> None:
    """Sleep, and ``check``: the end is not slept through."""
    if threading.current_thread() is threading.main_thread():
        wait(seconds)
        check()
    else:
        time.sleep(max(seconds, 0.0))


def _asked() -> threading.Event:
    return next((listener.asked for listener in _listeners), _never)


class Closing:
    """``with`` for whatever has a ``close``: closed at the end of the block, whatever happened in it."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
