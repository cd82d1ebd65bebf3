"""Fine-tuning for a study: a model, with and without labels, and what it then says of real curves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from daemon.common.files import write_whole
from daemon.common.progress import progress
from daemon.judging import Thresholds, verdict_of
from daemon.learn import HELD_OUT_SEED, LABELLED_SHARE
from daemon.study.collection import Collection
from deploy.torch_engine import bf16_in_hardware
from models.bundle import Bundle, Calibration
from models.calibrate import choose_cut, fit_platt
from models.loss import LOSSES
from models.network import ResNet18, load
from models.simulate import simulate
from models.train import Examples, Recipe, Run, gather, infer

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
        recipe = self.bundle.manifest["training"].get("recipe", {})
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
