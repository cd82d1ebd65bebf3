"""The selection: a list of curves to look at, as another program or a person picked them.

One ``path`` or ``path#curve`` a line, or a CSV with the columns ``path`` and, if wanted, ``curve_index``. Paths are
relative to the folder that is looked into, or as a shell would write them. A path alone means all its curves.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from daemon.clean import clean
from daemon.errors import BAD_DATA, UserError
from daemon.spreadsheet import plain_path, read_index, read_sheet

HELP = "only the curves of this list: path or path#curve a line, or CSV with path[,curve_index]; - reads standard input"
_CURVE = re.compile(r"(.+)#([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Pick:
    """One line of the list."""

    number: int  # of the line
    path: str
    index: int | None  # None: every curve of the file


@dataclass(slots=True)
class Selection:
    """The picks, and which of them something was found for."""

    name: str
    picks: tuple[Pick, ...]
    _by_path: dict[str, list[Pick]] = field(default_factory=dict)
    _opened: set[int] = field(default_factory=set)  # lines whose file was there
    _found: set[int] = field(default_factory=set)  # lines whose curve was there

    def __post_init__(self) -> None:
        for pick in self.picks:
            self._by_path.setdefault(pick.path, []).append(pick)

    def has_file(self, path: str, file: Path) -> bool:
        """Whether any curve of a file is wanted; ``path`` as a folder lists it, ``file`` where it lies."""
        return bool(self._of(path, file))

    def has(self, path: str, file: Path, index: int | None) -> bool:
        """Whether a curve is wanted. ``index`` None stands for a file that could not be read: wanted with any of it."""
        there = self._of(path, file)
        self._opened |= {pick.number for pick in there}
        wanted = {pick.number for pick in there if index is None or pick.index in (None, index)}
        self._found |= wanted
        return bool(wanted)

    def missing(self) -> list[str]:
        """One line for every pick that nothing was found for."""
        lines = []
        for pick in self.picks:
            if pick.number in self._found:
                continue
            curve = "" if pick.index is None else f"#{pick.index}"
            why = "the file is there, this curve of it is not" if pick.number in self._opened else "no such file there"
            lines.append(clean(f"{self.name} row {pick.number}: {pick.path}{curve}: {why}"))
        return lines

    def _of(self, path: str, file: Path) -> list[Pick]:
        names = dict.fromkeys((plain_path(path), plain_path(str(file)), str(file.absolute())))
        return [pick for name in names for pick in self._by_path.get(name, [])]


def read_selection(source: str) -> Selection:
    """The list of a file, or of standard input for ``-``. UserError 65 for a list that makes no sense, line by line."""
    name = "standard input" if source == "-" else source
    try:
        content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise UserError(BAD_DATA, f"--only {source}: {error.strerror}; give an existing list") from None
    picks: list[Pick] = []
    problems: list[str] = []
    try:
        for number, path, index in _lines(content):
            try:
                picks.append(_pick(number, path, index))
            except ValueError as error:
                problems.append(clean(f"{name} row {number}: {error}"))
    except ValueError as error:
        problems.append(f"{name}: {error}")
    if problems:
        raise UserError(BAD_DATA, "\n".join(problems))
    if not picks:
        raise UserError(BAD_DATA, f"{name}: names no curve; write one path a line")
    return Selection(name, tuple(picks))


def _lines(content: bytes) -> list[tuple[int, str, str | None]]:
    """(line, path, curve_index); the latter None where the path may say it."""
    sheet = read_sheet(content)
    if "path" in sheet.columns:
        return [(number, row["path"], row.get("curve_index", "")) for number, row in sheet.rows]
    lines = content.decode("utf-8-sig").splitlines()
    return [(number, line, None) for number, line in enumerate(lines, start=1) if line.strip()]


def _pick(number: int, path: str, index: str | None) -> Pick:
    if index is None and (match := _CURVE.fullmatch(path.strip())):
        path, index = match[1], match[2]
    if not plain_path(path):
        raise ValueError("names no path")
    return Pick(number, plain_path(path), read_index(index) if index else None)
