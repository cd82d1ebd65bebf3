"""Nights with the truth beside them: a state as a user has one, out of curves of which is known what they are.

Every curve goes the way of service from the front-end on: the model that serves for the state, verdict, second opinion,
compact copy, audit, ledger. Only files and their readers are left out. So `adapt`, `finetune`, the gate and the page
work on such a state exactly as on a user's.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from daemon.config import Config
from daemon.judging import Decision, Judge, Judged, classify, decide, with_compact_copy
from daemon.judging.judge import judge_of, load_chosen
from daemon.judging.sentinel import Dispute
from daemon.labels import Label, Labels, Word
from daemon.labels.sessions import Sessions
from daemon.ledger import Ledger
from daemon.ledger.view import LedgerView
from daemon.reading import Reading
from daemon.sources import Arrival
from deploy.classifier import ANY
from deploy.serving import Model
from models.curve import Curve
from models.frontend import prepare_to_judge

_BATCH = 128
_CURVE_S = 2.0  # between two curves of a day


@dataclass(slots=True)
class Nights:
    """One state folder; ``truth`` of everything that was recorded in it here, by ``seq``; None: nobody knows."""

    state: Path
    config: Config = field(init=False)
    truth: dict[int, bool | None] = field(default_factory=dict)
    _model: Model | None = None
    _dispute: Dispute = field(default_factory=Dispute)
    _count: int = 0

    def __post_init__(self) -> None:
        self.state.mkdir(parents=True, exist_ok=True)
        self.config = Config(state=self.state)

    def record(
        self, curves: Iterable[tuple[Curve, bool | None]], *, day: str = "2026-11-20", sample: str = "sample"
    ) -> list[int]:
        """Have curves judged by what serves now, and recorded as files of ``day/sample``; their ``seq``, in order.

        A curve that is recorded already has no second decision, and no ``seq`` here.
        """
        model, judge = self._serving()
        found: list[int] = []
        ledger = Ledger(self.state / "ledger.sqlite", "afm1")
        try:
            pairs = iter(curves)
            while batch := list(islice(pairs, _BATCH)):
                for pair, seq in zip(batch, self._record(ledger, model, judge, batch, day, sample), strict=True):
                    if seq is not None:
                        self.truth[seq] = pair[1]
                        found.append(seq)
        finally:
            ledger.close()
        return found

    def label(self, seqs: Iterable[int], rater: str = "ada", *, wrong: Collection[int] = ()) -> list[Label]:
        """A person says what each curve is, the opposite of the ``wrong`` ones, and unsure where nobody knows."""
        words: dict[bool | None, Word] = {True: "keep", False: "discard", None: "unsure"}
        said = {seq: self.truth[seq] for seq in seqs}
        said |= {seq: not said[seq] for seq in wrong}
        with LedgerView(self.state / "ledger.sqlite") as view, Labels(self.state / "labels.sqlite") as labels:
            events = view.decisions(said)
            return labels.say([Labels.of_event(events[seq], words[told], rater) for seq, told in said.items()])

    def begin(self, sample: str) -> None:
        """A person says that a session on this sample begins: a group of its own."""
        with Labels(self.state / "labels.sqlite") as labels:
            Sessions(labels).begin(sample=sample)

    def may_be_looked_at(self, seqs: Iterable[int]) -> list[int]:
        """Those of which the ledger keeps a copy: a person could label them."""
        with LedgerView(self.state / "ledger.sqlite") as view:
            return [seq for seq in seqs if view.compact_copy(seq) is not None]

    def _serving(self) -> tuple[Model, Judge]:
        """As a service that has just started; the engine of an earlier one where the network is the same."""
        self._model, _ = load_chosen(self.config, ANY, like=self._model)
        return self._model, judge_of(self._model, self.config.thresholds)

    def _record(
        self,
        ledger: Ledger,
        model: Model,
        judge: Judge,
        batch: Sequence[tuple[Curve, bool | None]],
        day: str,
        sample: str,
    ) -> list[int | None]:
        profile = model.bundle.profile
        prepared = prepare_to_judge([curve for curve, _ in batch], profile)
        bare = (self._reading(curve, day, sample) for curve, _ in batch)
        readings = [replace(one, prepared=way, profile=profile) for one, way in zip(bare, prepared, strict=True)]
        scored = classify(readings, model, judge.thresholds)
        told = zip(readings, scored, decide(readings, scored, judge), strict=True)
        judged = self._dispute.look_at([Judged(*one) for one in told])
        past = ledger.past(judge.pipeline)
        decisions: list[Decision] = [with_compact_copy(one.decision, one.reading, profile, past) for one in judged]
        return ledger.record(decisions)

    def _reading(self, curve: Curve, day: str, sample: str) -> Reading:
        self._count += 1
        path = f"{day}/{sample}/curve-{self._count:05d}.afmcurve"
        acquired_s = datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() + _CURVE_S * self._count
        sha256 = hashlib.sha256(curve.force.tobytes()).hexdigest()
        arrival = Arrival(
            "watch", path, self.state / "watched" / path, mtime_ns=int(1e9 * acquired_s), noticed_s=time.monotonic()
        )
        return Reading(arrival, 0, sha256, curve, acquired_s=acquired_s, format="afmcurve")
