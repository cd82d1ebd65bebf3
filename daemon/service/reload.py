"""The reload of models: what a reload names, and a better engine, are made ready beside the loop.

The service starts with what serves at once. Where there is a GPU, its engine is built and proved meanwhile and takes
over between two batches; so does a model that a reload names, or finds rewritten in its folder, and what the registry
says is to serve: that is looked at four times a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from daemon.common.errors import INTERNAL, UserError
from daemon.common.text import first_line
from daemon.config import Config
from daemon.engine import EngineTimeouts
from daemon.judging import Judge
from daemon.judging.judge import Chosen, choose, judge_of, load_chosen, release, wish_of
from daemon.judging.registry import Registry
from deploy.classifier import EngineRequest, NoEngine
from deploy.engines import candidates
from deploy.serving import Model
from models.bundle import BadBundle


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """What can go live between two batches."""

    config: Config
    model: Model
    judge: Judge
    chosen: Chosen
    why: str = "the service started"


def note_served(loaded: Loaded) -> None:
    """That it judges from now on, and in whose place: every model that ever judged stays to be found."""
    registry = Registry(loaded.config.state / "models")
    registry.note_base(loaded.config.model)
    registry.note_served(loaded.chosen.name, loaded.model.bundle)


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
    if isinstance(outcome, Loaded):
        retire_unless_shared(outcome.model, unless)


def retire_unless_shared(model: Model, serving: Model) -> None:
    """As :func:`retire`, but an engine that the serving model computes on stays."""
    if model.classifier is not serving.classifier:
        retire(model)


def retire(model: Model) -> None:
    """Close and forget a model beside the loop: an engine gives back hundreds of megabytes, which takes its time."""
    threading.Thread(target=_forget, args=([model],), name="retiring", daemon=True).start()


def _forget(held: list[Model]) -> None:
    release(held[0])
    time.sleep(1.0)  # by now the loop holds nothing of it: the last hold is this one
    held.clear()


#: So often it is looked whether something else is to serve.
LOOK_S = 0.25
#: A GPU that could not be had is tried again this often: another program may have had it.
AGAIN_S = 600.0


def load(config: Config, request: EngineRequest, like: Model | None = None) -> Loaded:
    """What serves for this configuration, on an engine of ``request`` or on that of ``like``. Raises UserError."""
    patience = EngineTimeouts(deadline_s=config.engine.deadline_s)
    model, chosen = load_chosen(config, request, patience, like)
    with suppress(BadBundle, OSError):  # beside the loop, which tells of it when the model begins to judge
        Registry(config.state / "models").keep(model.bundle)
    return with_judge(config, model, chosen)


def with_judge(config: Config, model: Model, chosen: Chosen, why: str = "the service started") -> Loaded:
    """With the thresholds of ``config``. Raises UserError when they do not go with the model's."""
    judge = judge_of(model, config.thresholds, require_certificate=config.require_certificate, text=config.text)
    return Loaded(config, model, judge, chosen, why)


def request_at_once(config: Config) -> EngineRequest:
    """What can serve within a second: the processor's best, where a GPU's engine has to be built first."""
    request = wish_of(config)
    try:
        devices = {engine.device for engine in candidates(request)}
    except NoEngine:
        return request  # whoever loads it says so
    return replace(request, device="cpu", engine="auto", precision="auto") if "cuda" in devices else request


class ModelReload:
    """For the loop's thread. ``reread`` gives the configuration anew; ``chosen`` is what serves."""

    def __init__(self, config: Config, reread: Callable[[], Config], chosen: Chosen) -> None:
        self._config, self._reread, self.chosen = config, reread, chosen
        self._registry = Registry(config.state / "models")
        self._stamp, self._looked_s = chosen.stamp, 0.0
        self._reload: ModelLoading | None = None
        self._turn: ModelLoading | None = None  # to what the registry says
        self._better: ModelLoading | None = None
        self._better_due_s = time.monotonic() if _has_gpu(config) else None

    @property
    def is_reloading(self) -> bool:
        """Whether a reload, or a turn to what was promoted, is under way: one change at a time."""
        return self._reload is not None or self._turn is not None

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

    def look(self, model: Model) -> None:
        """Whether something else is to serve than ``model``, which does: now and then a look at a file."""
        if self.is_reloading or time.monotonic() - self._looked_s < LOOK_S:
            return
        self._looked_s = time.monotonic()
        if (stamp := self._registry.stamp()) != self._stamp:
            self._stamp = stamp
            self._turn = ModelLoading(lambda: self._turn_to(model))

    def take_turn(self) -> Loaded | UserError | None:
        """What the registry wants to serve, once it is loaded, or why it cannot; once."""
        if self._turn is None or self._turn.outcome is None:
            return None
        outcome, self._turn = self._turn.outcome, None
        return outcome

    def take_better(self, model: Model) -> Loaded | UserError | None:
        """The better engine for ``model`` once it is there, begun here when its time has come."""
        if self.is_reloading:  # it was begun for the model that serves now
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
        if isinstance(outcome, Loaded) and outcome.model.id != model.id:
            if not outcome.model.is_network_of(model.bundle):  # its folder was rewritten: reload takes that
                retire(outcome.model)
                return None
            outcome = replace(outcome, model=outcome.model.with_bundle(model.bundle))  # its cut was moved meanwhile
        return outcome if not isinstance(outcome, Loaded) else self._live(outcome)

    def _live(self, better: Loaded) -> Loaded | UserError:
        """With what holds now of configuration and registry, which may have changed while it was built."""
        try:
            return with_judge(self._config, better.model, self.chosen, f"{better.model.engine} has become ready")
        except UserError as error:
            retire(better.model)
            return error

    def adopt(self, loaded: Loaded) -> None:
        """This went live after a reload: what was being built for other settings is not wanted any more."""
        config, model, self.chosen, self._stamp = loaded.config, loaded.model, loaded.chosen, loaded.chosen.stamp
        is_other = _serving(config) != _serving(self._config)
        self._config = config
        lacks_gpu = model.engine.device == "cpu" and _has_gpu(config)
        if is_other or not lacks_gpu:
            self._abandon_better(model)
        if lacks_gpu and self._better is None:  # a reload that loaded nothing is also a request to try the device again
            self._better_due_s = time.monotonic() + (AGAIN_S if is_other else 0.0)

    def adopt_turn(self, loaded: Loaded, was: Model) -> None:
        """This went live in the place of ``was``; with the same network what is being built for it is still wanted."""
        self.chosen = loaded.chosen
        if not loaded.model.is_network_of(was.bundle):
            self._abandon_better(loaded.model)
            if loaded.model.engine.device == "cpu" and _has_gpu(self._config):
                self._better_due_s = time.monotonic() + AGAIN_S

    def _abandon_better(self, model: Model) -> None:
        if self._better is not None:
            self._better.abandon(unless=model)
        self._better = self._better_due_s = None

    def close(self, model: Model) -> None:
        """What is on its way is left; a library in the middle of its work is given two seconds to come to an end."""
        for loading in (self._reload, self._turn, self._better):
            if loading is not None:
                loading.abandon(unless=model)
                loading.join(2.0)

    def _read_anew(self, model: Model) -> Loaded:
        config = self._reread()
        if _serving(config) != _serving(self._config):
            return replace(load(config, wish_of(config)), why="a reload")
        try:
            choose(config.model, config.state / "models", config.thresholds)
        except BadBundle:  # the base's folder is gone: nothing is there to take its place
            return with_judge(config, model, self.chosen, "a reload")
        return replace(load(config, wish_of(config), model), why="a reload")

    def _turn_to(self, model: Model) -> Loaded:
        why = "the registry was removed or damaged"
        with suppress(BadBundle):
            if last := self._registry.last():
                why = f"{last.act} by {last.by}: {last.why}"
        return replace(load(self._config, wish_of(self._config), model), why=why)


def _has_gpu(config: Config) -> bool:
    return request_at_once(config) != wish_of(config)


def _serving(config: Config) -> tuple[object, ...]:
    """What of a configuration decides which model runs on which engine."""
    return config.model, wish_of(config), config.engine.deadline_s
