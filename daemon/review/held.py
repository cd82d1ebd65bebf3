"""A value that takes long to get: asked for by one thread at a time, and held for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Held(Generic[T]):
    """``holds_s``: how long a value is as good as a new one; what ``get`` raises is not held."""

    def __init__(self, get: Callable[[], T], holds_s: float) -> None:
        self._get, self._holds_s = get, holds_s
        self._lock = threading.Lock()
        self._value: list[T] = []
        self._since_s = 0.0

    def value(self) -> T:
        """At most ``holds_s`` old."""
        with self._lock:
            if not self._value or time.monotonic() - self._since_s > self._holds_s:
                self._value = [self._get()]
                self._since_s = time.monotonic()
            return self._value[0]

    def renew(self) -> T:
        """A new one."""
        with self._lock:
            self._since_s = -self._holds_s
        return self.value()

    def peek(self) -> T | None:
        """The last one, however old; None where there has been none."""
        value = self._value
        return value[0] if value else None
