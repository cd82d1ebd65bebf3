"""The label's subject: which curve is meant by a file that somebody names.

A label is of content, not of a name: instruments reuse names. So the file's bytes are its identity where they can be
had, else those of the flagged curve that the ledger knows under this path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from daemon.errors import BAD_DATA, UserError
from daemon.formats.blob import Blob
from daemon.formats.pair import find_other, is_first_half
from daemon.labels import Label
from daemon.ledger.view import LedgerView
from daemon.reading import Unfinished, Unreadable


def sha256_of(file: Path) -> str | None:
    """Of the file's bytes, of an Asylum pair those of both; None when they cannot be read."""
    try:
        blob = Blob(file)
        if is_first_half(file.name) and (companion := find_other(file)) is not None:
            return blob.sha256_with(Blob(companion))
        return blob.sha256
    except (Unfinished, Unreadable, OSError):
        return None


def locate(label: Label, file: Path, ledger: LedgerView | None, watched: Sequence[Path] = ()) -> Label:
    """The label with the identity of what ``file`` holds, under the path that the ledger calls it.

    Raises UserError 65 when there is no such file or curve.
    """
    sha256 = label.sha256 or sha256_of(file)
    seqs = ledger.find_flagged(label.curve, sha256=sha256, path=label.path) if ledger else []
    flagged = ledger.flagged(seqs[-1]) if ledger and seqs else None
    if flagged is not None:
        return replace(label, path=flagged.path, sha256=flagged.sha256)
    if sha256 is None:
        raise UserError(
            BAD_DATA,
            f"{label.path}: no such file, and no flagged curve of that name; give the path of the curve's file",
        )
    if ledger is not None and _has_no_such_curve(ledger, sha256, label.curve):
        raise UserError(BAD_DATA, f"{label.path} has no curve {label.curve}; curves count from 0")
    return replace(label, path=_relative(file, watched) or label.path, sha256=sha256)


def complete(label: Label, folder: Path, ledger: LedgerView | None) -> Label:
    """A label of a table, with what can be found out of its subject; without any of it the path must do."""
    if label.sha256 is not None:
        return label
    file = folder / label.path
    seqs = [] if file.is_file() or ledger is None else ledger.find_flagged(label.curve, path=label.path)
    flagged = ledger.flagged(seqs[-1]) if ledger and seqs else None
    return replace(label, sha256=flagged.sha256 if flagged else sha256_of(file))


def _has_no_such_curve(ledger: LedgerView, sha256: str, curve: int) -> bool:
    return ledger.is_decided(f"{sha256}#0") and not ledger.is_decided(f"{sha256}#{curve}")


def _relative(file: Path, watched: Sequence[Path]) -> str | None:
    real = file.resolve()
    return next((real.relative_to(one).as_posix() for one in watched if real.is_relative_to(one)), None)
