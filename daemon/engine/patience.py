"""The patience: how long a device may take, and how often a lost one is tried again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """All in seconds, but for the curves between two canaries."""

    deadline_s: float = 2.0  # for one batch
    first_pause_s: float = 5.0  # after a fault; doubles with each that follows
    longest_pause_s: float = 600.0  # and a device that served so long is trusted anew
    canary_s: float = 30.0  # idle time between two canaries
    canary_curves: int = 10_000  # or so many curves

    def pause_s(self, faults: int) -> float:
        """Before the next try, after so many faults in a row (from 1)."""
        return min(self.first_pause_s * 2.0 ** min(faults - 1, 30), self.longest_pause_s)


PATIENT = Patience()
