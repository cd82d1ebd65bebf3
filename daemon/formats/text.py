"""Curves as text: which program wrote it, and the numbers in it.

Text does not show its own end, so a file must rest and must have the rows its header promises. Without a line end after
its last row it must rest longer; that row is not used, and where it is shorter than the others the file was broken off.
What nobody can make numbers of (a note, a log, a list of labels) is nobody's.

At the foot the exports of two programs whose layout is known to the last line:

*JPK data processing*: a header block in front of every segment, SI units. Raw sign as in the archives: repulsion
positive, height grows away from the surface. Programs of 2011 (``.out``) call the segments ``direction: trace`` and
``retrace``, later ones ``segment: extend`` and ``retract``.

*afmformats* (https://afmformats.readthedocs.io): columns ``force`` (N), ``height (measured)`` (m, away from the
surface), ``segment`` (0 approach, 1 retract, from 2 on pauses), in its ``.tab`` text and in its HDF5 files. Raw sign:
repulsion positive.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from daemon.formats import dates, limits, samples, table, text_bare, text_layout, text_named, text_rule
from daemon.formats.base import UNENDED, Blob, CurveFile, Format, Unfinished, Unreadable
from daemon.formats.columns import unit_of
from daemon.formats.jpk import HEIGHTS
from daemon.formats.table import Table
from daemon.formats.text_layout import layout_of
from daemon.formats.text_rule import TextRule
from models.curve import Curve, ForceUnit, Samples

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

_JPK_MARKS = ("\n# segmentIndex:", "\n# fancyNames:", "\n# columns:")
_APPROACH_SIDES, _RETRACT_SIDES = ("extend", "trace"), ("retract", "retrace")
_JPK_UNITS: dict[str, ForceUnit] = {"N": "N", "m": "m", "V": "V"}
_RETRACT, _APPROACH = 1, 0  # segments of afmformats
_AFMFORMATS_HEIGHTS = ("height (measured)", "height (piezo)")


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
        if text_layout.is_gzip(head):
            head = text_layout.unzip_head(head)
        text = text_layout.decode(head)
        if is_jpk(text) or is_afmformats(text) or text_rule.is_known(text):
            return True
        lines = [line for line in text_layout.without_wrapping(text.splitlines()) if line.strip()]
        if not lines or _NOT_OURS.match(lines[0]):
            return False
        is_cut = len(head) >= limits.HEAD_BYTES
        if text_layout.standing(lines) or (is_cut and len(lines) <= 2 and text_layout.is_channel(lines[0])):
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
        if text_layout.is_gzip(content):
            content = text_layout.unzip(content, _MOST_BYTES)
        text = text_layout.decode(content)
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
    if is_jpk(text):
        return jpk_curves(text)
    if is_afmformats(text):
        return afmformats_curves(text)
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


def is_jpk(text: str) -> bool:
    """Told by more than one mark, for one may be damaged."""
    start = text[: limits.HEAD_BYTES].replace("\r", "")
    if start[:256].lstrip("\ufeff \n").startswith("# TEXT EXPORT") or _JPK_MARKS[0] in start:
        return True
    return _JPK_MARKS[1] in start and _JPK_MARKS[2] in start


def jpk_curves(text: str) -> list[Curve]:
    """Every retract segment, with the approach before it."""
    curves, approach = [], None
    segments = _segments(text)
    for segment in segments:
        if not segment.lines:
            continue
        if segment.side in _APPROACH_SIDES:
            approach = segment
        elif segment.side in _RETRACT_SIDES:
            curves.append(_jpk_curve(segment, approach))
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


def _jpk_curve(retract: _Segment, approach: _Segment | None) -> Curve:
    rows = retract.table()
    samples.check_points(rows.shape[0])
    deflection = retract.column(rows, "vDeflection")
    if deflection is None or deflection[1] not in _JPK_UNITS:
        raise Unreadable("no_force_channel")
    distance = next((c[0] for name in HEIGHTS if (c := retract.column(rows, name)) and c[1] == "m"), None)
    before = approach.column(approach.table(), "vDeflection") if approach else None
    return Curve(
        force=-deflection[0],
        force_unit=_JPK_UNITS[deflection[1]],
        distance=None if distance is None else samples.outward(distance),
        distance_kind=None if distance is None else "piezo",
        approach_force=-before[0] if before and before[1] == deflection[1] else None,
        spring_constant_n_per_m=limits.plausible_spring_constant(retract.number("springConstant")),
        sensitivity_m_per_v=limits.plausible_sensitivity(retract.number("sensitivity")),
        duration_s=retract.number("retraceScanTime"),
        acquired_s=dates.moment(retract.keys.get("date", "")),
    )


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
        return table.rows_of(self.lines)

    def column(self, rows: Table, name: str) -> tuple[Samples, str] | None:
        """Samples and SI unit of a column, by the name the instrument gives the channel."""
        names, units = self.keys.get("columns", "").split(), self.keys.get("units", "").split()
        if name not in names or len(units) != len(names) or rows.shape[1] != len(names):
            return None
        at = names.index(name)
        unit = unit_of(units[at])
        return None if unit is None else (rows[:, at] * unit.factor, unit.dimension)


def is_afmformats(text: str) -> bool:
    """Told by more than one mark, for one may be damaged."""
    start = text[:4096].lstrip("\ufeff \r\n")
    return start.startswith("# afmformats") or "\n# END METADATA" in start


def afmformats_curves(text: str) -> list[Curve]:
    """The one curve of a ``.tab`` file."""
    comments = [line[1:].strip() for line in text.splitlines() if line.startswith("#")]
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    metadata = _metadata(comments)
    promised = _number(metadata, "point count")
    if not lines or (promised is not None and len(lines) < promised):
        raise Unfinished("truncated")
    names = [word.strip() for word in comments[-1].split("\t")] if comments else []
    rows = table.rows_of([line.replace("True", "1").replace("False", "0") for line in lines])
    if len(names) < rows.shape[1]:
        raise Unreadable("unreadable")
    # Version 0.13.3 forgot the line break after the names: its first row stands there too and is lost.
    return [afmformats_curve(dict(zip(names, rows.T, strict=False)), metadata)]


def afmformats_curve(columns: Mapping[str, Samples], metadata: Mapping[str, Any]) -> Curve:
    """One retract from columns of equal length (n,)."""
    if "force" not in columns:
        raise Unreadable("no_force_channel")
    force = columns["force"]
    samples.check_points(force.shape[0])
    height = next((columns[name] for name in _AFMFORMATS_HEIGHTS if name in columns), None)
    segment = columns.get("segment")
    if any(column.shape != force.shape for column in (height, segment) if column is not None):
        raise Unreadable("unreadable")
    retract = np.ones(force.shape, bool) if segment is None else segment == _RETRACT
    approach = np.zeros(force.shape, bool) if segment is None else segment == _APPROACH
    if not retract.any():
        raise Unreadable("no_retract")
    rate = _number(metadata, "rate retract")
    return Curve(
        force=-force[retract],
        force_unit="N",
        distance=None if height is None else samples.outward(height[retract]),
        distance_kind=None if height is None else "piezo",
        approach_force=-force[approach] if approach.any() else None,
        spring_constant_n_per_m=limits.plausible_spring_constant(_number(metadata, "spring constant")),
        sensitivity_m_per_v=limits.plausible_sensitivity(_number(metadata, "sensitivity")),
        duration_s=float(retract.sum()) / rate if rate else None,
        acquired_s=dates.moment(f"{metadata.get('date', '')} {metadata.get('time', '')}"),
    )


def _metadata(comments: list[str]) -> dict[str, Any]:
    """The JSON between the marks; nothing where it cannot be read."""
    try:
        start, stop = comments.index("BEGIN METADATA"), comments.index("END METADATA")
        found = json.loads("\n".join(comments[start + 1 : stop]))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _number(metadata: Mapping[str, Any], key: str) -> float | None:
    try:
        return float(metadata[key])
    except (KeyError, TypeError, ValueError):
        return None
