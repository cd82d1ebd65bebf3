"""`check`: what a configuration will do, and every error in it at once."""

from __future__ import annotations

import argparse
import sys

from daemon.clean import clean
from daemon.config import ConfigError, load, values
from daemon.config.description import describe
from daemon.errors import BAD_CONFIG
from daemon.stdio import as_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Contract section 3."""
    parser.add_argument("config", metavar="FILE", help="TOML file of the instrument")
    parser.set_defaults(watch=None)  # it is judged as `run` would


def run(args: argparse.Namespace) -> int:
    """Exit 0 when `run` would take it, 78 with one line an error otherwise."""
    try:
        config = load(args, needs_state=False)
    except ConfigError as error:
        print(f"{clean(args.config)}: {len(error.findings)} to correct", file=sys.stderr)
        for finding in error.findings:
            print(f"  ✗ {clean(finding)}", file=sys.stderr)
        return BAD_CONFIG
    print(f"{clean(args.config)}: good")
    for sentence in describe(config):
        print(f"  {clean(sentence)}")
    print("\nresolved values")
    for key, value in values(config).items():
        origin = config.origins.get(key, "default")
        print(f"  {key} = {'(none)' if value is None else as_json(value)}  # {origin}")
    return 0
