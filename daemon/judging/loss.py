"""The simulated loss: what a cut costs on known physics.

Fresh curves of the simulator, judged once by a network and kept, so that every cut of that network is read from the
same logits: the share of simulated events that it discards, stated beside every moved cut and no bar (a laboratory's
events may be others), and what canaries may miss while all is well. The shipped model's lie beside its weights; those
of a laboratory's network in the state. ``python -m daemon.judging.loss FOLDER STATE`` counts those of the model in
FOLDER into STATE. After a new model was trained to be shipped its own folder is both, and twice as many are counted.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daemon.common.stdio import progress
from daemon.judging import Judge
from daemon.judging.judge import load_model
from daemon.processes.child import Child, launch, serving
from deploy.classifier import EngineRequest
from deploy.serving import Model, Scored
from models.anytime import null_of
from models.bundle import SHIPPED, Bundle, read
from models.files import write_whole
from models.reasons import DOUBTS
from models.simulate import Simulated, simulate

#: With an event.
CURVES = 1_000
SEED = 59_000_000  # far from those of training and held-out curves
_BATCH = 64
_AGAIN_S = 600.0  # after a count that came to nothing: somebody ended it, or the disk was full
#: `flipped` follows from the thresholds, and other ones are to be told of.
_DOUBTS = DOUBTS - {"flipped"}


@dataclass(frozen=True, slots=True, eq=False)
class Logits:
    """Infinite where a doubt, or no score, keeps an event from being discarded, or a curve without one from being kept.

    A quarter as many hold no event, (n/4,), as do, (n,).
    """

    events: NDArray[np.float64]
    event_free: NDArray[np.float64]

    def missed(self, cut: float) -> int:
        """How many events are discarded at this cut, a logit."""
        return int((self.events <= cut).sum())

    def at(self, cut: float) -> float:
        """The share of events that is discarded at this cut, a logit."""
        return self.missed(cut) / self.events.size

    def kept(self, cut: float) -> int:
        """How many curves without an event are kept where this logit is the least that is kept."""
        return int((self.event_free >= cut).sum())


@dataclass(frozen=True, slots=True)
class SimulatedLoss:
    """Of the network and calibration of ``base``; what is counted once stays in ``state``."""

    state: Path
    base: Bundle
    curves: int = field(default=CURVES)

    @property
    def file(self) -> Path:
        return self.state / f"simulated-{self.base.weights_sha256[:12]}.json"

    def counted(self) -> Logits | None:
        """None where it has not been counted yet."""
        for file in (self.file, SHIPPED / self.file.name):
            with suppress(OSError, ValueError, KeyError, TypeError):
                said = json.loads(file.read_bytes())
                logits = Logits(_restored(said["logits"], np.inf), _restored(said["event_free"], -np.inf))
                if logits.events.size and logits.event_free.size and said["raster"] == self.base.profile.id:
                    return logits
        return None

    def count(self) -> Logits:
        """Counted already, or now: some seconds. UserError as ``load_model``; OSError where the state takes no file."""
        if (known := self.counted()) is not None:
            return known
        model = load_model(str(self.base.folder), EngineRequest("cpu", precision="fp32"))
        events = [None if _is_open(one) else one.logit for one in _scored(model, self.curves, 1.0)]
        event_free = [one.logit for one in _scored(model, -(-self.curves // 4), 0.0)]
        rounded = {"logits": _rounded(events), "event_free": _rounded(event_free)}
        said = {"raster": self.base.profile.id, "seed": SEED, **rounded}
        write_whole(self.file, json.dumps(said).encode(), is_synced=True)
        return Logits(_restored(rounded["logits"], np.inf), _restored(rounded["event_free"], -np.inf))


@dataclass(frozen=True, slots=True)
class Nulls:
    """What a sound line does at most: the share of events that it misses, and of curves without one that it keeps.

    ``is_counted``: on simulated curves of this very network. Else that is awaited, or the two stand in for it.
    """

    missed: float = 0.05
    kept: float = 0.03
    is_counted: bool = False
    is_awaited: bool = True

    @classmethod
    def of(cls, loss: SimulatedLoss, judge: Judge) -> Nulls:
        """At the thresholds of ``judge``."""
        if (logits := loss.counted()) is None:
            return cls()
        calibration, cut = loss.base.calibration, judge.thresholds
        missed = _bound(logits.events.size, logits.missed(calibration.logit(cut.discard)))
        kept = _bound(logits.event_free.size, logits.kept(calibration.logit(cut.keep)))
        return cls(missed, kept, is_counted=True, is_awaited=False)


def _bound(curves: int, hits: int) -> float:
    with suppress(ValueError):  # a threshold behind all of them
        return min(null_of(curves, hits), 0.99)
    return 0.99


class Counting:
    """The simulated loss of a network that nobody has counted yet, in a process of its own, for the time nobody needs.

    For one thread, with which the process ends.
    """

    def __init__(self) -> None:
        self._child: Child | None = None
        self._tried: str | None = None
        self._again_s = math.inf  # the steady second from which on it is tried again

    def look(self, loss: SimulatedLoss) -> bool:
        """Begin where it has not been tried, or failed some time ago; whether it has just come to its end."""
        if self._child is None:
            is_tried, self._tried = self._tried == str(loss.file), str(loss.file)
            if (not is_tried or time.monotonic() >= self._again_s) and loss.counted() is None:
                words = [str(loss.base.folder.absolute()), str(loss.state.absolute())]
                command = [sys.executable, "-P", "-m", "daemon.judging.loss", *words]
                self._child = launch(command, {"OMP_NUM_THREADS": "1"}, may_be_left=True)
            return False
        if self._child.process.poll() is None:
            return False
        self._child.connection.close()
        self._child = None
        self._again_s = math.inf if loss.counted() is not None else time.monotonic() + _AGAIN_S
        return True

    def stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            with suppress(subprocess.TimeoutExpired):
                self._child.process.wait(0.2)
            self._child.connection.close()
            self._child = None


def _scored(model: Model, count: int, prevalence: float) -> Iterator[Scored]:
    what = "simulated events" if prevalence else "curves without one"
    simulated: Iterable[Simulated] = progress(simulate(count, SEED, prevalence), what, count)
    curves = iter(simulated)
    while batch := [one.curve for one in islice(curves, _BATCH)]:
        yield from model.judge(batch)


def _is_open(scored: Scored) -> bool:
    return bool(_DOUBTS.intersection(scored.reasons))


def _rounded(logits: Iterable[float | None]) -> list[float | None]:
    return [None if one is None else round(one, 4) for one in logits]


def _restored(logits: Iterable[float | None], none: float) -> NDArray[np.float64]:
    return np.array([none if one is None else float(one) for one in logits], np.float64)


def main(folder: Path, state: Path, descriptor: int | None) -> None:
    """Count; for a parent that hangs on to ``descriptor``, in the time that nobody else needs."""
    loss = SimulatedLoss(state, read(folder), CURVES * (1 + (folder == state)))
    if descriptor is None:
        loss.count()
        return
    with serving(descriptor, memory_bytes=None):
        os.nice(19)
        loss.count()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if sys.argv[3:] else None)
