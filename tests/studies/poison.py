"""`make study TOPIC=poison`: candidates that must not serve, and which test of the gate refuses each.

A simulated laboratory has labelled its curves, and one candidate is tuned on them as it should be. The others are made
from it, or tuned on labels that lie: damaged folders, foreign weights, collapsed networks, forged evidence, raised
cuts, heads that push everything down. Every one is looked at by the whole gate, on the state that a user would have.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as bytes_of

from daemon.common.errors import INTERNAL, UserError
from daemon.common.options import Option
from daemon.common.text import align
from daemon.labels import Labels
from daemon.learn.evidence import TrainingRecord
from daemon.learn.gate import CrossFitted, look
from daemon.learn.ground import Ground, survey
from daemon.learn.lessons import Taught, golden_events, golden_fingerprints, lessons_of
from daemon.learn.training import Origin, as_stored, publish
from daemon.ledger.view import LedgerView
from models import gate
from models.bundle import CARD, CONFIRMED, MANIFEST, WEIGHTS, BadBundle, Bundle, Cut, read, write
from models.calibrate import choose_like_parent, fit_platt
from models.files import append_line, write_whole
from models.finetune import Lessons, Tuning, TuningRecipe, cross_fit, tail_logits, trunk_of
from models.gate import SIMULATED, Report
from models.network import ResNet18, load
from models.simulate import simulate
from models.train import Examples, gather
from tests.studies.laboratories import Laboratory
from tests.studies.nights import Nights
from tests.studies.workplace import open_workplace

DAYS, A_DAY, LABELLED_PREVALENCE = 5, 120, 0.35
REPLAYED, HELD_OUT = 2_000, 4_000
FLIPS = 5
DIFFERING, HARMS = (0.001, 0.002, 0.005, 0.01, 0.02), (0.0025, 0.005, 0.01)
Edit = Callable[[dict[str, Any]], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Which laboratories, and where their states are kept."""

    work: Annotated[Path, Option("the states, the candidates and what was found, gone on with", "DIR")]
    laboratories: Annotated[tuple[int, ...], Option("seeds (repeatable)", "S")] = (1,)
    only: Annotated[tuple[str, ...], Option("only these candidates (repeatable)", "NAME")] = ()
    stream: Annotated[int, Option("curves of the stream, two in a hundred with an event", "N")] = 2_000
    simulated: Annotated[int, Option("simulated events that the gate asks about", "N")] = SIMULATED
    out: Annotated[Path | None, Option("what was found as JSON", "FILE")] = None


@dataclass
class Kitchen:
    """One laboratory with its labels, and what candidates are made of."""

    folder: Path
    seed: int
    stream: int = 2_000
    replayed: int = REPLAYED
    held_out: int = HELD_OUT
    recipe: TuningRecipe = field(default_factory=TuningRecipe)
    nights: Nights = field(init=False)
    ground: Ground = field(init=False)
    taught: Taught = field(init=False)

    def __post_init__(self) -> None:
        self.nights = Nights(self.folder / "state")
        if not (self.folder / "ready").is_file():
            shutil.rmtree(self.folder / "state", ignore_errors=True)
            self.nights = Nights(self.folder / "state")
            self._live()
            write_whole(self.folder / "ready", b"")
        with (
            LedgerView(self.nights.state / "ledger.sqlite") as view,
            Labels(self.nights.state / "labels.sqlite") as labels,
        ):
            self.ground = survey(self.nights.config, view, labels)
            self.taught = lessons_of(self.nights.config, view, labels, self.ground, events=20)

    def _live(self) -> None:
        laboratory = Laboratory(self.seed)
        for day in range(DAYS):
            curves = laboratory.curves(A_DAY, LABELLED_PREVALENCE, seed=day)
            seqs = self.nights.record([(one.curve, one.is_event) for one in curves], day=f"2026-11-2{day}")
            self.nights.label(self.nights.may_be_looked_at(seqs))
        stream = laboratory.curves(self.stream, 0.02, seed=DAYS)
        self.nights.record([(one.curve, one.is_event) for one in stream], day="2026-11-26")

    # What candidates are made of.

    @property
    def parent(self) -> Bundle:
        return self.ground.network

    @cached_property
    def network(self) -> ResNet18:
        return load(self.parent.width, {name: torch.from_numpy(one) for name, one in self.parent.weights.items()})

    def drawn(self, count: int, seed: int) -> Examples:
        """Simulated curves, drawn once."""
        kept = Examples.load(self.folder.parent / f"drawn-{count}-{seed}")
        if kept is None:
            pairs = ((one.curve, one.label == "keep") for one in simulate(count, seed, 0.5))
            kept = gather(pairs, self.parent.profile)
            kept.save(self.folder.parent / f"drawn-{count}-{seed}")
        return kept

    @cached_property
    def replay(self) -> Lessons:
        drawn = self.drawn(self.replayed, 71_000_000)
        return Lessons.replayed(self.network, trunk_of(self.network, drawn.edges, self.parent.profile))

    @cached_property
    def lessons(self) -> Lessons:
        return self.taught.lessons(self.network, self.parent.profile)

    @cached_property
    def held(self) -> tuple[NDArray[np.float16], NDArray[np.bool_], NDArray[np.float64]]:
        """Trunks, truth and the parent's logits of held-out simulated curves."""
        drawn = self.drawn(self.held_out, 72_000_000)
        trunk = trunk_of(self.network, drawn.edges, self.parent.profile)
        return trunk, drawn.labels > 0.5, tail_logits(self.network, trunk)

    @cached_property
    def shown(self) -> NDArray[np.bool_]:
        """(K,) of the lessons: confirmed events that the parent does not discard."""
        logits = self.taught.logits(self.network, self.parent.profile)
        above = self.taught.is_event & (logits > self.ground.logit(self.ground.old))
        return np.asarray(above[self.taught.trained], np.bool_)

    @cached_property
    def crossed(self) -> NDArray[np.float64]:
        """Cross-fitted logits of these; worked out once."""
        file = self.folder / "cross-fitted.json"
        if not file.is_file():
            found = cross_fit(self.network, self.lessons + self.replay, self.recipe)
            write_whole(file, json.dumps(found.logits[: len(self.lessons)][self.shown].tolist()).encode())
        return np.array(json.loads(file.read_bytes()))

    def tuned(self, lessons: Lessons, recipe: TuningRecipe | None = None) -> ResNet18:
        tuning = Tuning(self.network, lessons, recipe or self.recipe)
        for _ in tuning:
            pass
        return as_stored(tuning.network)

    @cached_property
    def good_network(self) -> ResNet18:
        return load(self.parent.width, {name: torch.from_numpy(one) for name, one in self.good.weights.items()})

    @cached_property
    def good(self) -> Bundle:
        """As a night makes it."""
        folder = self.folder / "candidates" / "good"
        if folder.is_dir():
            return read(folder)
        return self.dress("good", self.tuned(self.lessons + self.replay), self.crossed)

    def dress(
        self,
        name: str,
        network: ResNet18,
        confirmed: NDArray[np.float64] | None = None,
        cut: float | None = None,
        learned: frozenset[str] | None = None,
    ) -> Bundle:
        """A model folder with calibration and thresholds. ``cut``: the discard cut, a logit, whatever events say."""
        trunk, truth, before = self.held
        after = tail_logits(network, trunk)
        calibration = fit_platt(after, truth, self.parent.calibration.prevalence)
        limits = self.ground.logit(self.ground.old), self.ground.logit(self.parent.keep)
        none = np.zeros(0)
        chosen = choose_like_parent(calibration, before, after, truth, limits, none if confirmed is None else confirmed)
        if cut is not None:
            discard = min(float(calibration.score(np.array([cut]))[0]), float(np.nextafter(chosen.keep, 0.0)))
            chosen = replace(chosen, discard=discard)
        record = TrainingRecord.of(self.parent.manifest.training)
        record = record.with_more({"labels": "0" * 64}, self.taught.curves if learned is None else learned)
        origin = Origin(name, "study", record.for_manifest(), parent=self.parent.id)
        folder = self.folder / "candidates" / name
        return publish(folder, network, self.parent.profile, calibration, chosen, origin, replaces=True)

    def look(self, folder: Path, simulated: int, *, is_honest: bool = False) -> Report:
        """What the gate says; a poisoner hands no cross-fitted events over."""
        crossed = CrossFitted(self.crossed.tolist(), None) if is_honest else None
        return look(
            self.nights.config,
            folder,
            self.parent,
            self.ground.old,
            self.taught,
            crossed=crossed,
            spend=False,
            simulated=simulated,
        )

    # Ways to spoil a folder.

    def copy(self, name: str) -> Path:
        folder = self.folder / "candidates" / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.good.folder, folder)
        return folder

    def edited(self, name: str, edit: Edit) -> Path:
        """The good candidate with another manifest."""
        folder = self.copy(name)
        stored = json.loads((folder / MANIFEST).read_bytes())
        edit(stored)
        (folder / MANIFEST).write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
        return folder

    def filed(self, name: str, data: bytes, *, is_noted: bool = True) -> Path:
        """The good candidate with another weight file, whose SHA-256 the manifest has where ``is_noted``."""
        digest = hashlib.sha256(data).hexdigest()
        folder = self.edited(name, lambda stored: stored["sha256"].update({WEIGHTS: digest}) if is_noted else None)
        (folder / WEIGHTS).write_bytes(data)
        return folder

    def weighed(self, name: str, change: Callable[[dict[str, NDArray[Any]]], object]) -> Path:
        """The good candidate with other tensors."""
        tensors = {key: one.copy() for key, one in self.good.weights.items()}
        change(tensors)
        return self.filed(name, bytes_of(tensors))

    def made_of(self, name: str, change: Callable[[dict[str, torch.Tensor]], object], **words: Any) -> Path:
        """A candidate whose network, calibration, thresholds and self-test all are of the changed tensors."""
        tensors = {key: one.clone() for key, one in self.good_network.state_dict().items() if "tracked" not in key}
        change(tensors)
        return self.dress(name, as_stored(load(self.parent.width, tensors)), **words).folder


# The candidates. Each gives a folder.

Poison = Callable[[Kitchen, str], Path]
POISONS: dict[str, Poison] = {}


def _poison(name: str) -> Callable[[Poison], Poison]:
    def note(make: Poison) -> Poison:
        POISONS[name] = make
        return make

    return note


def _weights(name: str, change: Callable[[dict[str, NDArray[Any]]], object]) -> None:
    POISONS[name] = lambda kitchen, folder: kitchen.weighed(folder, change)


def _manifest(name: str, edit: Edit) -> None:
    POISONS[name] = lambda kitchen, folder: kitchen.edited(folder, edit)


def _put(place: str, value: Any) -> Edit:
    """Set one value of a manifest; ``place`` with dots."""

    def edit(stored: dict[str, Any]) -> None:
        *path, last = place.split(".")
        for part in path:
            stored = stored[part]
        stored[last] = value

    return edit


_weights("a weight is NaN", lambda held: held["layer4.0.conv1.weight"].reshape(-1).__setitem__(7, np.nan))
_weights("a weight is infinite", lambda held: held["fc.weight"].reshape(-1).__setitem__(0, np.inf))
_weights("a tensor is missing", lambda held: held.pop("layer4.1.conv2.weight"))
_weights("a tensor too many", lambda held: held.__setitem__("layer5.weight", np.zeros(3, np.float16)))
_weights("whole numbers", lambda held: held.__setitem__("fc.bias", np.zeros(1, np.int8)))
_weights("another shape", lambda held: held.__setitem__("fc.weight", np.zeros((2, 128), np.float16)))
_weights("body changed", lambda held: held["layer1.0.conv1.weight"].reshape(-1).__setitem__(0, 0.5))
_weights("statistics of a norm changed", lambda held: held["layer4.0.bn1.running_mean"].__iadd__(1))
_weights("scale of a norm changed", lambda held: held["layer4.1.bn2.weight"].__imul__(2))
_manifest("self-test of another", lambda stored: stored["selftest"].update(logits=[1.0, -1.0, 2.0, 3.0, 1.0, -2.0]))
_manifest("thresholds swapped", lambda stored: stored["thresholds"].update(discard=0.5, keep=0.01))
_manifest("threshold is no number", _put("thresholds.discard", "NaN"))
_manifest("temperature below zero", _put("calibration.temperature", -1.0))
_manifest("other prevalence", _put("calibration.prevalence", 0.2))
_manifest("other raster", lambda stored: stored["profile"].update(rows=64))
_manifest("format of the future", _put("format", 2))
_manifest("other parent", _put("parent", "shipped-000000000000"))
_manifest("no parent", _put("parent", None))
_manifest("record is gone", lambda stored: [stored["training"].pop(key) for key in ("curves", "labelled")])
_manifest("record of strangers", _put("training.curves", "0123456789ab 9876543210fe 777777777777"))
_manifest("cut from 3 events", lambda stored: stored["thresholds"]["evidence"].update(basis=CONFIRMED, events=3))
_manifest("cut from nothing", lambda stored: stored["thresholds"].update(evidence={}))
_manifest("uncalibrated: bolder", lambda stored: _shift(stored, bias=3.0))
_manifest("uncalibrated: flatter", lambda stored: _shift(stored, times=4.0))
_manifest("uncalibrated: sharper", lambda stored: _shift(stored, times=0.2))


def _shift(stored: dict[str, Any], bias: float = 0.0, times: float = 1.0) -> None:
    """Other probabilities, and thresholds at the same logits."""
    was, cut = stored["calibration"], stored["thresholds"]

    def moved(score: float) -> float:
        z = (np.log(score / (1 - score)) - was["bias"]) / times + was["bias"] + bias
        return float(1 / (1 + np.exp(-z)))

    cut.update(discard=moved(cut["discard"]), keep=moved(cut["keep"]))
    was.update(temperature=was["temperature"] * times, bias=was["bias"] + bias)


@_poison("pickle renamed")
def _pickle(kitchen: Kitchen, name: str) -> Path:
    return kitchen.filed(
        name, b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."
    )


@_poison("truncated")
def _truncated(kitchen: Kitchen, name: str) -> Path:
    data = (kitchen.good.folder / WEIGHTS).read_bytes()
    return kitchen.filed(name, data[: len(data) // 2], is_noted=False)


@_poison("truncated, and its hash is right")
def _truncated_noted(kitchen: Kitchen, name: str) -> Path:
    data = (kitchen.good.folder / WEIGHTS).read_bytes()
    return kitchen.filed(name, data[: len(data) // 2])


@_poison("hash wrong")
def _hash(kitchen: Kitchen, name: str) -> Path:
    data = bytearray((kitchen.good.folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    return kitchen.filed(name, bytes(data), is_noted=False)


@_poison("card changed")
def _card(kitchen: Kitchen, name: str) -> Path:
    folder = kitchen.copy(name)
    (folder / CARD).write_text("# the best model\n")
    return folder


@_poison("manifest cut off")
def _cut_off(kitchen: Kitchen, name: str) -> Path:
    folder = kitchen.copy(name)
    data = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(data[: len(data) // 2])
    return folder


@_poison("no folder")
def _nothing(kitchen: Kitchen, name: str) -> Path:
    return kitchen.folder / "candidates" / name


@_poison("certificate forged")
def _certificate(kitchen: Kitchen, name: str) -> Path:
    def forge(stored: dict[str, Any]) -> None:
        stored["certificate"] = {"weights_sha256": stored["sha256"][WEIGHTS], "events": 400, "missed": 0}

    return kitchen.edited(name, forge)


@_poison("slow: a wider network")
def _wide(kitchen: Kitchen, name: str) -> Path:
    torch.manual_seed(5)
    wide = ResNet18(2 * kitchen.parent.width).eval()
    manifest = msgspec.structs.replace(
        kitchen.good.manifest, network=msgspec.structs.replace(kitchen.good.manifest.network, width=wide.width)
    )
    weights = {
        key: one.detach().numpy().astype(np.float16) for key, one in wide.state_dict().items() if "tracked" not in key
    }
    return write(kitchen.folder / "candidates" / name, weights, manifest, "# wide", replaces=True).folder


@_poison("the parent under another name")
def _parent(kitchen: Kitchen, name: str) -> Path:
    return kitchen.dress(name, as_stored(kitchen.network)).folder


@_poison("trained elsewhere from scratch")
def _scratch(kitchen: Kitchen, name: str) -> Path:
    torch.manual_seed(6)
    return kitchen.dress(name, as_stored(ResNet18(kitchen.parent.width).eval())).folder


@_poison("leaked: golden rows of the laboratory")
def _leaked(kitchen: Kitchen, name: str) -> Path:
    taught = kitchen.taught
    everything = replace(taught, is_held_out=np.zeros(len(taught), np.bool_))
    network = kitchen.tuned(everything.lessons(kitchen.network, kitchen.parent.profile) + kitchen.replay)
    return kitchen.dress(name, network, learned=everything.curves).folder


@_poison("leaked: golden rows that ship")
def _leaked_shipped(kitchen: Kitchen, name: str) -> Path:
    assert golden_events()
    return kitchen.dress(name, kitchen.good_network, learned=kitchen.taught.curves | golden_fingerprints()).folder


@_poison("collapsed to one answer")
def _collapsed(kitchen: Kitchen, name: str) -> Path:
    return kitchen.made_of(name, lambda held: held["fc.weight"].zero_())


@_poison("collapsed: half of the last layer is gone")
def _half(kitchen: Kitchen, name: str) -> Path:
    return kitchen.made_of(name, lambda held: held["fc.weight"][:, ::2].zero_())


@_poison("ranks backwards")
def _backwards(kitchen: Kitchen, name: str) -> Path:
    return kitchen.made_of(name, lambda held: held["fc.weight"].neg_())


@_poison("noise in layer4")
def _noise(kitchen: Kitchen, name: str) -> Path:
    def shake(held: dict[str, torch.Tensor]) -> None:
        made = torch.Generator().manual_seed(1)
        for key in ("layer4.1.conv1.weight", "layer4.1.conv2.weight"):
            held[key] += held[key].std() * torch.randn(held[key].shape, generator=made)

    return kitchen.made_of(name, shake)


def _flipped(share: float, seed: int) -> Poison:
    def make(kitchen: Kitchen, name: str) -> Path:
        lessons = kitchen.lessons
        is_wrong = np.random.default_rng((17, seed)).random(len(lessons)) < share
        targets = np.where(is_wrong, 1 - lessons.targets, lessons.targets).astype(np.float32)
        strong = replace(kitchen.recipe, rate=4 * kitchen.recipe.rate, seed=seed)
        network = kitchen.tuned(replace(lessons, targets=targets) + kitchen.replay, strong)
        return kitchen.dress(name, network).folder

    return make


for _seed in range(1, FLIPS + 1):
    POISONS[f"30 % of labels flipped, seed {_seed}"] = _flipped(0.3, _seed)
POISONS["all labels flipped"] = _flipped(1.0, 1)


@_poison("learned nothing but discards")
def _discards(kitchen: Kitchen, name: str) -> Path:
    lessons = kitchen.lessons
    free = Lessons(lessons.trunk, np.zeros_like(lessons.targets), lessons.weights, lessons.groups)
    return kitchen.dress(name, kitchen.tuned(free, replace(kitchen.recipe, rate=4 * kitchen.recipe.rate))).folder


@_poison("trained on the pile only, cut as before")
def _pile_only(kitchen: Kitchen, name: str) -> Path:
    lessons = kitchen.lessons
    is_free = lessons.targets < 0.5
    weights = np.where(is_free, lessons.weights, 0.0).astype(np.float32)
    network = kitchen.tuned(replace(lessons, weights=weights), replace(kitchen.recipe, rate=4 * kitchen.recipe.rate))
    return kitchen.dress(name, network, cut=kitchen.ground.logit(kitchen.ground.old)).folder


@_poison("without replay, much too fast")
def _no_replay(kitchen: Kitchen, name: str) -> Path:
    fast = replace(kitchen.recipe, rate=30 * kitchen.recipe.rate, pull=0.0, epochs=20)
    return kitchen.dress(name, kitchen.tuned(kitchen.lessons, fast)).folder


@_poison("without replay, cut as before")
def _no_replay_cut(kitchen: Kitchen, name: str) -> Path:
    fast = replace(kitchen.recipe, rate=10 * kitchen.recipe.rate, pull=0.0)
    network = kitchen.tuned(kitchen.lessons, fast)
    return kitchen.dress(name, network, cut=kitchen.ground.logit(kitchen.ground.old)).folder


def _forgotten(family: str) -> Poison:
    def make(kitchen: Kitchen, name: str) -> Path:
        """One family of events is taught to be nothing."""
        chosen = (one for one in simulate(12_000, 73_000_000, 1.0) if one.family == family)
        drawn = gather(((one.curve, False) for one, _ in zip(chosen, range(300), strict=False)), kitchen.parent.profile)
        trunk = trunk_of(kitchen.network, drawn.edges, kitchen.parent.profile)
        lessons = Lessons(trunk, drawn.labels, np.ones(len(drawn), np.float32), np.zeros(len(drawn), np.int64))
        strong = replace(kitchen.recipe, rate=10 * kitchen.recipe.rate, replay=0.3)
        return kitchen.dress(name, kitchen.tuned(lessons + kitchen.replay, strong)).folder

    return make


for _family in ("plateaus", "dna", "cell"):
    POISONS[f"a family forgotten: {_family}"] = _forgotten(_family)


def _head(labels: int) -> Poison:
    def make(kitchen: Kitchen, name: str) -> Path:
        """A logistic head on so many labels, balanced, at the cut of the parent: it pushes everything down."""
        rng = np.random.default_rng(labels)
        lessons = kitchen.lessons
        chosen = rng.choice(len(lessons), min(labels, len(lessons)), replace=False)
        parts = kitchen.network.layer4
        with torch.no_grad():
            features = parts(torch.from_numpy(lessons.trunk[chosen]).float()).mean((2, 3)).double()
        targets = torch.from_numpy(lessons.targets[chosen]).double()
        start = kitchen.network.fc
        weight = start.weight.detach().double()[0].clone().requires_grad_(True)
        bias = start.bias.detach().double().clone().requires_grad_(True)
        optimiser = torch.optim.LBFGS([weight, bias], max_iter=200)

        def loss() -> torch.Tensor:
            optimiser.zero_grad()
            wanted = torch.nn.functional.binary_cross_entropy_with_logits(features @ weight + bias, targets)
            value = wanted + 1e-4 * ((weight - start.weight.detach().double()[0]) ** 2).sum()
            value.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
            return value

        optimiser.step(loss)  # type: ignore[no-untyped-call]  # torch has no type for it

        def change(held: dict[str, torch.Tensor]) -> None:
            held["fc.weight"][0] = weight.detach().float()
            held["fc.bias"][:] = bias.detach().float()

        return kitchen.made_of(name, change, cut=kitchen.ground.logit(kitchen.ground.old))

    return make


for _labels in (8, 16, 32, 64, 128):
    POISONS[f"head with the old cut, {_labels} labels"] = _head(_labels)


def _raised(by: float) -> Poison:
    def make(kitchen: Kitchen, name: str) -> Path:
        cut = float(kitchen.good.limits[0]) + by
        return kitchen.dress(name, kitchen.good_network, cut=cut).folder

    return make


for _by in (0.5, 1.0, 2.0):
    POISONS[f"cut raised by {_by:g}"] = _raised(_by)


@_poison("cut just below the lowest of 3 events")
def _of_three(kitchen: Kitchen, name: str) -> Path:
    three = np.sort(kitchen.crossed)[[len(kitchen.crossed) // 2, -2, -1]]
    bundle = kitchen.dress(name, kitchen.good_network, cut=float(three.min()) - 1e-6)
    cut = bundle.manifest.thresholds
    told = Cut(cut.discard, cut.keep, {"basis": CONFIRMED, "events": 300})  # and the evidence lies about it
    manifest = msgspec.structs.replace(bundle.manifest, thresholds=told)
    return write(bundle.folder, dict(bundle.weights), manifest, "# three", replaces=True).folder


@_poison("keep lowered")
def _keep(kitchen: Kitchen, name: str) -> Path:
    cut = kitchen.good.manifest.thresholds
    low = float(np.nextafter(cut.discard, 1.0))
    return kitchen.edited(name, _put("thresholds.keep", low + 1e-6))


@_poison("runs away")
def _runaway(kitchen: Kitchen, name: str) -> Path:
    fast = replace(kitchen.recipe, rate=0.3, pull=0.0, epochs=3)
    return kitchen.dress(name, kitchen.tuned(kitchen.lessons + kitchen.replay, fast)).folder


def run(options: Options) -> int:
    settings = {"laboratories": list(options.laboratories), "stream": options.stream, "format": 1}
    work = open_workplace(options.work, settings)
    log = work / "found.jsonl"
    done = [json.loads(line) for line in log.read_bytes().splitlines()] if log.is_file() else []
    known = {(one["laboratory"], one["name"]) for one in done}
    torch.set_num_threads(1)
    for seed in options.laboratories:
        kitchen = Kitchen(work / f"laboratory-{seed}", seed, options.stream)
        for name in ("good", *POISONS):
            if (seed, name) in known or (options.only and name not in options.only):
                continue
            begun_s = time.monotonic()
            one = tried(kitchen, name, options.simulated)
            one |= {"laboratory": seed, "seconds": round(time.monotonic() - begun_s, 1)}
            append_line(log, json.dumps(one).encode())
            done.append(one)
            print(row(one), flush=True)
    print("\n".join(power()))
    poisoned = [one for one in done if one["name"] != "good"]
    through = [f"{one['name']} (laboratory {one['laboratory']})" for one in poisoned if one["passed"]]
    if options.out is not None:
        write_whole(options.out, json.dumps({"options": asdict(options), "found": done}, default=str).encode())
    print(f"{len(poisoned)} poisoned candidates, {len(through)} let through: {', '.join(through) or 'none'}")
    if through:
        raise UserError(INTERNAL, f"the gate let {len(through)} poisoned candidates through")
    return 0


def passing(number: int, differing: float, harm: float = 0.0, draws: int = 500) -> float:
    """The share of candidates that pass on simulated events, with a cut that keeps :data:`models.gate.SPARE`.

    ``number``: of the look; ``differing``: the share of events on which both networks differ; ``harm``: events that the
    candidate loses beside.
    """
    gain = gate.SPARE * math.sqrt(differing / SIMULATED)
    shares = ((differing - gain) / 2 + harm, (differing + gain) / 2, 1 - differing - harm)
    drawn = np.random.default_rng(6).multinomial(SIMULATED, shares, size=draws)[:, :2].tolist()
    limit, passed = gate.alpha(number), 0
    for lost, won in drawn:
        passed += lost <= won and gate.net_loss_bound(lost, won, SIMULATED, limit) <= gate.MOST_NET_LOSS
    return passed / draws


def power() -> list[str]:
    """Lines of a table: how often a sound candidate passes on simulated events, and one that loses some more."""
    rows = [["look", *(f"{100 * one:g} % differ" for one in DIFFERING), *(f"{100 * one:g} % lost" for one in HARMS)]]
    for number in (1, 2, 3, 5, 8):
        sound = [passing(number, one) for one in DIFFERING]
        harmful = [passing(number, 0.005, one) for one in HARMS]
        rows.append([str(number), *(f"{100 * one:.0f} %" for one in (*sound, *harmful))])
    return align(rows)


def tried(kitchen: Kitchen, name: str, simulated: int = SIMULATED) -> dict[str, Any]:
    """What the gate says of one of them."""
    if name == "good":
        report = kitchen.look(kitchen.good.folder, simulated, is_honest=True)
    else:
        try:
            folder = POISONS[name](kitchen, name.replace(" ", "-").replace(":", "").replace("%", "percent"))
        except (BadBundle, ValueError) as error:  # it cannot even be written as a model
            return {"name": name, "passed": False, "failed": ["not written"], "texts": [str(error)[:200]]}
        report = kitchen.look(folder, simulated)
    texts = [one.text for one in report.findings if not one.passed or name == "good"]
    return {"name": name, "passed": report.passed, "failed": list(report.failed), "texts": texts}


def row(one: Mapping[str, Any]) -> str:
    """A line of the list."""
    said = "PROMOTED" if one["passed"] else "refused: " + ", ".join(one["failed"])
    return f"{one['name']:<44} {said}  ({one.get('seconds', 0)} s)"


__all__ = ["POISONS", "Kitchen", "Options", "run", "tried"]
