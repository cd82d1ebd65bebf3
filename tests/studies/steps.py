"""`make study TOPIC=steps`: of the events that the network misses, how many does the second opinion see?

Two kinds of misses: simulated events that fall below the discard cut, and labelled real events whose sign is wrong,
with every check of the sign switched off. The level is the one that 2 % of the curves exceed, as discards, in a
simulated stream in which 2 % hold an event. Its statistic was chosen on other simulated curves and on half of the
folders (``CHOSEN_ON``); the other half says whether it holds elsewhere.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from daemon.common.errors import USAGE, UserError
from daemon.common.options import Option
from daemon.common.stdio import progress
from daemon.common.text import align
from daemon.judging.sentinel import LEVEL, Dispute
from models.files import write_whole
from models.frontend import OPEN, prepare, turned
from models.metrics import clopper_pearson
from models.simulate import simulate
from models.steps import second_opinion

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from daemon.judging import Judge
    from deploy.serving import Model
    from models.curve import Curve

BATCH = 64
SHARE = 0.02  # of the curves that are disputed, and of those that hold an event
#: What its windows and shares were chosen on: part of a path.
CHOSEN_ON = (
    "waite_livecell_txt/set1",
    "sofa_asylum_ibw",
    "feather_asylum_csv",
    "fodis_jpk_processed",
    "hooke_mfp3d_ibw",
    "ev_jpk_export_txt",
    "forsdat_jpk_processed",
    "hooke_jpk_2009",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Labelled folders, and curves of the simulator."""

    folders: Annotated[
        tuple[Path, ...], Option("labelled curves (each has a labels.csv)", "DIR", is_positional=True)
    ] = ()
    simulate: Annotated[int, Option("simulated curves without an event", "N")] = 12_000
    events: Annotated[int, Option("simulated events; of fifty one is missed", "N")] = 20_000
    seed: Annotated[int, Option("of the simulated ones", "N")] = 7_300_000
    model: Annotated[str, Option("the model that is asked")] = "shipped"
    out: Annotated[Path | None, Option("the figures as JSON", "FILE.json")] = None


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Of N curves: what both say."""

    t: NDArray[np.float64]  # (N,); 0 where nothing can be said
    is_discard: NDArray[np.bool_]  # (N,)
    group: tuple[str, ...]

    def reached(self, level: float, among: NDArray[np.bool_]) -> Share:
        """Of those discards, the share that is disputed."""
        mask = self.is_discard & among
        return Share(int((self.t[mask] > level).sum()), int(mask.sum()))


@dataclass(frozen=True, slots=True)
class Share:
    """``some`` of ``all``."""

    some: int
    all: int

    def __str__(self) -> str:
        if not self.all:
            return "-"
        low, high = clopper_pearson(self.some, self.all)
        return f"{self.some} of {self.all}, {self.some / self.all:.0%} [{low:.0%}, {high:.0%}]"


def run(options: Options) -> int:
    """Exit 0; UserError 65 for labels that make no sense."""
    from daemon.config import ThresholdsConfig
    from daemon.judging.judge import judge_of, load_model

    if min(options.simulate, options.events) < 100 or options.seed < 0:
        raise UserError(USAGE, "--simulate and --events are 100 or more, --seed is 0 or more")
    model = load_model(options.model)
    judge = judge_of(model, ThresholdsConfig())
    coming = simulate(options.simulate, options.seed, 0.0)
    free = look(((one.family, one.curve) for one in progress(coming, "without event", options.simulate)), model, judge)
    coming = simulate(options.events, options.seed + 1, 1.0)
    events = look(((one.family, one.curve) for one in progress(coming, "with event", options.events)), model, judge)
    level = level_of(free, events)
    rows = [["simulated events that are missed", str(events.reached(level, events.is_discard))]]
    for family in sorted(set(events.group)):
        rows.append([f"  {family}", str(events.reached(level, _are(events, family)))])
    found: dict[str, Any] = {"level": level, "microseconds": cost_us(), "simulated": dict(rows)}
    told = [f"level at 2 % of the curves {level:.3f} (a service begins with {LEVEL}); {found['microseconds']:.0f} µs a"]
    told = [f"{told[0]} curve in batches of {BATCH}, on one core", "", *align(rows, left=range(2)), ""]
    if options.folders:
        table = list(real(options.folders, level, model, judge))
        found["real"] = [asdict(row) for row in table]
        told += write_table(table)
    told += watched(free, events, options.seed)
    if options.out:
        write_whole(options.out, json.dumps(found, indent=1).encode() + b"\n")
    print("\n".join(told))
    return 0


def look(coming: Iterable[tuple[str, Curve]], model: Model, judge: Judge) -> Seen:
    """Each curve as if its file stated the sign, without any check of it."""
    waiting, groups = iter(coming), list[str]()
    t, is_discard = list[float](), list[bool]()
    while batch := list(islice(waiting, BATCH)):
        groups += [group for group, _ in batch]
        curves = [replace(curve, notes=tuple(note for note in curve.notes if note != OPEN)) for _, curve in batch]
        prepared = prepare(curves, model.bundle.profile)
        scored = model.judge_prepared(prepared, judge.thresholds.both, drawn=False)
        is_discard += [one.falls(judge.thresholds.discard) for one in scored]
        seen = iter(second_opinion([item.signal for item in prepared if item.signal is not None]).tolist())
        t += [0.0 if item.signal is None else next(seen) for item in prepared]
    return Seen(np.array(t), np.array(is_discard), tuple(groups))


def level_of(free: Seen, events: Seen) -> float:
    """What 2 % of all curves exceed, as discards, where 2 % hold an event."""
    t = np.concatenate([free.t[free.is_discard], events.t[events.is_discard]])
    shares = (1 - SHARE) / free.t.size, SHARE / events.t.size
    weights = np.repeat(shares, (int(free.is_discard.sum()), int(events.is_discard.sum())))
    order = np.argsort(-t)
    return float(t[order][np.searchsorted(np.cumsum(weights[order]), SHARE)])


def cost_us(batches: int = 20) -> float:
    """Of one curve; the best of three, for others work on this machine too."""
    rng = np.random.default_rng(1)
    signals = [list(rng.standard_normal((BATCH, 512)).astype(np.float32)) for _ in range(batches)]

    def once() -> float:
        begun_s = time.process_time()
        for batch in signals:
            second_opinion(batch)
        return (time.process_time() - begun_s) / (batches * BATCH) * 1e6

    return min(once() for _ in range(3))


@dataclass(frozen=True, slots=True)
class Row:
    """A group of labelled curves, read as it is and upside down."""

    group: str
    free: Share  # event-free discards that are disputed
    free_misread: Share
    misread: Share  # events that are discarded because of the sign


def real(folders: Sequence[Path], level: float, model: Model, judge: Judge) -> Iterator[Row]:
    """All, both halves, and every system."""
    from daemon.learn.evidence import curves_of, read_labels, refuse

    problems: list[str] = []
    items = [item for item in curves_of(read_labels(folders), problems) if item.row.label != "unsure"]
    refuse(problems)
    as_read = look(((item.row.system, item.curve) for item in items), model, judge)
    misread = look(((item.row.system, turned(item.curve)) for item in items), model, judge)
    is_event = np.array([item.event for item in items])
    is_chosen = np.array([any(part in item.row.path for part in CHOSEN_ON) for item in items])
    groups = {"all": np.ones(len(items), bool), "chosen on": is_chosen, "other half": ~is_chosen}
    groups |= {name: _are(as_read, name) for name in dict.fromkeys(as_read.group)}
    for name, among in groups.items():
        shares = (
            as_read.reached(level, among & ~is_event),
            misread.reached(level, among & ~is_event),
            misread.reached(level, among & is_event),
        )
        yield Row(name, *shares)


def write_table(rows: Sequence[Row]) -> list[str]:
    """Real curves; all of them are discards."""
    head = ["real discards that are disputed", "event-free", "event-free, sign wrong", "events, sign wrong"]
    cells = [[row.group, str(row.free), str(row.free_misread), str(row.misread)] for row in rows]
    return [*align([head, *cells], left=range(4)), ""]


def watched(free: Seen, events: Seen, seed: int) -> list[str]:
    """The rule as the service has it, over a stream of such curves, drawn with replacement."""
    rng = np.random.default_rng(seed)
    dispute, disputed, told = Dispute(), 0, 0
    for _ in range(20_000):
        some = events if rng.random() < SHARE else free
        one = int(rng.integers(some.t.size))
        before = dispute.finding()
        disputed += dispute.observe(float(some.t[one]), is_discard=bool(some.is_discard[one]))
        told += bool(dispute.finding()) and not before
    return [f"a stream of 20,000 such curves: {disputed / 20_000:.2%} disputed, {told} findings"]


def _are(seen: Seen, group: str) -> NDArray[np.bool_]:
    return np.array([one == group for one in seen.group])
