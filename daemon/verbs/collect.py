"""`collect`: hands curves over, the kept ones unless others are named: as a table, copies, links or an archive.

`--since` and `--until` are of the acquisition, in this computer's time. Nothing of the instrument's is moved, changed
or locked, and nothing is written into a watched folder. The same command again adds what is new.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from daemon.common.ending import Closing
from daemon.common.errors import USAGE, UserError, need_folder
from daemon.common.options import Option
from daemon.common.text import clean, many
from daemon.config import Config, Flags, Keys, load
from daemon.judging import Verdict
from daemon.labels import Labels, Word
from daemon.labels.curve_name import listed, name_of
from daemon.ledger.span import WHEN, Span
from models.clock import since_1970

if TYPE_CHECKING:
    from daemon.collect import Chosen, Content, Contents, Wanted
    from daemon.ledger.view import LedgerView
    from models.curve import Curve

_SHOWN = 3  # names in a line
_AHEAD_S = 60.0  # clocks of one laboratory agree so well
_FATES: Mapping[str, str] = {
    "gone": "the file is gone",
    "changed": "the file holds something else by now",
    "sent": "it was sent by a program and never was a file",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    verdict: Annotated[
        tuple[Verdict, ...], Option("curves of this verdict; repeatable", unless="keep, and with --label none")
    ] = ()
    label: Annotated[
        tuple[Word, ...],
        Option("curves that people call so; repeatable. Then a person's word counts before the verdict"),
    ] = ()
    since: Annotated[str | None, Option(f"measured since {WHEN}", "WHEN")] = None
    until: Annotated[str | None, Option("measured until; a day counts to its end", "WHEN")] = None
    min_score: Annotated[float | None, Option("with this score at least", "S")] = None
    session: Annotated[str | None, Option("of this session: its number, current or last", "N")] = None
    found: Annotated[
        Path | None, Option("the curves of this list alone, as `find --csv` writes it, of every verdict", "FILE")
    ] = None
    csv: Annotated[Path | None, Option("into a table, one row a curve", "FILE")] = None
    copy: Annotated[Path | None, Option("into a folder, as copies of the files, with the table", "DIR")] = None
    link: Annotated[Path | None, Option("into a folder, as links to the files, with the table", "DIR")] = None
    archive: Annotated[Path | None, Option("into one file, which score reads", "FILE.h5")] = None
    decimal: Annotated[
        Literal["point", "comma"] | None, Option("of the table: comma is for Excel in German, French and others")
    ] = None
    spring_constant: Annotated[
        float | None, Option("N/m, for the forces in the table of curves whose files say none", "K")
    ] = None
    dry_run: Annotated[bool, Option("say what would be handed over, and write nothing")] = False
    service: Annotated[Flags, Keys("state", "instrument")]

    @property
    def targets(self) -> dict[str, Path | None]:
        """By option."""
        return {"--csv": self.csv, "--copy": self.copy, "--link": self.link, "--archive": self.archive}


def run(options: Options) -> int:
    """Exit 0, also where there was nothing; 64 for a target that cannot be, 69 without a ledger, 74 for a disk."""
    from daemon.client.folders import refuse_watched, standings, watched_folders
    from daemon.collect import Contents, Wanted, session_of
    from daemon.ledger.view import LedgerView

    span = Span.parse(options.since, options.until)
    _check(options)
    config = load(options.service)
    with ExitStack() as closing:
        view = closing.enter_context(LedgerView(config.ledger_file))
        has_labels = (config.state / "labels.sqlite").is_file()
        labels = closing.enter_context(Labels(config.state / "labels.sqlite")) if has_labels else None
        session = None if options.session is None else session_of(labels, options.session)
        verdicts: tuple[Verdict, ...] = options.verdict or (() if options.label else ("keep",))
        seqs, others = (None, []) if options.found is None else listed(view, options.found)
        wanted = Wanted(verdicts, options.label, span, options.min_score, session, seqs)
        refuse_watched(options.targets, config, trees=("--copy", "--link"))
        watched = watched_folders(config)
        targets = closing.enter_context(_Targets(options))
        silent = [folder for folder, standing in standings(watched).items() if standing == "silent"]
        for folder in silent:
            _complain(f"{folder} does not answer; of its curves the ledger's copies are handed over")
        told = _hand_over(config, view, labels, wanted, targets, Contents(view, watched, silent))
        _tell(options, wanted, targets, told)
        for line in _remarks(view, wanted, targets, told):
            _complain(line)
        if others:
            where = f"give the same command on its computer, or with its --state: {_some(others)}"
            some = f"{many(len(others), 'curve')} of {options.found}"
            _complain(f"{some} left out, of another instrument or ledger; {where}")
    return 0


def _check(options: Options) -> None:
    if not any(options.targets.values()):
        raise UserError(USAGE, "say where to: --csv FILE, --copy DIR, --link DIR or --archive FILE.h5")
    choosing = ("verdict", "label", "since", "until", "min_score", "session")
    if options.found is not None and (also := next((one for one in choosing if getattr(options, one)), None)):
        raise UserError(USAGE, f"--found names the curves: leave out --{also.replace('_', '-')}")
    if options.copy is not None and options.copy == options.link:
        raise UserError(USAGE, "--copy and --link need a folder each")
    for folder in (options.copy, options.link):
        if (
            folder is not None
            and options.csv is not None
            and options.csv.absolute() == folder.absolute() / "curves.csv"
        ):
            raise UserError(USAGE, f"--csv {options.csv}: this table is written with the folder; leave --csv away")
    if options.min_score is not None and not 0.0 <= options.min_score <= 1.0:
        raise UserError(USAGE, f"--min-score {options.min_score:g}: scores are from 0 to 1")
    if options.spring_constant is not None and not 1e-4 <= options.spring_constant <= 1e3:
        raise UserError(USAGE, f"--spring-constant {options.spring_constant:g}: it is in N/m, like 0.06")
    for option in ("csv", "archive"):
        if (file := getattr(options, option)) is not None:
            need_folder(f"--{option}", file)
            if file.is_dir():
                raise UserError(USAGE, f"--{option} {file}: is a folder; name a file in it")


@dataclass(slots=True)
class _Told:
    """What came of it. Names of curves, by what became of the file that was not handed over."""

    chosen: int = 0
    new: Counter[str] = field(default_factory=Counter)  # by target
    already: Counter[str] = field(default_factory=Counter)
    taken_out: Counter[str] = field(default_factory=Counter)  # of those: by a person, of a folder
    copied: dict[str, list[str]] = field(default_factory=dict)
    gone: dict[str, list[str]] = field(default_factory=dict)
    not_placed: list[str] = field(default_factory=list)
    ahead: int = 0  # dated after they were judged


class _Targets(Closing):
    """Everything that curves are handed over to, each under the name that it was given."""

    def __init__(self, options: Options) -> None:
        from daemon.collect import Table
        from daemon.collect.copies import CurveArchive, CurveFolder, How

        self.is_dry, self._spring_constant = options.dry_run, options.spring_constant
        with ExitStack() as closing:
            self.folders: dict[str, CurveFolder] = {}
            ways: Sequence[tuple[Path | None, How]] = ((options.copy, "copy"), (options.link, "link"))
            for folder, how in ways:
                if folder is not None:
                    target = CurveFolder(folder, how, options.decimal, is_dry=options.dry_run)
                    self.folders[str(folder)] = closing.enter_context(target)
            self.tables = {} if options.csv is None else {str(options.csv): Table(options.csv, options.decimal)}
            self.archives = {
                str(file): closing.enter_context(CurveArchive(file)) for file in (options.archive,) if file is not None
            }
            self._closing = closing.pop_all()

    def close(self) -> None:
        self._closing.close()

    @property
    def names(self) -> list[str]:
        """As they were given."""
        return [*self.tables, *self.folders, *self.archives]

    def without(self, one: Chosen, told: _Told) -> bool:
        """Whether any of them has not got it yet; each that has is counted."""
        has = {name: one.identity in folder.table.known for name, folder in self.folders.items()}
        told.taken_out.update(name for name, folder in self.folders.items() if folder.is_taken_out(one))
        has |= {name: one.identity in table.known for name, table in self.tables.items()}
        has |= {name: archive.has(one) for name, archive in self.archives.items()}
        told.already.update(name for name, is_there in has.items() if is_there)
        return not all(has.values())

    def take(self, one: Chosen, content: Content, curve: Curve | None, told: _Told) -> None:
        """Into each that has not got it. Raises UserError 74."""
        from daemon.collect import cells_of, ruptures_of, with_spring
        from daemon.collect.copies import NotPlaced

        found = None if self.is_dry or curve is None else ruptures_of(with_spring(curve, self._spring_constant))
        place = ""
        for target, folder in self.folders.items():
            if one.identity in folder.table.known or content.kind == "gone":
                continue
            try:
                name = folder.place(one, content)
            except NotPlaced as error:
                told.not_placed.append(f"{_name(one)} ({error})")
                continue
            folder.table.add(one, cells_of(one, found, content.kind, name))
            place = place or str((folder.folder / name).absolute())
            told.new[target] += 1
        place = place or ("" if content.file is None else str(content.file.absolute()))
        for target, table in self.tables.items():
            if one.identity not in table.known:
                table.add(one, cells_of(one, found, content.kind, place))
                told.new[target] += 1
        for target, archive in self.archives.items():
            if not archive.has(one) and content.kind != "gone" and (curve is not None or self.is_dry):
                if curve is not None:
                    archive.add(one, curve)
                told.new[target] += 1

    def save_archives(self) -> None:
        """Whole, or not at all. Raises UserError 74."""
        for archive in self.archives.values():
            archive.save()

    def save_tables(self) -> None:
        """Also of what came before a disk was full: what lies in a folder is in its table."""
        if not self.is_dry:
            for table in self.tables.values():
                table.save()
            for folder in self.folders.values():
                folder.save_table()


def _hand_over(
    config: Config, view: LedgerView, labels: Labels | None, wanted: Wanted, targets: _Targets, contents: Contents
) -> _Told:
    from daemon.collect import choose, read
    from daemon.common.stdio import progress

    told = _Told()

    def fresh() -> Iterator[tuple[Chosen, Content]]:
        for one in progress(choose(view, labels, wanted), "looking for the curves"):
            told.chosen += 1
            told.ahead += _is_ahead(one)
            if not targets.without(one, told):
                continue
            content = contents.of(one)
            if content.kind != "file":
                by_fate = told.gone if content.kind == "gone" else told.copied
                by_fate.setdefault(content.fate, []).append(_name(one))
            yield one, content

    found = ((*one, None) for one in fresh()) if targets.is_dry else read(fresh(), config.text)
    try:
        for one, content, curve in progress(found, "handing over"):
            targets.take(one, content, curve, told)
        targets.save_archives()
    finally:
        targets.save_tables()
    return told


def _is_ahead(one: Chosen) -> bool:
    """Whether it is dated after it was judged."""
    acquired = one.data.get("acquired")
    if not acquired:
        return False
    judged, measured = (since_1970(text) for text in (one.event["time"], acquired))
    return measured > judged + _AHEAD_S


def _tell(options: Options, wanted: Wanted, targets: _Targets, told: _Told) -> None:
    """A line a target; on standard error where the table goes to standard output."""
    out = sys.stderr if options.csv is not None and options.csv.exists() and not options.csv.is_file() else sys.stdout
    new = "would be new" if options.dry_run else "new"
    for target in targets.names:
        taken = told.taken_out[target]
        out_again = f", {taken:,} of them taken out of the folder since" if taken else ""
        line = f"{target}: {told.new[target]:,} {new}, {told.already[target]:,} there already{out_again}"
        print(clean(line), file=out)
    if not told.chosen:
        none = f"no curve that is wanted, {wanted.span.text}"
        print(clean(none if options.found is None else f"{options.found} names no curve of this ledger"), file=out)


def _remarks(view: LedgerView, wanted: Wanted, targets: _Targets, told: _Told) -> Iterator[str]:
    """What is not as one would think, a line each."""
    from daemon.ledger.span import dated_before

    for fate, names in told.copied.items():
        yield f"{_FATES[fate]}: the ledger's compact copy was handed over of {_some(names)}"
    for fate, names in told.gone.items():
        yield f"{_FATES[fate]}, and the ledger has no copy: {_some(names)}"
    if told.not_placed:
        yield f"not handed over: {_some(told.not_placed)}"
    for folder in targets.folders.values():
        if folder.clashes:
            yield f"two files have one name, nothing was replaced: {_some(folder.clashes)}"
    if told.ahead:
        yield f"{many(told.ahead, 'curve')} dated after being judged: the clock of the instrument is ahead of this one"
    if wanted.span.after > view.last_seq:
        yield f"the last decision is {view.last_seq:,}, none is behind {wanted.span.after}; a day is written 2026-11-27"
    if wanted.session is not None and wanted.session.ended is None:
        yield f"session {wanted.session.number} has not ended: its curves until now"
    asked = wanted.span, wanted.verdicts, wanted.min_score
    if (before := dated_before(view.since, view.count_within, view.last_seq, *asked)) is not None:
        count, seq = before
        what = f"{many(count, 'more curve')} judged in that time, dated before it"
        yield f"{what} (an older folder, or a clock that was set back): --since {seq} has them too"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _name(one: Chosen) -> str:
    return name_of(one.data["path"], one.data["curve"])


def _complain(line: str) -> None:
    print(clean(f"afm-triage: {line}"), file=sys.stderr)
