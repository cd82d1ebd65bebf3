"""Trials: the same training once for each loss and seed, kept in a folder, so that a night may be interrupted.

Everything but loss and seed is shared: the simulated curves are drawn once, and a seed means one set of first weights
and one order of the curves, whatever the loss. That is what makes differences paired.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from daemon.common.stdio import progress
from daemon.judging import Thresholds, verdict_of
from daemon.learn.evidence import Collection
from daemon.learn.training import HELD_OUT_SEED, LABELLED_SHARE, half
from deploy.torch_engine import bf16_in_hardware
from models.bundle import Bundle, Calibration
from models.calibrate import choose_cut, fit_platt
from models.files import unfinished, write_whole
from models.frontend import prepare
from models.loss import LOSSES
from models.network import ResNet18, load
from models.raster import RasterProfile, envelope
from models.reasons import LIFTING
from models.simulate import simulate
from models.train import Examples, Recipe, Run, gather, infer
from tests.studies.workplace import open_workplace

CHUNK = 256
_DOUBT = tuple(LIFTING)


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """N curves to be judged, never trained on."""

    edges: NDArray[np.float32]  # (N, 2, W) in signal units
    events: NDArray[np.bool_]  # (N,)
    doubtful: NDArray[np.bool_]  # (N,): have a reason that forbids to discard them

    def save(self, file: Path) -> None:
        with unfinished(file) as fresh, fresh.open("wb") as stream:
            np.savez(stream, edges=self.edges, events=self.events, doubtful=self.doubtful)

    def judge(self, scores: NDArray[np.float64], discard: float, keep: float) -> NDArray[np.str_]:
        """(N,) scores -> (N,) verdicts, by the rule of service."""
        thresholds = Thresholds(discard, keep)
        pairs = zip(scores, self.doubtful, strict=True)
        return np.array([verdict_of(float(score), _DOUBT if doubt else (), thresholds) for score, doubt in pairs])

    @classmethod
    def load(cls, file: Path) -> Pool:
        with np.load(file, allow_pickle=False) as arrays:
            return cls(arrays["edges"], arrays["events"], arrays["doubtful"])


@dataclass(frozen=True, slots=True)
class Budget:
    """What every trial gets, equally."""

    curves: int  # trained on, half of them with an event
    held_out: int  # calibrated on
    judged: int  # in the pool, a quarter of them with an event
    epochs: int
    width: int
    profile: RasterProfile
    data_seed: int
    threads: int = 1

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the outcome."""
        return {key: value for key, value in asdict(self).items() if key != "threads"}


class Trials:
    """``network(loss, seed)`` trains at the first call and remembers in ``work``."""

    def __init__(self, budget: Budget, work: Path) -> None:
        """Each budget has a folder of its own in ``work``, so that trying another one costs nobody a night."""
        self.budget = budget
        digest = hashlib.sha256(json.dumps(budget.settings, sort_keys=True).encode()).hexdigest()
        self.work = open_workplace(work / digest[:12], budget.settings)
        torch.set_num_threads(budget.threads)

    def examples(self) -> Examples:
        """What is trained on."""
        budget, kept = self.budget, Examples.load(self.work / "train")
        if kept is None:
            pairs = ((item.curve, item.label == "keep") for item in simulate(budget.curves, budget.data_seed, 0.5))
            kept = gather(progress(pairs, "simulating", budget.curves), budget.profile)
            kept.save(self.work / "train")
        return kept

    def held_out(self) -> Pool:
        """What calibration and thresholds stand on."""
        return self._pool("held-out", self.budget.held_out, self.budget.data_seed + 1, 0.5)

    def judged(self) -> Pool:
        """What streams are made of."""
        return self._pool("judged", self.budget.judged, self.budget.data_seed + 2, 0.25)

    def network(self, loss: str, seed: int) -> ResNet18:
        """(loss as ``models.loss.select`` reads it) -> the trained network, in half precision as it would be served."""
        name = f"{re.sub('[^a-z0-9_.]+', '-', loss)}-seed{seed}"
        kept, budget = self.work / f"{name}.safetensors", self.budget
        if not kept.is_file():
            recipe = Recipe(
                width=budget.width,
                epochs=budget.epochs,
                loss=loss,
                seed=seed,
                threads=budget.threads,
                bf16=bf16_in_hardware(),
            )
            begun_s = time.monotonic()
            run = Run(self.examples(), budget.profile, recipe, checkpoint=self.work / f"{name}.unfinished")
            for _ in progress(run, f"{loss}, seed {seed}", len(run)):
                pass
            with unfinished(kept) as fresh:
                save_file(half(run.network), fresh)
            shutil.rmtree(self.work / f"{name}.unfinished", ignore_errors=True)
            print(f"{loss}, seed {seed}: trained in {time.monotonic() - begun_s:.0f} s", file=sys.stderr, flush=True)
        return load(budget.width, {key: torch.from_numpy(value) for key, value in load_file(kept).items()})

    def logits(self, loss: str, seed: int, name: str, pool: Pool) -> NDArray[np.float64]:
        """(N,) what the trained network says of a pool; kept under the pool's name."""
        kept = self.work / f"{re.sub('[^a-z0-9_.]+', '-', loss)}-seed{seed}-{name}.npy"
        if kept.is_file():
            return np.asarray(np.load(kept, allow_pickle=False), np.float64)
        found = self.infer(self.network(loss, seed), pool)
        with unfinished(kept) as fresh, fresh.open("wb") as stream:
            np.save(stream, found, allow_pickle=False)
        return found

    def infer(self, network: ResNet18, pool: Pool) -> NDArray[np.float64]:
        """(N,) logits, in the arithmetic of training: a third of the time, and what service has where it can."""
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16_in_hardware()):
            return infer(network, pool.edges, self.budget.profile)

    def _pool(self, name: str, count: int, seed: int, prevalence: float) -> Pool:
        kept = self.work / f"{name}.npz"
        if not kept.is_file():
            _draw(f"simulating ({name})", count, seed, prevalence, self.budget.profile).save(kept)
        return Pool.load(kept)


def _draw(what: str, count: int, seed: int, prevalence: float, profile: RasterProfile) -> Pool:
    """Curves that could get no score are left out, as in training."""
    edges: list[NDArray[np.float32]] = []
    events: list[bool] = []
    doubtful: list[bool] = []
    items = list(progress(simulate(count, seed, prevalence), what, count))
    for start in range(0, len(items), CHUNK):
        chunk = items[start : start + CHUNK]
        prepared = prepare([item.curve for item in chunk], profile)
        edges.append(envelope([one.signal for one in prepared if one.signal is not None], profile))
        able = [(item, one) for item, one in zip(chunk, prepared, strict=True) if one.signal is not None]
        events += [item.label == "keep" for item, _ in able]
        doubtful += [bool(LIFTING.intersection(one.reasons)) for _, one in able]
    return Pool(np.concatenate(edges), np.array(events, bool), np.array(doubtful, bool))


def train_all(trials: Trials, losses: Sequence[str], seeds: Sequence[int]) -> None:
    """Every loss with the first seed, then with the second …: what is there when time runs out is still paired."""
    pools = {"held-out": trials.held_out(), "judged": trials.judged()}
    for seed in seeds:
        for loss in losses:
            for name, pool in pools.items():
                trials.logits(loss, seed, name, pool)


# Fine-tuning for a study: a model, with and without labels, and what it then says of real curves.

TUNING_SEED = 2_000_000  # added to the seed: curves that neither training nor its held-out part has drawn


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What a model says of N curves."""

    scores: NDArray[np.float64]  # (N,)
    verdicts: NDArray[np.str_]  # (N,)

    def replaced(self, other: Answers, chosen: NDArray[np.bool_]) -> Answers:
        """These answers, with those of ``other`` where ``chosen``."""
        scores, verdicts = np.where(chosen, other.scores, self.scores), np.where(chosen, other.verdicts, self.verdicts)
        return Answers(scores, verdicts)


@dataclass(frozen=True, slots=True, eq=False)
class Tuner:
    """One recipe of fine-tuning, its simulated curves drawn once and kept in ``work``."""

    bundle: Bundle
    simulated: int
    held_out: int
    epochs: int
    rate: float
    seed: int
    threads: int
    work: Path

    def judge_untuned(self, collection: Collection) -> Answers:
        """The model as it is, with its own calibration and thresholds."""
        thresholds = Thresholds(self.bundle.discard, self.bundle.keep)
        return self._answer(self._network(), self.bundle.calibration, thresholds, collection)

    def judge(self, name: str, collection: Collection, taught: NDArray[np.bool_] | None) -> Answers:
        """Fine-tune with the labels of ``taught`` (None: none) and judge every curve; kept under ``name``."""
        kept = self.work / f"{name}.json"
        if kept.is_file():
            known = json.loads(kept.read_text(encoding="utf-8"))
            return Answers(np.array(known["scores"]), np.array(known["verdicts"]))
        network = self._tuned(name, None if taught is None else collection.examples(taught))
        held_out = self._draw("held-out", self.held_out, HELD_OUT_SEED + TUNING_SEED)
        logits, labels = infer(network, held_out.edges, self.bundle.profile), held_out.labels > 0.5
        calibration = fit_platt(logits, labels, self.bundle.calibration.prevalence)
        cut = choose_cut(calibration, logits, labels)
        answers = self._answer(network, calibration, Thresholds(cut.discard, cut.keep), collection)
        known = {"scores": answers.scores.tolist(), "verdicts": answers.verdicts.tolist()}
        write_whole(kept, json.dumps(known).encode())
        return answers

    def _tuned(self, name: str, labelled: Examples | None) -> ResNet18:
        """As many steps with labels as without: what the labels would fill is simulated instead."""
        whole = round(self.simulated / (1 - LABELLED_SHARE))
        pool = self._draw("simulated", whole, TUNING_SEED)
        examples = pool
        if labelled is not None:
            wanted = whole - self.simulated
            repeated = labelled.repeat(-(-wanted // len(labelled)))
            first = Examples(pool.edges[: self.simulated], pool.labels[: self.simulated])
            examples = first + Examples(repeated.edges[:wanted], repeated.labels[:wanted])
        run = Run(examples, self.bundle.profile, self._recipe(), self._network())
        for _ in progress(run, name, len(run)):
            pass
        return run.network

    def _recipe(self) -> Recipe:
        recipe = self.bundle.manifest.training.get("recipe", {})
        loss = str(recipe.get("loss", "focal"))  # as its maker was asked for it
        return Recipe(
            width=self.bundle.width,
            epochs=self.epochs,
            rate=self.rate,
            loss=loss if loss.partition(":")[0] in LOSSES else "focal",
            seed=self.seed,
            threads=self.threads,
            bf16=bf16_in_hardware(),
        )

    def _network(self) -> ResNet18:
        weights = {name: torch.from_numpy(tensor) for name, tensor in self.bundle.weights.items()}
        return load(self.bundle.width, weights)

    def _draw(self, name: str, count: int, seed: int) -> Examples:
        kept = Examples.load(self.work / name)
        if kept is None:
            curves = progress(simulate(count, self.seed + seed, 0.5), f"simulating ({name})", count)
            kept = gather(((item.curve, item.label == "keep") for item in curves), self.bundle.profile)
            kept.save(self.work / name)
        return kept

    def _answer(
        self, network: ResNet18, calibration: Calibration, thresholds: Thresholds, collection: Collection
    ) -> Answers:
        scores = calibration.score(infer(network, collection.edges, self.bundle.profile))
        told = zip(scores.tolist(), collection.reasons, strict=True)
        verdicts = np.array([verdict_of(score, reasons, thresholds) for score, reasons in told])
        return Answers(scores, cast(NDArray[np.str_], verdicts))
