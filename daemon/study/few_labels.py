"""`study few-labels`: what a few dozen labels of a laboratory's own curves add to a model, and by which way.

Learning curves over the number of labelled curves (the model as it is, fine-tuned, trained on the labels alone, and
heads on features of its embedding), and over the number of unlabelled ones that the features were learned from. Labels
and tests come once from different experiments, and once from one. Ways marked * are those of `train --head`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from daemon.common.errors import BAD_DATA, USAGE, UserError

LABELS, UNLABELLED, TUNED = (8, 16, 32, 64, 128), (0, 50, 100, 1000), (16, 32, 64)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The defaults take ten minutes of one core on six hundred curves."""
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="labels.csv with a column experiment")
    parser.add_argument("--model", default="shipped", help="whose embedding is used and who is fine-tuned (shipped)")
    parser.add_argument(
        "--apart", metavar="GLOB", action="append", default=[], help="experiments that only teach and test each other"
    )
    parser.add_argument("--repeats", metavar="N", type=int, default=10, help="splits of each kind (10)")
    parser.add_argument("--tuned-repeats", metavar="N", type=int, default=5, help="of them with networks trained (5)")
    parser.add_argument("--simulate", metavar="N", type=int, default=1000, help="simulated unlabelled curves (1000)")
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="(1)")
    parser.add_argument("--out", metavar="FILE.json", type=Path, help="also what the table was made from")


def run(args: argparse.Namespace) -> int:
    """Exit 0 with the tables, 65 for labels that make no sense or are too few to split, 69 without scikit-learn."""
    if not (args.repeats >= 2 and args.tuned_repeats >= 0 and args.simulate >= 2):
        raise UserError(USAGE, "--repeats and --simulate are 2 or more, --tuned-repeats 0 or more")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    from daemon.common.progress import progress
    from daemon.learn.head import parent_of, require_sklearn
    from daemon.study.collection import collect
    from daemon.study.few_labels_bench import make_bench
    from daemon.study.few_labels_splits import settings
    from daemon.study.few_labels_table import summarise, write_text
    from daemon.study.few_labels_trial import try_out

    require_sklearn()
    bundle, begun_s = parent_of(args.model), time.process_time()
    collection = collect(args.folders, bundle.profile, "experiment")
    split = settings(collection.systems, collection.labels, args.apart, args.repeats, args.seed)
    if not split:
        raise UserError(
            BAD_DATA, "no experiment holds enough curves of both kinds to learn from some and test on others"
        )
    bench = make_bench(bundle, collection, args.simulate, args.seed)
    tries = [(setting, repeat) for setting in split for repeat in range(len(setting.splits))]
    results = [
        result
        for setting, repeat in progress(tries, "comparing", len(tries))
        for result in try_out(bench, setting, repeat, LABELS, UNLABELLED, TUNED if repeat < args.tuned_repeats else ())
    ]
    found = {
        "model": bundle.id,
        "seed": args.seed,
        "curves": len(collection),
        "cpu_s": round(time.process_time() - begun_s),
        "settings": summarise(split, results),
    }
    print(write_text(found))
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0
