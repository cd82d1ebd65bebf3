"""`study left-out`: do labels of other laboratories' curves help on a system that the model has never seen?

Each system in turn is left out: the model is fine-tuned on simulated curves mixed with the labelled ones of all
other systems, calibrated and cut on held-out simulated curves by the rule of ``train``, and judges the system that was
left out. Beside it stand the model as it is, and the same fine-tuning without labels.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.common.errors import BAD_DATA, UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from daemon.study.collection import Collection


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A run that was ended goes on in ``--work``, fold by fold."""
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="with a labels.csv")
    parser.add_argument("--model", default="shipped", help="what is fine-tuned (shipped)")
    parser.add_argument("--system-column", metavar="NAME", default="system", help="column that names systems (system)")
    parser.add_argument("--teach", metavar="GLOB", action="append", help="systems whose labels teach (all)")
    parser.add_argument("--mute", metavar="GLOB", action="append", default=[], help="systems whose labels never teach")
    parser.add_argument("--least", metavar="N", type=int, default=1, help="smaller systems are left out together (1)")
    parser.add_argument("--apart", metavar="GLOB", action="append", default=[], help="pooled also without these")
    parser.add_argument("--simulate", metavar="N", type=int, default=10_000, help="curves in the mix (10000)")
    parser.add_argument("--held-out", metavar="N", type=int, default=6_000, help="curves to calibrate on (6000)")
    parser.add_argument("--epochs", metavar="N", type=int, default=1, help="(1)")
    parser.add_argument("--rate", metavar="R", type=float, default=2e-4, help="(0.0002)")
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="(1)")
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="(1)")
    parser.add_argument("--work", metavar="DIR", type=Path, default=Path(".left-out"), help="kept folds (.left-out)")
    parser.add_argument("--out", metavar="FILE.json", type=Path, help="also what the table was made from")


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Systems that are judged by one fine-tuned model, and the curves that it was taught with."""

    tested: tuple[str, ...]
    taught: NDArray[np.bool_]  # (N,)


def run(args: argparse.Namespace) -> int:
    """Exit 0 with the table, 65 for labels that make no sense."""
    from daemon.learn.head import parent_of
    from daemon.study.collection import collect
    from daemon.study.left_out_table import report, write_text
    from daemon.study.tuning import Tuner

    bundle = parent_of(args.model)
    collection = collect(args.folders, bundle.profile, args.system_column)
    folds = list(split(collection, args.teach or ["*"], args.mute, args.least))
    work = begin(args, bundle.id, collection)
    tuner = Tuner(bundle, args.simulate, args.held_out, args.epochs, args.rate, args.seed, args.threads, work)
    answers = {"as it is": tuner.judge_untuned(collection)}
    answers["no labels"] = tuner.judge("no-labels", collection, None)
    answers["labels"] = tuner.judge_untuned(collection)  # replaced fold by fold; what no fold tests stays as it is
    for number, fold in enumerate(folds):
        tuned = tuner.judge(f"fold-{number}", collection, fold.taught)
        for system in fold.tested:
            answers["labels"] = answers["labels"].replaced(tuned, collection.systems == system)
    found = {
        "model": bundle.id,
        "settings": settings(args),
        "left_out": collection.left_out,
        **report(collection, answers, args.apart, args.seed),
    }
    print(write_text(found))
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def split(collection: Collection, teach: list[str], mute: list[str], least: int = 1) -> Iterator[Fold]:
    """One fold a system whose labels teach; one more for all those whose labels never do.

    Those of fewer than ``least`` sure curves share a fold: fewer trainings, and none of them teaches another.
    """
    import numpy as np

    systems = [str(name) for name in np.unique(collection.systems)]
    teaching = [name for name in systems if _is_of(name, teach) and not _is_of(name, mute)]
    small = [name for name in teaching if (collection.sure & (collection.systems == name)).sum() < least]
    for tested in [(name,) for name in teaching if name not in small] + ([tuple(small)] if small else []):
        yield _fold(tested, [other for other in teaching if other not in tested], collection)
    if others := tuple(name for name in systems if name not in teaching):
        yield _fold(others, teaching, collection)


def _fold(tested: tuple[str, ...], taught: list[str], collection: Collection) -> Fold:
    import numpy as np

    mask = np.isin(collection.systems, taught)
    if not (mask & collection.events).any() or not (mask & collection.sure & ~collection.events).any():
        wanted = f"without {', '.join(tested)} no labelled events or no event-free curves are left to learn from"
        raise UserError(BAD_DATA, f"{wanted}; label more systems, or change --teach and --mute")
    return Fold(tested, mask)


def _is_of(name: str, globs: list[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What decides the outcome."""
    names = ("system_column", "teach", "mute", "least", "simulate", "held_out", "epochs", "rate", "seed")
    return {name: getattr(args, name) for name in names}


def begin(args: argparse.Namespace, model: str, collection: Collection) -> Path:
    """The work folder: gone on with when it is of this very study, else made afresh."""
    from daemon.study.workplace import open_workplace

    return open_workplace(args.work, {**settings(args), "model": model, "curves": collection.digest})
