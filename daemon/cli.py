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

#: verb -> one line of help; the module is daemon.verbs.<verb>.
VERBS = {
    "run": "watch folders and judge every new curve (the service, in the foreground)",
    "demo": "see it work on bundled real curves, then a summary",
    "replay": "play an instrument: copy real files into a folder as one writes them",
    "simulate": "write physics-simulated curves",
    "score": "judge files, folders or an archive once, without service or ledger",
    "pack": "curves of files into one archive that can be judged again quickly",
    "events": "print decisions as JSON lines, gap-free",
    "console": "live view of a running service",
    "status": "one screen of state",
    "review": "a local web page: look at curves and label them",
    "labels": "add, import or export labels",
    "collect": "hand over what was kept: a table, copies, links or an archive",
    "session": "begin, end or show a run with its tip, sample and goal",
    "train": "train a model on simulated and labelled curves",
    "evaluate": "a model on labelled folders, with exact intervals",
    "calibrate": "probabilities, thresholds and a certificate from labelled curves",
    "adapt": "move the discard cut from confirmed events, or say what is missing",
    "finetune": "teach the network your labels; it serves if it passes the gate",
    "explain": "one curve with where the network looked, as a picture",
    "models": "list and show models, let another serve, take it back",
    "rank": "curves in the order that labels teach: the pile of a state, or folders",
    "bench": "measured throughput and latency on this machine",
    "check": "say what a configuration will do, and every error in it",
    "doctor": "versions, devices, watch limits, mounts, and what to do about each problem",
    "stop": "end the running service in order",
    "reload": "make the running service take its configuration anew",
}

#: Verbs that come with later versions: their names are taken already.
LATER = ("keys",)
#: And one that has gone: what it did needs the repository, not the program.
GONE = {"study": "the experiments are repeated from the repository: make study TOPIC=… (make study lists them)"}


class Parser(argparse.ArgumentParser):
    """A mistake in the words is a UserError 64."""

    def error(self, message: str) -> NoReturn:
        raise UserError(USAGE, f"{message} (try: {self.prog} --help)")


def _parse(argv: list[str]) -> Callable[[], int]:
    """The verb that was asked for, with its options."""
    width = max(map(len, VERBS))
    top = Parser(
        prog="afm-triage",
        description="Looks at every AFM force curve while the instrument writes it.",
        usage="afm-triage VERB [options]",
        epilog="verbs:\n" + "\n".join(f"  {verb:<{width}}  {line}" for verb, line in VERBS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"afm-triage {__version__}")
    top.add_argument("verb", metavar="VERB", choices=VERBS)
    if argv[0] in LATER:
        raise UserError(USAGE, f"{argv[0]} is not in this version yet (afm-triage {__version__})")
    if argv[0] in GONE:
        raise UserError(USAGE, GONE[argv[0]])
    verb = top.parse_args(argv[:1]).verb
    from daemon.common.options import add_options, take_options  # here, so that --help alone has none of it to load

    parser = Parser(prog=f"afm-triage {verb}", description=VERBS[verb])
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
            stdio.complain(str(error))
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
