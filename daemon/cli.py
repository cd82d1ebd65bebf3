"""The command line: one sub-command a verb, exit codes from sysexits.

Only the module of the verb that was asked for is imported, so that `events` or `console` never pay for torch.
A verb's module has a frozen dataclass ``Options`` (daemon/common/options.py) and ``run(options) -> exit code``.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from daemon import __version__
from daemon.common import ending, stdio
from daemon.common.errors import INPUT_OUTPUT, INTERNAL, USAGE, UserError
from daemon.common.text import page

#: verb -> one line of help; the module is daemon.verbs.<verb>.
VERBS = {
    "run": "watch folders and judge every new curve, until Ctrl-C (the service)",
    "demo": "see it work on bundled real curves, then a summary",
    "replay": "play an instrument: copy real files into a folder as one writes them",
    "simulate": "write physics-simulated curves",
    "score": "judge files, folders or an archive once, without a service",
    "pack": "put the curves of many files into one archive, quick to judge again",
    "events": "print verdicts as JSON lines, for scripts: none is left out",
    "console": "live view of a running service",
    "status": "one screen: what was kept, what waits for you, what is wrong",
    "report": "what the last night brought, or any time: one screen, or a page with curves",
    "review": "a web page on this computer: look at curves, say what they are",
    "labels": "say what a curve is; read labels from a table, write them into one",
    "collect": "take what was kept with you: a table, copies, links, an archive",
    "find": "curves by physics over all nights: force, place, verdict, time, session",
    "session": "begin, end or show a run with its tip, sample and goal",
    "train": "train a model on simulated and labelled curves",
    "evaluate": "how good a model is on labelled folders, with exact intervals",
    "calibrate": "give a model probabilities, thresholds and a certificate from labels",
    "adapt": "have less to look at, from 5 events on that you confirmed",
    "finetune": "teach the network your labels; it serves if it passes its tests",
    "explain": "why this verdict: a picture of a curve, and where the network looked",
    "models": "which model judges; let another one judge, take it back",
    "rank": "put curves into the order that labels teach, likely events first",
    "bench": "measure speed and latency on this computer",
    "check": "say what a configuration will do, and every error in it",
    "doctor": "is this computer fit for the job, and if not, what to do",
    "ledger": "how much it takes, a snapshot of it, whether it is sound, what may go",
    "notify": "try whether a message about a fault reaches a person",
    "keys": "who may listen from other machines: make, allow and revoke keys",
    "stop": "end the running service, once what it has in hand is done",
    "reload": "have the running service read its configuration anew",
}

#: What somebody wants -> its verbs, in the order of --help; a verb that stands nowhere comes last.
SHELVES = {
    "to try it": ("demo", "replay", "simulate"),
    "every day": ("run", "console", "status", "session", "review", "explain", "report", "find", "collect"),
    "curves that are there already": ("score", "pack"),
    "what your labels are for": ("labels", "adapt", "finetune", "models", "evaluate", "calibrate", "train", "rank"),
    "to look after it": ("doctor", "check", "reload", "stop", "ledger", "notify", "events", "keys", "bench"),
}
#: The page under deploy/docs that says more -> its verbs.
TOLD = {
    "review": ("console", "review", "labels", "session"),
    "morning": ("status", "report"),
    "verdicts": ("explain",),
    "collect": ("collect", "score", "pack"),
    "find": ("find",),
    "teach": ("adapt", "finetune", "models", "evaluate", "calibrate", "train", "rank"),
    "service": ("run", "doctor", "check", "reload", "stop", "ledger", "demo", "replay", "simulate"),
    "alerts": ("notify",),
    "keys": ("keys",),
    "programs": ("events",),
    "engines": ("bench",),
}

#: Verbs that come with later versions: their names are taken already.
LATER: tuple[str, ...] = ()
#: And one that has gone: what it did needs the repository, not the program.
GONE = {"study": "the experiments are repeated from the repository: make study TOPIC=… (make study lists them)"}


class Parser(argparse.ArgumentParser):
    """A mistake in the words is a UserError 64."""

    def error(self, message: str) -> NoReturn:
        raise UserError(USAGE, f"{message} (try: {self.prog} --help)")


class Help(argparse.HelpFormatter):
    """Texts are filled, but a path stays whole."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return indent + text if text.startswith("more: ") else super()._fill_text(text, width, indent)


def _shelves() -> str:
    """Every verb with its line, by what somebody wants, and where the pages lie."""
    width = max(map(len, VERBS))
    placed = {verb for verbs in SHELVES.values() for verb in verbs}
    shelves = {**SHELVES, "more": tuple(verb for verb in VERBS if verb not in placed)}
    rows = [
        "\n".join([f"{title}:", *(f"  {verb:<{width}}  {VERBS[verb]}" for verb in verbs if verb in VERBS)])
        for title, verbs in shelves.items()
        if verbs
    ]
    pages = os.path.dirname(page("files"))
    return "\n\n".join([*rows, f"afm-triage VERB --help says more of one; the pages to read lie in\n{pages}"])


def _parse(argv: list[str]) -> Callable[[], int]:
    """The verb that was asked for, with its options."""
    top = Parser(
        prog="afm-triage",
        description="Looks at every AFM force curve while the instrument writes it, and says: keep, review or discard.",
        usage="afm-triage VERB [options]",
        epilog=_shelves(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"afm-triage {__version__}")
    top.add_argument("verb", metavar="VERB", choices=VERBS, help=argparse.SUPPRESS)
    if argv[0] in LATER:
        raise UserError(USAGE, f"{argv[0]} is not in this version yet (afm-triage {__version__})")
    if argv[0] in GONE:
        raise UserError(USAGE, GONE[argv[0]])
    verb = top.parse_args(argv[:1]).verb
    from daemon.common.options import add_options, take_options  # here, so that --help alone has none of it to load

    more = next((f"more: {page(name)}" for name, verbs in TOLD.items() if verb in verbs), None)
    parser = Parser(prog=f"afm-triage {verb}", description=VERBS[verb], epilog=more, formatter_class=Help)
    module = importlib.import_module(f"daemon.verbs.{verb}")
    add_options(parser, module.Options)
    return partial(module.run, take_options(module.Options, parser.parse_args(argv[1:])))


def main(argv: list[str] | None = None) -> int:
    """Run one verb; every user error ends as one line on standard error and its exit code.

    Without ``argv`` this is the whole process: its streams are made fit, and a signal ends it as others expect.
    """
    if argv is not None:
        return execute(argv or ["--help"], _parse)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a traceback is no answer to Ctrl-C, however early it comes
    stdio.name_files_in_utf8()
    stdio.steady()
    if stdio.is_journal(2) and logging.lastResort is not None:  # of the verbs that timers run; the service has its own
        logging.lastResort.setFormatter(stdio.JournalLine())
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it has much to say where there is no home folder
    try:
        code = execute(sys.argv[1:] or ["--help"], _parse)
    except SystemExit as end:  # --help, --version
        code = int(end.code or 0)
    return _leave(stdio.finish(code))


def execute(words: list[str], parse: Callable[[list[str]], Callable[[], int]]) -> int:
    """The exit code of what ``parse`` makes of the words; what is raised is one line on standard error."""
    # Threads of OpenMP spin while they wait: beside an acquisition program the slowest decisions take ten times as
    # long. Read when torch is loaded, so it is set before any verb's module is; what is started from here inherits it.
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    with ending.listening():
        try:
            code = parse(words)()
            sys.stdout.flush()
            return code
        except UserError as error:
            stdio.complain(str(error))
            return error.exit_code
        except BrokenPipeError:  # `afm-triage events | head`: the reader has seen enough
            stdio.let_go(sys.stdout)
            return 0
        except KeyboardInterrupt:
            return ending.exit_code()
        except OSError as error:
            denied = isinstance(error, PermissionError) and error.filename is not None
            hint = "join the group that it belongs to (ls -ld says which), or ask for it with sudo"
            stdio.complain(f"{error.filename}: {error.strerror}; {hint}" if denied else str(error))
            return INPUT_OUTPUT
        except Exception as error:
            if os.environ.get("AFM_TRIAGE_DEBUG"):
                raise
            what = f"internal error, {type(error).__name__}: {error}"
            stdio.complain(f"{what} (AFM_TRIAGE_DEBUG=1 shows where)")
            return INTERNAL


def _leave(code: int) -> int:
    """After a signal without the interpreter's goodbye, which waits for every thread."""
    if code == 128 + signal.SIGTERM:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    if code == 128 + signal.SIGINT:
        os._exit(code)
    return code
