"""The certificate: what may be promised about missed events, from events that the network was not trained on.

Discard what scores below the (k+1)-th smallest of n event scores: the
share of events lost is then above A with a chance of at most P(X <= k), X binomial of n draws with chance A, whatever
the distribution of the scores (Neyman-Pearson umbrella: Tong, Feng & Li 2018, Science Advances 4, eaao1659). That the
network's ranking was not made from these events is all it asks; a temperature and a bias do not change a ranking.
Ties, and any lower threshold, lose fewer events still. The bound that goes with k of n is Clopper & Pearson's (1934).

The curves of a *sheet* are drawn blind. On a *uniform* one every decision has the same chance: its events are a fair
sample of all events, and the share of them that was discarded has the same exact bound, whatever the scores look like.

A *weighted* sheet gives each decision a chance of its own, independently of all others, and remembers it (Poisson
sampling). Sums are then estimated without bias by weighting what was found with 1 / chance (Horvitz & Thompson 1952,
JASA 47, 663). Its bound is a test by betting (Waudby-Smith & Ramdas 2024, JRSS B 86, 1): of a miss of r or more the
product over all events of 1 - L*w*(missed - r) has a mean of at most 1, because its factors have the mean
1 - L*(missed - r) each and the geometric mean is below the arithmetic one; so that it seldom exceeds 20. With equal
weights, no miss and the largest L it is (1 - r)^-n: the rule of 59 events. Several L are mixed, so that a miss does not
end the bet; that costs a few events.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import ArrayLike

from models.metrics import at_most, clopper_pearson

#: What confirmed events are to earn: at most this share of events missed, that sure.
MAX_MISS, CONFIDENCE = 0.05, 0.95
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST = 1 << 40  # events
_MOST_COUNTED = 1 << 24  # events of a certificate: more were never labelled, and checking them would take long


def events_needed(max_miss: float, confidence: float, missed: int = 0) -> int:
    """The fewest events of which ``missed`` may lie below the threshold for the promise to hold."""
    _check(max_miss, confidence)
    enough = missed + 1
    while at_most(missed, enough, max_miss) > 1 - confidence:
        enough *= 2
        if enough > _LARGEST:
            raise ValueError(f"no number of events can promise at most {max_miss:g} missed")
    short = max(enough // 2, missed)  # too few, or as few as can be
    while enough - short > 1:
        middle = (enough + short) // 2
        short, enough = (middle, enough) if at_most(missed, middle, max_miss) > 1 - confidence else (short, middle)
    return enough


def misses_allowed(events: int, max_miss: float, confidence: float) -> int | None:
    """The most of ``events`` that may lie below the threshold; None when there are too few for any promise."""
    _check(max_miss, confidence)
    if events < 1 or at_most(0, events, max_miss) > 1 - confidence:
        return None
    low, high = 0, events  # the answer is low or above it, and below high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at_most(middle, events, max_miss) <= 1 - confidence else (low, middle)
    return low


def miss_bound(events: int, missed: int, confidence: float) -> float:
    """The share of events that is lost at the most, ``confidence`` sure (one-sided, exact); 1 without events."""
    return clopper_pearson(missed, events, 2 * confidence - 1)[1] if events else 1.0


def discard_limit(events: ArrayLike, max_miss: float, confidence: float) -> float | None:
    """The logit that everything discarded must stay **below**; None when these events allow no promise.

    ``events`` are the logits of events, (n,), in any order.
    """
    logits = np.sort(np.asarray(events, np.float64))
    allowed = misses_allowed(logits.size, max_miss, confidence)
    return None if allowed is None else float(logits[allowed])


def _check(max_miss: float, confidence: float) -> None:
    if not (0.0 < max_miss < 1.0 and 0.5 <= confidence < 1.0):
        raise ValueError("the share missed lies between 0 and 1, the confidence from 0.5 to below 1")


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """what is promised about missed events, and on which labelled experiments that rests; null: nothing."""

    max_miss: Annotated[float, Meta(gt=0, lt=1, description="the share that was asked for")]
    bound: (
        Annotated[
            float,
            Meta(ge=0, le=1, description="at most this share of events is discarded, as sure as confidence says"),
        ]
        | None
    )
    confidence: Annotated[float, Meta(gt=0, lt=1)]
    events: Annotated[int, Meta(ge=1, description="labelled events that it rests on")]
    missed: Annotated[int, Meta(ge=0, description="of these events")]
    data: Annotated[tuple[str, ...], Meta(min_length=1, description="the experiments that it holds for")]


@dataclass(frozen=True, slots=True)
class Experiment:
    """What one experiment has given to a certificate."""

    events: int
    missed: int  # of these events
    labels_sha256: str  # of the labels.csv that names them


@dataclass(frozen=True, slots=True)
class Certificate:
    """A promise and everything it rests on. It holds for curves like those of the experiments that it names."""

    max_miss: float  # what was asked for
    confidence: float
    bound: float  # what is promised: the share of events lost is at most this
    events: int
    missed: int  # of these events, by the threshold that was chosen
    allowed: int  # that the rule would have let be missed; the bound counts with these
    limit_logit: float  # every discarded logit is below it
    experiments: Mapping[str, Experiment]
    weights_sha256: str
    engine: str
    made: str  # UTC, RFC 3339

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Certificate:
        """What :meth:`to_mapping` wrote. ValueError, KeyError or TypeError for anything that does not add up."""
        values = dict(values)
        if values.pop("simulated") is not False:
            raise ValueError("simulated curves never count towards a certificate")
        made = cls(**{**values, "experiments": {k: Experiment(**v) for k, v in values["experiments"].items()}})
        made._add_up()
        return made

    def to_mapping(self) -> dict[str, Any]:
        """For the manifest, ready for JSON."""
        return {**asdict(self), "simulated": False}

    @property
    def promise(self) -> Promise:
        """What every decision says of it."""
        return Promise(
            max_miss=self.max_miss,
            bound=self.bound,
            confidence=self.confidence,
            events=self.events,
            missed=self.missed,
            data=tuple(sorted(self.experiments)),
        )

    def sentence(self) -> str:
        """The promise in words."""
        counted = f"{self.events} events, {self.missed} missed"
        return f"{counted} → at most {percent_up(self.bound)} missed, {100 * self.confidence:.6g} % sure"

    def _add_up(self) -> None:
        _check(self.max_miss, self.confidence)
        parts = self.experiments.values()
        counts = (self.events, self.missed, self.allowed, *(n for part in parts for n in (part.events, part.missed)))
        if not all(type(count) is int and 0 <= count <= _MOST_COUNTED for count in counts):
            raise ValueError("certificate: events and missed are whole numbers")
        whole = sum(part.events for part in parts), sum(part.missed for part in parts)
        if whole != (self.events, self.missed) or any(not 0 <= part.missed <= part.events for part in parts):
            raise ValueError("certificate: events and missed are not the sums over its experiments")
        if self.allowed != misses_allowed(self.events, self.max_miss, self.confidence) or self.missed > self.allowed:
            raise ValueError("certificate: so many missed of so many events do not allow this promise")
        if not math.isclose(self.bound, miss_bound(self.events, self.allowed, self.confidence), rel_tol=1e-9):
            raise ValueError("certificate: the bound is not what follows from its events")
        digests = (self.weights_sha256, *(part.labels_sha256 for part in parts))
        if not math.isfinite(self.limit_logit) or not all(_SHA256.fullmatch(digest) for digest in digests):
            raise ValueError("certificate: limit_logit is finite, and a SHA-256 has 64 digits")
        if not (isinstance(self.engine, str) and isinstance(self.made, str)):
            raise ValueError("certificate: engine and made are texts")


def round_up(share: float) -> float:
    """A bound with three digits behind the point, never smaller than it is."""
    return math.ceil(1000 * share - 1e-9) / 1000


def percent_up(share: float) -> str:
    """The same in words: ``4.2 %``."""
    return f"{100 * round_up(share):.4g} %"


def percent_down(share: float) -> str:
    """A lower bound in words, never larger than it is: ``96.3 %``."""
    return f"{100 * math.floor(1000 * share + 1e-9) / 1000:.4g} %"


def between(low: float, high: float) -> str:
    """An interval, rounded outwards: ``73.9 % to 99.9 %``; 100 % only where it is 1."""
    digits = next((many for many in range(3, 9) if high >= 1 or math.ceil(10**many * high - 1e-9) < 10**many), 9)
    upper = math.ceil(10**digits * high - 1e-9) / 10 ** (digits - 2)
    return f"{percent_down(low)} to {upper:.{digits}g} %"


#: How much of the largest bet is placed, and which part of the stake goes on it.
_BETS = ((1.0, 0.8), (0.6, 0.04), (0.35, 0.04), (0.2, 0.04), (0.1, 0.04), (0.05, 0.04))


def lost_estimate(weights: ArrayLike) -> tuple[float, float]:
    """How many curves there are like those that were found with these weights, and the standard error of that.

    Unbiased, with an unbiased estimate of the variance; both are 0 where none was found.
    """
    w = np.asarray(weights, np.float64)
    return float(w.sum()), math.sqrt(float((w * (w - 1)).sum()))


def weighted_bound(above: ArrayLike, missed: ArrayLike, heaviest: float, confidence: float = 0.95) -> float:
    """The share of all events that lies below the cut at the most, from a weighted sheet; 1 where nothing was found.

    ``above`` and ``missed``: the weights of the confirmed events on either side of the cut; ``heaviest``: the largest
    weight that a discard could have had, found or not. ValueError for weights below 1 or above that.
    """
    found, lost = np.asarray(above, np.float64), np.asarray(missed, np.float64)
    if not 0.5 <= confidence < 1.0 or not (1.0 <= heaviest < math.inf):
        raise ValueError("the confidence lies from 0.5 to below 1, a weight from 1")
    if (found.size and found.min() < 1) or (lost.size and not 1 <= lost.min() <= lost.max() <= heaviest * (1 + 1e-9)):
        raise ValueError("a weight is 1 / a chance, and no discard has more than the heaviest")
    if not found.size:
        return 1.0
    against = -math.log(1 - confidence)
    low, high = 0.0, 1.0 - 1e-9  # the evidence against a share rises with it
    if _evidence(found, lost, heaviest, high) < against:
        return 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if _evidence(found, lost, heaviest, middle) >= against else (middle, high)
    return high


def _evidence(above: np.ndarray, missed: np.ndarray, heaviest: float, share: float) -> float:
    """Logarithm of what a stake of 1 has become that was bet against a miss of ``share`` or more."""
    logs = []
    for bet, stake in _BETS:
        step = bet * share / (heaviest * (1 - share))
        with np.errstate(divide="ignore"):  # all is lost where the whole stake was on no miss
            logs.append(math.log(stake) + np.log1p(step * above).sum() + np.log(1 - bet * missed / heaviest).sum())
    return float(np.logaddexp.reduce(logs))


def labels_needed(events: int, share: float) -> int:
    """The curves that hold so many events, on average, when ``share`` of them are events."""
    if not 0 < share <= 1:
        raise ValueError("the share of events lies above 0, up to 1")
    return math.ceil(events / share - 1e-9)
