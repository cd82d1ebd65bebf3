"""Clean text: file names and reasons are written by others, and nothing in them may steer a terminal."""

from __future__ import annotations


def clean(text: str) -> str:
    """The same text with every character that is not printable (escape codes, line ends) shown as ``�``."""
    return "".join(char if char.isprintable() else "�" for char in text)
