"""The keyboard: single keys without Enter, and the terminal as it was afterwards."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager


class Keys:
    """``pressed()`` is what was typed since the last call; "" when standard input is no terminal."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def pressed(self) -> str:
        if self._descriptor is None or not select.select([self._descriptor], [], [], 0)[0]:
            return ""
        typed = os.read(self._descriptor, 64)
        if not typed:  # the terminal is gone
            self._descriptor = None
        return typed.decode("utf-8", "replace")


@contextmanager
def keys() -> Iterator[Keys]:
    """Keys for the time of a ``with`` block."""
    if not sys.stdin.isatty():
        yield Keys(None)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
