"""The teaching: one candidate network, made out of what people have said until now.

Whoever is killed goes on with the same call: simulated curves, every epoch and the candidate are found again, the last
because it is called after what it is made of.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from daemon import __version__
from daemon.common import ending
from daemon.common.errors import BAD_DATA, UNREACHABLE, UserError
from daemon.common.stdio import progress, working
from daemon.config import Config
from daemon.learn.evidence import TrainingRecord
from daemon.learn.ground import Ground
from daemon.learn.lessons import Taught, untaught
from daemon.learn.training import Origin, as_stored, publish
from daemon.ledger.view import LedgerView
from deploy.classifier import default_threads
from models.bundle import BadBundle, Bundle, read
from models.calibrate import choose_like_parent, fit_platt
from models.files import write_whole
from models.finetune import Lessons, Tuning, TuningRecipe, cross_fit, steps_of, tail_logits, trunk_of
from models.loss import describe
from models.metrics import auc
from models.network import ResNet18, load
from models.raster import RasterProfile
from models.simulate import simulate
from models.train import Examples, gather

#: Simulated curves that are replayed, so that nothing is forgotten.
REPLAYED = 4_000
#: Simulated curves that calibration and thresholds stand on, never learned from.
HELD_OUT = 8_000
#: Seeds far from those of training, of the gate and of the simulated loss.
_SEEDS = {"replayed": 61_000_000, "held-out": 62_000_000}
_FOLDS = 5
_NICE = 15
_CANDIDATE = "tuned-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How one is taught."""

    stands_back: bool = False  # this process works when the others leave it time: the instrument's curves go first
    device: str = "auto"
    simulate: int = REPLAYED
    held_out: int = HELD_OUT
    recipe: TuningRecipe = field(default_factory=lambda: TuningRecipe(threads=0))  # threads 0: all cores but one


def digest_of(taught: Taught) -> str:
    """What people have said, and of which curves."""
    said = sorted(zip(taught.fingerprints, taught.targets.tolist(), taught.groups.tolist(), strict=True))
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


class Teaching:
    """One candidate, out of what people have said until now."""

    def __init__(self, config: Config, course: Course, ground: Ground, taught: Taught, folder: Path) -> None:
        self._course, self._ground, self._taught, self._folder = course, ground, taught, folder
        self._parent, self._start = ground.network, untaught(ground, taught)
        self._recipe = replace(course.recipe, threads=course.recipe.threads or default_threads())
        self._device = _device_of(course.device)
        with LedgerView(config.ledger_file) as view:
            self._stream = view.stream

    @property
    def _made_of(self) -> dict[str, Any]:
        """Everything that decides what comes out."""
        recipe = {name: value for name, value in asdict(self._recipe).items() if name != "threads"}
        return {
            "parent": self._parent.id,
            "start": self._start.id,
            "cut": [self._ground.own, self._ground.old],
            "lessons": digest_of(self._taught),
            "recipe": recipe,
            "simulated": self._course.simulate,
            "held_out": self._course.held_out,
        }

    @property
    def name(self) -> str:
        """Of the candidate, before it is made."""
        return _CANDIDATE + hashlib.sha256(json.dumps(self._made_of, sort_keys=True).encode()).hexdigest()[:8]

    def candidate(self) -> Bundle:
        """Found where it was made already, else made; OSError where the state takes no file."""
        made_of, name = json.dumps(self._made_of, sort_keys=True), self.name
        with suppress(BadBundle):
            return read(self._folder / name)
        _remove(self._folder / name)  # damaged, or half there
        self._begin(made_of)
        torch.set_num_threads(self._recipe.threads)
        if self._course.stands_back:
            os.nice(max(_NICE - os.nice(0), 0))
        with working("loading the network"):
            profile = self._parent.profile
            network, start = (load(one.width, one.weights) for one in (self._parent, self._start))
            taught_logits = self._taught.logits(network, profile)
        replayed = _drawn(self._folder, "replayed", profile, self._course.simulate)
        lessons = self._lessons(start, replayed)
        crossed = self._cross_fit(start, lessons)
        tuning = Tuning(start, lessons, self._recipe, self._folder / "checkpoint", self._device)
        for _ in progress(tuning, "tuning", len(tuning)):
            pass
        held_out = _drawn(self._folder, "held-out", profile, self._course.held_out)
        with working("choosing thresholds"):
            bundle = self._make(name, network, tuning.network.cpu(), held_out, crossed, taught_logits)
        self._tidy(name)
        return bundle

    def _begin(self, made_of: str) -> None:
        """Go on with what was begun for these very labels, else afresh; simulated curves are the same for all."""
        note = self._folder / "plan.json"
        if not note.is_file() or note.read_bytes() != made_of.encode():
            self._tidy(None)
            write_whole(note, made_of.encode())

    def _tidy(self, made: str | None) -> None:
        """Checkpoints go, and older candidates: what was promoted is kept elsewhere."""
        for part in ("checkpoint", "cross-fit"):
            shutil.rmtree(self._folder / part, ignore_errors=True)
        for old in self._folder.glob(f"{_CANDIDATE}*") if made else ():
            if old.name != made:
                shutil.rmtree(old, ignore_errors=True)

    def _lessons(self, network: ResNet18, replayed: Examples) -> Lessons:
        """What people said, and what is replayed; the trunk of the network has seen both."""
        with working("looking at the curves", None):
            own = self._taught.lessons(network, self._parent.profile, self._device)
            trunk = trunk_of(network, replayed.edges, self._parent.profile, self._device)
            return own + Lessons.replayed(network, trunk, self._device)

    def _cross_fit(self, network: ResNet18, lessons: Lessons) -> tuple[NDArray[np.float64], str]:
        """(K,) logits of the curves that are learned from, by networks that saw no curve of their experiment."""
        recipe, folder = self._recipe, self._folder / "cross-fit"
        with working("cross-fitting", _FOLDS * steps_of(lessons, recipe)) as done:

            def step(_: int) -> None:
                ending.check()
                done()

            found = cross_fit(network, lessons, recipe, _FOLDS, folder, self._device, step)
        return found.logits[: len(self._taught.trained)], found.text

    def _make(
        self,
        name: str,
        parent: ResNet18,
        tuned: ResNet18,
        held_out: Examples,
        crossed: tuple[NDArray[np.float64], str],
        taught_logits: NDArray[np.float64],
    ) -> Bundle:
        """Calibrate and write. UserError 65 where the tuning ran away."""
        ground, taught, base = self._ground, self._taught, self._parent
        if not all(bool(torch.isfinite(tensor.half()).all()) for tensor in tuned.state_dict().values()):
            raise UserError(BAD_DATA, "the tuning ran away, weights are no longer finite; look at the labels again")
        network, events = as_stored(tuned), held_out.labels > 0.5
        trunk = trunk_of(parent, held_out.edges, base.profile, self._device)
        before, after = (tail_logits(one, trunk, self._device) for one in (parent, network))
        calibration = fit_platt(after, events, base.calibration.prevalence)
        own = ground.logit(ground.own) if ground.own < ground.old else None
        known = taught.is_event & taught.unseen_by(self._start)
        shown = (known & (taught_logits > ground.logit(ground.old)))[taught.trained]
        limits = ground.logit(ground.old), ground.logit(base.keep)
        cut = choose_like_parent(calibration, before, after, events, limits, crossed[0][shown], own)
        seqs = sorted(taught.seqs[taught.trained][shown].tolist())
        evidence = {
            **cut.evidence,
            "cross_fit": crossed[1],
            "own_ranking": self._own_ranking(crossed[0]),
            "group": ground.group,
            "labels": counts(taught),
            **({"ledger": self._stream, "confirmed": seqs} if cut.is_of_labels else {}),
        }
        origin = Origin(name, __version__, self._training(), parent=base.id)
        return publish(
            self._folder / name, network.cpu(), base.profile, calibration, replace(cut, evidence=evidence), origin
        )

    def _own_ranking(self, crossed: NDArray[np.float64]) -> tuple[float, float] | None:
        """What cross-fitted networks, and the one that all began with, make of the labels; None without both kinds."""
        taught, start = self._taught, self._start
        known = ((taught.is_event | taught.is_free) & taught.unseen_by(start))[taught.trained]
        events = taught.is_event[taught.trained][known]
        before = taught.logits(load(start.width, start.weights), start.profile)[taught.trained][known]
        found = auc(crossed[known], events), auc(before, events)
        return None if found[0] is None or found[1] is None else (found[0], found[1])

    def _training(self) -> dict[str, Any]:
        """What the manifest says of it."""
        record = TrainingRecord.of(self._parent.manifest.training)
        record = record.with_more({f"labels of {self._stream[:8]}": digest_of(self._taught)}, self._taught.curves)
        return {**self._made_of, **record.for_manifest(), "loss": describe(self._recipe.loss)}


def _remove(path: Path) -> None:
    """Whatever it is. OSError where that cannot be."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def counts(taught: Taught) -> dict[str, int]:
    return {
        "curves": len(taught.trained),
        "events": int(taught.is_event[taught.trained].sum()),
        "event_free": int(taught.is_free[taught.trained].sum()),
        "golden": int(taught.golden.sum()),
        "experiments": len(taught.experiments),
    }


def _device_of(asked: str) -> str:
    if asked == "cuda" and not torch.cuda.is_available():
        raise UserError(UNREACHABLE, "--device cuda: torch finds no GPU here; leave it out, and the CPU learns")
    return "cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu"


def _drawn(folder: Path, what: str, profile: RasterProfile, count: int) -> Examples:
    """Simulated curves, drawn once for all nights."""
    name = f"{what}-{profile.id.replace(':', '-')}-{count}"
    kept = Examples.load(folder / name)
    if kept is not None and kept.edges.shape[1:] == (2, profile.columns) and np.isfinite(kept.labels).all():
        return kept
    for old in folder.glob(f"{what}-*.npy"):
        old.unlink()
    curves = progress(simulate(count, _SEEDS[what], 0.5), f"simulating {what} curves", count)
    drawn = gather(((item.curve, item.label == "keep") for item in curves), profile)
    drawn.save(folder / name)
    return drawn
