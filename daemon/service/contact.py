"""Is the tip reaching the surface? A long run of curves without contact is a lost engage, not a quiet sample."""

from __future__ import annotations

from collections.abc import Iterable

from daemon.judging import Decision


class ContactWatch:
    """Counts `no_contact` curves in a row."""

    def __init__(self, longest_run: int) -> None:
        self._longest_run, self._run = longest_run, 0

    def observe(self, decisions: Iterable[Decision]) -> bool:
        """Whether the run has reached its limit (stays true until a curve with contact comes)."""
        for decision in decisions:
            if decision.force_unit is None and decision.score is None:
                continue  # unreadable: says nothing about the tip
            self._run = self._run + 1 if "no_contact" in decision.reasons else 0
        return self._run >= self._longest_run

    @property
    def text(self) -> str:
        return (
            f"{self._run} curves in a row without contact: the tip is not reaching the surface "
            "(check engage, setpoint, drift)"
        )
