"""Where a stream's curves come from: simulator, labelled folders, control runs; all judged as the service judges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daemon.batch import score
from daemon.common.errors import BAD_DATA, UserError
from daemon.common.progress import progress
from daemon.judging import Judge, verdict_of
from daemon.learn.evaluation import judge_all
from daemon.learn.labelled import LabelledFolder, curves_of
from daemon.sources.existing import Found
from deploy.serving import Model
from models.frontend import BLOCKING, FLOOR
from models.simulate import Simulated, simulate

BATCH = 64


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What the model says of N curves."""

    verdicts: NDArray[np.str_]  # (N,)
    scores: NDArray[np.float64]  # (N,), infinity where no score could discard the curve
    kinds: NDArray[np.str_]  # (N,): family of a simulated curve, system of a labelled one
    lifted: NDArray[np.str_]  # (N,): the reason that alone made review of a discard, or ""

    def __len__(self) -> int:
        return int(self.verdicts.size)

    def of(self, chosen: NDArray[np.bool_]) -> Answers:
        """(N,) -> the chosen ones."""
        return Answers(self.verdicts[chosen], self.scores[chosen], self.kinds[chosen], self.lifted[chosen])


def judge_simulated(what: str, count: int, seed: int, event: bool, model: Model, judge: Judge) -> Answers:
    """``count`` fresh curves, all with an event or all without."""
    curves = iter(progress(simulate(count, seed, float(event)), what, count))
    told: list[tuple[str, float, str, str]] = []
    while batch := list(islice(curves, BATCH)):
        told += _judge(batch, model, judge)
    return _answers(told)


def judge_labelled(folders: Sequence[LabelledFolder], model: Model, judge: Judge) -> tuple[Answers, Answers]:
    """(curves with an event, curves without), those labelled `unsure` left aside. UserError 65 for what has no file."""
    problems: list[str] = []
    rows = sum(len(folder.rows) for folder in folders)
    judged = judge_all(progress(curves_of(folders, problems), "labelled curves", rows), model, judge)
    if problems:
        raise UserError(BAD_DATA, "\n".join(problems))
    held, free = (
        _answers([(one.verdict, _or_inf(one.score), one.system, "") for one in judged if one.label == label])
        for label in ("keep", "discard")
    )
    return held, free


def judge_control(paths: Sequence[Path], model: Model, judge: Judge) -> Answers:
    """Files of runs in which nothing can bind, so that none holds an event. UserError 65 when there is no file."""
    if missing := [str(path) for path in paths if not path.exists()]:
        raise UserError(BAD_DATA, f"--control {', '.join(missing)}: no such file or folder")
    decisions = score(progress(Found(paths), "control runs"), model, judge)
    told = [
        (one.verdict, _or_inf(one.score), one.path, _lifted(one.verdict, one.score, one.reasons, judge))
        for one in decisions
    ]
    if not told:
        raise UserError(BAD_DATA, f"--control {' '.join(map(str, paths))}: no curve file")
    return _answers(told)


def _judge(batch: Sequence[Simulated], model: Model, judge: Judge) -> list[tuple[str, float, str, str]]:
    told: list[tuple[str, float, str, str]] = []
    for item, one in zip(batch, model.judge([item.curve for item in batch]), strict=True):
        verdict = verdict_of(one.score, one.reasons, judge.thresholds)
        free = FLOOR.intersection(one.reasons)
        worth = np.inf if free else _or_inf(one.score)
        told.append((verdict, worth, item.family, _lifted(verdict, one.score, one.reasons, judge)))
    return told


def _lifted(verdict: str, score: float | None, reasons: Sequence[str], judge: Judge) -> str:
    if score is None or (verdict == "review" and score <= judge.thresholds.discard):
        return " and ".join(sorted((FLOOR | BLOCKING).intersection(reasons)) or ["no_score"])
    return ""


def _or_inf(score: float | None) -> float:
    return np.inf if score is None else score


def _answers(told: Iterable[tuple[str, float, str, str]]) -> Answers:
    rows = list(told)
    verdicts, scores, kinds, lifted = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [], [])
    return Answers(
        np.array(verdicts, np.str_), np.array(scores, np.float64), np.array(kinds, np.str_), np.array(lifted, np.str_)
    )
