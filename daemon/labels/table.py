"""Tables of curves: labels as CSV, for spreadsheets, other programs and labelled folders, and lists of picked curves.

A table of labels has the columns ``path,curve_index,label,rater,reason,time,sha256``; more are kept. It is read whole
or not at all, with everything that is wrong told at once.

All tables are read as people's programs save them. Excel puts a byte-order mark in front, semicolons or tabs where the
language of the machine wants them, ends lines with CRLF, and leaves rows of empty cells behind.
"""

from __future__ import annotations

import csv
import io
import math
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, TextIO

from daemon.common.errors import BAD_DATA, UserError, grouped
from daemon.common.text import clean
from daemon.labels import Label, read_word
from models.clock import rfc3339, since_1970

COLUMNS = ("path", "curve_index", "label", "rater", "reason", "time", "sha256")
#: What else we know of a label: the decision that it is on (``event``: its id) and how its curve was chosen. A row of
#: another program's table may have columns of these names; ours are those of a row that names its event.
MORE = ("event", "model", "pipeline", "verdict", "score", "queue", "weight", "session")
SEPARATORS = ",;\t"
_MOST_DIGITS = 9  # of a curve_index: a file holds 4 million curves at the most
#: ``path#curve``: a curve as events name it.
NUMBERED = re.compile(rf"(.+)#([0-9]{{1,{_MOST_DIGITS}}})", re.DOTALL)
_SEPARATOR = re.compile(rf"sep=([{SEPARATORS}])")
_EVENT = re.compile(r"([^:\s]{1,64}):([0-9]{1,18})")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def write(labels: Sequence[Label], file: TextIO) -> None:
    """One row a label; columns that only some labels have stand behind those that all have."""
    rows = [_cells_of(one) for one in labels]
    extra = [name for one in labels for name in one.extra]
    more = [name for name in ("folder", *MORE) if any(name in row for row in rows)]
    names = list(dict.fromkeys([*COLUMNS, *more, *extra]))
    table = csv.writer(file, lineterminator="\n")
    table.writerow(names)
    table.writerows([[row.get(name, "") for name in names] for row in rows])


def _cells_of(one: Label) -> dict[str, object]:
    cells: dict[str, object] = dict(zip(COLUMNS, (one.path, one.curve, one.label, one.rater), strict=False))
    cells |= {"reason": one.reason, "time": one.time, "sha256": one.sha256 or ""}
    if one.folder and not one.sha256:  # where bytes could not be read, it must tell two files of the same name apart
        cells["folder"] = one.folder
    if one.stream and one.seq and not set(MORE) & one.extra.keys():
        decided = {name: getattr(one, name) for name in MORE[1:]}
        cells |= {
            "event": f"{one.stream}:{one.seq}",
            **{name: "" if value is None else value for name, value in decided.items()},
        }
    return cells | dict(one.extra)


@dataclass(frozen=True, slots=True)
class LabelRow:
    """A label as a table says it."""

    number: int  # of the line; the header is 1
    label: Label
    is_dated: bool  # else its time is that of the reading


def read(file: Path, *, now_s: float, rater: str | None = None) -> list[LabelRow]:
    """The labels of a table. ``rater`` and ``now_s`` stand in where a row names no rater or time.

    Raises UserError 65 with one line for each row that is wrong.
    """
    try:
        names, rows = _cells(file.read_bytes())
        names = [low if (low := name.strip().lower()) in (*COLUMNS, "folder") else name for name in names]
        check_names(names, once=COLUMNS)
    except OSError as error:
        raise UserError(BAD_DATA, f"{file}: {error.strerror}; give an existing CSV file") from None
    except ValueError as error:
        raise UserError(BAD_DATA, f"{file}: {error}") from None
    labels: list[LabelRow] = []
    problems: list[str] = []
    for number, cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        row = dict(zip(names, cells, strict=False))
        found = _label(row, rfc3339(now_s), rater)
        wrong = [] if isinstance(found, Label) else found
        if any(cell.strip() for name, cell in zip_longest(names, cells, fillvalue="") if not name.strip()):
            wrong.insert(0, "has more cells than the first row; quote text that contains the separator")
        if wrong:
            problems += [f"{file} row {number}: {problem}" for problem in wrong]
        elif isinstance(found, Label):
            labels.append(LabelRow(number, found, bool(row.get("time", "").strip())))
    if problems:
        raise UserError(
            BAD_DATA, "\n".join([*grouped(problems), f"{file}: nothing was imported; correct the rows above"])
        )
    return labels


def _label(row: Mapping[str, str], now: str, rater: str | None) -> Label | list[str]:
    """The label of one row, or everything that is wrong with it."""
    problems: list[str] = []
    cell = {name: row.get(name, "").strip() for name in COLUMNS}
    rater, sha256 = cell["rater"] or rater, cell["sha256"].lower()
    path = row.get("path", "") if sha256 else cell["path"].replace("\\", "/")  # with it, as an export has written it
    if not path:
        problems.append("names no path")
    try:
        index = read_index(cell["curve_index"])
    except ValueError as error:
        problems.append(str(error))
    if not rater:
        problems.append("names no rater; fill the column, or give --rater NAME for all such rows")
    if sha256 and not _SHA256.fullmatch(sha256):
        problems.append("sha256 must have 64 hexadecimal digits, or be empty")
    try:
        word = read_word(cell["label"])
    except ValueError as error:
        problems.append(str(error))
    time = cell["time"] or now
    try:
        time = rfc3339(since_1970(time))
    except (ValueError, OverflowError, OSError):
        problems.append(f'time "{time}" cannot be read; write 2026-11-20T12:00:00Z, or leave it empty')
    if problems:
        return problems
    folder = row.get("folder", "").strip()
    is_place = not sha256 and folder.startswith("/")
    decided = _decided(row)
    ours = {*COLUMNS, *(MORE if decided else ()), *(("folder",) if is_place else ())}
    extra = {name: value for name, value in row.items() if name not in ours and value}
    place = folder if is_place else None
    return Label(path, index, word, str(rater), time, cell["reason"], sha256 or None, extra, place, **decided)


def _decided(row: Mapping[str, str]) -> dict[str, Any]:
    """What our columns say of the decision; nothing where they are not ours."""
    event = _EVENT.fullmatch(row.get("event", "").strip())
    if event is None:
        return {}
    said = {name: row.get(name, "").strip() or None for name in MORE[1:]}
    try:
        score, weight = (None if (text := said[name]) is None else float(text) for name in ("score", "weight"))
        session = None if (text := said["session"]) is None else int(text)
    except ValueError:
        return {}
    is_possible = all(value is None or math.isfinite(value) for value in (score, weight))
    numbers = {"seq": int(event[2]), "score": score, "weight": weight, "session": session}
    return {**said, "stream": event[1], **numbers} if is_possible else {}


def by_curve(labels: Iterable[Label]) -> dict[tuple[str, int], list[Label]]:
    """Labels of one curve together, in their order."""
    grouped: dict[tuple[str, int], list[Label]] = {}
    for label in labels:
        grouped.setdefault(label.identity, []).append(label)
    return grouped


@dataclass(frozen=True, slots=True)
class CsvTable:
    """Column names in small letters, and the rows that hold anything, each with its line number (the header is 1)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]


def read_csv(content: bytes) -> CsvTable:
    """The first line names the columns. ValueError, in words, for what is no CSV in UTF-8, down to an open quote.

    Cells that are missing are empty; cells beyond the header are nobody's.
    """
    names, lines = _cells(content)
    columns = tuple(name.strip().lower() for name in names)
    rows = []
    for number, cells in lines:
        stripped = [cell.strip() for cell in cells]
        if any(stripped):
            rows.append((number, dict.fromkeys(columns, "") | dict(zip(columns, stripped, strict=False))))
    return CsvTable(columns, tuple(rows))


def _cells(content: bytes) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The cells of the first line, and those of every other that has any, with its number."""
    text = _decoded(content)
    head, _, rest = text.partition("\n")
    said = _SEPARATOR.fullmatch(head.strip())  # Excel's own first line
    if said:
        text, head = rest, rest.partition("\n")[0]
    separator = said[1] if said else max(SEPARATORS, key=head.count)
    before = 1 if said else 0
    # strict: a quote that is opened and never closed would swallow every row below it
    table = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        names = next(table, [])
        rows = [(table.line_num + before, cells) for cells in table if cells]
    except csv.Error as error:
        raise ValueError(f"is no CSV from row {table.line_num + before} on ({error}); save it as CSV UTF-8") from None
    if len(names) == 1 and separator in names[0]:  # each row as one quoted cell: opened with the wrong separator
        names, rows = next(csv.reader(names)), [(number, next(csv.reader(cells[:1]), [])) for number, cells in rows]
    return names, rows


def _decoded(content: bytes) -> str:
    """UTF-8, or what Excel calls Unicode text. ValueError, in words, that names the rows that are neither."""
    try:
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        lines = content.split(b"\n")
        wrong = [str(number) for number, line in enumerate(lines, start=1) if not _is_utf8(line)] or ["1"]
        named = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        rows = f"row {named} is" if len(wrong) == 1 else f"rows {named} are"
        raise ValueError(f"{rows} not in UTF-8 ({error.reason}); save it as CSV UTF-8") from None


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8-sig")
    except UnicodeDecodeError:
        return False
    return True


def check_names(names: Sequence[str], once: Collection[str]) -> None:
    """ValueError where a table of labels has no column for them, or names one of ``once`` twice."""
    if twice := sorted({name for name in names if name and name in once and names.count(name) > 1}):
        raise ValueError(f"column {clean(' and '.join(twice))} stands twice; leave one of each")
    if missing := sorted({"path", "label"} - set(names)):
        raise ValueError(f"column {' and '.join(missing)} missing; the first row must name the columns")


def plain_path(text: str) -> str:
    r"""A path as a folder's own listing has it: ``.\day1\a.txt`` and ``day1/./a.txt`` are ``day1/a.txt``."""
    parts = [part for part in text.strip().replace("\\", "/").split("/") if part not in ("", ".")]
    return ("/" if text.strip().startswith("/") else "") + "/".join(parts)


def read_index(text: str) -> int:
    """Which curve of a file; empty is the first. ValueError, in words, for what counts nothing."""
    text = text.strip() or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise ValueError(f"curve_index {text!r} is no number; curves count from 0")
    return int(text)


HELP = "only the curves of this list: path or path#curve a line, or CSV with path[,curve_index]; - reads standard input"


@dataclass(frozen=True, slots=True)
class Pick:
    """One line of the list."""

    number: int  # of the line
    path: str
    index: int | None  # None: every curve of the file
    literal: str | None = None  # the whole line, should a file be called ``a#3``


@dataclass(slots=True)
class Selection:
    """The picks, and which of them something was found for.

    A list of curves to look at, as another program or a person picked them: one ``path`` or ``path#curve`` a line, or a
    CSV with the columns ``path`` and, if wanted, ``curve_index``. Paths are relative to the folder that is looked into,
    or as a shell would write them. A path alone means all its curves.
    """

    name: str
    picks: tuple[Pick, ...]
    _by_path: dict[str, list[Pick]] = field(default_factory=dict)
    _opened: set[int] = field(default_factory=set)  # lines whose file was there
    _found: set[int] = field(default_factory=set)  # lines whose curve was there

    def __post_init__(self) -> None:
        for pick in self.picks:
            self._by_path.setdefault(pick.path, []).append(pick)
            if pick.literal is not None:
                self._by_path.setdefault(pick.literal, []).append(replace(pick, index=None))

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
        raise UserError(BAD_DATA, "\n".join(grouped(problems)))
    if not picks:
        raise UserError(BAD_DATA, f"{name}: names no curve; write one path a line")
    return Selection(name, tuple(picks))


def _lines(content: bytes) -> list[tuple[int, str, str | None]]:
    """(line, path, curve_index); the latter None where the path may say it."""
    sheet = read_csv(content)
    if "path" in sheet.columns:
        numbered = "curve_index" if "curve_index" in sheet.columns else "curve"  # as `find` and `collect` call it
        return [(number, row["path"], row.get(numbered, "")) for number, row in sheet.rows]
    lines = content.decode("utf-8-sig").splitlines()
    return [(number, line, None) for number, line in enumerate(lines, start=1) if line.strip()]


def _pick(number: int, path: str, index: str | None) -> Pick:
    literal = None
    if not index and (match := NUMBERED.fullmatch(path.strip())):
        literal, path, index = plain_path(path), match[1], match[2]
    if not plain_path(path):
        raise ValueError("names no path")
    return Pick(number, plain_path(path), read_index(index) if index else None, literal)
