"""Curves as text: which program wrote it, and the numbers in it.

Text does not show its own end, so a file must rest, must end in a newline and must have the rows its header promises.
What nobody can make numbers of (a note, a log, a list of labels) is nobody's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from daemon.formats import afmformats_table, encoding, limits, shape, table, text_bare, text_facts, text_jpk, text_named
from daemon.formats.base import CurveFile
from daemon.formats.blob import Blob
from daemon.formats.text_rule import TextRule
from daemon.reading import Unfinished, Unreadable
from models.curve import Curve

_MOST_BYTES = 64 * limits.MIB
_OF_NUMBERS = re.compile(r"[0-9.,+\-eE\s\x00]")
_NOT_OURS = re.compile(r"^\s*(?:[{<]|\[\s*[\[{\"\d])|^#!|^(?:path|file)[,;\t]curve", re.IGNORECASE)
_PLAINLY_A_ROW = re.compile(r"[\s+\-.]*\d[\d\s.,;+\-eE]*")  # most lines are: told without cutting them
_LINES_LOOKED_AT = 400
_LEAST_RUN = 32  # rows one after the other that are a table, however much stands around them
_MISSING = 0.1  # of the rows that a header promises: fewer, and the curve is read with a note


@dataclass(frozen=True)
class TextReader:
    """``rule``: what the laboratory says of this very file."""

    rule: TextRule | None = None
    name = "text"
    quiet_s = 2.0

    def claims(self, name: str, head: bytes) -> bool:
        if encoding.is_gzip(head):
            head = encoding.unzip_head(head)
        text = encoding.decode(head)
        if text_jpk.is_export(text) or afmformats_table.is_export(text) or text_facts.is_known(text):
            return True
        lines = [line for line in text.splitlines() if line.strip()]
        if len(head) >= limits.HEAD_BYTES and len(lines) > 1:
            lines = lines[:-1]  # cut in the middle
        lines = lines[:_LINES_LOOKED_AT]
        if len(lines) < 2 or _NOT_OURS.match(text):
            return False
        rows, longest = _count_rows(lines)
        # Damaged numbers are still somebody's curve: they are claimed, and found unreadable.
        is_mostly_numbers = 2 * rows >= len(lines) or 5 * len(_OF_NUMBERS.findall(text)) >= 4 * len(text)
        return rows >= 2 and (is_mostly_numbers or longest >= _LEAST_RUN)

    def open(self, blob: Blob, name: str, companion: Blob | None = None) -> CurveFile:
        if blob.size_bytes > _MOST_BYTES:
            raise Unreadable("too_large")
        content = blob.whole()
        if encoding.is_gzip(content):
            content = encoding.unzip(content, _MOST_BYTES)
        text = encoding.decode(content)
        if not text.endswith(("\n", "\r")):
            raise Unfinished("truncated")
        return ReadCurves(read(text, self.rule))


class ReadCurves:
    """Curves that had to be read together."""

    def __init__(self, curves: list[Curve]) -> None:
        if not curves:
            raise Unreadable("no_retract")
        self._curves = curves

    def __len__(self) -> int:
        return len(self._curves)

    def curve(self, index: int) -> Curve:
        shape.check_written(self._curves[index].force)
        return self._curves[index]


def read(text: str, rule: TextRule | None = None) -> list[Curve]:
    """All curves of a text. Raises ``Unfinished``, ``Unreadable``, ``NotACurve``."""
    if text_jpk.is_export(text):
        return text_jpk.read(text)
    if afmformats_table.is_export(text):
        return afmformats_table.read(text)
    blocks = table.blocks(text)
    facts = text_facts.facts_of(text, blocks[0].above).under(rule)
    if facts.rows and max(block.rows.shape[0] for block in blocks) < facts.rows:
        raise Unfinished("truncated")
    named = text_named.read(blocks, facts)
    if named is not None:
        return named
    return text_bare.read(blocks, facts, has_names=any(block.named() for block in blocks))


def _count_rows(lines: list[str]) -> tuple[int, int]:
    """How many of the lines are rows of a table, and the most of them one after the other."""
    layout = table.layout_of(lines)
    if layout is None:
        return 0, 0
    are_rows = np.array([_PLAINLY_A_ROW.fullmatch(line) is not None or table.is_row(layout, line) for line in lines])
    ends = np.flatnonzero(np.diff(np.concatenate([[0], are_rows.astype(int), [0]])))
    return int(are_rows.sum()), int((ends[1::2] - ends[::2]).max(initial=0))
