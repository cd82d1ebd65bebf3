"""The reload of models: what a reload names, and a better engine, are made ready beside the loop.

The service starts with what serves at once. Where there is a GPU, its engine is built and proved meanwhile and takes
over between two batches; so does a model that a reload names, or finds rewritten in its folder.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from daemon.common.errors import INTERNAL, UserError
from daemon.common.text import first_line
from daemon.config import Config
from daemon.engine import EngineTimeouts
from daemon.judging import Judge
from daemon.judging.judge import is_outdated, judge_of, load_model, release, wish_of
from deploy.classifier import EngineRequest, NoEngine
from deploy.engines import candidates
from deploy.serving import Model


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """What can go live between two batches."""

    config: Config
    model: Model
    judge: Judge


class ModelLoading(threading.Thread):
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


#: A GPU that could not be had is tried again this often: another program may have had it.
AGAIN_S = 600.0


def load(config: Config, request: EngineRequest) -> Loaded:
    """The configured model on an engine of ``request``. Raises UserError."""
    patience = EngineTimeouts(deadline_s=config.engine.deadline_s)
    return with_judge(config, load_model(config.model, request, config.state / "models", patience))


def with_judge(config: Config, model: Model) -> Loaded:
    """With the thresholds of ``config``. Raises UserError when they do not go with the model's."""
    judge = judge_of(model, config.thresholds, require_certificate=config.require_certificate, text=config.text)
    return Loaded(config, model, judge)


def request_at_once(config: Config) -> EngineRequest:
    """What can serve within a second: the processor's best, where a GPU's engine has to be built first."""
    request = wish_of(config)
    try:
        devices = {engine.device for engine in candidates(request)}
    except NoEngine:
        return request  # whoever loads it says so
    return replace(request, device="cpu", engine="auto", precision="auto") if "cuda" in devices else request


class ModelReload:
    """For the loop's thread. ``reread`` gives the configuration anew."""

    def __init__(self, config: Config, reread: Callable[[], Config]) -> None:
        self._config, self._reread = config, reread
        self._reload: ModelLoading | None = None
        self._better: ModelLoading | None = None
        self._better_due_s = time.monotonic() if _has_gpu(config) else None

    @property
    def is_reloading(self) -> bool:
        return self._reload is not None

    @property
    def is_building(self) -> bool:
        """Whether a better engine than the one that serves is on its way."""
        return self._better is not None

    def begin_reload(self, model: Model) -> None:
        """Have the configuration read, and loaded what it names, unless ``model`` is that already."""
        self._reload = ModelLoading(lambda: self._read_anew(model))

    def take_reload(self) -> Loaded | UserError | None:
        """What came of the reload, once."""
        if self._reload is None or self._reload.outcome is None:
            return None
        outcome, self._reload = self._reload.outcome, None
        return outcome

    def take_better(self, model: Model) -> Loaded | UserError | None:
        """The better engine for ``model`` once it is there, begun here when its time has come."""
        if self._reload is not None:  # it was begun for the model that serves now: one change at a time
            return None
        if self._better is None:
            if self._better_due_s is not None and time.monotonic() >= self._better_due_s:
                config, self._better_due_s = self._config, None
                self._better = ModelLoading(lambda: load(config, wish_of(config)))
            return None
        if self._better.outcome is None:
            return None
        outcome, self._better = self._better.outcome, None
        if not isinstance(outcome, Loaded) or outcome.model.engine.device == "cpu":
            self._better_due_s = time.monotonic() + AGAIN_S
        if isinstance(outcome, Loaded) and outcome.model.id != model.id:  # its folder was rewritten: reload takes that
            retire(outcome.model)
            return None
        return outcome

    def adopt(self, config: Config, model: Model) -> None:
        """A reload went live with these: what was being built for other settings is not wanted any more."""
        is_other = _serving(config) != _serving(self._config)
        self._config = config
        lacks_gpu = model.engine.device == "cpu" and _has_gpu(config)
        if is_other or not lacks_gpu:
            self._abandon_better(model)
        if lacks_gpu and self._better is None:  # a reload that loaded nothing is also a request to try the device again
            self._better_due_s = time.monotonic() + (AGAIN_S if is_other else 0.0)

    def _abandon_better(self, model: Model) -> None:
        if self._better is not None:
            self._better.abandon(unless=model)
        self._better = self._better_due_s = None

    def close(self, model: Model) -> None:
        """What is on its way is left; a library in the middle of its work is given two seconds to come to an end."""
        for loading in (self._reload, self._better):
            if loading is not None:
                loading.abandon(unless=model)
                loading.join(2.0)

    def _read_anew(self, model: Model) -> Loaded:
        config = self._reread()
        is_other = _serving(config) != _serving(self._config)
        if is_other or is_outdated(model, config.model, config.state / "models"):
            return load(config, wish_of(config))
        return with_judge(config, model)


def _has_gpu(config: Config) -> bool:
    return request_at_once(config) != wish_of(config)


def _serving(config: Config) -> tuple[object, ...]:
    """What of a configuration decides which model runs on which engine."""
    return config.model, wish_of(config), config.engine.deadline_s
