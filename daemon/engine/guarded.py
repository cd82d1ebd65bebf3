"""The guarded classifier: an engine in a process of its own, and another at hand for when it fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from daemon.closing import Closing
from daemon.engine.child import Child
from daemon.engine.keeper import Keeper
from daemon.engine.patience import Patience
from daemon.engine.proof import Proof
from deploy.classifier import Classifier, EngineFault, Seen, Signals
from deploy.engines import Engine, Wish
from models.bundle import Bundle


@dataclass(frozen=True, slots=True)
class Standing:
    """Who judges now; ``troubles`` say why it is not who should."""

    engine: str
    troubles: tuple[str, ...]
    faults: Mapping[str, int]  # by kind, since it was made


class GuardedClassifier(Closing):
    """A :class:`deploy.classifier.Classifier` that answers also when its device does not.

    A batch that the device fails on, or does not answer within the deadline, is judged by ``fallback``, and ``Seen``
    says so. Raises EngineFault or NoEngine when the engine cannot be had to begin with.
    """

    def __init__(
        self,
        engine: Engine,
        bundle: Bundle,
        wish: Wish,
        fallback: Classifier,
        patience: Patience,
        command: tuple[str, ...] | None = None,
    ) -> None:
        self._fallback = fallback
        self.model_id = bundle.id

        def start(adopt: Callable[[Child], None]) -> None:
            child = Child(command)
            adopt(child)
            child.build(engine, bundle, wish)

        self._keeper = Keeper(start, Proof.of(bundle), patience)
        self._keeper.start()
        self._keeper.wait_built()
        self.engine = self._keeper.engine  # the usual one, whoever judges now

    @property
    def standing(self) -> Standing:
        keeper = self._keeper
        fault, faults = keeper.fault, dict(keeper.faults)
        if fault is None:
            return Standing(self.engine, (), faults)
        kind = f" ({fault.kind})" if isinstance(fault, EngineFault) else ""
        trouble = f"{self.engine} failed{kind}: {fault}; it is tried again in the background"
        return Standing(self._fallback.engine, (trouble,), faults)

    @property
    def pid(self) -> int | None:
        """Of the engine process, while there is one."""
        return self._keeper.pid

    def classify(self, signals: Signals) -> Seen:
        """As any classifier; never EngineFault, as long as the processor is well."""
        if not signals:
            return self._fallback.classify(signals)
        try:
            seen = self._keeper.ask(signals)
        except EngineFault:
            return self._instead(signals)
        if np.isfinite(seen.logits).all():
            return seen
        self._keeper.suspect()  # one odd curve, or a device gone mad: the known curves will tell
        return self._instead(signals)

    def _instead(self, signals: Signals) -> Seen:
        return replace(self._fallback.classify(signals), engine=self._fallback.engine)

    def close(self) -> None:
        """End the engine process."""
        self._keeper.close()
