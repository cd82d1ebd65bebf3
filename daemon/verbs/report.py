"""`report`: what happened since a moment, on one screen or as a page."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from daemon.client.folders import refuse_watched
from daemon.common.errors import INPUT_OUTPUT, USAGE, UserError
from daemon.common.options import Option
from daemon.common.stdio import as_json
from daemon.config import Config, Flags, Keys, load
from daemon.ledger.span import WHEN, Span
from models.clock import CLOCK, noon_before_last

if TYPE_CHECKING:
    from daemon.report import Report

#: Pages that a timer leaves in the state folder; of older nights the ledger still tells.
_PAGES = 60
_NARROW, _WIDE = 60, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    since: Annotated[str | None, Option(WHEN, "WHEN", unless="yesterday noon")] = None
    until: Annotated[str | None, Option("the same; a day to its end", "WHEN", unless="now")] = None
    html: Annotated[Path | None, Option("also as one page with curves, without any other file", "FILE.html")] = None
    unattended: Annotated[
        bool, Option("for a timer: the page of the last night into the state folder, which keeps the last 60")
    ] = False
    json: Annotated[bool, Option("the same as one JSON object")] = False
    service: Annotated[Flags, Keys("state", "instrument")]


def run(options: Options) -> int:
    """Exit 0, also where nothing came; 64 for a WHEN that makes no sense, 69 without a ledger, 74 for --html."""
    from daemon.report import gather

    if options.unattended and (options.since or options.until or options.html):
        raise UserError(USAGE, "--unattended chooses span and page itself; leave out --since, --until and --html")
    span = Span.parse(options.since or noon_before_last(CLOCK.wall_s()), options.until)
    config = load(options.service)
    page = _night_page(config) if options.unattended else options.html
    if page is not None:
        _check(page, config)
    report = gather(config, span, is_drawn=page is not None)
    if page is not None:
        _write(page, report)
    if options.unattended:
        _tidy(page.parent if page else config.state)
    if options.json:
        from daemon.report import plain

        print(as_json(plain(report), indent=1))
    elif not options.unattended:
        _print(report)
    if page is not None:
        print(f"page: {page}", file=sys.stderr)
    return 0


def _print(report: Report) -> None:
    from rich.text import Text

    from daemon.report.words import screen
    from daemon.screens import Printer

    printer = Printer()
    wide = min(max(shutil.get_terminal_size((80, 24)).columns, _NARROW), _WIDE)
    for number, line in enumerate(screen(report, wide)):
        style = "bold" if number == 0 else "bold red" if line.startswith("▲") else ""
        printer.print(Text(line, style))


def _night_page(config: Config) -> Path:
    from daemon.guard.morning import REPORTS

    return config.state / REPORTS / f"{noon_before_last(CLOCK.wall_s())[:10]}.html"


def _check(page: Path, config: Config) -> None:
    """Before anything is computed. Raises UserError 64 for a place in a watched folder, 74 for one of no file."""
    refuse_watched({"--html": page}, config)
    if page.is_dir() or not (page.parent.is_dir() or page.parent.parent == config.state):
        raise UserError(INPUT_OUTPUT, f"--html {page}: name a file in a folder that exists")


def _write(page: Path, report: Report) -> None:
    from daemon.report.page import write_html
    from models.files import write_whole

    try:
        if not page.parent.is_dir():
            page.parent.mkdir()
        write_whole(page, write_html(report).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise UserError(INPUT_OUTPUT, f"{page}: {error.strerror}; choose another --html") from None


def _tidy(folder: Path) -> None:
    """Only what a timer has written goes: pages named after a night."""
    pages = sorted(one for one in folder.iterdir() if re.fullmatch(r"\d{4}-\d\d-\d\d\.html", one.name))
    for one in pages[:-_PAGES]:
        one.unlink(missing_ok=True)
