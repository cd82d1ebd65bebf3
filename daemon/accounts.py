"""The accounts: where every curve is that was ever seen. seen = decided + duplicate + backlog, at every scrape.

The backlog is a number of its own, moved by the same transitions as the others and never computed from them: were a
curve lost between two stages, the sum would show it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from daemon.ignored import REASONS, Ignored
from daemon.judging import VERDICTS, Verdict
from daemon.reading import UNREADABLE


class Accounts(Collector):
    """All under one lock, exported as one snapshot. Counts begin at 0 with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: Counter[str] = Counter({"watch": 0, "ingest": 0})
        self._decided: Counter[str] = Counter(dict.fromkeys(VERDICTS, 0))
        self._unreadable: Counter[str] = Counter(dict.fromkeys(sorted(UNREADABLE), 0))
        self._ignored = Ignored(REASONS)
        self._duplicate = 0
        self._backlog = 0

    def seen(self, source: str, curves: int = 1) -> None:
        """A file was handed over (1), or opened and found to hold more curves (the rest)."""
        with self._lock:
            self._seen[source] += curves
            self._backlog += curves

    def decided(self, verdict: Verdict, curves: int = 1, unreadable: str | None = None) -> None:
        """In the ledger; ``unreadable`` is the reason when there was no curve to judge."""
        with self._lock:
            self._decided[verdict] += curves
            self._backlog -= curves
            if unreadable is not None:
                self._unreadable[unreadable] += curves

    def duplicate(self, curves: int = 1) -> None:
        """Decided before, under this name or another."""
        with self._lock:
            self._duplicate += curves
            self._backlog -= curves

    def unseen(self, source: str) -> None:
        """A file whose name had promised a curve holds none: it counts as ignored, and is not seen after all."""
        with self._lock:
            self._seen[source] -= 1
            self._backlog -= 1

    def ignored(self, reason: str, name: str = "") -> None:
        """A file of this name is passed over; it does not count as seen. ``reason``: see daemon.ignored."""
        with self._lock:
            self._ignored.note(reason, name)

    def ignored_kinds(self) -> dict[str, int]:
        """Files passed over, by kind, for whoever wants to know more than the number."""
        with self._lock:
            return dict(self._ignored.kinds)

    def snapshot(self) -> dict[str, int]:
        """The numbers of one moment: seen, decided, duplicate, backlog, unreadable, ignored.

        The second half of a pair is no file that somebody has to look after: it is not among the ignored here.
        """
        with self._lock:
            return {
                "seen": self._seen.total(),
                "decided": self._decided.total(),
                "duplicate": self._duplicate,
                "backlog": self._backlog,
                "unreadable": self._unreadable.total(),
                "ignored": self._ignored.total,
            }

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            seen, decided, unreadable = map(dict, (self._seen, self._decided, self._unreadable))
            ignored = dict(self._ignored.reasons)
            duplicate, backlog = self._duplicate, self._backlog
        yield _counter("curves_seen", "Curves handed over by a source", "source", seen)
        yield _counter("decisions", "Decisions in the ledger", "verdict", decided)
        yield _counter("curves_unreadable", "Curves that could not be read; decided as review", "reason", unreadable)
        yield _counter("files_ignored", "Files passed over", "reason", ignored)
        yield CounterMetricFamily("afm_triage_curves_duplicate", "Curves that had been decided before", value=duplicate)
        yield GaugeMetricFamily("afm_triage_backlog_curves", "Curves seen and not decided yet", value=backlog)


def _counter(name: str, help_text: str, label: str, counts: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"afm_triage_{name}", help_text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
