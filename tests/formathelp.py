"""What the tests of the readers share: reading bytes as a file of some name, and the reason why they cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from daemon.formats.base import Blob, NotACurve, Reader, Unfinished, Unreadable
from daemon.formats.limits import HEAD_BYTES
from models.curve import Curve


def read(
    reader: Reader, content: bytes | str, companion: bytes | None = None, *, name: str, is_final: bool = False
) -> list[Curve]:
    """All curves of a file that the reader claims, or is given by its name."""
    content = content.encode() if isinstance(content, str) else content
    if reader.format.name == "text":
        assert reader.claims(name, content[:HEAD_BYTES])
    file = reader.open(Blob.of(content, is_final=is_final), name, Blob.of(companion) if companion else None)
    return [file.curve(index) for index in range(len(file))]


def reason_of(attempt: Callable[..., object], *arguments: Any, **named: Any) -> str:
    """Why ``attempt`` could not read what it was given."""
    with pytest.raises((Unreadable, Unfinished, NotACurve)) as caught:
        attempt(*arguments, **named)
    assert isinstance(caught.value, Unreadable | Unfinished | NotACurve)
    return caught.value.reason
