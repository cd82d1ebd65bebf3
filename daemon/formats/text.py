"""Curves as text: which program wrote it, and the numbers in it.

Text does not show its own end, so a file must rest and must have the rows its header promises. Without a line end after
its last row it must rest longer; that row is not used, and where it is shorter than the others the file was broken off.
What nobody can make numbers of (a note, a log, a list of labels) is nobody's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from daemon.formats import dates, limits, samples, table, text_bare, text_exports, text_lines, text_named, text_rule
from daemon.formats.base import UNENDED, Blob, CurveFile, Format, Unfinished, Unreadable
from daemon.formats.text_layout import layout_of
from daemon.formats.text_rule import TextRule
from models.curve import Curve

_SUFFIXES = "txt csv tsv tab dat asc out curves"
_MOST_BYTES = 64 * limits.MIB
_OF_NUMBERS = re.compile(r"[0-9.,+\-eE\s\x00]")
_NOT_OURS = re.compile(r"^\s*(?:[{<]|\[\s*[\[{\"\d])|^#!|^(?:path|file)[,;\t]curve", re.IGNORECASE)
_PLAINLY_A_ROW = re.compile(r"[\s+\-.]*\d[\d\s.,;+\-eE]*")  # most lines are: told without cutting them
_LINES_LOOKED_AT = 400
_LEAST_RUN = 32  # rows one after the other that are a table, however much stands around them
_MOST_MISSING = 0.1  # of the rows that a header promises, and the curve is read with a note once nobody waits any more
_TAIL_CHARACTERS, _ROWS_LOOKED_AT = 65536, 100
_WORDS, _OF_A_ROW = re.compile(r"[^\s;,]+"), re.compile(r"[0-9.,;+\-\seEnNaAiIfF]*")
_NEVER_WRITTEN = bytes(4)  # UTF-16 has a zero beside each digit, and never two


@dataclass(frozen=True)
class TextReader:
    """``rule``: what the laboratory says of this very file."""

    rule: TextRule | None = None
    format = Format(
        name="text",
        instrument="any other, NT-MDT and AFM Workshop among them",
        files="text or CSV with columns of force and distance, `.gz` too, under any name; tab files of afmformats",
        shared_suffixes=tuple(f".{suffix}{packed}" for suffix in _SUFFIXES.split() for packed in ("", ".gz")),
        quiet_s=2.0,
    )

    def claims(self, name: str, head: bytes) -> bool:
        if text_lines.is_gzip(head):
            head = text_lines.unzip_head(head)
        text = text_lines.decode(head)
        if text_exports.is_jpk(text) or text_exports.is_afmformats(text) or text_rule.is_known(text):
            return True
        lines = [line for line in text_lines.without_wrapping(text.splitlines()) if line.strip()]
        if not lines or _NOT_OURS.match(lines[0]):
            return False
        is_cut = len(head) >= limits.HEAD_BYTES
        if text_lines.standing(lines) or (is_cut and len(lines) <= 2 and text_lines.is_channel(lines[0])):
            return True
        if is_cut and len(lines) > 1:
            lines = lines[:-1]  # in the middle
        if len(lines) > 2 * _LINES_LOOKED_AT:
            lines = [*lines[:_LINES_LOOKED_AT], *lines[-_LINES_LOOKED_AT:]]  # long headers come first
        if len(lines) < 2:
            return False
        rows, longest = _count_rows(lines)
        # Damaged numbers are still somebody's curve: they are claimed, and found unreadable.
        is_mostly_numbers = 2 * rows >= len(lines) or 5 * len(_OF_NUMBERS.findall(text)) >= 4 * len(text)
        return rows >= 2 and (is_mostly_numbers or longest >= _LEAST_RUN)

    def open(self, blob: Blob, name: str, companion: Blob | None = None) -> CurveFile:
        if blob.size_bytes > _MOST_BYTES:
            raise Unreadable("too_large")
        content = blob.whole()
        if text_lines.is_gzip(content):
            content = text_lines.unzip(content, _MOST_BYTES)
        text = text_lines.decode(content)
        if not text.endswith(("\n", "\r")):
            if content.endswith(_NEVER_WRITTEN):
                raise Unfinished("zero_tail")
            if _is_cut(text):
                raise Unfinished("truncated")
            if not blob.is_final:
                raise Unfinished(UNENDED)
            return ReadCurves(_read_unended(text, self.rule))
        return ReadCurves(read(text, self.rule, is_final=blob.is_final))


class ReadCurves:
    """Curves that had to be read together."""

    def __init__(self, curves: list[Curve]) -> None:
        if not curves:
            raise Unreadable("no_retract")
        self._curves = curves

    def __len__(self) -> int:
        return len(self._curves)

    def curve(self, index: int) -> Curve:
        samples.check_written(self._curves[index].force)
        return self._curves[index]


def read(text: str, rule: TextRule | None = None, *, is_final: bool = False) -> list[Curve]:
    """All curves of a text; ``is_final``: rows that are missing will not come.

    Raises ``Unfinished``, ``Unreadable``, ``NotACurve``.
    """
    if text_exports.is_jpk(text):
        return text_exports.jpk_curves(text)
    if text_exports.is_afmformats(text):
        return text_exports.afmformats_curves(text)
    blocks = table.blocks(text)
    facts = text_rule.facts_of(text, blocks[0].above).under(rule)
    rows = max(block.rows.shape[0] for block in blocks)
    if rows < facts.rows and not (is_final and rows >= (1.0 - _MOST_MISSING) * facts.rows):
        raise Unfinished("truncated")
    for block in blocks:
        text_bare.check_lines(block)
    names = [block.named() for block in blocks]
    curves = text_named.read(blocks, names, facts)
    if curves is None:
        curves = text_bare.read(blocks, facts, has_names=any(names))
    if (acquired_s := dates.of_header(blocks[0].above)) is not None:
        curves = [replace(curve, acquired_s=acquired_s) for curve in curves]
    return [replace(curve, notes=(*curve.notes, "ends_missing")) for curve in curves] if rows < facts.rows else curves


def _is_cut(text: str) -> bool:
    """Whether the last row shows that more was to come: fewer numbers than the rows before it, or a shorter last one.

    Of a file that was broken off the end of the curve is missing, so it is not enough to leave the row out.
    """
    *before, last = text[-_TAIL_CHARACTERS:].splitlines()
    rows = [_WORDS.findall(line) for line in before[1:] if _PLAINLY_A_ROW.fullmatch(line)][-_ROWS_LOOKED_AT:]
    if not rows or not _OF_A_ROW.fullmatch(last):  # a footer, after the last row
        return False
    words = _WORDS.findall(last)
    return bool(words) and (len(words) < len(rows[-1]) or len(words[-1]) < min(len(row[-1]) for row in rows))


def _read_unended(text: str, rule: TextRule | None) -> list[Curve]:
    """Without the last row: its last number may have been cut, and 1.2 is not 1.2e-9.

    A header that promises so many rows counts this one too; there the row before it stands in its place.
    """
    rows = text.splitlines(keepends=True)
    whole = "".join(rows[:-1])
    try:
        return read(whole, rule)
    except Unfinished:
        return read(whole + "".join(rows[-2:-1]), rule, is_final=True)


def _count_rows(lines: list[str]) -> tuple[int, int]:
    """How many of the lines are rows of a table, and the most of them one after the other."""
    layout = layout_of(lines)
    if layout is None:
        return 0, 0
    are_rows = np.array([_PLAINLY_A_ROW.fullmatch(line) is not None or layout.reads(line) for line in lines])
    ends = np.flatnonzero(np.diff(np.concatenate([[0], are_rows.astype(int), [0]])))
    return int(are_rows.sum()), int((ends[1::2] - ends[::2]).max(initial=0))
