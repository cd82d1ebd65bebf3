"""`make study TOPIC=learn`: what a night of fine-tuning does to events and pile, and whether the gate judges it right.

Each system is a stream with the truth beside it, recorded in a real state (tests.studies.nights). A person labels 100,
200 or 500 of its curves, half of them events. Then `afm-triage finetune` runs as a user runs it, and what the candidate
is worth is counted on fresh curves of the system and on those of all others. `adapt` with the same labels stands beside
it. Simulated laboratories (tests.studies.laboratories), and real sets as far as they go: half of each is taught, drawn
again and again with a little noise; the other half judges.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

from daemon.common.errors import BAD_DATA, INTERNAL, UserError
from daemon.common.options import Option
from daemon.common.stdio import progress
from daemon.common.text import align
from models.bundle import SHIPPED, Bundle, read
from models.curve import Curve
from models.files import write_whole
from models.frontend import prepare
from tests.studies.laboratories import TEN, Laboratory
from tests.studies.workplace import open_workplace

if TYPE_CHECKING:
    from daemon.learn.evidence import Collection
    from models.network import ResNet18
    from tests.studies.nights import Nights
    from tests.studies.trials import Pool

#: Real sets, by the folder of the collection; "open" itself holds one file of columns.
REAL = {
    "waite": "open/waite_livecell_txt",
    "sofa": "open/sofa_asylum_ibw",
    "i27": "open/hooke_picoforce_000",
    "chromosomes": "nolicence/chromosome_bruker_000",
    "ev6": "nolicence/ev_jpk_export_txt",
    "cnga1": "open",
}
DAYS = tuple(f"2026-11-{day:02d}" for day in range(9, 19))  # that a stream is spread over
PREVALENCE = 0.02  # that a pile is stated for
GAIN, HARM = 0.05, 0.01  # less pile is a gain, more lost is harm; shares
FEWEST_EVENTS = 20  # confirmed ones, from which a night may teach: a study asks what comes of few
_JITTER = 0.3  # of a curve's own noise, added where a real curve is drawn again


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The defaults take hours on two cores; what is done is kept in --work."""

    work: Annotated[Path, Option("what is done is kept here, and gone on with", "DIR")] = Path("/tmp/learn-study")
    laboratories: Annotated[tuple[int, ...], Option("only these, 0 to 9 (repeatable)", "N")] = TEN
    data: Annotated[Path | None, Option("real sets: a labels.csv and the folders that it names", "DIR")] = None
    real: Annotated[tuple[str, ...], Option("only these real ones (repeatable)", "NAME", choices=REAL)] = ()
    labels: Annotated[tuple[int, ...], Option("labelled curves, half of them events (repeatable)", "N")] = (
        100,
        200,
        500,
    )
    stream: Annotated[int, Option("curves that are recorded of a system, one in ten with an event", "N")] = 3000
    fresh: Annotated[int, Option("fresh curves that judge each laboratory, a third with an event", "N")] = 1200
    simulate: Annotated[int | None, Option("of finetune", "N")] = None
    strangers: Annotated[bool, Option("also ask the gate of each laboratory about a candidate of another one")] = False
    seed: Annotated[int, Option("of streams and labels", "N")] = 1
    wrong: Annotated[float, Option("share of the labels that say the opposite of the truth", "SHARE")] = 0.0
    out: Annotated[Path | None, Option("the table as JSON", "FILE.json")] = None


# A system: where its curves come from.


@dataclass(frozen=True, slots=True, eq=False)
class Simulated:
    """A laboratory, which never runs dry."""

    laboratory: Laboratory
    note: str = ""

    @property
    def name(self) -> str:
        return self.laboratory.name

    def stream(self, count: int, seed: int) -> Iterator[tuple[Curve, bool]]:
        for number in range(count):
            one = self.laboratory.curve(number, 0.1, seed)
            yield one.curve, one.is_event

    def fresh(self, count: int, seed: int) -> list[tuple[Curve, bool]]:
        events = self.laboratory.curves(count // 3, 1.0, seed + 1000)
        free = self.laboratory.curves(count - count // 3, 0.0, seed + 2000)
        return [(one.curve, one.is_event) for one in events + free]


@dataclass(frozen=True, slots=True, eq=False)
class Real:
    """A labelled set: the taught half is drawn with replacement, each draw with a little noise of its own."""

    name: str
    curves: Sequence[tuple[Curve, bool]]

    @property
    def _taught(self) -> list[tuple[Curve, bool]]:
        kinds = ([pair for pair in self.curves if pair[1] is kind] for kind in (True, False))
        return [pair for kind in kinds for pair in kind[::2]]

    @property
    def note(self) -> str:
        events, free = (sum(pair[1] is kind for pair in self._taught) for kind in (True, False))
        return f"run dry: {events} events and {free} others, drawn again"

    @property
    def may_be_taught(self) -> bool:
        """Whether both kinds are there, in both halves."""
        return all(sum(pair[1] is kind for pair in self.curves) >= 8 for kind in (True, False))

    def stream(self, count: int, seed: int) -> Iterator[tuple[Curve, bool]]:
        rng, pairs = np.random.default_rng((seed, len(self.curves))), self._taught
        kinds = {kind: [pair for pair in pairs if pair[1] is kind] for kind in (True, False)}
        for _ in range(count):
            some = kinds[bool(rng.random() < 0.1)]
            curve, is_event = some[int(rng.integers(len(some)))]
            yield _another_day(curve, rng), is_event

    def fresh(self, count: int, seed: int) -> list[tuple[Curve, bool]]:
        """The other half as it is; all of it where nothing can be taught."""
        if not self.may_be_taught:
            return list(self.curves)
        kinds = ([pair for pair in self.curves if pair[1] is kind] for kind in (True, False))
        return [pair for kind in kinds for pair in kind[1::2]]


def _another_day(curve: Curve, rng: np.random.Generator) -> Curve:
    noise = prepare([curve], read(SHIPPED).profile)[0].noise or 0.0
    return replace(curve, force=curve.force + rng.normal(0.0, _JITTER * noise, len(curve)), original=None)


System = Simulated | Real


def _systems(options: Options) -> list[System]:
    """Those of the table and, of the real ones, those that only judge."""
    found: list[System] = [Simulated(Laboratory(seed)) for seed in options.laboratories]
    if options.data is None:
        return found
    from daemon.learn.evidence import collect

    if not (options.data / "labels.csv").is_file():
        raise UserError(BAD_DATA, f"{options.data}: holds no labels.csv; name a collection of labelled curves")
    collection = collect([options.data], read(SHIPPED).profile)
    return found + [Real(name, _pairs(collection, REAL[name])) for name in options.real or tuple(REAL)]


def _pairs(collection: Collection, system: str) -> list[tuple[Curve, bool]]:
    chosen = np.flatnonzero((collection.systems == system) & collection.sure)
    return [(collection.curves[place], bool(collection.events[place])) for place in chosen]


# What a network is worth on curves of which the truth is known.


@dataclass(frozen=True, slots=True)
class Worth:
    """Shares; None where a set has no curve of that kind."""

    lost: float | None  # of events, that are discarded
    pile: float | None  # of all curves at 2 % events, that goes to review
    kept: float | None  # of event-free ones, that are kept


def worth(pool: Pool, scores: NDArray[np.float64], discard: float, keep: float) -> Worth:
    """By the rule of service."""
    verdicts = pool.judge(scores, discard, keep)
    events, free = verdicts[pool.events], verdicts[~pool.events]
    piles = [float((kind == "review").mean()) if kind.size else None for kind in (events, free)]
    pile = None if piles[1] is None else PREVALENCE * (piles[0] or 0.0) + (1 - PREVALENCE) * piles[1]
    lost = float((events == "discard").mean()) if events.size else None
    return Worth(lost, pile, float((free == "keep").mean()) if free.size else None)


@dataclass(frozen=True, slots=True, eq=False)
class Judges:
    """Fresh curves of every system, as the trunk of the shipped network gives them: no tuning changes that."""

    work: Path
    systems: Sequence[System]
    options: Options

    def pool(self, system: System) -> Pool:
        from models.raster import envelope
        from models.reasons import LIFTING
        from tests.studies.trials import Pool

        file, profile = self._file(system, "npz"), read(SHIPPED).profile
        if not file.is_file():
            pairs = system.fresh(self.options.fresh, self.options.seed)
            prepared = prepare([curve for curve, _ in pairs], profile)
            able = [(one, event) for one, (_, event) in zip(prepared, pairs, strict=True) if one.signal is not None]
            edges = envelope([one.signal for one, _ in able if one.signal is not None], profile)
            doubtful = np.array([bool(LIFTING.intersection(one.reasons)) for one, _ in able], np.bool_)
            Pool(edges, np.array([event for _, event in able], np.bool_), doubtful).save(file)
        return Pool.load(file)

    def scores(self, system: System, bundle: Bundle) -> NDArray[np.float64]:
        """(N,) of a network that has the trunk of the shipped one."""
        from models.finetune import tail_logits, trunk_of

        kept = self._file(system, "trunk.npy")
        if not kept.is_file():
            shipped = read(SHIPPED)
            trunk = trunk_of(network_of(shipped), self.pool(system).edges, shipped.profile)
            np.save(kept, trunk, allow_pickle=False)
        logits = tail_logits(network_of(bundle), np.load(kept, allow_pickle=False))
        return np.asarray(bundle.calibration.score(logits), np.float64)

    def _file(self, system: System, ending: str) -> Path:
        return self.work / f"fresh {system.name}.{ending}"


def network_of(bundle: Bundle) -> ResNet18:
    """The network of a bundle, in memory."""
    import torch

    from models.network import load

    return load(bundle.width, {name: torch.from_numpy(tensor) for name, tensor in bundle.weights.items()})


# One cell of the table.


@dataclass(frozen=True, slots=True)
class Cell:
    """What came of one system with so many labels."""

    system: str
    note: str
    labels: int
    events: int  # among them
    outcome: str  # as finetune says
    sentences: tuple[str, ...]
    candidate: str | None  # its folder
    took_s: float
    cpu_s: float
    before: Worth
    adapted: Worth  # `adapt` with the same labels
    after: Worth | None  # the candidate, whether it was promoted or not
    others: Mapping[str, tuple[Worth, Worth]]  # before and after on each other system

    @property
    def truth(self) -> str:
        """What the candidate is in truth, by fresh curves: gain, harm, or neither."""
        if self.after is None:
            return "-"
        if (self.after.lost or 0.0) > (self.before.lost or 0.0) + HARM:
            return "harm"
        gained = (self.before.pile or 0.0) - (self.after.pile or 0.0)
        return "gain" if gained >= GAIN else "neither"


class Study:
    """The cells of the table; each is kept as it is done."""

    def __init__(self, options: Options) -> None:
        self.options = options
        settings: dict[str, Any] = {"stream": options.stream, "fresh": options.fresh, "seed": options.seed}
        settings |= {"simulate": options.simulate, "model": read(SHIPPED).id, "wrong": options.wrong}
        self.work = open_workplace(options.work, settings)

    @cached_property
    def systems(self) -> list[System]:
        return _systems(self.options)

    @cached_property
    def judges(self) -> Judges:
        return Judges(self.work, self.systems, self.options)

    def cells(self) -> Iterator[Cell]:
        """Every system with every number of labels; those that are done come from the folder."""
        taught = [one for one in self.systems if isinstance(one, Simulated) or one.may_be_taught]
        for labels in self.options.labels:
            for system in taught:
                yield self.cell(system, labels)

    def cell(self, system: System, labels: int) -> Cell:
        kept = self.work / f"{system.name} {labels}.json"
        if not kept.is_file():
            write_whole(kept, json.dumps(asdict(self._worked_out(system, labels))).encode())
        return _cell(json.loads(kept.read_bytes()))

    def state(self, system: System, labels: int) -> Path:
        """Of one cell; it stays, for whoever looks closer."""
        return self.work / f"{system.name} {labels}"

    def _worked_out(self, system: System, labels: int) -> Cell:
        nights = self._recorded(system, labels)
        events = self._label(nights, labels)
        before, parent = self._worth(system, read(SHIPPED)), read(SHIPPED)
        adapted = self._adapted(nights, system)
        said, took_s, cpu_s = self._finetune(nights.state, "--events", str(FEWEST_EVENTS))
        candidate = None if said["folder"] is None else read(Path(said["folder"]))
        others = {}
        for other in () if candidate is None else self.systems:
            if candidate is not None and other is not system:
                others[other.name] = (self._worth(other, parent), self._worth(other, candidate))
        return Cell(
            system=system.name,
            note=system.note,
            labels=labels,
            events=events,
            outcome=said["outcome"],
            sentences=tuple(said["sentences"]),
            candidate=said["folder"],
            took_s=took_s,
            cpu_s=cpu_s,
            before=before,
            adapted=adapted,
            after=None if candidate is None else self._worth(system, candidate),
            others=others,
        )

    def _recorded(self, system: System, labels: int) -> Nights:
        """A copy of the state in which the stream was recorded, once for all numbers of labels."""
        from tests.studies.nights import Nights

        base, truth = self.work / f"{system.name} recorded", self.work / f"{system.name} truth.json"
        if not truth.is_file():
            shutil.rmtree(base, ignore_errors=True)
            nights = Nights(base)
            each = -(-self.options.stream // len(DAYS))
            pairs = system.stream(self.options.stream, self.options.seed)
            pairs = iter(progress(pairs, f"recording {system.name}", self.options.stream))
            for day in DAYS:
                some = [pair for _, pair in zip(range(each), pairs, strict=False)]
                nights.record(some, day=day)
            write_whole(truth, json.dumps({str(seq): told for seq, told in nights.truth.items()}).encode())
        state = self.state(system, labels)
        shutil.rmtree(state, ignore_errors=True)
        shutil.copytree(base, state)
        told = json.loads(truth.read_bytes())
        return Nights(state, {int(seq): value for seq, value in told.items()})

    def _label(self, nights: Nights, labels: int) -> int:
        """Half of them events, of what a person may look at: kept, in review, drawn for audit. How many events."""
        rng = np.random.default_rng((self.options.seed, labels))
        shown = [int(seq) for seq in rng.permutation(nights.may_be_looked_at(nights.truth))]
        events = [seq for seq in shown if nights.truth[seq]][: labels // 2]
        free = [seq for seq in shown if not nights.truth[seq]][: labels - len(events)]
        said = [*events, *free]
        nights.label(said, wrong=[seq for seq in said if rng.random() < self.options.wrong])
        return len(events)

    def _adapted(self, nights: Nights, system: System) -> Worth:
        from daemon.learn.adaptation import propose

        proposal, parent = propose(nights.config), read(SHIPPED)
        cut = proposal.new if proposal.moves else proposal.old
        return worth(self.judges.pool(system), self.judges.scores(system, parent), cut, parent.keep)

    def _worth(self, system: System, bundle: Bundle) -> Worth:
        scores = self.judges.scores(system, bundle)
        return worth(self.judges.pool(system), scores, bundle.discard, bundle.keep)

    def _finetune(self, state: Path, *words: str) -> tuple[dict[str, Any], float, float]:
        """What `finetune` says as JSON, its seconds, and those of the processors."""
        drawn, folder = self.work / "drawn", state / "finetune"
        for kept in drawn.glob("*.npy"):  # simulated curves are the same for all: as on every night but the first
            folder.mkdir(exist_ok=True)
            shutil.copyfile(kept, folder / kept.name)
        command = [sys.executable, "-m", "daemon", "finetune", "--state", str(state), "--json", *words]
        if self.options.simulate is not None and "--candidate" not in words:
            command += ["--simulate", str(self.options.simulate)]
        began_s, began = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        ran = subprocess.run(command, check=False, capture_output=True, text=True, env=dict(os.environ))
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        if ran.returncode:
            raise UserError(INTERNAL, f"finetune ended with {ran.returncode}: {ran.stderr.strip()[-300:]}")
        drawn.mkdir(exist_ok=True)
        for fresh in folder.glob("*.npy"):
            if not (drawn / fresh.name).is_file():
                shutil.copyfile(fresh, drawn / fresh.name)
        cpu_s = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
        return json.loads(ran.stdout), time.monotonic() - began_s, cpu_s

    def stranger(self, cell: Cell, system: System) -> dict[str, Any]:
        """What the gate of a system says of a candidate that another one taught, and what it is worth there."""
        kept = self.work / f"{system.name} {cell.labels} asked about {cell.system}.json"
        if not kept.is_file():
            candidate = read(Path(str(cell.candidate)))
            words = ("--candidate", str(cell.candidate), "--dry-run")
            said, _, _ = self._finetune(self.state(system, cell.labels), *words)
            before, after = self._worth(system, read(SHIPPED)), self._worth(system, candidate)
            judged = replace(cell, system=system.name, before=before, after=after, outcome=said["outcome"])
            write_whole(kept, json.dumps({"truth": judged.truth} | said).encode())
        return dict(json.loads(kept.read_bytes()))


def _cell(said: Mapping[str, Any]) -> Cell:
    def worth_of(one: Mapping[str, Any] | None) -> Worth | None:
        return None if one is None else Worth(**one)

    others = {name: tuple(map(worth_of, pair)) for name, pair in said["others"].items()}
    worths = {name: worth_of(said[name]) for name in ("before", "adapted", "after")}
    return Cell(**{**said, **worths, "others": others, "sentences": tuple(said["sentences"])})


# The study.


def run(options: Options) -> int:
    """Exit 0; 65 where a collection has no labels, 70 where finetune fails."""
    study = Study(options)
    cells = []
    for cell in study.cells():
        cells.append(cell)
        print(f"{cell.system}, {cell.labels} labels: {cell.outcome}; {cell.sentences[0]}", file=sys.stderr, flush=True)
    strangers = list(_strangers(study, cells)) if options.strangers else []
    print(written(cells, strangers))
    if options.out is not None:
        report = {"cells": [asdict(cell) | {"truth": cell.truth} for cell in cells], "strangers": strangers}
        write_whole(options.out, (json.dumps(report, indent=1) + "\n").encode())
    return 0


def _strangers(study: Study, cells: Sequence[Cell]) -> Iterator[dict[str, Any]]:
    """Each laboratory's gate is asked about the candidate of the one before it."""
    for labels in study.options.labels:
        own = [cell for cell in cells if cell.labels == labels and cell.candidate is not None]
        systems = {one.name: one for one in study.systems}
        for cell, other in zip(own, [*own[1:], *own[:1]], strict=True):
            if cell is not other:
                yield study.stranger(cell, systems[other.system])


def written(cells: Sequence[Cell], strangers: Sequence[Mapping[str, Any]] = ()) -> str:
    """The tables: what came of each, what was forgotten, and what the gate made of gain and harm."""
    rows: list[tuple[str, ...]] = [
        (
            "system",
            "labels",
            "events",
            "lost, %",
            "adapt",
            "tuned",
            "pile, %",
            "adapt",
            "tuned",
            "in truth",
            "gate",
            "s",
        )
    ]
    for cell in cells:
        worths = (cell.before, cell.adapted, cell.after)
        lost, pile = ([_percent(one, "lost") for one in worths], [_percent(one, "pile") for one in worths])
        rows.append(
            (
                cell.system,
                str(cell.labels),
                str(cell.events),
                *lost,
                *pile,
                cell.truth,
                cell.outcome,
                f"{cell.took_s:.0f}",
            )
        )
    lines = [*align(rows), ""]
    lines += [f"{cell.system}, {cell.labels} labels: {cell.sentences[0]}" for cell in cells if cell.sentences]
    notes = {f"{cell.system}: {cell.note}" for cell in cells if cell.note}
    return "\n".join([*lines, *sorted(notes), "", *_forgotten(cells), "", *_power(cells, strangers)])


def _forgotten(cells: Sequence[Cell]) -> Iterator[str]:
    for chosen, what in ((("promoted",), "promoted"), (("promoted", "refused", "held"), "all")):
        mine = [cell for cell in cells if cell.outcome in chosen and cell.others]
        for figure in ("lost", "pile"):
            moved = np.array(
                [
                    100 * (getattr(after, figure) - getattr(before, figure))
                    for cell in mine
                    for before, after in cell.others.values()
                    if getattr(before, figure) is not None
                ]
            )
            if moved.size:
                over = f"{int((moved > 1.0).sum())} of {moved.size} pairs rise by more than 1 point"
                points = f"{moved.mean():+.2f} points on average, at most {moved.max():+.1f}"
                yield f"others, {what} candidates: {figure} {points}; {over}"


def _power(cells: Sequence[Cell], strangers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    passed = {"promoted", "held"}  # held: it passed a gate that was asked about it only
    asked = [(cell.truth, cell.outcome in passed) for cell in cells if cell.after is not None]
    for what, pairs in (
        ("of its own laboratory", asked),
        ("of another one", [(one["truth"], one["outcome"] in passed) for one in strangers]),
    ):
        for truth in ("gain", "neither", "harm"):
            told = [is_passed for said, is_passed in pairs if said == truth]
            if told:
                yield f"a candidate {what} that is a {truth} in truth: {sum(told)} of {len(told)} pass the gate"


def _percent(one: Worth | None, name: str) -> str:
    value = getattr(one, name, None)
    return "-" if value is None else f"{100 * value:.1f}"
