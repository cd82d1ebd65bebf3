"""The process: `afm-triage` and `python -m daemon`."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while modules load, Ctrl-C ends us without a traceback

from daemon.cli import main

raise SystemExit(main())
