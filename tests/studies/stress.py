"""`make study TOPIC=stress`: from which strength on does a nuisance turn an event into a discard?

Simulated curves, with an event and without, and labelled ones where folders are named, get one nuisance after the other
at growing strength on top of what they already have, and are judged as in service.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from zlib import crc32

import numpy as np

from daemon.common.errors import BAD_DATA, USAGE, UserError
from daemon.common.options import Option
from daemon.common.stdio import progress
from daemon.common.text import align
from daemon.config import ThresholdsConfig
from daemon.formats.base import Unfinished
from daemon.formats.samples import check_written
from daemon.judging import Judge, Verdict, verdict_of
from daemon.judging.judge import judge_of, load_model
from daemon.learn.evidence import curves_of, read_labels, refuse
from deploy.classifier import EngineRequest
from deploy.serving import Model
from models.curve import Curve
from models.frontend import prepare
from models.metrics import count_table
from models.simulate import simulate
from tests.studies.nuisances import NUISANCES, Nuisance, Subject, is_visible, subject_of
from tests.studies.workplace import percent, share

# The table of `make study TOPIC=stress`: what each strength of each nuisance did to events and to event-free curves.

_NOTE = """
events, event-free: keep/review/discard; lost: events discarded, before: of the same ones without the nuisance;
of visible: lost among the events in which an expert would still see a rupture (models.simulate.background);
cut: event-free curves discarded; exact 95 % intervals.
A nuisance stands where it can be laid on a curve, so counts differ from row to row."""


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """What one strength of one nuisance did to the curves it could be laid on."""

    name: str
    strength: float
    unit: str
    events: tuple[bool, ...]
    visible: tuple[bool, ...] | None  # events an expert would still see; None where nothing can bury them
    verdicts: tuple[Verdict, ...]
    before: tuple[Verdict, ...]  # on the same curves as they were


def report(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """One row a cell: counts, shares, intervals."""
    return [_row(cell) for cell in cells]


def _row(cell: Cell) -> dict[str, Any]:
    table = count_table(cell.verdicts, cell.events)
    row = {"nuisance": cell.name, "strength": cell.strength, "unit": cell.unit, "table": table}
    row["lost"] = share(table["discard"]["event"], sum(cell.events))
    row["before"] = share(count_table(cell.before, cell.events)["discard"]["event"], sum(cell.events))
    row["cut"] = share(table["discard"]["none"], len(cell.events) - sum(cell.events))
    if cell.visible is not None:
        seen = [verdict for verdict, visible in zip(cell.verdicts, cell.visible, strict=True) if visible]
        row["lost_of_visible"] = share(seen.count("discard"), len(seen))
    return row


def write_text(found: Mapping[str, Any]) -> str:
    """Lines for a terminal, a table a group of curves."""
    parts = [f"{found['model']} by {found['engine']}, seed {found['seed']}"]
    for group, rows in found["groups"].items():
        head = ["nuisance", "strength", "", "events", "before", "lost", "of visible", "event-free", "cut"]
        cells = [head, *map(_cells, rows)]
        parts.append(f"\n{group}\n" + "\n".join(align(cells, left=(0, 2))))
    return "\n".join([*parts, _NOTE])


def _cells(row: Mapping[str, Any]) -> list[str]:
    table = row["table"]
    counts = ["/".join(str(table[verdict][kind]) for verdict in table) for kind in ("event", "none")]
    strength = f"{row['strength']:g}" if row["unit"] else ""
    shares = [percent(row.get(name)) for name in ("lost", "lost_of_visible")]
    before = percent(row["before"]).split(" [")[0]
    return [row["nuisance"], strength, row["unit"], counts[0], before, *shares, counts[1], percent(row["cut"])]


PLAIN = "as it is"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Folders are stressed beside the simulated curves; cuts and tails are for curves whose ruptures are known."""

    folders: Annotated[tuple[Path, ...], Option("labelled folders, stressed as well", "DIR", is_positional=True)] = ()
    model: Annotated[str, Option("model that judges", "NAME-or-DIR")] = "shipped"
    device: Annotated[Literal["auto", "cpu", "cuda"], Option("where it runs")] = "auto"
    curves: Annotated[int, Option("simulated, half with an event", "N")] = 4000
    seed: Annotated[int, Option("", "N")] = 1
    only: Annotated[tuple[str, ...] | None, Option("this one alone (repeatable)", "NUISANCE")] = None
    out: Annotated[Path | None, Option("also as JSON", "FILE.json")] = None


def run(options: Options) -> int:
    """Exit 0 with the table, 64 for a nuisance that there is not, 65 for labels that make no sense."""
    if options.curves < 1 or options.seed < 0:
        raise UserError(USAGE, "--curves is 1 or more, --seed 0 or more")
    nuisances = _chosen(options.only)
    model = load_model(options.model, EngineRequest(options.device))
    judge = judge_of(model, ThresholdsConfig())
    labelled = {"labelled": _labelled(options.folders, model)} if options.folders else {}
    groups = {"simulated": _simulated(options.curves, options.seed, model), **labelled}
    if not all(groups.values()):
        raise UserError(BAD_DATA, "no curve with a calibration and a distance: nothing can be laid on the others")
    found: dict[str, Any] = {"model": model.id, "engine": str(model.engine), "seed": options.seed, "groups": {}}
    for group, subjects in groups.items():
        found["groups"][group] = report(list(_stress(subjects, nuisances, model, judge, options.seed, group)))
    print(write_text(found))
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def _chosen(only: Sequence[str] | None) -> dict[str, Nuisance]:
    if unknown := [name for name in only or () if name not in NUISANCES]:
        raise UserError(USAGE, f"--only {unknown[0]}: no such nuisance; there are: {', '.join(NUISANCES)}")
    return {name: nuisance for name, nuisance in NUISANCES.items() if not only or name in only}


def _simulated(count: int, seed: int, model: Model) -> list[Subject]:
    subjects: list[Subject] = []
    for item in progress(simulate(count, seed), "simulating", count):
        prepared = prepare([item.curve], model.bundle.profile)[0]
        subject = subject_of(item.curve, prepared, item.label == "keep", item.ruptures, item.family)
        subjects += [subject] if subject is not None else []
    return subjects


def _labelled(folders: Sequence[Path], model: Model) -> list[Subject]:
    labels = read_labels(folders)
    problems: list[str] = []
    subjects: list[Subject] = []
    for item in progress(curves_of(labels, problems), "reading", sum(len(folder.rows) for folder in labels)):
        if item.row.label != "unsure":
            prepared = prepare([item.curve], model.bundle.profile)[0]
            subject = subject_of(item.curve, prepared, item.event, None, item.row.system)
            subjects += [subject] if subject is not None else []
    refuse(problems)
    return subjects


def _stress(
    subjects: Sequence[Subject], nuisances: dict[str, Nuisance], model: Model, judge: Judge, seed: int, group: str
) -> Iterator[Cell]:
    curves = [subject.curve for subject in subjects]
    events = tuple(subject.event for subject in subjects)
    plain = _judge(curves, model, judge)
    yield Cell(PLAIN, 0.0, "", events, None, plain, plain)
    cells = [(name, nuisance, strength) for name, nuisance in nuisances.items() for strength in nuisance.strengths]
    for name, nuisance, strength in progress(cells, f"stressing the {group}", len(cells)):
        laid = list(_lay(subjects, name, nuisance, strength, seed))
        able = tuple(events[place] for place, _, _ in laid)
        if any(able):
            verdicts = _judge([curve for _, curve, _ in laid], model, judge)
            seen = tuple(visible for _, _, visible in laid) if nuisance.adds and group == "simulated" else None
            yield Cell(name, strength, nuisance.unit, able, seen, verdicts, tuple(plain[place] for place, _, _ in laid))


def _lay(
    subjects: Iterable[Subject], name: str, nuisance: Nuisance, strength: float, seed: int
) -> Iterator[tuple[int, Curve, bool]]:
    """Which curves the nuisance can be laid on, the curve then, and whether an expert would still see a rupture."""
    for place, subject in enumerate(subjects):
        rng = np.random.default_rng((seed, crc32(name.encode()), place))
        curve = nuisance.apply(rng, subject, strength)
        if curve is not None:
            yield place, curve, nuisance.adds and is_visible(rng, subject, curve)


def _judge(curves: Sequence[Curve], model: Model, judge: Judge) -> tuple[Verdict, ...]:
    """As in service: what a reader refuses is for a person, the rest is for the model and the rule of decisions."""
    verdicts: list[Verdict] = ["review"] * len(curves)
    able: list[int] = []
    for place, curve in enumerate(curves):
        try:
            check_written(curve.force)
            able.append(place)
        except Unfinished:
            continue
    for place, scored in zip(able, model.judge([curves[place] for place in able]), strict=True):
        verdicts[place] = verdict_of(scored.score, scored.reasons, judge.thresholds)
    return tuple(verdicts)
