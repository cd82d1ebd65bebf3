"""What is said of a text beside its columns: by the laboratory, and by the program that wrote it.

A ``TextRule`` is the laboratory's own word, ``[[text]]`` in the configuration, where a file does not say enough::

    [[text]]
    pattern = "exports/*.csv"
    pulling = "negative"
    columns = ["time (s)", "distance", "force"]
    force_unit = "pN"
    distance_unit = "nm"

``Facts`` is what the lines above a table say besides the names of its columns: which way is pulling, calibration.
Programs whose sign is known: NanoScope exports and AFM Workshop (repulsion positive). WSxM names its columns by two
units and a number of lines. A spring constant with its unit is taken from whoever states one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from daemon.formats import columns, limits, nanoscope
from daemon.formats.columns import Column, Unit
from daemon.formats.nanoscope import Section, sensitivity_m_per_v

PULLING = {"positive": 1.0, "negative": -1.0}
_FORCE_DIMENSIONS, _LENGTH_DIMENSIONS = ("N", "m", "V"), ("m",)
_SPARE = ("", "-", "spare", "ignore")


@dataclass(frozen=True, slots=True)
class TextRule:
    """What holds for text files whose name or path matches ``pattern``; empty is left to the file and the numbers."""

    pattern: str
    pulling: str = ""  # "positive" or "negative": the sign of a pulling force in the file
    force_unit: str = ""
    distance_unit: str = ""
    columns: tuple[str, ...] = ()  # what each column is, from the left

    def matches(self, file: Path) -> bool:
        """A pattern without ``/`` is of the name; else of the end of the path, capitals or not.

        Of the whole path, not of the one that events carry: that begins at the folder that was watched or scored, and
        a file is read alike wherever it is asked for.
        """
        pattern = self.pattern.casefold()
        if "/" not in pattern:
            return fnmatchcase(file.name.casefold(), pattern)
        path = os.path.abspath(file).casefold()
        return fnmatchcase(path, pattern if pattern.startswith("/") else f"*/{pattern.removeprefix('./')}")

    @property
    def sign(self) -> float | None:
        """What makes pulling positive."""
        return PULLING.get(self.pulling)

    @property
    def meaning(self) -> tuple[Column, ...]:
        """The columns as if they had been named so in the file; none where the rule says nothing of them."""
        named = columns.columns(self.columns)
        spare = [replace(column, quantity="other") if column.name in _SPARE else column for column in named]
        return tuple(self.with_units(spare))

    def with_units(self, found: Iterable[Column]) -> list[Column]:
        """The columns, with the units of the rule."""
        force, length = (columns.unit_of(unit) if unit else None for unit in (self.force_unit, self.distance_unit))
        return [_with_unit(column, force, length) for column in found]

    def sentence(self) -> str:
        """For ``check``: what it says."""
        parts = [f"pulling is {self.pulling}"] if self.pulling else []
        parts += [f"the columns are {', '.join(self.columns)}"] if self.columns else []
        parts += [f"forces in {self.force_unit}"] if self.force_unit else []
        parts += [f"distances in {self.distance_unit}"] if self.distance_unit else []
        return f"text files that match {self.pattern}: {'; '.join(parts)}"


def _with_unit(column: Column, force: Unit | None, length: Unit | None) -> Column:
    if force is not None and column.quantity in ("force", "deflection"):
        return replace(column, unit=force, is_contradictory=False)
    if length is not None and column.quantity == "distance":
        return replace(column, unit=length, is_contradictory=False)
    return column


def rule_for(file: Path, rules: Iterable[TextRule]) -> TextRule | None:
    """The first that matches."""
    return next((rule for rule in rules if rule.matches(file)), None)


def digest_of(rules: Iterable[TextRule]) -> str:
    """A short name of these rules, for events: the same rules, the same name."""
    return hashlib.sha256(json.dumps([asdict(rule) for rule in rules]).encode()).hexdigest()[:8]


def from_mapping(raw: Mapping[str, Any]) -> TextRule:
    """Raises ValueError with a sentence for each error, that says what to write instead."""
    if unknown := sorted(raw.keys() - {"pattern", "pulling", "force_unit", "distance_unit", "columns"}):
        raise ValueError(f'has no key "{unknown[0]}"; it has pattern, pulling, force_unit, distance_unit, columns')
    texts = {key: raw.get(key, "") for key in ("pattern", "pulling", "force_unit", "distance_unit")}
    names = raw.get("columns", [])
    if not all(isinstance(text, str) for text in texts.values()) or not texts["pattern"]:
        raise ValueError('needs a pattern of file names in quotes, as pattern = "*.csv"; the other keys are texts too')
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError('columns must be a list of names, as ["time", "distance", "force"]')
    rule = TextRule(**texts, columns=tuple(name.strip() for name in names))
    if errors := list(_errors(rule)):
        raise ValueError(*errors)
    return rule


def _errors(rule: TextRule) -> Iterator[str]:
    if rule.pulling and rule.pulling not in PULLING:
        yield f'pulling is "positive" or "negative" (the sign of a pulling force), not "{rule.pulling}"'
    for unit, dimensions, example in (
        (rule.force_unit, _FORCE_DIMENSIONS, "pN, nN, N, nm or V"),
        (rule.distance_unit, _LENGTH_DIMENSIONS, "nm, µm or m"),
    ):
        if unit and ((known := columns.unit_of(unit)) is None or known.dimension not in dimensions):
            yield f'"{unit}" is no unit for this; write {example}'
    meaning = rule.meaning
    if meaning and not any(column.quantity in ("force", "deflection") for column in meaning):
        yield 'columns names no force; write "force" (or "deflection") where it stands'
    for name, column in zip(rule.columns, meaning, strict=True):
        if column.quantity is None:
            yield f'columns: "{name}" means nothing; write force, distance, time or "-" for a spare one'
    if not (rule.pulling or rule.force_unit or rule.distance_unit or rule.columns):
        yield "settles nothing; give pulling, columns, force_unit or distance_unit"


_NANOSCOPE = re.compile(r'^"\\[?*]Force file list')
_NANOSCOPE_INSIDE = '"\\*Ciao force image list"'
_WORKSHOP = "Force-Distance Curve"
_WSXM = "WSxM file"
_NUMBER = r"([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)"
_STIFFNESS = {"n/m": 1.0, "nn/nm": 1.0, "pn/nm": 1e-3, "mn/m": 1e-3}
_UNIT = r"(N/m|nN/nm|pN/nm|mN/m)"
_SPRING = re.compile(
    rf"\b(?:spring[ _]?constant|federkonstante|k)\s*(?:[(\[]\s*{_UNIT}\s*[)\]])?\s*[:=\t,;]\s*{_NUMBER}\s*{_UNIT}?",
    re.IGNORECASE,
)
_WSXM_LINES = re.compile(r"^\s*Number of lines:\s*(\d+)", re.MULTILINE)
_WSXM_UNIT = r"^\s*{} axis unit:\s*(\S+)"
_LOOKED_AT = 64 * limits.KIB
_LONGEST_LINE = 400  # of a line that states a stiffness


@dataclass(frozen=True, slots=True)
class Facts:
    """``pulling``: what makes pulling positive, None where the file does not say."""

    pulling: float | None = None
    spring_constant_n_per_m: float | None = None
    sensitivity_m_per_v: float | None = None
    rows: int = 0  # promised by the header
    columns: tuple[Column, ...] = ()  # where the names do not stand above the numbers
    rule: TextRule | None = None  # what the laboratory says of this file

    def under(self, rule: TextRule | None) -> Facts:
        """The same, with what the laboratory says instead."""
        if rule is None:
            return self
        pulling = self.pulling if rule.sign is None else rule.sign
        return replace(self, pulling=pulling, columns=rule.meaning or self.columns, rule=rule)

    def names_for(self, count: int, written: list[Column] | None) -> list[Column] | None:
        """The columns of a table of ``count``: as known here, else as ``written`` above the numbers.

        A unit that is not known here is the written one.
        """
        found = written
        if len(self.columns) == count:
            beside: Sequence[Column | None] = written if written and len(written) == count else [None] * count
            found = [_with_written_unit(*both) for both in zip(self.columns, beside, strict=True)]
        return found if found is None or self.rule is None else self.rule.with_units(found)

    @property
    def note(self) -> tuple[str, ...]:
        """What a curve carries that was read so."""
        return () if self.rule is None else ("text_rule",)


def _with_written_unit(known: Column, written: Column | None) -> Column:
    if known.unit is not None or written is None or written.unit is None or written.unit.dimension == "?":
        return known
    return columns.in_unit(known, written.unit)


def is_known(text: str) -> bool:
    """Whether a text begins as one of these programs begins it, so that it is a curve whatever follows."""
    start = text[:4096].lstrip("\ufeff \r\n")
    known = _NANOSCOPE.match(start) is not None or start.startswith((_WORKSHOP, _WSXM))
    return known or _NANOSCOPE_INSIDE in text[:_LOOKED_AT]


def facts_of(text: str, above: Sequence[str]) -> Facts:
    """Nothing where nothing is known; ``above``: the lines of words above the first table."""
    start = text[:4096].lstrip("\ufeff \r\n")
    if _NANOSCOPE.match(start) or _NANOSCOPE_INSIDE in text[:_LOOKED_AT]:
        return _nanoscope(text)
    if start.startswith(_WORKSHOP):
        return Facts(pulling=-1.0)
    return Facts(
        spring_constant_n_per_m=_spring_constant(above),
        columns=_wsxm(text[:_LOOKED_AT]) if start.startswith(_WSXM) else (),
    )


def _nanoscope(text: str) -> Facts:
    """The header that such an export repeats, each line in quotes; rows are as many as its shorter side has."""
    header = [line.strip().strip('"') for line in text.splitlines() if line.startswith('"\\')]
    if header and header[0].startswith("\\?"):
        header[0] = "\\*" + header[0][2:]
    joined = "\n".join([*header, "\\*File list end"]).encode("latin-1", "replace")
    sections = nanoscope.parse(joined, len(joined)) if header else []
    images = [section for section in sections if "force image" in section.title]
    k = (limits.plausible_spring_constant(section.number("Spring Constant")) for section in images)
    return Facts(
        pulling=-1.0,
        spring_constant_n_per_m=next(k, None),
        sensitivity_m_per_v=limits.plausible_sensitivity(sensitivity_m_per_v(sections, "Sens. DeflSens")),
        rows=max((_shorter(section) for section in images), default=0),
    )


def _shorter(section: Section) -> int:
    sides = [rows for rows in section.integers("Samps/line") if rows > 0]
    return min(sides, default=0)


def _spring_constant(above: Sequence[str]) -> float | None:
    for before, number, after in _SPRING.findall("\n".join(line for line in above if len(line) < _LONGEST_LINE)):
        factor = _STIFFNESS.get((before or after).lower())
        if factor is not None:
            return limits.plausible_spring_constant(float(number) * factor)
    return None


def _wsxm(text: str) -> tuple[Column, ...]:
    """Lines of X and Y beside each other; of two the first is the approach."""
    units = [re.search(_WSXM_UNIT.format(axis), text, re.MULTILINE) for axis in "XY"]
    count = _WSXM_LINES.search(text)
    if not all(units) or count is None or not 1 <= int(count[1]) <= limits.TEXT_CURVES:
        return ()
    words = [unit[1] for unit in units if unit]
    sides = ["approach ", "retract "] if int(count[1]) == 2 else [""] * int(count[1])
    names = [f"{side}{name} ({word})" for side in sides for name, word in zip(("Z", "force"), words, strict=True)]
    return tuple(columns.columns(names))
