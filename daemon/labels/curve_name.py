"""The name of a curve: ``path#curve``, as events print it, which curve somebody means who writes one, and its content.

The path is that of the file below its watched folder; ``#0`` may be left out where a file has one curve. The ledger is
asked first, so that a name holds when the file is gone and no share is touched; only what it does not know is looked
for on disk. Whoever writes ``/``, ``./`` or ``../`` in front means a file. What may be two curves is refused with both.

A label is of content, not of a name: instruments reuse names. So the file's bytes are its identity where they can be
had, and a copy of the curve goes with the label to whom it is handed on.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from daemon.common import mounts
from daemon.common.errors import BAD_DATA, INPUT_OUTPUT, UNREACHABLE, USAGE, UserError
from daemon.common.mounts import resolve
from daemon.common.text import clean
from daemon.formats import NAMES, event_path, open_file
from daemon.formats.afmcurve import SUFFIX, compact_copy_of
from daemon.formats.base import Blob, Unfinished, Unreadable
from daemon.labels import Label, unanimous
from daemon.labels import table as labeltable
from daemon.labels.table import NUMBERED
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import Named
from daemon.processes import apart
from models.files import write_whole
from models.raster import RasterProfile
from models.ruptures import prepare_to_tell


def sha256_of(file: Path) -> str | None:
    """Of the file's bytes, of an Asylum pair those of both; None when they cannot be read."""
    try:
        blob = Blob(file)
        if NAMES.is_first_half(file.name) and (companion := NAMES.find_other(file)) is not None:
            return blob.sha256_with(Blob(companion))
        return blob.sha256
    except (Unfinished, Unreadable, OSError):
        return None


def listed(view: LedgerView, file: Path) -> tuple[list[int], list[str]]:
    """The decisions of this ledger that a table names, as `find` and `collect` write one; and the names of the others.

    A curve is known by its event, in another ledger than its own by its content. UserError 65 for no such table.
    """
    try:
        table = labeltable.read_csv(file.read_bytes())
        if not {"path", "curve", "event", "sha256"} <= set(table.columns):
            raise ValueError("no list of `find --csv`: it lacks the columns path, curve, event and sha256")
        rows = [(row, labeltable.read_index(row["curve"])) for _, row in table.rows]
    except OSError as error:
        raise UserError(BAD_DATA, f"{file}: {error.strerror}; give a list of `find --csv`") from None
    except ValueError as error:
        raise UserError(BAD_DATA, f"{file}: {error}") from None
    stream, last = view.stream, view.last_seq
    seqs: dict[int, None] = {}
    others: list[str] = []
    for row, curve in rows:
        its, _, number = row["event"].rpartition(":")
        is_ours = its == stream and number.isascii() and number.isdecimal() and len(number) < 19
        seq = int(number) if is_ours else None
        if seq is None and row["sha256"] and (there := view.decided(f"{row['sha256']}#{curve}")) is not None:
            seq = there.seq
        if seq is not None and 1 <= seq <= last:
            seqs[seq] = None
        else:
            others.append(name_of(row["path"], curve))
    return list(seqs), others


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
                return compact_copy_of(curve, profile, prepare_to_tell([curve], profile)[0])
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


_SHOWN = 3  # candidates
_SHARE_S = 2.0  # what a share gets to answer whether a file is there


def name_of(path: str, curve: int) -> str:
    """``run7/curve-0042.jpk-force#0``, fit for a terminal."""
    return clean(f"{path}#{curve}")


def readings_of(name: str) -> list[tuple[str, int | None]]:
    """What a name may mean, the likelier first: ``a#3`` is curve 3 of ``a``, or a file that is called ``a#3``."""
    match = NUMBERED.fullmatch(name)
    return [*([(match[1], int(match[2]))] if match else []), (name, None)]


@dataclass(frozen=True, slots=True)
class Subject:
    """The curve that somebody means."""

    path: str  # as events print it; of a file that nobody watches, as it was given
    curve: int
    folder: str | None = None  # the watched one that ``path`` is relative to
    sha256: str | None = None  # of the file, as it was decided last, else as it is
    seq: int | None = None  # of the last decision; None: it was never judged
    file: Path | None = None  # where it lies, or lay

    @property
    def name(self) -> str:
        return name_of(self.path, self.curve)

    @property
    def identity(self) -> tuple[str, int]:
        """That of a label on it."""
        return Label(self.path, self.curve, "unsure", "", "", sha256=self.sha256, folder=self.folder).identity

    @property
    def full_name(self) -> str:
        """With its folder: of one curve only."""
        return name_of(os.path.join(self.folder or "", self.path), self.curve)


class NoSuchCurve(UserError):
    """Nothing has this name (65)."""

    def __init__(self, why: str) -> None:
        super().__init__(BAD_DATA, why)


class Ambiguous(UserError):
    """The name may be that of several curves (64)."""

    def __init__(self, name: str, candidates: Sequence[str]) -> None:
        told = " or ".join(candidates[:_SHOWN])
        more = f" or {len(candidates) - _SHOWN} more" if len(candidates) > _SHOWN else ""
        super().__init__(USAGE, f"{clean(name)} may be {told}{more}: name one of them")


class CurveFinder:
    """Finds the curve of a name in the ledger, else among the files below ``watched`` and ``beside``.

    ``takes_first``: without a number, curve 0 is meant also of a file that has several.
    """

    def __init__(
        self,
        ledger: LedgerView | None,
        watched: Sequence[Path] = (),
        beside: Path = Path(),
        *,
        takes_first: bool = False,
    ) -> None:
        self._ledger, self._takes_first = ledger, takes_first
        self._watched = [os.path.abspath(folder) for folder in watched]
        self._beside = os.path.abspath(beside)
        self._mounts = mounts.Table.read()  # of one moment: a table of names is thousands of questions

    def find(self, name: str, curve: int | None = None) -> Subject:
        """The one curve of that name. Raises NoSuchCurve (65) and Ambiguous (64)."""
        readings = [(path, number) for path, number in readings_of(name) if None in (curve, number) or curve == number]
        for path, number in readings:
            wanted = curve if number is None else number
            if decided := self._decided(path, wanted):
                return self._beside_differs(name, self._one(name, decided, wanted))
        return self._on_disk(name, [(path, curve if number is None else number) for path, number in readings])

    def _decided(self, path: str, curve: int | None) -> list[Subject]:
        """The last decision on each curve that may be meant."""
        if self._ledger is None:
            return []
        found: dict[tuple[str, str, int], Named] = {}
        for folder, below in chain(self._places(path), self._places_of_before(path)):
            if found and folder is not None and folder not in self._watched:
                break
            for one in self._named(below, curve, folder):
                place = one.folder or folder or ""
                if not one.folder and folder and folder not in self._watched:
                    continue  # of before decisions told their folder, and this one may never have been watched
                key = (place, one.path, one.curve)
                if key not in found or found[key].seq < one.seq:
                    found[key] = one
        told = {(below, number) for folder, below, number in found if folder}
        return [
            Subject(
                path=one.path,
                curve=one.curve,
                folder=folder or None,
                sha256=one.sha256,
                seq=one.seq,
                file=self._place_of(folder, one.path),
            )
            for (folder, _, _), one in found.items()
            if folder or (one.path, one.curve) not in told  # a decision from before does not say of which it is
        ]

    def _named(self, path: str, curve: int | None, folder: str | None) -> list[Named]:
        """What the ledger calls so; of one whose names are still being noted at least what was flagged."""
        assert self._ledger is not None
        try:
            return self._ledger.named(path, curve, folder)
        except UserError as error:
            found = map(self._ledger.flagged, self._ledger.find_flagged(curve or 0, path=path))
            flagged = [Named(one.seq, "", one.path, one.curve, one.sha256, "review") for one in found if one]
            if error.exit_code != UNREACHABLE or not flagged:
                raise
            return flagged

    def _places(self, path: str) -> Iterator[tuple[str | None, str]]:
        """(folder, path below it) that a path may mean; folder None: any."""
        plain = event_path(path)
        if not _is_of_a_file(path):
            yield None, os.path.normpath(plain)
        elif path.startswith("/"):
            yield None, plain  # whoever sends curves may call them so
        for spelling in self._spellings(path):
            for folder in self._watched:
                if mounts.holds(folder, spelling) and spelling != folder:
                    yield folder, event_path(os.path.relpath(spelling, folder))

    def _places_of_before(self, path: str) -> Iterator[tuple[str, str]]:
        """The same for every folder that may have been watched once."""
        for spelling in self._spellings(path):
            parts = spelling.split("/")
            for depth in range(len(parts) - 1, 1, -1):
                folder = "/".join(parts[:depth])
                if folder not in self._watched:
                    yield folder, event_path("/".join(parts[depth:]))

    def _spellings(self, path: str) -> list[str]:
        """A path from the root on, as it is written and without links; a share is not touched."""
        whole = os.path.normpath(os.path.join(self._beside, path))
        return list(dict.fromkeys((whole, self._mounts.resolve(whole))))

    def _place_of(self, folder: str, path: str) -> Path | None:
        if folder:
            return Path(folder, path)
        return Path(self._watched[0], path) if len(self._watched) == 1 else None

    def _one(self, name: str, found: Sequence[Subject], curve: int | None) -> Subject:
        if len({one.folder for one in found}) > 1:
            raise Ambiguous(name, [one.full_name for one in found])
        if len(found) > 1 and not (curve is None and self._takes_first):
            raise Ambiguous(name, [one.name for one in found])
        return min(found, key=lambda one: one.curve)

    def _beside_differs(self, name: str, decided: Subject) -> Subject:
        """Refuse a name that is also that of another file, here."""
        path = next((path for path, _ in readings_of(name) if is_there(Path(self._beside, path))), None)
        if path is None or _is_of_a_file(path):
            return decided
        here = Path(self._beside, path)
        if decided.file is not None and os.path.abspath(decided.file) in self._spellings(path):
            return decided
        if any(mounts.holds(folder, str(here)) for folder in self._watched) or sha256_of(here) == decided.sha256:
            return decided
        raise Ambiguous(name, [decided.full_name, name_of(str(here), decided.curve)])

    def _on_disk(self, name: str, readings: Sequence[tuple[str, int | None]]) -> Subject:
        found: dict[str, Subject] = {}
        for path, number in readings:
            for folder, file in self._files(path):
                below = path if folder is None else event_path(os.path.relpath(file, folder))
                found.setdefault(str(file), Subject(below, number or 0, folder, file=file))
        if not found:
            if self._ledger is None:
                raise NoSuchCurve(
                    f"{clean(name)}: no such file, and no curve of that name, as there is no ledger to ask; name its "
                    "service with --config, or give the path of the file"
                )
            raise NoSuchCurve(
                f"{clean(name)}: no such file, and no curve of that name was judged; give it as events print it, or "
                "the path of its file"
            )
        subjects = [replace(one, sha256=sha256_of(one.file)) for one in found.values() if one.file is not None]
        if len({(one.sha256, one.curve) for one in subjects}) > 1:
            raise Ambiguous(name, [name_of(str(one.file), one.curve) for one in subjects])
        return self.of_content(subjects[0])

    def of_content(self, subject: Subject) -> Subject:
        """As events call the curve, should one of this content have been judged. Raises NoSuchCurve."""
        if self._ledger is None or subject.sha256 is None:
            return subject
        if (one := self._decided_content(subject.sha256, subject.curve)) is None:
            if self._ledger.is_decided(f"{subject.sha256}#0"):
                raise NoSuchCurve(f"{clean(subject.path)} has no curve {subject.curve}; curves count from 0")
            return subject
        return replace(subject, path=one.path, folder=one.folder or subject.folder, seq=one.seq)

    def _decided_content(self, sha256: str, curve: int) -> Named | None:
        assert self._ledger is not None
        if (one := self._ledger.decided(f"{sha256}#{curve}")) is not None:
            return one
        # What could not be read is known by its place too; only as a flagged curve it is found by its bytes.
        for seq in reversed(self._ledger.find_flagged(curve, sha256=sha256)):
            if (flagged := self._ledger.flagged(seq)) is not None:
                return Named(seq, "", flagged.path, flagged.curve, flagged.sha256, "review")
        return None

    def _files(self, path: str) -> Iterator[tuple[str | None, Path]]:
        """Files of that path that are there, with the watched folder that each lies in."""
        whole = os.path.normpath(os.path.join(self._beside, path))
        if is_there(Path(whole)):
            yield next((folder for folder in self._watched if mounts.holds(folder, whole)), None), Path(whole)
        if _is_of_a_file(path):
            return
        for folder in self._watched:
            for file in _spelt(Path(folder), os.path.normpath(path)):
                if str(file) != whole and is_there(file):
                    yield folder, file


def _is_of_a_file(path: str) -> bool:
    return path.startswith(("/", "./", "../"))


def is_there(file: Path) -> bool:
    """Whether it is there; False where its share does not answer."""
    if mounts.mount_of(file).is_network:
        with suppress(apart.Silent):
            (found,) = apart.ask("stat", file, limit_s=_SHARE_S)
            return not isinstance(found, OSError) and stat.S_ISREG(found.st_mode)
        return False
    return file.is_file()


def _spelt(folder: Path, path: str) -> Iterator[Path]:
    """The file of a path as events print it: bytes of a name that are not UTF-8 stand there as a question mark."""
    yield folder / path
    if "\ufffd" not in path or mounts.mount_of(folder).is_network:
        return
    head, tail = os.path.split(path)
    for parent in _spelt(folder, head) if head else [folder]:
        with suppress(OSError):
            yield from (parent / entry for entry in os.listdir(parent) if entry != tail and event_path(entry) == tail)
