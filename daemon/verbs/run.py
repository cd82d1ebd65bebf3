"""`run`: the service, in the foreground."""

from __future__ import annotations

import argparse
import os

from daemon.config import add_run_options, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every flag has its key in the TOML file."""
    add_run_options(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    config = load(args)
    # torch's OpenMP threads spin while they wait; beside an acquisition program that costs a factor of ten in the
    # slowest decisions (GOMP_SPINCOUNT is read when torch is loaded, so it is set before the service is imported).
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    from daemon.service import Service

    return Service(config, lambda: load(args)).run()
