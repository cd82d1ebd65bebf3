"""The label's subject: what its file holds, and a copy of that curve to hand on.

A label is of content, not of a name: instruments reuse names. So the file's bytes are its identity where they can be
had.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from daemon.common.errors import INPUT_OUTPUT, UserError
from daemon.common.mounts import resolve
from daemon.formats import NAMES, open_file
from daemon.formats.afmcurve import SUFFIX, compact_copy_of
from daemon.formats.blob import Blob
from daemon.formats.errors import Unfinished, Unreadable
from daemon.labels import Label, unanimous
from daemon.labels import table as labeltable
from daemon.ledger.view import LedgerView
from models.files import write_whole
from models.frontend import prepare_to_judge
from models.raster import RasterProfile


def sha256_of(file: Path) -> str | None:
    """Of the file's bytes, of an Asylum pair those of both; None when they cannot be read."""
    try:
        blob = Blob(file)
        if NAMES.is_first_half(file.name) and (companion := NAMES.find_other(file)) is not None:
            return blob.sha256_with(Blob(companion))
        return blob.sha256
    except (Unfinished, Unreadable, OSError):
        return None


def write_folder(
    labels: Iterable[Label],
    ledger: LedgerView,
    folder: Path,
    watched: Sequence[Path] = (),
    silent: Sequence[Path] = (),
) -> tuple[int, int]:
    """One ``.afmcurve`` a labelled curve, and ``labels.csv``; how many, and of how many there is no copy.

    `train --labelled` reads such a folder anywhere. A flagged curve's copy lies in the ledger, whatever became of the
    instrument's file; any other is read from its file below ``watched``, if that still holds what was labelled;
    what lies in one of the ``silent`` folders is not touched.

    Where raters disagree the curve is `unsure`. Raises UserError 74 when the folder cannot be written.
    """
    rows: list[Label] = []
    missing = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for group in labeltable.by_curve(labels).values():
            compact_copy = _copy_in_ledger(group[0], ledger) or copy_of_file(group[0], watched, silent)
            if compact_copy is None:
                missing += 1
                continue
            rows.append(_row_of_copy(group, compact_copy))
            write_whole(folder / rows[-1].path, compact_copy)
        table = io.StringIO(newline="")
        labeltable.write(rows, table)
        write_whole(folder / "labels.csv", table.getvalue().encode())
    except OSError as error:
        raise UserError(INPUT_OUTPUT, f"{folder}: {error.strerror}; choose a folder that can be written") from None
    return len(rows), missing


def _copy_in_ledger(label: Label, ledger: LedgerView) -> bytes | None:
    """The ledger's copy of the curve that the label is of."""
    return ledger.find_copy(label.curve, sha256=label.sha256, path=label.path)


def copy_of_file(label: Label, watched: Sequence[Path], silent: Sequence[Path]) -> bytes | None:
    """A copy made from the instrument's file; None where it is gone or holds something else by now."""
    own = [Path(label.folder)] if label.folder else []
    for file in (folder / label.path for folder in (*own, Path(), *watched)):
        real = resolve(file)
        if label.sha256 is None or any(real.is_relative_to(one) for one in silent):
            continue
        if file.is_file() and sha256_of(file) == label.sha256:
            with suppress(Unreadable, Unfinished, OSError, IndexError):
                curve, profile = open_file(file)[label.curve], RasterProfile()
                return compact_copy_of(curve, profile, prepare_to_judge([curve], profile)[0])
    return None


def _row_of_copy(group: Sequence[Label], compact_copy: bytes) -> Label:
    """The file is new, so its labels name it; where the curve came from stands beside."""
    first, digest = group[0], hashlib.sha256(compact_copy).hexdigest()
    name = hashlib.sha256(f"{first.sha256 or first.path}#{first.curve}".encode()).hexdigest()[:16]
    origin = {"origin_path": first.path, "origin_curve_index": str(first.curve), "origin_sha256": first.sha256 or ""}
    extra = {name: value for label in group for name, value in label.extra.items()}
    return Label(
        path=name + SUFFIX,
        curve=0,
        label=unanimous(label.label for label in group),
        rater="+".join(dict.fromkeys(label.rater for label in group)),
        time=max(label.time for label in group),
        reason="; ".join(dict.fromkeys(label.reason for label in group if label.reason)),
        sha256=digest,
        extra=extra | origin,
    )
