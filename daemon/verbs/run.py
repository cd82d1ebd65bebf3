"""`run`: the service, in the foreground."""

from __future__ import annotations

import argparse

from daemon.config import add_run_options, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every flag has its key in the TOML file."""
    add_run_options(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    config = load(args)
    from daemon.service import Service

    return Service(config, lambda: load(args)).run()
