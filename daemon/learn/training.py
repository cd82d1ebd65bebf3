"""The training run that a user asks for: collects curves, continues in its work folder after a stop, writes a model."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from daemon import __version__
from daemon.common.errors import BAD_DATA, UserError
from daemon.common.locks import clear, lock_work_folder
from daemon.common.stdio import progress, working
from daemon.judging.judge import load_model
from daemon.learn.evidence import (
    LabelledFolder,
    TrainingRecord,
    curves_of,
    fingerprint_of,
    read_labels,
    read_unlabelled,
    refuse,
    tell_apart,
)
from daemon.learn.head import HeadPlan, Start, fit_head
from deploy import serving
from deploy.classifier import EngineRequest
from deploy.serving import Model
from models.bundle import BadBundle, Bundle, Calibration, Cut, Manifest, Network, SelfTest, Weights, write
from models.calibrate import SIMULATED, choose_cut, fit_platt
from models.card import describe
from models.clock import utc_now
from models.curve import Curve
from models.files import remove_unfinished
from models.frontend import OPEN, prepare, turned
from models.loss import describe as describe_loss
from models.network import ResNet18, load
from models.raster import RasterProfile, envelope
from models.simulate import simulate
from models.train import Examples, Recipe, Run, gather, infer

HELD_OUT = 20_000  # simulated curves that calibration and thresholds stand on, never trained on
MOST_MISSED = 0.018  # of simulated events below the discard threshold; decision 0006
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
    start: Start = field(default_factory=Start)
    held_out: int = HELD_OUT
    most_missed: float = MOST_MISSED
    replaces: bool = False  # the model that ``out`` holds, if it holds one
    head: HeadPlan | None = None  # only the last layer is fitted, in one go

    @property
    def parent(self) -> Bundle | None:
        return self.start.parent

    @property
    def work(self) -> Path:
        """What an interrupted run leaves, beside the model folder that it will make."""
        return self.out.with_name(f".{self.out.name}.training")


def train(plan: Plan) -> Bundle:
    """Carry out a plan, or what is left of it after an interruption. UserError for labels that make no sense."""
    with working("checking labels"):
        initial = plan.start.network()
        labels = read_labels(plan.labelled)
    identities, unlabelled, labelled, others = set[str](), set[str](), None, None
    if labels:  # before anything is written or simulated: what is wrong with a label is said at once
        labelled = _open("reading labelled curves", plan, labels, identities)
    if plan.head and plan.head.unlabelled:
        others = read_unlabelled(plan.head.unlabelled, plan.profile, unlabelled)
    record = TrainingRecord.of(plan.parent.manifest.training if plan.parent else {})
    record = record.with_more(_tables(labels), identities, unlabelled)
    with lock_work_folder(plan.work):
        _begin(plan, labels, identities)
        examples = _draw("simulating", plan, plan.simulated, plan.recipe.seed, "simulated")
        if plan.head is not None and initial is not None:
            torch.set_num_threads(plan.recipe.threads)
            with working("fitting the last layer"):
                network = fit_head(initial, plan.head, examples, labelled, others, plan.profile, LABELLED_SHARE)
        else:
            network = _run(plan, initial, examples if labelled is None else _join(examples, labelled))
        seed = plan.recipe.seed + HELD_OUT_SEED
        held_out = _draw("simulating held-out curves", plan, plan.held_out, seed, "held-out")
        with working("choosing thresholds"):
            bundle = _make(plan, network, held_out, _account(plan, labels, labelled, record, others))
        shutil.rmtree(plan.work, ignore_errors=True)
    return bundle


def _account(
    plan: Plan,
    labels: Sequence[LabelledFolder],
    labelled: Examples | None,
    record: TrainingRecord,
    others: NDArray[np.float32] | None,
) -> dict[str, Any]:
    """What the manifest says of the training."""
    what = {**_what(plan, labels), **record.for_manifest(), **_way(plan, others)}
    if labelled is not None:
        what["labelled_curves"] = _classes(labelled)
    return what


def _make(plan: Plan, network: ResNet18, held_out: Examples, what: Mapping[str, Any]) -> Bundle:
    """The model folder; UserError (65) where the training came to nothing that could serve."""
    if not all(bool(torch.isfinite(tensor.half()).all()) for tensor in network.state_dict().values()):
        shutil.rmtree(plan.work, ignore_errors=True)
        raise UserError(BAD_DATA, "the training ran away, weights are no longer finite; try a smaller --rate")
    origin = Origin(plan.name, __version__, what, parent=plan.parent.id if plan.parent else None)
    try:
        return assemble(
            plan.out, network, plan.profile, held_out, origin, most_missed=plan.most_missed, replaces=plan.replaces
        )
    except BadBundle as error:
        raise UserError(BAD_DATA, str(error)) from None


def _run(plan: Plan, initial: ResNet18 | None, examples: Examples) -> ResNet18:
    run = Run(examples, plan.profile, plan.recipe, initial, plan.work / "checkpoint")
    for _ in progress(run, "training", len(run)):
        pass
    return run.network


def _way(plan: Plan, others: NDArray[np.float32] | None) -> dict[str, Any]:
    """How the weights were found, in the words of the manifest."""
    if plan.head is None:
        return {"loss": describe_loss(plan.recipe.loss)}
    return {
        "head": {
            "kind": plan.head.kind,
            "features": plan.head.features,
            "unlabelled": 0 if others is None else len(others),
        }
    }


def _begin(plan: Plan, labels: Sequence[LabelledFolder], identities: set[str]) -> None:
    """Go on in the work folder when it is of this very plan and of these very curves, else start afresh."""
    curves = hashlib.sha256(" ".join(sorted(identities)).encode()).hexdigest()
    parent = plan.parent.id if plan.parent else None
    wanted = json.dumps(
        {**_what(plan, labels), "profile": plan.profile.id, "parent": parent, "curves": curves}, sort_keys=True
    )
    note = plan.work / "plan.json"
    if not note.is_file() or note.read_text() != wanted:
        clear(plan.work)
        note.write_text(wanted)
    remove_unfinished(plan.work)


def _what(plan: Plan, labels: Sequence[LabelledFolder]) -> dict[str, Any]:
    """Everything that decides the outcome; stands in the manifest."""
    left_out = ("threads", "bf16", *(() if plan.recipe.frozen else ("frozen",)))
    recipe = {key: value for key, value in asdict(plan.recipe).items() if key not in left_out}
    what = {"simulated": plan.simulated, "held_out": plan.held_out, "labelled": _tables(labels), **plan.start.note}
    return what | ({"recipe": recipe} if plan.head is None else {})


def _tables(labels: Sequence[LabelledFolder]) -> dict[str, str]:
    tables: dict[str, str] = {}
    for folder in labels:
        tables[tell_apart(folder.folder.resolve().name, tables)] = _digest(folder.folder / "labels.csv")
    return tables


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
    """Sure labels only: `unsure` teaches neither side. Names for :class:`TrainingRecord` go to ``identities``."""
    problems: list[str] = []
    rows = sum(len(folder.rows) for folder in labels)
    curves, oriented = progress(curves_of(labels, problems), what, rows), orientation(plan.parent)

    def sure() -> Iterator[tuple[Curve, bool]]:
        for item in curves:
            if item.row.label != "unsure":
                identities.add(fingerprint_of(item.curve))
                yield oriented(item.curve) if item.event else item.curve, item.event

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


def orientation(parent: Bundle | None) -> Callable[[Curve], Curve]:
    """Which way up a labelled event is taught: as its reader believes, unless its sign is open and surely wrong.

    Nobody has labelled the sign. Where the model which training begins from would discard the event as its reader
    believes, and keeps it upside down, the picture that scored nothing would be trained as one. Of a curve without an
    event both ways are pictures of none.
    """

    @cache
    def judge(folder: Path) -> Model:
        return load_model(str(folder), EngineRequest(device="cpu", precision="fp32"))

    def oriented(curve: Curve) -> Curve:
        if parent is None or OPEN not in curve.notes:
            return curve
        other = turned(curve)
        believed, upside_down = judge(parent.folder).judge_prepared(prepare([curve, other], parent.profile))
        is_nothing = believed.score is not None and believed.score <= parent.discard
        return other if is_nothing and (upside_down.score or 0.0) >= parent.keep else curve

    return oriented


def _classes(labelled: Examples) -> dict[str, int]:
    events = int((labelled.labels > 0.5).sum())
    return {"events": events, "event_free": len(labelled) - events}


def _join(simulated: Examples, labelled: Examples) -> Examples:
    times = max(1, round(LABELLED_SHARE * len(simulated) / (1 - LABELLED_SHARE) / len(labelled)))
    return simulated + labelled.repeat(times)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model comes from; goes into its manifest as it is."""

    name: str
    code_version: str
    training: Mapping[str, Any]
    score_basis: Literal["simulation", "labels"] = "simulation"
    parent: str | None = None


def assemble(
    folder: Path,
    network: ResNet18,
    profile: RasterProfile,
    heldout: Examples,
    origin: Origin,
    prevalence: float = 0.02,
    most_missed: float = 0.01,
    most_kept: float = 0.002,
    replaces: bool = False,
) -> Bundle:
    """Calibrate on ``heldout`` (never trained on), then write the whole folder as one act."""
    rounded = as_stored(network)
    logits, labels = infer(rounded, heldout.edges, profile), heldout.labels > 0.5
    calibration = fit_platt(logits, labels, prevalence)
    cut = choose_cut(calibration, logits, labels, most_missed, most_kept)
    return publish(folder, rounded, profile, calibration, cut, origin, replaces=replaces)


def as_stored(network: ResNet18) -> ResNet18:
    """The network as a weight file holds it, in half precision: what is calibrated is what will serve."""
    return load(network.width, half(network))


def publish(
    folder: Path,
    network: ResNet18,
    profile: RasterProfile,
    calibration: Calibration,
    cut: Cut,
    origin: Origin,
    *,
    replaces: bool = False,
) -> Bundle:
    """Write the whole folder of a network that is :func:`as_stored`, as one act."""
    manifest = Manifest(
        name=origin.name,
        created=utc_now("seconds"),
        parent=origin.parent,
        code_version=origin.code_version,
        profile=profile,
        network=Network(network.width),
        calibration=replace(calibration, basis=SIMULATED),
        thresholds=cut,
        score_basis=origin.score_basis,
        certificate=None,
        training=dict(origin.training),
        selftest=SelfTest(serving.VERSION, known_logits(network, profile)),
    )
    return write(folder, half(network), manifest, describe(manifest), replaces=replaces)


def half(network: ResNet18) -> Weights:
    """The tensors as a weight file holds them: half precision, without the counters that only training needs.

    Contiguous, because safetensors writes an array's memory as it lies, and a network in channels_last lies otherwise.
    """
    state = {n: t.detach().float().numpy() for n, t in network.state_dict().items() if not n.endswith("tracked")}
    return {name: np.ascontiguousarray(tensor.astype(np.float16)) for name, tensor in state.items()}


def known_logits(network: ResNet18, profile: RasterProfile) -> list[float]:
    """What the self-test must find at every start."""
    signals = [item.signal for item in prepare(serving.known_curves(), profile) if item.signal is not None]
    return [round(float(logit), 6) for logit in infer(network, envelope(signals, profile), profile)]
