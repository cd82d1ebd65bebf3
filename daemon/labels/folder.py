"""The label folder: labelled curves as files that `train --labelled` reads anywhere.

The instrument's files may be gone; the ledger's compact copies are not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from daemon.errors import INPUT_OUTPUT, UserError
from daemon.formats import open_file
from daemon.labels import Label, unanimous
from daemon.labels import table as labeltable
from daemon.labels.subject import sha256_of
from daemon.ledger.keepsake import keepsake_of
from daemon.ledger.view import LedgerView
from daemon.reading import Unfinished, Unreadable
from daemon.writing import write_whole


def write_folder(
    labels: Iterable[Label], ledger: LedgerView, folder: Path, watched: Sequence[Path] = ()
) -> tuple[int, int]:
    """One ``.afmcurve`` a labelled curve, and ``labels.csv``; how many, and of how many there is no copy.

    A flagged curve's copy lies in the ledger; any other is read from its file below ``watched``, if that still holds
    what was labelled.

    Where raters disagree the curve is `unsure`. Raises UserError 74 when the folder cannot be written.
    """
    rows: list[Label] = []
    missing = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for group in labeltable.by_curve(labels).values():
            keepsake = _kept(group[0], ledger) or _read(group[0], watched)
            if keepsake is None:
                missing += 1
                continue
            rows.append(_row(group, keepsake))
            write_whole(folder / rows[-1].path, keepsake)
        fresh = folder / ".labels.csv.part"
        with fresh.open("w", newline="", encoding="utf-8") as file:
            labeltable.write(rows, file)
        fresh.replace(folder / "labels.csv")
    except OSError as error:
        raise UserError(INPUT_OUTPUT, f"{folder}: {error.strerror}; choose a folder that can be written") from None
    return len(rows), missing


def _kept(label: Label, ledger: LedgerView) -> bytes | None:
    """The ledger's copy of the flagged curve that the label is of."""
    copies = (ledger.keepsake(seq) for seq in ledger.find_flagged(label.curve, sha256=label.sha256, path=label.path))
    return next((copy for copy in copies if copy is not None), None)


def _read(label: Label, watched: Sequence[Path]) -> bytes | None:
    """A copy made from the instrument's file; None where it is gone or holds something else by now."""
    for file in (folder / label.path for folder in (Path(), *watched)):
        if label.sha256 is not None and file.is_file() and sha256_of(file) == label.sha256:
            with suppress(Unreadable, Unfinished, OSError, IndexError):
                return keepsake_of(open_file(file)[label.curve])
    return None


def _row(group: Sequence[Label], keepsake: bytes) -> Label:
    """The file is new, so its labels name it; where the curve came from stands beside."""
    first, digest = group[0], hashlib.sha256(keepsake).hexdigest()
    name = hashlib.sha256(f"{first.sha256 or first.path}#{first.curve}".encode()).hexdigest()[:16]
    origin = {"origin_path": first.path, "origin_curve_index": str(first.curve), "origin_sha256": first.sha256 or ""}
    extra = {name: value for label in group for name, value in label.extra.items()}
    return Label(
        path=f"{name}.afmcurve",
        curve=0,
        label=unanimous(group),
        rater="+".join(dict.fromkeys(label.rater for label in group)),
        time=max(label.time for label in group),
        reason="; ".join(dict.fromkeys(label.reason for label in group if label.reason)),
        sha256=digest,
        extra=extra | origin,
    )
