"""The options that verbs share. Nothing is checked here: ``daemon.config`` judges flag, environment and file alike."""

from __future__ import annotations

import argparse


def add_service_options(parser: argparse.ArgumentParser) -> None:
    """--config, --state and --instrument: how a verb finds the service it belongs to."""
    group = parser.add_argument_group("which service")
    group.add_argument("--config", metavar="FILE", help="TOML file of the instrument")
    group.add_argument("--state", metavar="DIR", help="where ledger and labels lie")
    group.add_argument("--instrument", metavar="NAME", help="short name, used in topics and folders (afm1)")


def add_endpoint_options(parser: argparse.ArgumentParser) -> None:
    """--publish and --replay, as `events` and `console` take them to look at a service elsewhere."""
    group = parser.add_argument_group("where it speaks")
    group.add_argument("--publish", metavar="ENDPOINT", help="events, a ZeroMQ PUB socket (tcp://127.0.0.1:5795)")
    group.add_argument("--replay", metavar="ENDPOINT", help="stored events, a ZeroMQ ROUTER (tcp://127.0.0.1:5796)")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Every flag of `run`; each has its key in the TOML file, with ``_`` for ``-``."""
    parser.add_argument("--watch", metavar="DIR", action="append", help="folder of the instrument (repeatable)")
    add_service_options(parser)
    add_endpoint_options(parser)
    parser.add_argument("--ingest", metavar="ENDPOINT", help="take curves over a ZeroMQ ROUTER too (off)")
    parser.add_argument("--metrics-port", metavar="N", type=int, help="Prometheus on 127.0.0.1, 0 = off (9795)")
    parser.add_argument("--model", metavar="NAME-or-DIR", help="model that judges (shipped)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where it runs (auto)")
    parser.add_argument(
        "--require-certificate",
        action="store_true",
        default=None,
        help="while the model has no certificate, a would-be discard becomes review (off)",
    )
