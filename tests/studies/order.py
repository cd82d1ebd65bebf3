"""`make study TOPIC=order`: of the events in a pile how many are found, against the share of it that was looked at.

A person looks at a pile, one curve after the other, and labels it; the curves come by score until there are eight
labels of both kinds, and from then on in the order of a head on all labels so far, on each kind of features. Beside
them stand the order of the network's score all along, and chance.

Piles of simulated laboratories are what the model sends to review, four hundred curves and forty events at most. Real
sets are too small for that: all their curves are taken, as if all were flagged, and of the events a third as many as
there are other curves, other ones each time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from daemon.common.errors import USAGE, UserError
from daemon.common.options import Option
from daemon.common.text import align
from models.files import write_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.bundle import Bundle
    from models.curve import Curve
    from models.network import ResNet18

CHANCE, SCORE = "chance", "score"
HEADS = ("none", "pca", "autoencoder", "soft-kmeans")
WAYS = (CHANCE, SCORE, *HEADS)
LOOKED_AT = (0.1, 0.25, 0.5, 0.75)
FREE, EVENTS = 400, 40  # of a laboratory's pile
LEAST = 5  # curves of each kind that a real set must have


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The defaults take half an hour of one core."""

    folders: Annotated[
        tuple[Path, ...], Option("labelled curves (labels.csv with a column experiment)", "DIR", is_positional=True)
    ] = ()
    model: Annotated[str, Option("whose embedding and score are used")] = "shipped"
    laboratories: Annotated[int, Option("simulated ones", "N")] = 10
    simulate: Annotated[int, Option("curves of each without an event; half as many with one", "N")] = 1200
    repeats: Annotated[int, Option("draws of each pile", "N")] = 3
    every: Annotated[int, Option("labels between two orders of a simulated pile; of a real set 1", "N")] = 10
    seed: Annotated[int, Option("", "N")] = 1
    out: Annotated[Path | None, Option("the table as JSON", "FILE.json")] = None


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """N curves of one laboratory or set."""

    name: str
    vectors: NDArray[np.float64]  # (N, D)
    logits: NDArray[np.float64]  # (N,)
    events: NDArray[np.bool_]  # (N,)

    def some(self, places: NDArray[np.intp]) -> Embedded:
        return Embedded(self.name, self.vectors[places], self.logits[places], self.events[places])

    def drawn(self, rng: np.random.Generator, free: int, events: int) -> Embedded:
        """At most so many of each kind."""
        kinds = (np.flatnonzero(~self.events), np.flatnonzero(self.events))
        sizes = (min(free, kinds[0].size), min(events, kinds[1].size))
        chosen = [rng.choice(kind, size, replace=False) for kind, size in zip(kinds, sizes, strict=True)]
        return self.some(np.concatenate(chosen))


@dataclass(frozen=True, slots=True)
class Row:
    """One laboratory or set; ``found``: way -> share of the events found by each of ``LOOKED_AT``."""

    name: str
    is_real: bool
    curves: int
    events: int
    found: Mapping[str, Sequence[float]]


def run(options: Options) -> int:
    """Exit 0 with the table, 65 for labels that make no sense, 69 without scikit-learn."""
    from daemon.common.stdio import progress
    from daemon.learn.head import Start, parent_of, require_sklearn

    if min(options.repeats, options.every) < 1 or options.laboratories < 0 or options.simulate < 100:
        raise UserError(USAGE, "--repeats and --every are 1 or more, --laboratories 0 or more, --simulate 100 or more")
    require_sklearn()
    bundle = parent_of(options.model)
    network = Start(parent=bundle).network()
    assert network is not None
    rows = []
    real = list(_real(options.folders, bundle, network)) if options.folders else []
    piles = [*((False, one) for one in _laboratories(options, bundle, network)), *((True, one) for one in real)]
    for is_real, pile in progress(piles, "looking", len(piles)):
        every = 1 if is_real else options.every  # a real set is small
        rows.append(row_of(pile, network, is_real, options.repeats, every, options.seed))
    if options.out:
        write_whole(options.out, json.dumps([asdict(row) for row in rows], indent=1).encode() + b"\n")
    print(write_text(bundle.id, rows))
    return 0


def row_of(pile: Embedded, network: ResNet18, is_real: bool, repeats: int, every: int, seed: int) -> Row:
    """The mean over draws of the pile."""
    free = int((~pile.events).sum())
    most = (free, max(LEAST, free // 3)) if is_real else (FREE, min(EVENTS, free // 4))
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for repeat in range(repeats):
        some = pile.drawn(np.random.default_rng([seed, repeat]), *most)
        for way in WAYS:
            found[way].append(shares(some.events[replay(some, network, way, every)]))
    means = {way: np.mean(values, axis=0).tolist() for way, values in found.items()}
    means[CHANCE] = list(LOOKED_AT)  # what it is on average
    return Row(pile.name, is_real, len(some.events), int(some.events.sum()), means)


def replay(pile: Embedded, network: ResNet18, way: str, every: int) -> NDArray[np.intp]:
    """The order in which a person sees the curves of a pile, who labels each."""
    from daemon.learn.head import features_of, order
    from daemon.learn.order import FEWEST

    by_score = np.argsort(-pile.logits, kind="stable")
    if way not in HEADS:
        return by_score
    features = features_of(network, way, pile.vectors)
    seen: list[int] = []
    scores = pile.logits
    while len(seen) < len(pile.events):
        left = np.setdiff1d(np.arange(len(pile.events)), seen)
        count = every if len(seen) >= FEWEST else 1
        seen += left[np.argsort(-scores[left], kind="stable")][:count].tolist()
        said = pile.events[seen]
        if len(seen) >= FEWEST and said.any() and not said.all():
            scores = order(network, features, pile.vectors[seen], said, pile.vectors)
    return np.array(seen, np.intp)


def shares(events: NDArray[np.bool_]) -> list[float]:
    """(N,) in the order of looking -> of the events the share found by each of ``LOOKED_AT``."""
    so_far = np.cumsum(events) / events.sum()
    return [float(so_far[max(round(share * len(events)) - 1, 0)]) for share in LOOKED_AT]


def _laboratories(options: Options, bundle: Bundle, network: ResNet18) -> Iterator[Embedded]:
    """What the model sends to review of each."""
    from tests.studies.laboratories import Laboratory

    for seed in range(options.laboratories):
        laboratory, sets = Laboratory(seed), ((options.simulate, 0.0), (options.simulate // 2, 1.0))
        curves = [one for count, share in sets for one in laboratory.curves(count, share, options.seed)]
        events = [one.is_event for one in curves]
        found = _embedded(f"laboratory {seed}", [one.curve for one in curves], events, bundle, network)
        scores = bundle.calibration.score(found.logits)
        yield found.some(np.flatnonzero((scores > bundle.discard) & (scores < bundle.keep)))


def _real(folders: Sequence[Path], bundle: Bundle, network: ResNet18) -> Iterator[Embedded]:
    """Each set of experiments whose names begin alike, if it holds curves enough of both kinds."""
    from daemon.learn.evidence import collect

    found = collect(folders, bundle.profile, "experiment")
    names = np.array([str(name).partition("_")[0] for name in found.systems])
    for name in dict.fromkeys(names.tolist()):
        mine = np.flatnonzero((names == name) & found.sure)
        events = found.events[mine]
        if min(events.sum(), (~events).sum()) >= LEAST:
            yield _embedded(name, [found.curves[place] for place in mine], events.tolist(), bundle, network)


def _embedded(
    name: str, curves: Sequence[Curve], events: Sequence[bool], bundle: Bundle, network: ResNet18
) -> Embedded:
    """Those that can get a score."""
    from models.frontend import prepare
    from models.heads import embed
    from models.raster import envelope

    prepared = prepare(curves, bundle.profile)
    able = [place for place, one in enumerate(prepared) if one.signal is not None]
    signals = [signal for one in prepared if (signal := one.signal) is not None]
    vectors = embed(network, envelope(signals, bundle.profile), bundle.profile).astype(np.float64)
    logits = vectors @ network.fc.weight.detach().double().numpy()[0] + network.fc.bias.item()
    return Embedded(name, vectors, logits, np.array(events, np.bool_)[able])


def write_text(model: str, rows: Sequence[Row]) -> str:
    """A line a laboratory and set, a column a way; of the laboratories the mean with half of its 95 % interval."""
    looked = " / ".join(f"{share:.0%}" for share in LOOKED_AT)
    lines = [f"{model}; % of the events found when {looked} of the pile is looked at", ""]
    cells = [["", "curves", "events", *WAYS]]
    cells += [[row.name, str(row.curves), str(row.events), *(_cell(row.found[way]) for way in WAYS)] for row in rows]
    simulated = [row for row in rows if not row.is_real]
    if len(simulated) > 1:
        cells.append(["mean of laboratories", "", "", *(_cell(_mean(simulated, way)) for way in WAYS)])
        cells.append(["less score, ±", "", "", *(_gap(simulated, way) for way in WAYS)])
    return "\n".join(lines + align(cells))


def _mean(rows: Sequence[Row], way: str) -> list[float]:
    return [float(value) for value in np.mean([row.found[way] for row in rows], axis=0)]


def _gap(rows: Sequence[Row], way: str) -> str:
    """Against the order by score, laboratory by laboratory, at a quarter of the pile."""
    from tests.studies.few_labels import half_width

    place = LOOKED_AT.index(0.25)
    gaps = np.array([row.found[way][place] - row.found[SCORE][place] for row in rows])
    return f"{100 * gaps.mean():+.1f} ±{100 * (half_width(gaps) or 0.0):.1f}"


def _cell(shares: Sequence[float]) -> str:
    return "/".join(f"{100 * share:.0f}" for share in shares)
