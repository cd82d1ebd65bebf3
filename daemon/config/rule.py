"""The rule: how one value of the file, the environment or a flag becomes what the service uses.

A rule is called with the raw value and the folder that relative paths start from; it returns the value or
raises ValueError with a sentence that says what to write instead, or one for each of several errors. ``read`` makes a
raw value of a text.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from daemon.common.mounts import MountSetting
from daemon.common.sockets import Endpoint
from daemon.formats.text_rule import TextRule, from_mapping

MONTH_S = 31 * 86400.0


class Rule:
    def __call__(self, raw: Any, folder: Path) -> Any:
        raise NotImplementedError

    def read(self, text: str) -> Any:
        return text


_KINDS = {bool: "true/false", int: "an integer", float: "a fraction", str: "a text", list: "a list", dict: "a table"}


def _kind(raw: Any) -> str:
    return _KINDS.get(type(raw), "a date or time")


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise ValueError(f'must be a text in quotes, "…", and is {_kind(raw)}')
    if not raw or "\0" in raw:
        raise ValueError("must not be empty" if not raw else "must not hold a NUL byte")
    return raw


class Name(Rule):
    """A word that may stand in topics, folder names and unit names."""

    def __call__(self, raw: Any, folder: Path) -> str:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", _text(raw)):
            raise ValueError(f'"{raw}" must be a short name of a-z, 0-9, "_" and "-"')
        return str(raw)


@dataclass(frozen=True)
class Choice(Rule):
    words: tuple[str, ...]

    def __call__(self, raw: Any, folder: Path) -> str:
        if _text(raw) not in self.words:
            raise ValueError(f'"{raw}" is none of {", ".join(self.words)}')
        return str(raw)


class Address(Rule):
    """A ZeroMQ endpoint."""

    def __call__(self, raw: Any, folder: Path) -> str:
        Endpoint.parse(_text(raw))
        return str(raw)


class Folder(Rule):
    """One path; ``~`` is the home folder, a relative one starts at ``folder``."""

    def __call__(self, raw: Any, folder: Path) -> Path:
        try:
            return Path(os.path.normpath(folder / Path(_text(raw)).expanduser()))
        except RuntimeError:
            raise ValueError(f'"{raw}" begins with the home folder of nobody here; write the whole path') from None


class Folders(Rule):
    """Several paths; one may be given as a plain text. In the environment they are separated by ``:``."""

    def __call__(self, raw: Any, folder: Path) -> tuple[Path, ...]:
        texts = [raw] if isinstance(raw, str) else raw
        if not isinstance(texts, list | tuple):
            raise ValueError(f'must be a list of folders, ["/data/afm1"], and is {_kind(raw)}')
        return tuple(dict.fromkeys(Folder()(text, folder) for text in texts))

    def read(self, text: str) -> Any:
        return [part for part in text.split(os.pathsep) if part]


class ModelName(Rule):
    """``shipped``, a name in the registry, or a folder (anything with a ``/`` in it)."""

    def __call__(self, raw: Any, folder: Path) -> str:
        return str(Folder()(raw, folder)) if "/" in _text(raw) or raw in (".", "..") else str(raw)


class Switch(Rule):
    """On or off; in the environment also 1 and 0."""

    def __call__(self, raw: Any, folder: Path) -> bool:
        if not isinstance(raw, bool):
            raise ValueError(f"must be true or false, without quotes, and is {_kind(raw)}")
        return raw

    def read(self, text: str) -> Any:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower(), text)


@dataclass(frozen=True)
class Number(Rule):
    """A number of [low, high]; ``whole`` refuses fractions."""

    low: float
    high: float
    whole: bool = False

    def __call__(self, raw: Any, folder: Path) -> float:
        if isinstance(raw, bool) or not isinstance(raw, int if self.whole else int | float):
            raise ValueError(f"must be a {'whole ' if self.whole else ''}number and is {_kind(raw)}")
        if not (math.isfinite(raw) and self.low <= raw <= self.high):
            raise ValueError(f"{raw} is out of range: {self.low:g} to {self.high:g}")
        return int(raw) if self.whole else float(raw)

    def read(self, text: str) -> Any:
        try:
            return int(text) if self.whole else float(text)
        except ValueError:
            return text  # the rule then says what is wrong with it


T = TypeVar("T")


def _tables(raw: Any, name: str, read: Callable[[dict[str, Any]], T]) -> tuple[T, ...]:
    """Each of the ``[[name]]`` tables as ``read`` makes it; with the errors of all."""
    if not isinstance(raw, list) or not all(isinstance(table, dict) for table in raw):
        raise ValueError(f"is a list of tables; write [[{name}]] on a line of its own above each")
    found, errors = [], []
    for number, table in enumerate(raw, 1):
        try:
            found.append(read(table))
        except ValueError as error:
            errors += [f"table {number}: {sentence}" for sentence in error.args]
    if errors:
        raise ValueError(*errors)
    return tuple(found)


class TextRules(Rule):
    """``[[text]]``: what the laboratory says of text files that do not say enough themselves."""

    def __call__(self, raw: Any, folder: Path) -> tuple[TextRule, ...]:
        return _tables(raw, "text", from_mapping)


@dataclass(frozen=True, slots=True)
class FolderSettings:
    """``[[folder]]``: what holds for one watched folder alone; None: as for all of them."""

    path: Path
    mounts: MountSetting | None = None  # instead of source.mounts
    silence_s: float | None = None  # an alarm when no curve came into this folder for so long; 0: never


class FolderTables(Rule):
    def __call__(self, raw: Any, folder: Path) -> tuple[FolderSettings, ...]:
        return _tables(raw, "folder", lambda table: _settings(table, folder))


_SETTINGS: dict[str, Rule] = {
    "path": Folder(),
    "mounts": Choice(get_args(MountSetting)),
    "silence_s": Number(0, MONTH_S),
}


def _settings(table: dict[str, Any], folder: Path) -> FolderSettings:
    found: dict[str, Any] = {}
    errors = [f'has no key "{key}"; it has {", ".join(_SETTINGS)}' for key in table if key not in _SETTINGS]
    for key, raw in table.items():
        if key in _SETTINGS:
            try:
                found[key] = _SETTINGS[key](raw, folder)
            except ValueError as error:
                errors += [f"{key} {sentence}" for sentence in error.args]
    if "path" not in table:
        errors.append('needs a path, as path = "/mnt/afm": one of the watched folders')
    elif len(table) == 1:
        errors.append("settles nothing; give mounts or silence_s")
    if errors:
        raise ValueError(*errors)
    return FolderSettings(**found)
