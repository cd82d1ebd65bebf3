"""`score`: the same stages on files, folders or an archive, once, without service or ledger."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from daemon.blocks import PATIENCE_S
from daemon.client.folders import refuse_watched, wait_for_shares
from daemon.common.errors import BAD_DATA, INPUT_OUTPUT, USAGE, UserError, grouped, need_folder
from daemon.common.options import Group, Option
from daemon.common.text import clean, page
from daemon.config import engine_cache
from daemon.formats.text_rule import TextRule
from daemon.judging.judge import Asked, JudgeOptions
from daemon.labels.table import HELP, Selection, read_selection
from daemon.sources import words
from daemon.tables import need
from deploy.classifier import EngineRequest
from deploy.engines import DEVICES, NAMES, PRECISIONS

if TYPE_CHECKING:
    from daemon.batch import VerdictCounts
    from daemon.batch.output import ResumableOutput
    from daemon.blocks.cluster import Cluster
    from daemon.blocks.node import Ready
    from daemon.judging import Judge
    from daemon.reading import Reading
    from daemon.reading.ahead import Found
    from deploy.serving import Model


_FORM = Group("what is written", is_choice=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    paths: Annotated[
        tuple[Path, ...],
        Option("files and folders, curves as events name them, or archives of `pack`", "PATH", is_positional=True),
    ]
    json: Annotated[bool, Option("one JSON object a line, the fields of an event's data", group=_FORM)] = False
    summary: Annotated[bool, Option("only how many curves got which verdict", group=_FORM)] = False
    out: Annotated[
        Path | None,
        Option("JSON lines into FILE; the same command goes on where it was ended", "FILE", group=_FORM),
    ] = None
    fresh: Annotated[bool, Option("with --out: forget what FILE holds")] = False
    cluster: Annotated[
        str | None,
        Option("have a Ray cluster judge; local starts one here; --out then names a folder of tables", "HOST:PORT"),
    ] = None
    patience: Annotated[float, Option("with --cluster: seconds that a node may say nothing", "S")] = PATIENCE_S
    judging: JudgeOptions
    device: Annotated[str, Option("where it runs", choices=DEVICES)] = "auto"
    engine: Annotated[str, Option("what runs it", choices=NAMES, unless="auto: the best there is")] = "auto"
    precision: Annotated[str, Option("it computes in", choices=PRECISIONS)] = "auto"
    only: Annotated[str | None, Option(HELP, "LIST")] = None
    require_certificate: Annotated[
        bool, Option("as the service with this switch: without a certificate a would-be discard is review")
    ] = False


def run(options: Options) -> int:
    """Exit 0 when every file was answered, 74 when a folder could not be listed.

    65 when there was nothing to score or a curve of ``--only`` was not found; the others are scored all the same.
    """
    options, names = _without_names(options)
    is_packed = _check(options, names)
    if options.cluster is not None:
        return _score_on_cluster(options, options.cluster, is_packed=is_packed)
    from daemon.batch import VerdictCounts
    from daemon.batch.output import ResumableOutput
    from daemon.judging.judge import load_asked, release

    selection = None if options.only is None else read_selection(options.only)
    asked = Asked.of(options.judging, require_certificate=options.require_certificate)
    wish = EngineRequest(options.device, options.engine, options.precision, cache=engine_cache())
    model, judge, passed_over = load_asked(asked, wish)
    if passed_over:
        print(f"afm-triage: {clean(passed_over)}", file=sys.stderr)
    with ExitStack() as stack:
        stack.callback(release, model)
        sheet = stack.enter_context(ResumableOutput(options.out, fresh=options.fresh)) if options.out else None
        tally = VerdictCounts()
        if names:
            _score_named(options, names, model, judge, tally)
        if is_packed:
            _score_archives(options, model, judge, sheet, tally)
        elif options.paths:
            _score_files(options, model, judge, selection, sheet, tally, asked.text)
    _sum_up(options, tally, str(model.engine))
    return 0


def _sum_up(options: Options, tally: VerdictCounts, engine: str) -> None:
    if options.summary:
        print(tally.summary())
    sys.stdout.flush()
    if options.out or options.summary or sys.stderr.isatty():
        print(tally.report(engine), file=sys.stderr)
    for line in tally.sentinel.summary():
        print(f"afm-triage: {line}", file=sys.stderr)
    if tally.ignored.total and options.only is None:
        print(f"ignored: {words(tally.ignored.kinds)}", file=sys.stderr)


def _without_names(options: Options) -> tuple[Options, list[Reading]]:
    """The files, folders and archives apart from the curves that are named otherwise: ``map.jpk-qi-data#3``.

    Such a name is looked up as `explain` and `labels` do, also in the ledger. UserError where it is none.
    """
    wait_for_shares(options.paths)
    there = tuple(path for path in options.paths if path.exists())
    if len(there) == len(options.paths):
        return options, []
    from daemon.explain import look_up

    service, rules = options.judging.service(), Asked.of(options.judging).text
    names = [str(path) for path in options.paths if path not in there]
    return replace(options, paths=there), [look_up(name, None, service, rules)[1] for name in names]


def _check(options: Options, names: Sequence[Reading]) -> bool:
    """Whether archives are to be scored."""
    from daemon.archive import is_archive

    if names and (options.out or options.only is not None):
        raise UserError(USAGE, "a curve by its name goes with neither --out nor --only; name its file")
    packed = [path for path in options.paths if is_archive(path)]
    if packed and len(packed) < len(options.paths):
        raise UserError(USAGE, f"{packed[0]}: an archive; score archives and files in two runs")
    if packed and options.only is not None:
        raise UserError(USAGE, f"--only: is for files, and {packed[0]} is an archive")
    if options.out and options.only is not None:
        raise UserError(USAGE, "--out and --only do not go together; use --json > FILE")
    if options.fresh and not options.out:
        raise UserError(USAGE, "--fresh goes with --out FILE")
    if options.cluster is not None and (names or options.only is not None):
        raise UserError(USAGE, "--cluster takes files, folders and archives, neither --only nor a curve by its name")
    if options.cluster is not None and not options.out and not options.summary:
        raise UserError(USAGE, "--cluster goes with --out DIR, the folder of its tables, or with --summary")
    if not options.patience > 0:
        raise UserError(USAGE, f"--patience {options.patience:g}: give seconds above 0")
    if options.out:
        need_folder("--out", options.out)
        named = options.judging.config is not None or options.judging.state is not None
        refuse_watched({"--out": options.out}, options.judging.service() if named else None)
    return bool(packed)


def _score_named(
    options: Options, readings: Sequence[Reading], model: Model, judge: Judge, tally: VerdictCounts
) -> None:
    """Curves that are read already."""
    from daemon.batch import Judged
    from daemon.batch.output import tell
    from daemon.judging import classify, decide

    decisions = decide(readings, classify(readings, model, judge.thresholds), judge)
    judged = [Judged(one, 1, None, reading.format) for one, reading in zip(decisions, readings, strict=True)]
    tell([judged], tally, json=options.json, quiet=options.summary)


def _score_files(
    options: Options,
    model: Model,
    judge: Judge,
    selection: Selection | None,
    sheet: ResumableOutput | None,
    tally: VerdictCounts,
    rules: Sequence[TextRule],
) -> None:
    from daemon.batch import score_jobs
    from daemon.batch.output import Earlier, note, tell
    from daemon.reading.ahead import Job, find

    found = find(options.paths)
    wanted = (arrival for arrival in found if selection is None or selection.has_file(arrival.path, arrival.file))
    if sheet is None or options.out is None:
        batches = score_jobs(map(Job, wanted), model, judge, selection, tally.ignored, rules)
        tell(batches, tally, json=options.json, quiet=options.summary)
    else:
        earlier = Earlier(sheet.lines(judge))
        if strangers := earlier.strangers(found):
            _say_missing(found, selection)  # what is missed may lie in a folder that could not be listed
            sheet.refuse_strangers(strangers)
        others = (arrival for arrival in wanted if arrival.file.absolute() != options.out.absolute())
        note(score_jobs(map(earlier.job, others), model, judge, None, tally.ignored, rules), tally, sheet)
        tally.kept = earlier.kept
    tally.ignored.add(found.ignored)
    if found.link is not None:
        print(f"links to folders are not followed, the first is {clean(str(found.link))}", file=sys.stderr)
    _say_missing(found, selection)
    if not tally.curves + tally.kept:
        among = f" ({told})" if (told := words(tally.ignored.kinds)) else ""
        raise UserError(BAD_DATA, f"no force curve found{among}; which are read: {page('files')}")


def _score_on_cluster(options: Options, address: str, *, is_packed: bool) -> int:
    """Exit 74 or 65 for what could not be judged; the rest is."""
    need("score --cluster", "cluster", "ray", "pyarrow")
    from daemon.batch import VerdictCounts
    from daemon.blocks.cluster import Cluster
    from daemon.blocks.node import Connection, Settings
    from daemon.common.stdio import say
    from daemon.judging.judge import find_asked

    asked = Asked.of(options.judging, require_certificate=options.require_certificate)
    folder, passed_over = find_asked(asked)
    if passed_over:
        say(passed_over)
    ours = asked.config.thresholds
    settings = Settings(
        options.device,
        options.engine,
        options.precision,
        ours.discard,
        ours.keep,
        asked.config.require_certificate,
        tuple(asdict(rule) for rule in asked.text),
    )
    with Connection(address):
        cluster = Cluster(settings, say, options.patience)
        ready = cluster.begin(folder, options.paths)
        tally = VerdictCounts()
        _judge_on_cluster(options, cluster, ready, tally, is_packed=is_packed)
    if len(cluster.engines) > 1:
        say(f"nodes judge by different engines, as each row says: {', '.join(sorted(cluster.engines))}")
    _sum_up(options, tally, ", ".join(sorted(cluster.engines)))
    if cluster.troubles:
        *_, (text, code) = sorted(cluster.troubles.items(), key=lambda one: one[1])
        more = f" (and {len(cluster.troubles) - 1} more)" if len(cluster.troubles) > 1 else ""
        raise UserError(code, f"not everything was judged: {text}{more}; the same command tries it again")
    return 0


def _judge_on_cluster(
    options: Options, cluster: Cluster, ready: Ready, tally: VerdictCounts, *, is_packed: bool
) -> None:
    from daemon.archive import Archive, start_workers
    from daemon.batch.output import made_of, opinion_of
    from daemon.blocks import cut, cut_archives, row_of
    from daemon.blocks.output import TableOutput
    from daemon.common.stdio import say, working
    from daemon.reading.ahead import Job, Stamp, find

    found = find(() if is_packed else options.paths)
    with ExitStack() as stack:
        table = None
        if options.out is not None:
            made_by = made_of(ready.model, ready.pipeline, ready.discard, ready.keep)
            table = stack.enter_context(TableOutput(options.out, made_by, fresh=options.fresh))
        if is_packed:
            workers = stack.enter_context(start_workers())
            stack.enter_context(_plain_errors(options.paths))
            archives = [Archive.open(path, workers) for path in options.paths]
            coming = cut_archives(archives, table.told if table else lambda archive: ())
        else:
            own = options.out.absolute() if options.out else None
            wanted = (one for one in found if own is None or not one.file.absolute().is_relative_to(own))
            coming = cut(table.job(one) if table else Job(one, Stamp.of(one)) for one in wanted)
        done = stack.enter_context(working("scoring"))
        for block, answer in cluster.answers(coming):
            if table is not None and answer.contents:
                table.add(answer.contents, *row_of(block, answer))
            for line, format in zip(answer.contents, answer.formats, strict=True):
                tally.count_told(*opinion_of(line), format)
                done()
            for _, kind in answer.ignored:
                tally.ignored.note_kind(kind, 1)
        if table is not None:
            table.finish()
            tally.kept = table.kept
            for told in table.report():
                say(told)
    tally.ignored.add(found.ignored)
    _say_missing(found, None)
    if not tally.curves + tally.kept:
        raise UserError(BAD_DATA, f"no force curve found; which are read: {page('files')}")


def _score_archives(
    options: Options, model: Model, judge: Judge, sheet: ResumableOutput | None, tally: VerdictCounts
) -> None:
    from daemon.archive import (
        Archive,
        count_portions,
        pass_over,
        portions,
        prepare_portions,
        score_portions,
        start_workers,
    )
    from daemon.batch.output import note, tell

    with _plain_errors(options.paths), start_workers() as workers:
        archives = [Archive.open(path, workers) for path in options.paths]
        tally.kept = pass_over(sheet.lines(judge), archives, sheet) if sheet else 0
        prepared = prepare_portions(portions(archives, tally.kept), model.bundle.profile, workers)
        if options.summary:
            for counts in count_portions(prepared, model, judge):
                tally.verdicts += counts
        elif sheet:
            note(score_portions(prepared, model, judge), tally, sheet)
        else:
            tell(score_portions(prepared, model, judge), tally, json=options.json, quiet=False)


@contextmanager
def _plain_errors(paths: Sequence[Path]) -> Iterator[None]:
    from daemon.archive import BadArchive
    from daemon.processes.worker_pool import WorkersBroken

    names = ", ".join(clean(str(path)) for path in paths)
    try:
        yield
    except BadArchive as error:
        raise UserError(BAD_DATA, f"{names}: {clean(str(error))}") from error
    except WorkersBroken as error:
        raise UserError(INPUT_OUTPUT, f"{names}: {error}; the file was cut off, or its disk is damaged") from error


def _say_missing(found: Found, selection: Selection | None) -> None:
    """UserError for what was not scored though it was asked for."""
    if found.unlisted:
        names = ", ".join(clean(str(folder)) for folder in found.unlisted)
        raise UserError(INPUT_OUTPUT, f"not everything was scored, these folders could not be listed: {names}")
    if selection is not None and (missing := selection.missing()):
        raise UserError(BAD_DATA, "\n".join(grouped(missing)))
