"""`reload`: the running service takes its configuration anew, as SIGHUP does, and says what came of it."""

from __future__ import annotations

import argparse

from daemon.client.service_file import reload
from daemon.config import add_service_options, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``reload``."""
    add_service_options(parser)


def run(args: argparse.Namespace) -> int:
    """Exit 0 when the new configuration is in force, 78 when it was refused, 69 without a running service."""
    print(reload(load(args)))
    return 0
