"""The loading: a model on its way, made ready beside the loop so that no curve waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from daemon.config import Config
from daemon.errors import INTERNAL, UserError
from daemon.judging import Judge
from daemon.judging.judge import release
from daemon.wording import first_line
from deploy.serving import Model


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """What can go live between two batches."""

    config: Config
    model: Model
    judge: Judge


class Loading(threading.Thread):
    """Does ``work`` at once, in a thread of its own. ``outcome`` is what it returned, or why it could not."""

    def __init__(self, work: Callable[[], Loaded]) -> None:
        super().__init__(name="loading", daemon=True)
        self._work = work
        self._lock = threading.Lock()
        self._unless: Model | None = None  # once it is abandoned: the model that judges anyway
        self.outcome: Loaded | UserError | None = None
        self.start()

    def run(self) -> None:
        try:
            outcome: Loaded | UserError = self._work()
        except UserError as error:
            outcome = error
        except Exception as error:  # whatever is wrong with the new model, the old one goes on judging
            outcome = UserError(INTERNAL, first_line(error))
        with self._lock:
            self.outcome = outcome
            self._drop()

    def abandon(self, unless: Model) -> None:
        """Nobody wants it any more; what it brings is closed, unless it is the model that judges anyway."""
        with self._lock:
            self._unless = unless
            self._drop()

    def _drop(self) -> None:
        if self._unless is not None:
            drop(self.outcome, self._unless)


def drop(outcome: Loaded | UserError | None, unless: Model) -> None:
    """Close what was loaded for nothing, unless it is the model that judges anyway."""
    if isinstance(outcome, Loaded) and outcome.model is not unless:
        retire(outcome.model)


def retire(model: Model) -> None:
    """Close and forget a model beside the loop: an engine gives back hundreds of megabytes, which takes its time."""
    threading.Thread(target=_forget, args=([model],), name="retiring", daemon=True).start()


def _forget(held: list[Model]) -> None:
    release(held[0])
    time.sleep(1.0)  # by now the loop holds nothing of it: the last hold is this one
    held.clear()
