"""The training run as a user asks for it: data from everywhere, a work folder to go on from, a model at the end."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from daemon import __version__
from daemon.errors import BAD_DATA, UserError
from daemon.progress import progress
from daemon.training.labelled import LabelledFolder, curves_of, read_labels, refuse
from daemon.training.taught import Taught, identity_of
from deploy.assembly import Origin, assemble
from deploy.registry import resolve
from models.bundle import BadBundle, Bundle, read
from models.curve import Curve
from models.data import Examples, gather
from models.loss import describe
from models.network import load
from models.profile import RasterProfile
from models.simulate import simulate
from models.train import Recipe, Run

HELD_OUT = 20_000  # simulated curves that calibration and thresholds stand on, never trained on
HELD_OUT_SEED = 1_000_000  # added to the seed, so that held-out curves are others than the trained ones
LABELLED_SHARE = 0.25  # a few labelled curves are repeated until they are this share of what is trained on


@dataclass(frozen=True, slots=True)
class Plan:
    """One training run, before anything is done."""

    out: Path
    name: str
    simulated: int
    labelled: tuple[Path, ...]
    recipe: Recipe
    profile: RasterProfile
    parent: Bundle | None = None
    held_out: int = HELD_OUT

    @property
    def work(self) -> Path:
        """What an interrupted run leaves, beside the model folder that it will make."""
        return self.out.with_name(f".{self.out.name}.training")


def parent_of(name: str) -> Bundle:
    """The model that ``--init`` names; UserError when it is none."""
    try:
        return read(resolve(name))
    except BadBundle as error:
        raise UserError(BAD_DATA, f"--init {error}") from None


def train(plan: Plan) -> Bundle:
    """Carry out a plan, or what is left of it after an interruption. UserError for labels that make no sense."""
    labels = read_labels(plan.labelled)
    taught, labelled = Taught.of(plan.parent.manifest if plan.parent else None), None
    if labels:  # before anything is written or simulated: what is wrong with a label is said at once
        identities: set[str] = set()
        labelled = _open("reading labelled curves", plan, labels, identities)
        taught = taught.with_more(_tables(labels), identities)
    _begin(plan, labels)
    examples = _draw("simulating", plan, plan.simulated, plan.recipe.seed, "simulated")
    if labelled is not None:
        examples = _join(examples, labelled)
    initial = None
    if plan.parent is not None:
        weights = {name: torch.from_numpy(tensor) for name, tensor in plan.parent.weights.items()}
        initial = load(plan.parent.width, weights)
    run = Run(examples, plan.profile, plan.recipe, initial, plan.work / "checkpoint")
    for _ in progress(run, "training", len(run)):
        pass
    held_out = _draw("simulating held-out curves", plan, plan.held_out, plan.recipe.seed + HELD_OUT_SEED, "held-out")
    what = {**_what(plan, labels), **taught.for_manifest(), "loss": describe(plan.recipe.loss)}
    if labelled is not None:
        what["labelled_curves"] = _classes(labelled)
    origin = Origin(plan.name, __version__, what, parent=plan.parent.id if plan.parent else None)
    bundle = assemble(plan.out, run.network, plan.profile, held_out, origin)
    shutil.rmtree(plan.work, ignore_errors=True)
    return bundle


def _begin(plan: Plan, labels: Sequence[LabelledFolder]) -> None:
    """Go on in the work folder when it is of this very plan, else start afresh."""
    wanted = json.dumps(
        {**_what(plan, labels), "profile": plan.profile.id, "parent": plan.parent.id if plan.parent else None},
        sort_keys=True,
    )
    note = plan.work / "plan.json"
    if not note.is_file() or note.read_text() != wanted:
        shutil.rmtree(plan.work, ignore_errors=True)
        plan.work.mkdir(parents=True)
        note.write_text(wanted)


def _what(plan: Plan, labels: Sequence[LabelledFolder]) -> dict[str, Any]:
    """Everything that decides the outcome; stands in the manifest."""
    recipe = {key: value for key, value in asdict(plan.recipe).items() if key not in ("threads", "bf16")}
    return {"simulated": plan.simulated, "held_out": plan.held_out, "labelled": _tables(labels), "recipe": recipe}


def _tables(labels: Sequence[LabelledFolder]) -> dict[str, str]:
    return {folder.folder.name: _digest(folder.folder / "labels.csv") for folder in labels}


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _draw(what: str, plan: Plan, count: int, seed: int, name: str) -> Examples:
    """Simulated examples, kept in the work folder: drawn once, however often the run is interrupted."""
    kept = Examples.load(plan.work / name)
    if kept is not None:
        return kept
    curves = progress(simulate(count, seed, 0.5), what, count)
    drawn = gather(((item.curve, item.label == "keep") for item in curves), plan.profile)
    drawn.save(plan.work / name)
    return drawn


def _open(what: str, plan: Plan, labels: Sequence[LabelledFolder], identities: set[str]) -> Examples:
    """Sure labels only: `unsure` teaches neither side. The curves' names for :class:`Taught` go to ``identities``."""
    problems: list[str] = []
    rows = sum(len(folder.rows) for folder in labels)
    curves = progress(curves_of(labels, problems), what, rows)

    def sure() -> Iterator[tuple[Curve, bool]]:
        for item in curves:
            if item.row.label != "unsure":
                identities.add(identity_of(item.curve))
                yield item.curve, item.event

    examples = gather(sure(), plan.profile)
    refuse(problems)
    if not len(examples):
        raise UserError(BAD_DATA, "the labelled folders hold no curve labelled keep or discard that can be scored")
    classes = _classes(examples)
    says = f"{classes['events']} labelled events and {classes['event_free']} labelled event-free curves to learn from"
    if not (plan.simulated or all(classes.values())):
        raise UserError(BAD_DATA, f"{says}; label some of the other kind, or add --simulate N")
    print(f"{says} ({rows - len(examples)} unsure or without a score left aside)", file=sys.stderr)
    return examples


def _classes(labelled: Examples) -> dict[str, int]:
    events = int((labelled.labels > 0.5).sum())
    return {"events": events, "event_free": len(labelled) - events}


def _join(simulated: Examples, labelled: Examples) -> Examples:
    times = max(1, round(LABELLED_SHARE * len(simulated) / (1 - LABELLED_SHARE) / len(labelled)))
    return simulated + labelled.repeat(times)
