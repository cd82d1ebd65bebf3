"""`find`: curves by physics, over all nights: force and place of a rupture, verdict, time, session.

Without `--tables` those of this instrument's own ledger: tables of it are made beside it, and each search brings them
up to date first. Discards are found like any others. What was found goes on to `collect --found` and `review --found`.
"""

from __future__ import annotations

import csv
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

from daemon.client.folders import refuse_watched
from daemon.common.errors import ALREADY_RUNNING, BAD_DATA, INPUT_OUTPUT, USAGE, UserError, need_folder
from daemon.common.options import Option, Range
from daemon.common.stdio import as_json, complain
from daemon.common.text import MARKS, many, page, score, score_in_words
from daemon.config import Flags, Keys, load
from daemon.judging import Verdict
from daemon.labels import Word
from daemon.labels.curve_name import name_of
from daemon.labels.table import read_csv
from daemon.ledger.span import EVER, WHEN, Span
from daemon.tables import need
from models.clock import day_and_second, spoken
from models.files import unfinished, write_whole

if TYPE_CHECKING:
    from rich.text import Text

    from daemon.charts import Picture, Trace
    from daemon.tables.search import Asked, Found, Hit

#: Of the state folder: made from the ledger alone, so that it may be removed at any time.
TABLES = "tables"
_SHOWN, _DRAWN = 20, 200  # curves on a screen, and on a page
_RUPTURES = 6  # of a curve, in a line
_SKETCH = 26  # cells
_LONGEST_HEAD_BYTES = 4096
_NARROWEST, _WIDEST = 60, 140
#: The unit of a drawing -> that of a trace, and how much of it that is.
_UNITS: dict[str, tuple[str | None, float]]
_UNITS = {"pN": ("N", 1e-12), "nm": ("m", 1e-9), "mV": ("V", 1e-3), "": (None, 1.0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    force: Annotated[str | None, Option("of a rupture, in pN: 150..250, 150.. or ..250", "A..B")] = None
    at: Annotated[str | None, Option("where this rupture lies, in nm from the surface: 60..120", "A..B")] = None
    ruptures: Annotated[str | None, Option("so many such ruptures in a curve: 3, 3.. or 2..4", "N..M")] = None
    length: Annotated[str | None, Option("where the last rupture of a curve lies, in nm: 200..", "A..B")] = None
    verdict: Annotated[tuple[Verdict, ...], Option("curves of this verdict; repeatable", unless="any")] = ()
    label: Annotated[tuple[Word, ...], Option("curves that people call so; repeatable")] = ()
    score: Annotated[str | None, Option("with a score of 0.3..0.9", "A..B")] = None
    since: Annotated[str | None, Option(f"measured since {WHEN}", "WHEN")] = None
    until: Annotated[str | None, Option("measured until; a day counts to its end", "WHEN")] = None
    session: Annotated[str | None, Option("of this session: its number, current or last", "N")] = None
    tip: Annotated[tuple[str, ...], Option("measured with this tip; * is any text; repeatable", "NAME")] = ()
    sample: Annotated[tuple[str, ...], Option("on this sample; * is any text; repeatable", "NAME")] = ()
    order: Annotated[
        Literal["newest", "strongest"], Option("which come first; strongest: by the force of such a rupture")
    ] = "newest"
    limit: Annotated[
        int | None, Option("curves at the most", "N", unless=f"{_SHOWN}; --html {_DRAWN}; --json, --csv all")
    ] = None
    json: Annotated[bool, Option("one JSON object a line, an event with session and label")] = False
    csv: Annotated[Path | None, Option("as a table, which collect --found and review --found take", "FILE")] = None
    html: Annotated[Path | None, Option("as one page with curves, without any other file", "FILE.html")] = None
    tables: Annotated[
        Path | None,
        Option("of a collector (`events --to`) or of `score --out DIR`", "PATH", unless="those of this instrument"),
    ] = None
    service: Annotated[Flags, Keys("state", "instrument")]


def run(options: Options) -> int:
    """Exit 0, also where nothing was found; 64 for a question that makes no sense, 69 without a ledger or tables."""
    asked = _asked(options)
    _check(options)
    need("find", "tables", "duckdb", "pyarrow")
    from daemon.tables.search import Tables

    drawn: list[Hit] = []
    most = _SHOWN if options.html is None else _DRAWN
    limit = options.limit or (None if options.json or options.csv is not None else most)
    with ExitStack() as closing:
        tables = closing.enter_context(Tables(options.tables or _own_tables(options.service)))
        found = tables.find(asked, options.order, limit)
        takes = [closing.enter_context(_table(options.csv))] if options.csv is not None else []
        for hit in tables.hits():
            if options.json:
                print(as_json(hit.plain()))
            for take in takes:
                take(hit)
            if len(drawn) < max(most, options.limit or 0):
                drawn.append(hit)
    if options.html is not None:
        _write_page(options.html, asked, found, drawn)
    if not options.json:
        _print(options, asked, found, drawn)
    for remark in _remarks(asked, found):
        complain(remark)
    return 0


def _asked(options: Options) -> Asked:
    """Raises UserError 64 for what makes no sense."""
    from daemon.tables.search import Asked

    def read(option: str, written: str | None, example: str) -> Range | None:
        return None if written is None else Range.parse(option, written, example)

    ruptures = options.ruptures
    if ruptures is not None and ruptures.strip().isdecimal():
        ruptures = f"{ruptures}..{ruptures}"
    instrument = options.service.keys.get("instrument")
    return Asked(
        force=read("--force", options.force, "150..250"),
        place=read("--at", options.at, "60..120"),
        ruptures=read("--ruptures", ruptures, "3.."),
        length=read("--length", options.length, "200.."),
        score=read("--score", options.score, "0.3..0.9"),
        verdicts=options.verdict,
        words=options.label,
        span=Span.parse(options.since, options.until),
        instruments=(instrument,) if instrument is not None and options.tables is not None else (),
        session=_session(options.session),
        tips=options.tip,
        samples=options.sample,
    )


def _session(word: str | None) -> int | Literal["current", "last"] | None:
    if word is None:
        return None
    if word in ("current", "last"):
        return "last" if word == "last" else "current"
    if not (word.isdecimal() and len(word) < 10):
        raise UserError(USAGE, f"--session {word}: its number, current or last; `afm-triage session show` names it")
    return int(word)


def _check(options: Options) -> None:
    if options.limit is not None and options.limit < 1:
        raise UserError(USAGE, f"--limit {options.limit}: one curve is the least")
    if options.tables is not None and not options.tables.exists():
        raise UserError(USAGE, f"--tables {options.tables} does not exist; `afm-triage events --to parquet` makes them")
    for option in ("csv", "html"):
        if (file := getattr(options, option)) is not None:
            need_folder(f"--{option}", file)
            if file.is_dir():
                raise UserError(USAGE, f"--{option} {file}: is a folder; name a file in it")
    if options.csv is not None or options.html is not None:
        refuse_watched({"--csv": options.csv, "--html": options.html}, load(options.service))
    if options.csv is not None and options.csv.is_file() and not _is_ours(options.csv):
        other = "holds something else than a list of `find`, or more than it"
        raise UserError(BAD_DATA, f"--csv {options.csv} {other}: name another file")


def _own_tables(service: Flags) -> Path:
    """The tables of this instrument, with all that its ledger holds by now. Raises UserError 69 where there is none."""
    from daemon.tables.collector import bring_up_to_date

    config = load(service)
    tables = config.state / TABLES
    try:
        bring_up_to_date(tables, config.state)
    except UserError as error:
        if error.exit_code not in (ALREADY_RUNNING, INPUT_OUTPUT) or not tables.is_dir():
            raise
        complain(f"what came last may be missing: {error}")
    return tables


# The table.

_COLUMNS: dict[str, Callable[[Hit], Any]] = {
    "instrument": lambda hit: hit.instrument,
    "folder": lambda hit: hit.data.get("folder"),
    "path": lambda hit: hit.data["path"],
    "curve": lambda hit: hit.data["curve"],
    "acquired": lambda hit: hit.data.get("acquired"),
    "acquired_local": lambda hit: day_and_second(_measured(hit)),
    "session": lambda hit: hit.session and hit.session["number"],
    "sample": lambda hit: hit.session and hit.session["sample"],
    "tip": lambda hit: hit.session and hit.session["tip"],
    "verdict": lambda hit: hit.data["verdict"],
    "score": lambda hit: hit.data["score"],
    "reasons": lambda hit: " ".join(hit.data["reasons"]),
    "model": lambda hit: hit.data["model"],
    "label": lambda hit: hit.word,
    "rater": lambda hit: hit.raters,
    "n_ruptures": lambda hit: len(hit.ruptures) if hit.data.get("ruptures") is not None else None,
    "max_rupture_force_pn": lambda hit: max((one["force_pn"] for one in hit.ruptures), default=None),
    "rupture_forces_pn": lambda hit: _numbers(one["force_pn"] for one in hit.ruptures),
    "rupture_positions_nm": lambda hit: _numbers(one["position_nm"] for one in hit.ruptures),
    "event": lambda hit: hit.id,
    "sha256": lambda hit: hit.data["sha256"],
}


def _measured(hit: Hit) -> str:
    return hit.data.get("acquired") or hit.time


def _numbers(some: Iterator[float | None]) -> str:
    """With blanks between; nan where nobody knows."""
    return " ".join("nan" if one is None else f"{one:.2f}" for one in some)


def _is_ours(file: Path) -> bool:
    """Whether a file may be replaced: it is a list that we wrote, with no column of a person's own."""
    try:
        with file.open("rb") as there:
            head = there.readline(_LONGEST_HEAD_BYTES)
        return not head or read_csv(head).columns == tuple(_COLUMNS)
    except (OSError, ValueError):
        return False


@contextmanager
def _table(file: Path) -> Iterator[Callable[[Hit], None]]:
    """What takes each curve into a file, which is there when all is in it. Raises UserError 74."""
    from daemon.collect import safe

    def begin(out: IO[str]) -> Callable[[Hit], None]:
        writer = csv.writer(out, lineterminator="\r\n")
        writer.writerow(_COLUMNS)

        def take(hit: Hit) -> None:
            cells = (cell_of(hit) for cell_of in _COLUMNS.values())
            writer.writerow([safe(cell) if isinstance(cell, str) else cell for cell in cells])

        return take

    try:
        with ExitStack() as closing:
            is_plain = not file.exists() or file.is_file()  # else a pipe, or /dev/stdout
            place = closing.enter_context(unfinished(file)) if is_plain else file
            with place.open("w", encoding="utf-8-sig" if is_plain else "utf-8", errors="replace", newline="") as out:
                yield begin(out)
    except OSError as error:
        raise UserError(INPUT_OUTPUT, f"--csv {file}: {error.strerror}; choose another place") from None


# The screen.


def _print(options: Options, asked: Asked, found: Found, drawn: Sequence[Hit]) -> None:
    from rich.text import Text

    from daemon.screens import QUIET, Printer

    is_to_stdout = options.csv is not None and not options.csv.is_file()
    printer = Printer(stderr=is_to_stdout)
    printer.print(Text(_headline(asked, found), "bold"))
    printer.print(Text(_among(asked, found), QUIET))
    written = [(options.csv, "table"), (options.html, "page")]
    for file, what in written:
        if file is not None:
            printer.print(Text(f"{what}: {file}"))
    if any(file is not None for file, _ in written):
        return
    width = min(max(shutil.get_terminal_size((80, 24)).columns, _NARROWEST), _WIDEST)
    for hit in drawn:
        for line in _curve(asked, hit, width):
            printer.print(line)
    if len(drawn) < found.total:
        some = f"{len(drawn):,} of {found.total:,} {'is' if len(drawn) == 1 else 'are'} shown"
        rest = f"{some}, the {options.order} first"
        printer.print(Text(f"{rest}: --limit N shows more, --html FILE draws them, --csv FILE lists all", QUIET))


def _headline(asked: Asked, found: Found) -> str:
    """``34 curves with a rupture of 150 to 250 pN at 60 to 120 nm: 12 keep, 4 review, 18 discard``."""
    what = " ".join(filter(None, [many(found.total, "curve"), _physics(asked)]))
    counts = ", ".join(f"{MARKS[verdict]} {count:,} {verdict}" for verdict, count in found.counts.items())
    return f"{what}: {counts}" if found.total else f"No curve {_physics(asked)}".rstrip() + " was found"


def _physics(asked: Asked) -> str:
    """``with 3 ruptures of 150 to 250 pN at 60 to 120 nm``."""
    force = f"of {asked.force.text('pN')}" if asked.force else ""
    place = _at(asked.place) if asked.place else ""
    said = []
    if force or place or asked.ruptures:
        count = asked.ruptures.text() if asked.ruptures else "a"
        said.append(" ".join(filter(None, [count, "rupture" + ("" if count in ("a", "1") else "s"), force, place])))
    if asked.length:
        said.append(f"a last rupture {_at(asked.length)}")
    return f"with {' and '.join(said)}" if said else ""


def _at(place: Range) -> str:
    """``at 60 to 120 nm``, ``at 60 nm or more``."""
    if math.isinf(place.low):
        return f"at {place.high:g} nm or less"
    return f"at {place.low:g} nm or more" if math.isinf(place.high) else f"at {place.text('nm')}"


def _among(asked: Asked, found: Found) -> str:
    """Of how many, of which time, and how the matches lie on instruments, where there are several."""
    told = [f"of {many(found.looked, 'curve')}"]
    told += [asked.span.text] if asked.span != EVER else []
    if len(found.by_instrument) > 1:
        told.append(", ".join(f"{name} {count:,}" for name, count in found.by_instrument.items()))
    return "; ".join(told)


def _curve(asked: Asked, hit: Hit, width: int) -> Iterator[Text]:
    """Three lines: the curve as a sketch, and beside it verdict and time, its name, its ruptures and its run."""
    from rich.text import Text

    from daemon.screens import QUIET, VERDICTS
    from daemon.screens.curves import beside, sketch, tail

    data = hit.data
    verdict, room = data["verdict"], width - _SKETCH - 2
    sketched = sketch(data.get("preview"), _SKETCH, 3)
    rows = sketched.rows if sketched is not None else ("", "no picture".center(_SKETCH), "")
    head = Text.assemble((f"{MARKS[verdict]} {verdict:<8}", VERDICTS[verdict]), (score(data["score"]), "bold"))
    head.append(f"  {day_and_second(_measured(hit))}", QUIET)
    head.append(f"  {hit.instrument}" if hit.instrument else "").append(f"  ✎ {hit.word}" if hit.word else "", "bold")
    name = Text(tail(name_of(data["path"], data["curve"]), room))
    last = Text("  ").join([*_ruptures(asked, hit), *([Text(_run(hit), QUIET)] if _run(hit) else [])])
    for row, line in zip(rows, (head, name, last), strict=True):
        yield beside((Text(row, VERDICTS[verdict]), _SKETCH + 2), (line, room))
    yield Text()


def _ruptures(asked: Asked, hit: Hit) -> Iterator[Text]:
    """Each in a few letters, those that were asked for bold; of many these alone, and how many there are."""
    from rich.text import Text

    from daemon.screens import QUIET

    meant = [one for one in hit.ruptures if asked.is_meant(one)]
    some = hit.ruptures if len(hit.ruptures) <= _RUPTURES else meant[:_RUPTURES]
    for one in some:
        yield Text(_rupture(one), "bold" if asked.is_of_ruptures and one in meant else "")
    if len(some) < len(hit.ruptures):
        yield Text(f"{len(hit.ruptures)} in all", QUIET)


def _rupture(one: Any) -> str:
    """``182 pN at 74 nm``."""
    at = "" if one["position_nm"] is None else f" at {one['position_nm']:.0f} nm"
    return f"{one['force_pn']:.0f} pN{at}"


def _run(hit: Hit) -> str:
    """``session 12, titin, OMCL-7``."""
    run = hit.session
    return "" if run is None else ", ".join(filter(None, [f"session {run['number']}", run["sample"], run["tip"]]))


def _remarks(asked: Asked, found: Found) -> Iterator[str]:
    if found.unknown:
        why = "their files say no spring constant, or they were judged before ruptures were noted"
        yield f"of {many(found.unknown, 'more curve')} nobody knows the ruptures: {why} ({page('find')} says more)"
    if asked.place is not None and asked.place.low < 0:
        yield "a place below 0 nm lies in the surface: few curves have any there"


# The page.


def _write_page(file: Path, asked: Asked, found: Found, drawn: Sequence[Hit]) -> None:
    from daemon import charts

    told = [(_among(asked, found), "lead"), *((remark, "soft") for remark in _remarks(asked, found))]
    head = [charts.paragraph(f"{text[0].upper()}{text[1:]}.", style) for text, style in told]
    if len(drawn) < found.total:
        head.append(charts.paragraph(f"{len(drawn):,} of {found.total:,} are drawn; `--limit` draws more.", "soft"))
    pictures = charts.pictures((_picture(asked, hit) for hit in drawn), "thumbnails", "found")
    try:
        content = charts.page(_headline(asked, found), [*head, pictures])
        write_whole(file, content.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise UserError(INPUT_OUTPUT, f"--html {file}: {error.strerror}; choose another place") from None


def _picture(asked: Asked, hit: Hit) -> Picture:
    from daemon.charts import Picture, draw_trace

    data = hit.data
    told = [", ".join(one.plain for one in _ruptures(asked, hit)), spoken(_measured(hit)), hit.instrument, _run(hit)]
    told.append(f"people: {hit.word}" if hit.word else "")
    name = name_of(data["path"], data["curve"])
    whole = os.path.join(data.get("folder") or "", name)
    caption, beside = "; ".join(filter(None, told)), score_in_words(data["score"])
    return Picture(draw_trace(_trace(hit)), caption, name.rpartition("/")[2], data["verdict"], beside, whole)


def _trace(hit: Hit) -> Trace | None:
    """The drawing of the event, in pN where it says what its numbers stand for; None where it has none."""
    import numpy as np

    from daemon.charts import Trace
    from daemon.screens.board import axes_of
    from daemon.screens.curves import edges_of

    edges, axes = edges_of(hit.data.get("preview")), axes_of(hit.data.get("preview_axes"))
    if edges is None or axes is None:
        return None if edges is None else Trace(edges.astype(np.float32), None, None)
    unit, factor = _UNITS[axes.unit]
    forces = np.array([factor * axes.force(level) for level in range(256)])
    travel = None if axes.from_nm is None or axes.to_nm is None else axes.to_nm - axes.from_nm
    return Trace(forces[edges.astype(int)].astype(np.float32), unit, travel)
