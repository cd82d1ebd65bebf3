"""A laboratory's own word on its text files: ``[[text]]`` in the configuration, where a file does not say enough.

::

    [[text]]
    pattern = "exports/*.csv"
    pulling = "negative"
    columns = ["time (s)", "distance", "force"]
    force_unit = "pN"
    distance_unit = "nm"
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from daemon.formats import columns
from daemon.formats.columns import Column, Unit

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
