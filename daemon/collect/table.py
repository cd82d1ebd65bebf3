"""The table of curves that were handed over: one row a curve, as spreadsheets and pandas open it.

CSV in UTF-8 with a byte-order mark and CRLF, with commas, or with semicolons and a decimal comma. A text that begins
like a formula gets an apostrophe in front, so that no spreadsheet runs it; :func:`as_written` takes it away. A table
that is there already only grows: what a person has sorted, marked or written beside it stays.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Literal

from daemon.collect import Chosen, Identity, identity_of
from daemon.common.errors import ALREADY_RUNNING, BAD_DATA, INPUT_OUTPUT, USAGE, UserError
from daemon.labels import unanimous
from daemon.labels.table import SEPARATORS, read_csv, read_index
from models.clock import day_and_second
from models.curve import Curve
from models.files import write_whole
from models.frontend import OPEN
from models.ruptures import Rupture, pulling, ruptures

Decimal = Literal["point", "comma"]
Cells = Mapping[str, object]

#: ``acquired`` is as events say it, ``acquired_local`` in the time of this computer, as spreadsheets read it.
#: ``rupture_deflections_nm`` stands in the place of forces where the file says no spring constant. ``file`` is where
#: the curve lies now: below the folder of the table where it was handed over with it.
COLUMNS = (
    "folder",
    "path",
    "curve",
    "acquired",
    "acquired_local",
    "session",
    "sample",
    "tip",
    "verdict",
    "score",
    "reasons",
    "model",
    "label",
    "rater",
    "n_ruptures",
    "max_rupture_force_pn",
    "rupture_forces_pn",
    "rupture_deflections_nm",
    "rupture_positions_nm",
    "content",
    "file",
    "event",
    "sha256",
)
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_BOM = "\ufeff"


def cells_of(one: Chosen, found: Sequence[Rupture] | None, content: str, file: str) -> Cells:
    """A row. ``found`` None: the curve could not be read; ``content``: of the file, a compact copy, or gone."""
    data, session = one.data, one.session
    forces = [] if found is None else [rupture.force_pn for rupture in found]
    known = [force for force in forces if math.isfinite(force)]  # all of a curve, or none
    deflections = [rupture.force for rupture in found or () if rupture.unit == "nm"]
    return {
        "folder": data.get("folder") or "",
        "path": data["path"],
        "curve": data["curve"],
        "acquired": data.get("acquired") or "",
        "acquired_local": day_and_second(data["acquired"]) if data.get("acquired") else "",
        "session": "" if session is None else session.number,
        "sample": "" if session is None else session.sample,
        "tip": "" if session is None else session.tip,
        "verdict": data["verdict"],
        "score": "" if data["score"] is None else round(float(data["score"]), 6),
        "reasons": " ".join(data["reasons"]),
        "model": data["model"],
        "label": unanimous(label.label for label in one.labels) if one.labels else "",
        "rater": ", ".join(dict.fromkeys(label.rater for label in one.labels)),
        "n_ruptures": "" if found is None else len(found),
        "max_rupture_force_pn": round(max(known), 2) if known else "",
        "rupture_forces_pn": [round(force, 2) for force in known],
        "rupture_deflections_nm": [round(deflection, 3) for deflection in deflections],
        "rupture_positions_nm": [] if found is None else [round(rupture.position_nm, 2) for rupture in found],
        "content": content,
        "file": file,
        "event": one.event["id"],
        "sha256": data["sha256"] or "",
    }


def ruptures_of(curve: Curve) -> tuple[Rupture, ...]:
    """The right way up, where the file does not say which that is."""
    return ruptures(pulling(curve) if OPEN in curve.notes else curve)


class Table:
    """One CSV file, as it is, and the rows that come to it. Raises UserError 65 for a file that holds something else.

    ``decimal`` None: as the file has it, else a point.
    """

    def __init__(self, path: Path, decimal: Decimal | None = None) -> None:
        self.path, self._rows = path, list[tuple[tuple[float, int], Cells]]()
        self._before = _content_of(path)
        self._columns: tuple[str, ...] = COLUMNS
        self.known: dict[Identity, str] = {}  # and where each was handed over
        self.decimal: Decimal = decimal or "point"
        self._separator = ";" if decimal == "comma" else ","
        if self._before:
            self._take(decimal)

    def add(self, one: Chosen, row: Cells) -> None:
        """In the file after :meth:`save`; once."""
        self.known[one.identity] = str(row["file"])
        self._rows.append((one.order, row))

    def save(self) -> None:
        """The whole file with what has come, or as it was. Raises UserError 74, and 73 where somebody else wrote it."""
        if self._before and not self._rows:
            return
        if _content_of(self.path) != self._before:  # another run, or a person who has saved it meanwhile
            what = f"{self.path} was written by somebody else meanwhile, and stays as it is"
            raise UserError(ALREADY_RUNNING, f"{what}: give the same command again")
        out = io.StringIO(newline="")
        writer = csv.writer(out, delimiter=self._separator, lineterminator="\r\n")
        if not self._before:
            writer.writerow(self._columns)
        rows = [row for _, row in sorted(self._rows, key=itemgetter(0))]
        writer.writerows([[self._cell(row.get(name, "")) for name in self._columns] for row in rows])
        head = self._before or _BOM.encode()
        joint = b"\r\n" if self._before and not self._before.endswith(b"\n") else b""
        try:
            write_whole(self.path, head + joint + out.getvalue().encode("utf-8", "replace"))
        except OSError as error:
            raise UserError(INPUT_OUTPUT, f"{self.path}: {error.strerror}; nothing was written into it") from None

    def _take(self, decimal: Decimal | None) -> None:
        head = self._before.partition(b"\n")[0].decode("utf-8", "replace")
        self._separator = max(SEPARATORS, key=head.count)
        is_comma: Decimal = "comma" if self._separator == ";" else "point"
        try:
            if self._before[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise ValueError("is Unicode text; save it as CSV UTF-8")
            table = read_csv(self._before)
            if not {"path", "curve", "event", "sha256"} <= set(table.columns):
                raise ValueError("holds something else than curves that were handed over")
            for _, row in table.rows:
                self.known[_identity(row)] = as_written(row.get("file", ""))
        except ValueError as error:
            raise UserError(BAD_DATA, f"{self.path}: {error}; name another file") from None
        if decimal not in (None, is_comma):
            raise UserError(USAGE, f"{self.path} has a decimal {is_comma}: name another file for --decimal {decimal}")
        self._columns, self.decimal = table.columns, is_comma

    def _cell(self, value: object) -> str:
        if isinstance(value, list):
            return " ".join(self._number(one) for one in value)
        return self._number(value) if isinstance(value, int | float) else safe(str(value))

    def _number(self, value: float) -> str:
        """NaN, where the file does not say what makes it a number of this unit, as pandas reads it."""
        text = "nan" if math.isnan(value) else str(value)
        return text.replace(".", ",") if self.decimal == "comma" else text


def _content_of(path: Path) -> bytes:
    """Nothing where there is no file, or one to be written into, like a pipe."""
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError as error:
        raise UserError(INPUT_OUTPUT, f"{path}: {error.strerror}; name another file") from None


def _identity(row: Mapping[str, str]) -> Identity:
    return identity_of({"curve": read_index(row["curve"]), "sha256": row["sha256"]}, row["event"])


def safe(text: str) -> str:
    """What no spreadsheet takes for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def as_written(cell: str) -> str:
    """The text that :func:`safe` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) else cell
