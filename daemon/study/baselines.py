"""`study baselines`: the model beside what a laboratory can have today, on labelled real curves.

A step detector without learning, and the plain published recipe, trained on simulated curves; beside the latter our own
recipe from scratch on the very same curves, as many times through them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from daemon.study.collection import Collection
    from models.bundle import Bundle

STEPS, PUBLISHED, EQUAL = "step detector", "published recipe", "our recipe, equal curves"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A run that was ended goes on in ``--work``."""
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="with a labels.csv")
    parser.add_argument("--model", default="shipped", help="what is compared (shipped)")
    parser.add_argument("--system-column", metavar="NAME", default="system", help="column that names systems (system)")
    parser.add_argument("--apart", metavar="GLOB", action="append", default=[], help="pooled also without these")
    parser.add_argument("--simulate", metavar="N", type=int, default=4_000, help="curves to train on; 0: none (4000)")
    parser.add_argument("--epochs", metavar="N", type=int, default=3, help="times through them (3)")
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="(1)")
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="(1)")
    parser.add_argument("--work", metavar="DIR", type=Path, default=Path(".baselines"), help="kept work (.baselines)")
    parser.add_argument("--out", metavar="FILE.json", type=Path, help="also what the table was made from")


def run(args: argparse.Namespace) -> int:
    """Exit 0 with the table, 65 for labels that make no sense."""
    from daemon.learn.head import parent_of
    from daemon.study.agreement import compare, read_twice
    from daemon.study.baselines_table import report, write_text
    from daemon.study.collection import collect
    from models.steps import detect

    bundle = parent_of(args.model)
    collection = collect(args.folders, bundle.profile, args.system_column)
    scores = {"the model": _score(bundle, collection), STEPS: detect(collection.curves)}
    if args.simulate:
        scores |= _train(args, bundle, collection)
    names = [(row.path, row.index) for row in collection.rows]
    by_name = {method: dict(zip(names, told.tolist(), strict=True)) for method, told in scores.items()}
    found: dict[str, Any] = {
        "model": bundle.id,
        "settings": {name: getattr(args, name) for name in ("simulate", "epochs", "seed", "system_column")},
        "groups": report(collection, scores, args.apart, args.seed),
        "labelled_twice": compare(read_twice(args.folders), by_name),
    }
    print(write_text(found))
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def _score(bundle: Bundle, collection: Collection) -> NDArray[np.float64]:
    import torch

    from models.network import load
    from models.train import infer

    weights = {name: torch.from_numpy(tensor) for name, tensor in bundle.weights.items()}
    return infer(load(bundle.width, weights), collection.edges, bundle.profile)


def _train(args: argparse.Namespace, bundle: Bundle, collection: Collection) -> dict[str, NDArray[np.float64]]:
    """Both recipes on the same simulated curves."""
    from daemon.study.baselines_training import Contest
    from daemon.study.workplace import open_workplace

    settings = {name: getattr(args, name) for name in ("simulate", "epochs", "seed")}
    work = open_workplace(args.work, {**settings, "profile": bundle.profile.id})
    contest = Contest(bundle.profile, args.simulate, args.epochs, args.seed, args.threads, work)
    return {PUBLISHED: contest.published(collection), EQUAL: contest.ours(collection)}
