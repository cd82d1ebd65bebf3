"""What a user did that cannot work: one line, one exit code (sysexits), never a traceback."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

USAGE, BAD_DATA, UNREACHABLE, INTERNAL, ALREADY_RUNNING, INPUT_OUTPUT, BAD_CONFIG = 64, 65, 69, 70, 73, 74, 78


class UserError(Exception):
    """``raise UserError(BAD_DATA, "labels.csv row 3: no such file a.ibw; remove the row or restore the file")``."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def need_folder(option: str, file: Path) -> None:
    """UserError 64 when the folder that ``file`` shall lie in is not there; it may be a slip of the pen.

    Asked before the work begins, and not when it is done.
    """
    if not file.absolute().parent.is_dir():
        raise UserError(USAGE, f"{option} {file}: its folder does not exist; make it first")


_SHOWN = 3  # of many places where the same is wrong
_ROW = re.compile(r"(.*?) row (\d+): (.*)", re.DOTALL)
_OWN = re.compile(r"\"[^\"]*\"|'[^']*'|\S*[./\d]\S*")  # what is of one row alone: quoted words, paths, numbers


def grouped(findings: Iterable[str]) -> list[str]:
    """A line for each finding; what is wrong in more than three places is one line, with a count and the first three.

    A finding is ``TABLE row 7: what to do``, ``TABLE row 7: its path: what to do``, or ``key: what to do``.
    """
    lines = list(findings)
    kinds = [_kind(line) for line in lines]
    places: dict[tuple[str, str], list[str]] = {}
    for kind, line in zip(kinds, lines, strict=True):
        places.setdefault(kind, []).append(line)
    whole = {kind: some if len(some) <= _SHOWN else [] for kind, some in places.items()}
    told: list[str] = []
    for kind, line in zip(kinds, lines, strict=True):
        if whole[kind]:
            told.append(line)
        elif some := places.pop(kind, []):
            told.append(_as_one(kind[0], some))
    return told


def _kind(finding: str) -> tuple[str, str]:
    """The table (empty where there is none), and what is wrong without what is of this place alone."""
    row = _ROW.fullmatch(finding)
    what = row[3] if row else finding
    return row[1] if row else "", _OWN.sub("", what.partition(": ")[2] or what)


def _as_one(table: str, some: list[str]) -> str:
    if not table:
        names = ", ".join(one.partition(": ")[0] for one in some[:_SHOWN])
        return f"{names} and {len(some) - _SHOWN} more: {some[0].partition(': ')[2]}"
    rows = [row for one in some[:_SHOWN] if (row := _ROW.fullmatch(one))]
    parts = [(row[2], *row[3].partition(": ")[::2]) for row in rows]
    names = ", ".join(f"{number} ({subject})" if what else number for number, subject, what in parts)
    return f"{table}: {len(some)} rows, the first {names}: {parts[0][2] or parts[0][1]}"
