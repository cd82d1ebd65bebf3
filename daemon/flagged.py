"""The flagged curves that wait for a person: reviews of the ledger on which nobody has said a word yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from daemon.labels import Labels
from daemon.ledgerview import Flagged, LedgerView


def waiting(view: LedgerView, labels: Path) -> Iterator[Flagged]:
    """Oldest first. ``labels``: the file labels.sqlite, which need not exist (looking does not make it)."""
    labelled, after = _labelled(labels), 0
    while portion := view.queue(after):
        for one in portion:
            if not labelled & {(one.sha256 or "", one.curve), (f"path {one.path}", one.curve)}:
                yield one
        after = portion[-1].seq


def count_waiting(ledger: Path) -> int:
    """How many wait; ``ledger`` is the file, its labels lie beside it."""
    labels = ledger.with_name("labels.sqlite")
    with LedgerView(ledger) as view:
        return sum(1 for _ in waiting(view, labels)) if labels.is_file() else view.review_count()


def _labelled(file: Path) -> set[tuple[str, int]]:
    if not file.is_file():
        return set()
    with Labels(file) as labels:
        return {label.identity for label in labels.current()}
