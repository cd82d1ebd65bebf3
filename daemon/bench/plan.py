"""The plan: what is to be measured, and how thoroughly."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from daemon.bench import CURVES
from deploy.engines import Wish


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asked for."""

    parts: tuple[str, ...] = ("stages", "engines", "load", "recipe")
    model: str = "shipped"
    device: str = "auto"
    engine: str = "auto"
    precision: str = "auto"
    rates: tuple[float, ...] = (1.0, 10.0, 100.0)  # files a second
    files: int = 300  # at one rate, at most
    hold_s: float = 8.0  # one rate, at most
    burst: int = 1500  # files that lie there at once
    busy: int = 2  # neighbours that spin
    curves: tuple[Path, ...] = ()  # real curves beside the bundled ones
    simulated: int = 1000  # curves on which engines are compared
    seed: int = 1
    soak: int = 0  # curves

    @property
    def wish(self) -> Wish:
        """The engine of the service and of the stages."""
        return Wish(self.device, self.engine, self.precision)

    @property
    def folders(self) -> tuple[Path, ...]:
        return (CURVES, *self.curves)

    def count(self, rate: float) -> int:
        """Files to write at ``rate`` a second."""
        return max(1, min(self.files, round(rate * self.hold_s)))

    def request(self, **more: Any) -> dict[str, Any]:
        """What a child process needs to know, as JSON takes it."""
        return {"model": self.model, "folders": [str(folder) for folder in self.folders], **more}

    def settings(self) -> dict[str, Any]:
        """For the record."""
        return {**asdict(self), "curves": [str(folder) for folder in self.curves]}
