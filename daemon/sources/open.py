"""Which sources a configuration asks for, wired to the ledger's memory and to the counters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from daemon.accounts import Accounts
from daemon.config import Config
from daemon.formats import claim, quiet_s
from daemon.formats.names import why_ignored
from daemon.formats.packed import pack, unpack
from daemon.ignored import UNCLAIMED
from daemon.ledger import Ledger
from daemon.sources import Source
from daemon.sources.ingest import IngestSource
from daemon.sources.pending import Timing
from daemon.sources.watch import WatchSource


def open_sources(config: Config, ledger: Ledger, accounts: Accounts, wake: Callable[[], None]) -> list[Source]:
    """Not started yet. Raises UserError for folders that cannot be watched together, or a taken ingest port."""
    sources: list[Source] = []
    if config.watch:
        sources.append(_watch(config, ledger, accounts, wake))
    if config.ingest:
        sources.append(_ingest(config.ingest, config.state / "ingest", accounts, wake))
    return sources


def _watch(config: Config, ledger: Ledger, accounts: Accounts, wake: Callable[[], None]) -> WatchSource:
    finished = {mark.path: (mark.size_bytes, mark.mtime_ns) for mark in ledger.marks()}
    timing = Timing(
        scan_s=config.source.rescan_local_s,
        scan_often_s=config.source.rescan_network_s,
        patience_s=config.source.give_up_s,
        patience_map_s=config.source.give_up_map_s,
        patience_zero_tail_s=config.source.zero_tail_s,
        patience_unended_s=config.source.unended_s,
    )
    return WatchSource(
        config.watch,
        claim=claim,
        why=lambda name: why_ignored(name) or UNCLAIMED,
        quiet_s=lambda name: config.source.text_quiet_s if quiet_s(name) >= 1.0 else quiet_s(name),
        wake=wake,
        finished=finished.get,
        seen=lambda count: accounts.seen("watch", count),
        ignored=accounts.ignored,
        mounts=config.source.mounts,
        timing=timing,
    )


def _ingest(endpoint: str, folder: Path, accounts: Accounts, wake: Callable[[], None]) -> IngestSource:
    return IngestSource(
        endpoint,
        folder,
        pack=pack,
        unpack=unpack,
        wake=wake,
        seen=lambda count: accounts.seen("ingest", count),
        refused=lambda reason: accounts.ignored("ingest_refused"),
    )
