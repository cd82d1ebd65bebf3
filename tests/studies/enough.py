"""`make study TOPIC=enough`: does the promise about what is unseen in a pile hold, and how much is looked at for it.

A person looks at a pile, twenty curves at a time, as models.enough gives out the places, until it says that enough was
looked at. The promise is broken where more than 5 % of the events are unseen then. Every replay draws the pile and the
secret places anew. *ranking of*: curves whose scores are two normal distributions so far apart; what ranking a promise
needs to come early. *hidden*: the worst there is, a ranking that finds 100 events and leaves as many as may just not be
left. *laboratories*: what the shipped network sends to review, all of it different curves, by its score and by a head
that learns from each answer as on the page (daemon.learn.order); *all of it*: where everything is sent to review. That
is done to real sets too, for few of their curves would be there; they are drawn again and again, by score alone, since
a head would know a curve that it has seen before. *needed*: the share of the pile that holds 95 % of its events by
rank, which nobody can know; what lies between that and *looked at* is the price of knowing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray

from daemon.common.errors import BAD_DATA, UserError
from daemon.common.options import Option
from daemon.common.stdio import progress
from daemon.common.text import align
from models.enough import UNSEEN, Looks, Standing, stand
from models.files import write_whole
from tests.studies.workplace import open_workplace, percent, share

if TYPE_CHECKING:
    from models.curve import Curve

Bools = NDArray[np.bool_]
#: (looked (N,), in order) -> (N,), the greater the sooner; asked anew after each look at the page.
Ranks = Callable[[NDArray[np.int64]], NDArray[np.float64]]

PAGE = 20  # curves that are looked at before ranking and rule are asked again
EARLY = 0.6  # of a pile; the aim is to stop before it in 80 %
_PILE, _EVENTS = 700, 120  # curves of a laboratory's pile that are wanted, and events among them
_MOST = 1_400  # curves of either kind that are simulated for them
_REAL = {
    "waite": "open/waite_livecell_txt",
    "sofa": "open/sofa_asylum_ibw",
    "chromosomes": "nolicence/chromosome_bruker_000",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The defaults take half an hour of one core; simulated curves are kept in --work."""

    work: Annotated[Path, Option("what was simulated is kept here", "DIR")] = Path("/tmp/enough-study")
    laboratories: Annotated[tuple[int, ...], Option("0 to 9 (repeatable)", "N")] = (1, 8)
    data: Annotated[Path | None, Option("real sets: a labels.csv and the folders that it names", "DIR")] = None
    replays: Annotated[int, Option("of each case", "N")] = 1000
    head_replays: Annotated[int, Option("of a case that a head orders", "N")] = 100
    seed: Annotated[int, Option("of all draws", "N")] = 1
    out: Annotated[Path | None, Option("the table as JSON", "FILE.json")] = None


@dataclass(frozen=True, slots=True)
class Case:
    """What so many replays of one kind of pile came to."""

    name: str
    order: str
    curves: int
    events: int
    replays: int
    needed: float  # share of the pile, median
    looked: tuple[float, float]  # share of the pile when it was enough: median, and that of the slowest tenth
    early: int  # replays that were enough before 60 %
    whole: int  # that were looked at whole
    broken: int  # promises


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The curves that a network sends to review."""

    vectors: NDArray[np.float32]  # (N, D), embedded
    logits: NDArray[np.float64]  # (N,)
    events: Bools  # (N,)


def needed(events: Bools, ranks: Ranks) -> float:
    """The share of a pile that holds 95 % of its events by rank, however the ranking learns."""
    looked, order = np.zeros(events.size, np.bool_), np.zeros(0, np.int64)
    while True:
        by_rank = np.argsort(-ranks(order), kind="stable")
        order = np.append(order, by_rank[~looked[by_rank]][:PAGE])
        looked[order] = True
        found = np.cumsum(events[order])
        if found[-1] >= (1 - UNSEEN) * events.sum():
            return float(np.argmax(found >= (1 - UNSEEN) * events.sum()) + 1) / events.size


def replay(events: Bools, ranks: Ranks, rng: np.random.Generator) -> tuple[float, bool]:
    """The share of a pile that was looked at until it was enough, and whether the promise was broken."""
    places, looked = rng.random(events.size), np.zeros(events.size, np.bool_)
    by_place = np.argsort(places)
    order, marks = np.zeros(0, np.int64), np.zeros(0, np.bool_)
    scores, by_rank = np.zeros(0), np.zeros(0, np.int64)
    while True:
        its = events[order]
        standing = stand(Looks(places[order], marks, its, its), places[~looked])
        if standing.is_enough:
            unseen = int(events[~looked].sum())
            return order.size / events.size, unseen > UNSEEN * int(events.sum())
        if (now := ranks(order)) is not scores:
            scores, by_rank = now, np.argsort(-now, kind="stable")
        new, is_drawn = _page(standing, by_place, by_rank, looked)
        looked[new] = True
        order, marks = np.append(order, new), np.append(marks, is_drawn)


def _page(
    standing: Standing, by_place: NDArray[np.int64], by_rank: NDArray[np.int64], looked: Bools
) -> tuple[NDArray[np.int64], Bools]:
    """The next curves, and which of them are drawn."""
    open_drawn, open_ranked = (pool[~looked[pool]] for pool in (by_place, by_rank))
    if standing.drawn_share == 0.5:
        half = open_ranked[: PAGE // 2]
        drawn = open_drawn[~np.isin(open_drawn, half)][: PAGE // 2]
        return np.concatenate((half, drawn)), np.repeat([False, True], [half.size, drawn.size])
    new = (open_drawn if standing.drawn_share else open_ranked)[:PAGE]
    return new, np.full(new.size, standing.drawn_share > 0)


Draw = Callable[[np.random.Generator], tuple[Bools, Ranks]]


def count(name: str, order: str, draw: Draw, replays: int, seed: int) -> Case:
    """Replays of piles from ``draw``."""
    rng, found, sizes = np.random.default_rng((seed, len(name), replays)), list[tuple[float, bool]](), (0, 0)
    least = list[float]()
    for number in range(replays):
        events, ranks = draw(rng)
        sizes = events.size, int(events.sum())
        if number % 10 == 0:  # the median of a tenth of them
            least.append(needed(events, ranks))
            events, ranks = draw(rng)  # a head that has learned nothing
        found.append(replay(events, ranks, rng))
    shares = np.array([one[0] for one in found])
    looked = float(np.median(shares)), float(np.quantile(shares, 0.9))
    broken = sum(one[1] for one in found)
    return Case(
        name,
        order,
        *sizes,
        replays,
        float(np.median(least)),
        looked,
        int((shares < EARLY).sum()),
        int((shares >= 1).sum()),
        broken,
    )


# Where piles come from.


def two_normals(curves: int, events: int, auc: float, rng: np.random.Generator) -> tuple[Bools, Ranks]:
    """Scores of events and of others normal, apart by what gives this AUC."""
    from scipy.stats import norm

    its = np.arange(curves) < events
    scores = rng.normal(size=curves) + np.sqrt(2) * norm.ppf(auc) * its
    return its, lambda order: scores


def hidden(left: int, rng: np.random.Generator) -> tuple[Bools, Ranks]:
    """A ranking that finds 100 events of a pile of 1,000, then nothing; ``left`` others are anywhere."""
    its, scores = np.arange(1_000) < 100, -np.arange(1_000.0)
    its[rng.choice(np.arange(100, 1_000), left, replace=False)] = True
    return its, lambda order: scores


def by_score(pool: Pool, events: int, others: int, is_again: bool, rng: np.random.Generator) -> tuple[Bools, Ranks]:
    """So many of each kind; ``is_again``: a curve may come more than once."""
    chosen = _chosen(pool, events, others, is_again, rng)
    logits = pool.logits[chosen]
    return pool.events[chosen], lambda order: logits


def by_head(pool: Pool, events: int, others: int, rng: np.random.Generator) -> tuple[Bools, Ranks]:
    """As the page orders: a head on the answers so far, from eight on, learned anew after every second page."""
    from daemon.learn.order import FEWEST
    from models.heads import logistic, standardise

    chosen = _chosen(pool, events, others, False, rng)
    its, logits, vectors = pool.events[chosen], pool.logits[chosen], pool.vectors[chosen].astype(np.float64)
    own = (3.0 * (logits - logits.mean()) / logits.std())[:, None]  # as models.heads.own_logit
    features = np.concatenate((standardise(vectors).apply(vectors), own), axis=1)
    held: list[NDArray[np.float64]] = [logits]

    def ranks(order: NDArray[np.int64]) -> NDArray[np.float64]:
        said = its[order]
        if order.size >= FEWEST and said.any() and not said.all() and (order.size // PAGE % 2 or len(held) == 1):
            held.append(logistic(features[order], said).score(features))
        return held[-1]

    return its, ranks


def _chosen(pool: Pool, events: int, others: int, is_again: bool, rng: np.random.Generator) -> NDArray[np.int64]:
    kinds = ((np.flatnonzero(pool.events), events), (np.flatnonzero(~pool.events), others))
    return np.concatenate([rng.choice(its, many, replace=is_again) for its, many in kinds])


def laboratory_pool(work: Path, number: int, seed: int, *, is_whole: bool = False) -> Pool:
    """Curves of a laboratory that the shipped network sends to review, fewer where they are rare; or all of it."""
    from tests.studies.laboratories import Laboratory

    file = work / f"laboratory {number}{', whole' if is_whole else ''}.npz"
    if not file.is_file():
        laboratory = Laboratory(number)
        parts = []
        for prevalence, wanted in ((1.0, _EVENTS), (0.0, _PILE - _EVENTS)):
            found: list[Pool] = []
            for start in range(0, _MOST, 100):
                if sum(one.events.size for one in found) >= wanted:
                    break
                some = [laboratory.curve(start + place, prevalence, seed) for place in range(100)]
                found.append(embedded([one.curve for one in some], [one.is_event for one in some], is_whole=is_whole))
            parts.append(_joined(found, wanted))
        whole = _joined(parts, _PILE)
        np.savez(file, vectors=whole.vectors, logits=whole.logits, events=whole.events)
    with np.load(file, allow_pickle=False) as kept:
        return Pool(kept["vectors"], kept["logits"], kept["events"])


def _joined(pools: Sequence[Pool], most: int) -> Pool:
    vectors, logits, events = (
        np.concatenate([getattr(one, name) for one in pools])[:most] for name in ("vectors", "logits", "events")
    )
    return Pool(vectors, logits, events)


def embedded(curves: Sequence[Curve], events: Sequence[bool], *, is_whole: bool = False) -> Pool:
    """Those of the curves whose score by the shipped network lies between its thresholds, or all."""
    import torch

    from models.bundle import SHIPPED, read
    from models.frontend import prepare
    from models.heads import embed
    from models.network import load
    from models.raster import envelope

    bundle = read(SHIPPED)
    network = load(bundle.width, {name: torch.from_numpy(tensor) for name, tensor in bundle.weights.items()})
    prepared = prepare(list(curves), bundle.profile)
    able = np.array([one.signal is not None for one in prepared], np.bool_)
    vectors = embed(
        network, envelope([one.signal for one in prepared if one.signal is not None], bundle.profile), bundle.profile
    )
    weight, bias = network.fc.weight.detach().double().numpy()[0], float(network.fc.bias.detach()[0])
    logits = vectors.astype(np.float64) @ weight + bias
    scores, cut = bundle.calibration.score(logits), bundle.manifest.thresholds
    its = is_whole | ((scores > cut.discard) & (scores < cut.keep))
    return Pool(vectors[its], logits[its], np.array(events, np.bool_)[able][its])


def real_pools(data: Path) -> Iterator[tuple[str, Pool]]:
    """Of each real set. UserError 65 where there is no labels.csv."""
    from daemon.learn.evidence import collect
    from models.bundle import SHIPPED, read

    if not (data / "labels.csv").is_file():
        raise UserError(BAD_DATA, f"{data}: holds no labels.csv; name a collection of labelled curves")
    collection = collect([data], read(SHIPPED).profile)
    for name, system in _REAL.items():
        places = np.flatnonzero((collection.systems == system) & collection.sure)
        pool = embedded([collection.curves[one] for one in places], list(collection.events[places]), is_whole=True)
        if pool.events.any() and not pool.events.all():
            yield name, pool


def run(options: Options) -> int:
    """Exit 0 with the table, 65 for real sets without labels."""
    work = open_workplace(options.work, {"seed": options.seed, "pile": _PILE, "events": _EVENTS, "most": _MOST})
    cases: list[tuple[str, str, Draw, int]] = [
        (
            f"ranking of {auc:g}",
            "given",
            partial(two_normals, 10 * events if events < 300 else 2_000, events, auc),
            options.replays,
        )
        for events in (100, 300)
        for auc in (0.95, 0.98, 0.99)
    ]
    cases.append(("few events", "given", partial(two_normals, 300, 15, 0.99), options.replays))
    cases += [(f"hidden {left}", "given", partial(hidden, left), options.replays) for left in (6, 7)]
    for number in options.laboratories:
        for is_whole in (False, True):
            pool = laboratory_pool(work, number, options.seed, is_whole=is_whole)
            many = min(110, int(pool.events.sum())), int((~pool.events).sum())
            name = f"laboratory {number}{', all of it' if is_whole else ''}"
            cases.append((name, "score", partial(by_score, pool, *many, False), options.replays))
            cases.append((name, "head", partial(by_head, pool, *many), options.head_replays))
    for name, pool in real_pools(options.data) if options.data is not None else ():
        sizes = f"{name}, all of it ({int(pool.events.sum())} + {int((~pool.events).sum())})"
        cases.append((sizes, "score", partial(by_score, pool, 110, 700, True), options.replays))
    found = []
    for case in progress(cases, "replaying", len(cases)):
        found.append(count(*case, options.seed))
        print(write_text(found[-1:]).splitlines()[-1], flush=True)
    print(write_text(found))
    if options.out is not None:
        write_whole(options.out, (json.dumps([asdict(one) for one in found], indent=1) + "\n").encode())
    return 0


def write_text(cases: Sequence[Case]) -> str:
    """Lines for a terminal."""
    head = (
        "pile",
        "order",
        "curves",
        "events",
        "replays",
        "needed",
        "looked at",
        "slowest tenth",
        "before 60 %",
        "whole",
        "broken promises",
    )
    rows = [
        (
            one.name,
            one.order,
            f"{one.curves:,}",
            f"{one.events:,}",
            f"{one.replays:,}",
            f"{100 * one.needed:.0f} %",
            f"{100 * one.looked[0]:.0f} %",
            f"{100 * one.looked[1]:.0f} %",
            f"{100 * one.early / one.replays:.0f} %",
            f"{100 * one.whole / one.replays:.0f} %",
            percent(share(one.broken, one.replays)),
        )
        for one in cases
    ]
    return "\n".join(align([head, *rows]))
