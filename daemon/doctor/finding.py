"""The finding: one thing that the doctor has looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """``note``: good to know; ``problem``: ``advice`` says what to do about it."""

    topic: str
    level: Literal["ok", "note", "problem"]
    text: str
    advice: str = ""
