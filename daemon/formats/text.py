"""Curves as text: which program wrote it, and the numbers in it.

Text does not show its own end, so a file must rest and must have the rows its header promises. Without a line end after
its last row it must rest longer; that row is not used, and where it is shorter than the others the file was broken off.
What nobody can make numbers of (a note, a log, a list of labels) is nobody's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

import numpy as np

from daemon.formats import afmformats_table, limits, samples, table, text_bare, text_layout, text_lines, text_named
from daemon.formats.base import CurveFile
from daemon.formats.blob import Blob
from daemon.formats.columns import unit_of
from daemon.formats.errors import UNENDED, Unfinished, Unreadable
from daemon.formats.table import Table, rows_of
from daemon.formats.text_layout import layout_of
from daemon.formats.text_rule import TextRule
from models.curve import Curve, ForceUnit, Samples

# ---- Text exports of the JPK data processing program: a header block in front of every segment, SI units.
#
# Raw sign as in JPK files: repulsion positive, height grows away from the surface. Programs of 2011 (``.out``)
# call the segments ``direction: trace`` and ``retrace``, later ones ``segment: extend`` and ``retract``.

_HEIGHTS = (
    "measuredHeight",
    "capacitiveSensorHeight",
    "strainGaugeHeight",
    "height",
    "head-height",
    "cellhesion-height",
)
_MARKS = ("\n# segmentIndex:", "\n# fancyNames:", "\n# columns:")
_APPROACH, _RETRACT = ("extend", "trace"), ("retract", "retrace")
_UNITS: dict[str, ForceUnit] = {"N": "N", "m": "m", "V": "V"}


@dataclass
class _Segment:
    keys: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    @property
    def side(self) -> str:
        return self.keys.get("segment") or self.keys.get("direction", "")

    def number(self, key: str) -> float | None:
        try:
            return float(self.keys[key])
        except (KeyError, ValueError):
            return None

    def table(self) -> Table:
        """(rows, columns); ``Unfinished`` with fewer rows than promised."""
        promised = self.number("recorded-num-points")
        if promised is not None and len(self.lines) < promised:
            raise Unfinished("truncated")
        return rows_of(self.lines)

    def column(self, rows: Table, name: str) -> tuple[Samples, str] | None:
        """Samples and SI unit of a column, by the name the instrument gives the channel."""
        names, units = self.keys.get("columns", "").split(), self.keys.get("units", "").split()
        if name not in names or len(units) != len(names) or rows.shape[1] != len(names):
            return None
        at = names.index(name)
        unit = unit_of(units[at])
        return None if unit is None else (rows[:, at] * unit.factor, unit.dimension)


def is_export(text: str) -> bool:
    """Told by more than one mark, for one may be damaged."""
    start = text[: limits.HEAD_BYTES].replace("\r", "")
    if start[:256].lstrip("\ufeff \n").startswith("# TEXT EXPORT") or _MARKS[0] in start:
        return True
    return _MARKS[1] in start and _MARKS[2] in start


def read_jpk(text: str) -> list[Curve]:
    """Every retract segment, with the approach before it."""
    curves, approach = [], None
    segments = _segments(text)
    for segment in segments:
        if not segment.lines:
            continue
        if segment.side in _APPROACH:
            approach = segment
        elif segment.side in _RETRACT:
            curves.append(_curve(segment, approach))
    if not curves and segments and _is_to_come(segments[0]):
        raise Unfinished("truncated")
    return curves


def _is_to_come(first: _Segment) -> bool:
    """Whether the settings, which stand at the beginning, speak of a retract."""
    return any((first.number(key) or 0) > 0 for key in ("force-settings.retract-k-length", "retraceScanTime"))


def _segments(text: str) -> list[_Segment]:
    """Blocks of ``# key: value`` lines, each followed by its numbers; what is not said again holds on."""
    segments = [_Segment()]
    for line in text.splitlines():
        if line.startswith("#"):
            if segments[-1].lines:
                segments.append(_Segment(dict(segments[-1].keys)))
            key, _, value = line[1:].strip().partition(": ")
            segments[-1].keys[key] = value.strip()
        elif line.strip():
            segments[-1].lines.append(line)
    return segments


def _curve(retract: _Segment, approach: _Segment | None) -> Curve:
    rows = retract.table()
    samples.check_points(rows.shape[0])
    deflection = retract.column(rows, "vDeflection")
    if deflection is None or deflection[1] not in _UNITS:
        raise Unreadable("no_force_channel")
    distance = next((c[0] for name in _HEIGHTS if (c := retract.column(rows, name)) and c[1] == "m"), None)
    before = approach.column(approach.table(), "vDeflection") if approach else None
    return Curve(
        force=-deflection[0],
        force_unit=_UNITS[deflection[1]],
        distance=None if distance is None else samples.outward(distance),
        distance_kind=None if distance is None else "piezo",
        approach_force=-before[0] if before and before[1] == deflection[1] else None,
        spring_constant_n_per_m=limits.plausible_spring_constant(retract.number("springConstant")),
        sensitivity_m_per_v=limits.plausible_sensitivity(retract.number("sensitivity")),
        duration_s=retract.number("retraceScanTime"),
    )


# ---- Curves as text: which program wrote it, and the numbers in it.

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
    name = "text"
    quiet_s = 2.0

    def claims(self, name: str, head: bytes) -> bool:
        if text_lines.is_gzip(head):
            head = text_lines.unzip_head(head)
        text = text_lines.decode(head)
        if is_export(text) or afmformats_table.is_export(text) or text_layout.is_known(text):
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
    if is_export(text):
        return read_jpk(text)
    if afmformats_table.is_export(text):
        return afmformats_table.read(text)
    blocks = table.blocks(text)
    facts = text_layout.facts_of(text, blocks[0].above).under(rule)
    rows = max(block.rows.shape[0] for block in blocks)
    if rows < facts.rows and not (is_final and rows >= (1.0 - _MOST_MISSING) * facts.rows):
        raise Unfinished("truncated")
    for block in blocks:
        text_bare.check_lines(block)
    curves = text_named.read(blocks, facts)
    if curves is None:
        curves = text_bare.read(blocks, facts, has_names=any(block.named() for block in blocks))
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
