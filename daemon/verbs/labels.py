"""`labels`: add one or take it back, import a table, export them all, see where raters disagree."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from daemon.client.folders import refuse_watched, standings, watched_folders
from daemon.common.errors import BAD_DATA, INPUT_OUTPUT, UNREACHABLE, USAGE, UserError
from daemon.common.options import Action, Actions, Option
from daemon.common.stdio import progress, write_bytes
from daemon.common.text import clean, many
from daemon.config import Config, Flags, Keys, load
from daemon.formats import limits
from daemon.labels import Label, Labels, Word, raters, read_word
from daemon.labels import table as labeltable
from daemon.labels.curve_name import Ambiguous, CurveFinder, NoSuchCurve, Subject, name_of, readings_of, write_folder
from daemon.labels.sessions import Sessions
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import decode
from models.clock import utc_now
from models.files import write_whole

_SHOWN = 3  # rows of a table that name no judged curve


_NAME = "the curve as events and status name it, or a file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Add:
    file: Annotated[str, Option(_NAME, "FILE", is_positional=True)]
    label: Annotated[str, Option("keep, discard or unsure", "LABEL", is_positional=True)]
    curve: Annotated[int | None, Option("which curve of a file with several", "I")] = None
    rater: Annotated[str, Option("who says so", "R")]
    reason: Annotated[str, Option("why", "TEXT")] = ""
    service: Annotated[Flags, Keys("state", "instrument")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    file: Annotated[str, Option(_NAME, "FILE", is_positional=True)]
    curve: Annotated[int | None, Option("which curve of a file with several", "I")] = None
    rater: Annotated[str | None, Option("whose label", "R", unless="the only rater's")] = None
    reason: Annotated[str, Option("why", "TEXT")] = ""
    by: Annotated[str | None, Option("who takes it back", "WHO", unless="the rater")] = None
    undo: Annotated[bool, Option("the label holds again")] = False
    service: Annotated[Flags, Keys("state", "instrument")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    file: Annotated[Path, Option("", "FILE.csv", is_positional=True)]
    rater: Annotated[str | None, Option("for rows that name none", "R")] = None
    service: Annotated[Flags, Keys("state", "instrument")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    out: Annotated[Path | None, Option("where to", "FILE.csv", unless="standard output")] = None
    curves: Annotated[Path | None, Option("the labelled curves too, as a folder to train on", "DIR")] = None
    service: Annotated[Flags, Keys("state", "instrument")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagree:
    service: Annotated[Flags, Keys("state", "instrument")]


_ACTIONS = {
    "add": Action(Add, "say what a curve is"),
    "remove": Action(Remove, "take a label back, or with --undo its removal"),
    "import": Action(Import, "take labels from a CSV file"),
    "export": Action(Export, "write labels as CSV"),
    "disagree": Action(Disagree, "curves on which raters say different things, and how far they agree (kappa)"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    action: Annotated[Add | Remove | Import | Export | Disagree, Actions(_ACTIONS)]


def run(options: Options) -> int:
    """Exit 0; 64 for a name that may be two curves, 65 for one of none, also where no row of a table names one."""
    action = options.action
    config = load(action.service)
    with ExitStack() as closing:
        labels = closing.enter_context(Labels(config.state / "labels.sqlite"))
        file = config.ledger_file
        ledger = closing.enter_context(LedgerView(file)) if file.exists() else None
        if isinstance(action, Add):
            return _add(action, config, labels, ledger)
        if isinstance(action, Remove):
            return _remove(action, config, labels, ledger)
        if isinstance(action, Import):
            return _import(action, config, labels, ledger)
        if isinstance(action, Disagree):
            return _disagree(labels)
        return _export(action, config, labels, ledger)


def _add(asked: Add, config: Config, labels: Labels, ledger: LedgerView | None) -> int:
    if not asked.rater.strip():
        raise UserError(USAGE, "--rater must name somebody")
    try:
        word = read_word(asked.label)
    except ValueError as error:
        raise UserError(USAGE, str(error)) from None
    subject = CurveFinder(ledger, watched_folders(config)).find(asked.file, _number(asked.curve))
    label = _decided(
        _label_of(subject, word, asked.rater.strip(), utc_now(), asked.reason), subject.seq, ledger, labels
    )
    labels.say([label])
    print(clean(f"{subject.name}: {label.label} ({label.rater})"))
    if word == "keep":
        _see_to_the_cut(config)
    return 0


def _see_to_the_cut(config: Config) -> None:
    """A cut that discards what has just been confirmed goes back at once. Nothing is loaded where none was moved."""
    if not (config.state / "models").is_dir():
        return
    from daemon.learn.adaptation import audit

    if (taken := audit(config, by="labels")) is not None:
        print(clean(taken.text))


def _number(curve: int | None) -> int | None:
    if curve is not None and not 0 <= curve < limits.CURVES:
        raise UserError(USAGE, "--curve counts from 0")
    return curve


def _label_of(subject: Subject, word: Word, rater: str, time: str, reason: str) -> Label:
    if subject.seq is None and subject.sha256 is None:
        raise UserError(BAD_DATA, f"{subject.name}: cannot be read, and was never judged; nothing to hold a label")
    return Label(subject.path, subject.curve, word, rater, time, reason, subject.sha256, folder=subject.folder)


def _decided(label: Label, seq: int | None, ledger: LedgerView | None, labels: Labels) -> Label:
    """The same with what was decided on its curve, where anything was, whatever decision its row names."""
    if ledger is None or seq is None:
        return label
    if label.seq is not None and (label.seq == seq or label.stream != ledger.stream):
        return label
    session = Sessions(labels).of(seq)
    event = next((decode(row.body) for row in ledger.since(seq - 1, 1) if row.seq == seq), None)
    return label if event is None else label.on(event, session.number if session else None)


def _remove(asked: Remove, config: Config, labels: Labels, ledger: LedgerView | None) -> int:
    curve = _number(asked.curve)
    finder = CurveFinder(ledger, watched_folders(config))
    try:
        identity, name = (subject := finder.find(asked.file, curve)).identity, subject.name
    except NoSuchCurve:  # labels of before may be of curves that this ledger does not know
        readings = [(path, curve or number or 0) for path, number in readings_of(asked.file)]
        known = [one for one in labels.history() if (one.path, one.curve) in readings]
        if not known:
            raise
        identity, name = known[-1].identity, name_of(known[-1].path, known[-1].curve)
    if asked.undo:
        back = labels.undo_removal(identity, asked.rater, time=utc_now())
        if not back:
            raise UserError(BAD_DATA, f"{name}: no label{_whose(asked.rater)} was removed, so none can be put back")
        for label in back:
            print(clean(f"{name}: {label.label} ({label.rater}) holds again"))
        return 0
    holding = [one for one in labels.current() if one.identity == identity and asked.rater in (None, one.rater)]
    if not holding:
        raise UserError(BAD_DATA, f"{name}: has no label{_whose(asked.rater)}")
    if len(holding) > 1:
        whose = " or ".join(one.rater for one in holding)
        raise UserError(USAGE, clean(f"{name}: name one of its raters, --rater {whose}"))
    labels.remove(holding, by=(asked.by or holding[0].rater).strip(), reason=asked.reason, time=utc_now())
    print(clean(f"{name}: {holding[0].label} ({holding[0].rater}) removed"))
    return 0


def _whose(rater: str | None) -> str:
    return "" if rater is None else f" of {clean(rater)}'s"


def _import(asked: Import, config: Config, labels: Labels, ledger: LedgerView | None) -> int:
    rows = labeltable.read(asked.file, now_s=time.time(), rater=asked.rater)
    finder = CurveFinder(ledger, watched_folders(config), asked.file.absolute().parent, takes_first=True)
    holding = {(one.identity, one.rater): one for one in labels.current()}
    found: list[Label] = []
    unknown: list[str] = []
    repeated = 0
    for row in progress(rows, "looking up", len(rows)):
        try:
            label, seq = _judged(row.label, finder, ledger)
        except (NoSuchCurve, Ambiguous) as error:
            unknown.append(f"row {row.number} ({error})" if isinstance(error, Ambiguous) else _named(row))
            continue
        held = holding.get((label.identity, label.rater))
        if held is not None and not row.is_dated and (held.label, held.reason) == (label.label, label.reason):
            repeated += 1
        else:
            found.append(_decided(label, seq, ledger, labels))
    if unknown and not found and not repeated:
        raise UserError(BAD_DATA, f"{asked.file}: {_untold(unknown, len(rows))}; nothing was imported")
    added = labels.add(found)
    print(f"{added} labels imported, {len(found) - added + repeated} were known")
    if unknown:
        print(f"afm-triage: {asked.file}: {_untold(unknown, len(rows))}; these were not imported", file=sys.stderr)
    return 0


def _judged(label: Label, finder: CurveFinder, ledger: LedgerView | None) -> tuple[Label, int | None]:
    """The label of a row on the judged curve that it names, and its decision. Raises NoSuchCurve and Ambiguous."""
    if label.sha256 is not None:
        subject = Subject(label.path, label.curve, sha256=label.sha256)
        seq = None if ledger is None else finder.of_content(subject).seq
        if ledger is not None and seq is None:
            raise NoSuchCurve("not judged")
        return label, seq
    name = label.path if label.folder is None else f"{label.folder}/{label.path}"
    subject = finder.find(name, label.curve or None)
    if subject.seq is None:
        raise NoSuchCurve("not judged")
    label = replace(
        label, path=subject.path, curve=subject.curve, sha256=subject.sha256, folder=subject.folder or label.folder
    )
    return label, subject.seq


def _named(row: labeltable.LabelRow) -> str:
    return f"row {row.number} ({name_of(row.label.path, row.label.curve)})"


def _untold(unknown: Sequence[str], count: int) -> str:
    rows = "row names" if count == 1 else "rows name"
    more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    return clean(f"{len(unknown)} of {count} {rows} no judged curve: {', '.join(unknown[:_SHOWN])}{more}")


def _disagree(labels: Labels) -> int:
    found, shared, who = 0, 0, dict[str, None]()
    for group in labeltable.by_curve(labels.current()).values():
        who |= dict.fromkeys(one.rater for one in group)
        shared += len(group) > 1
        if len({one.label for one in group}) > 1:
            found += 1
            said = ", ".join(f"{one.label} ({one.rater})" for one in group)
            print(clean(f"{name_of(group[0].path, group[0].curve)}: {said}"))
    for one in raters.agreements(labels.current()):
        print(one.words())
    if (bar := raters.bar(labels)).blocks:
        print(bar.text)
    if not found:
        print(clean(_agreed(list(who), shared)), file=sys.stderr)
    return 0


def _agreed(who: Sequence[str], shared: int) -> str:
    """Why there is nothing to show."""
    if not who:
        return "nobody has labelled a curve yet"
    if len(who) == 1:
        return f"only {who[0]} has labelled curves: there is nobody to disagree with"
    if not shared:
        return "no curve has labels of two raters yet"
    return f"no disagreement on {many(shared, 'curve')} that several raters have labelled"


def _export(asked: Export, config: Config, labels: Labels, ledger: LedgerView | None) -> int:
    refuse_watched({"--out": asked.out, "--curves": asked.curves}, config)
    current = list(labels.current())
    if asked.curves is not None:
        if ledger is None:
            raise UserError(UNREACHABLE, "no ledger in the state folder, and so no curves: give --state or --config")
        watched = watched_folders(config)
        silent = [folder for folder, standing in standings(watched).items() if standing == "silent"]
        for folder in silent:
            print(clean(f"{folder} does not answer; looked no further for its files"), file=sys.stderr)
        rows = progress(current, "copying", len(current))
        written, missing = write_folder(rows, ledger, asked.curves, watched, silent)
        without = f"; no copy of {missing}: none in the ledger, and the file is gone or changed" if missing else ""
        print(f"{written} curves and labels.csv in {asked.curves}{without}", file=sys.stderr)
        if asked.out is None:
            return 0
    table = io.StringIO()
    labeltable.write(current, table)
    if asked.out is None:
        write_bytes(table.getvalue().encode())
        return 0
    try:
        write_whole(asked.out, table.getvalue().encode())
    except OSError as error:
        raise UserError(INPUT_OUTPUT, f"{asked.out}: {error.strerror}; choose another --out") from None
    print(f"{len(current)} labels in {asked.out}", file=sys.stderr)
    return 0
