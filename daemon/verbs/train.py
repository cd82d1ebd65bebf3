"""`train`: from simulated curves and labelled folders to a model folder; resumable, whole at the end or not there.

The defaults are the recipe of the shipped model: ``afm-triage train --simulate 160000 --out my-model``.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

from daemon.common.errors import USAGE, UserError

_LOSSES = "focal, bce, weighted_bce, asymmetric_focal, dice, focal_dice, multi"  # torch is not imported for --help


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Contract section 3."""
    parser.add_argument("--simulate", metavar="N", type=int, default=0, help="train on N simulated curves")
    parser.add_argument(
        "--labelled",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="has a labels.csv: path, curve_index, label",
    )
    parser.add_argument("--loss", metavar="NAME", default="focal", help=f"{_LOSSES}, or NAME:parameter=value,… (focal)")
    parser.add_argument(
        "--init",
        metavar="MODEL",
        default="scratch",
        help="where to start: shipped, a model folder, imagenet:FILE.safetensors (torchvision's ResNet18), or scratch",
    )
    parser.add_argument("--freeze", action="store_true", help="train the last layer of --init alone")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="the model folder to make")
    parser.add_argument("--name", help="what events call the model (the name of --out)")
    parser.add_argument("--epochs", metavar="N", type=int, default=4, help="times through the data (4)")
    parser.add_argument("--width", metavar="N", type=int, help="channels of the first layer (16)")
    parser.add_argument("--size", metavar="CxR", type=_size, help="columns and rows of the picture (256x128)")
    parser.add_argument(
        "--samples",
        metavar="N",
        type=int,
        help="a retract is averaged to N samples a column (2; may change with --init)",
    )
    parser.add_argument("--rate", metavar="R", type=float, help="learning rate (0.002; 0.0002 with --init MODEL)")
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="(1)")
    parser.add_argument("--threads", metavar="N", type=int, default=0, help="0: all cores but one (0)")
    parser.add_argument("--most-missed", metavar="A", type=float, help="simulated events that may be discarded (0.018)")
    parser.add_argument("--held-out", metavar="N", type=int, help="simulated curves to calibrate on (20000)")
    _add_few_labels(parser)


def _add_few_labels(parser: argparse.ArgumentParser) -> None:
    few = parser.add_argument_group(
        "few labels",
        "With a few dozen labelled curves: fit the last layer of --init on them in one go. The result is a model like"
        " any other; only linear features and heads can become one. Autoencoder, soft k-means and kernels put curves in"
        " order (`study rank`); what each way is worth is measured by `study few-labels`. Probabilities and thresholds"
        " come from held-out simulated curves, as after any training; `calibrate` takes them from labels.",
    )
    few.add_argument("--head", choices=("logistic", "svm"), help="logistic regression or linear support vectors")
    few.add_argument("--features", choices=("none", "pca"), help="what the head looks at: all channels, or PCA (none)")
    few.add_argument(
        "--unlabelled",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="curves nobody has labelled, to learn --features from (the labelled and simulated ones)",
    )


def run(args: argparse.Namespace) -> int:
    """Exit 0 with the model in place, 65 for labels that make no sense (one line a row)."""
    if wrong := _mistake(args):
        raise UserError(USAGE, wrong)
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    from daemon.learn import HELD_OUT, MOST_MISSED, Plan, train
    from daemon.learn.head import HeadPlan, require_sklearn, start_of
    from deploy.cpu import default_threads
    from deploy.torch_engine import bf16_in_hardware
    from models.loss import select
    from models.raster import RasterProfile
    from models.train import Recipe

    try:
        select(args.loss)
    except ValueError as error:
        raise UserError(USAGE, f"--loss: {error}") from None

    if args.head:
        require_sklearn()
    start = start_of(args.init)
    profile = start.parent.profile if start.parent else RasterProfile(**args.size or {})
    recipe = Recipe(
        width=start.width or args.width or 16,
        epochs=args.epochs,
        rate=args.rate or (2e-4 if start.parent else 2e-3),
        loss=args.loss,
        seed=args.seed,
        threads=args.threads or default_threads(),
        bf16=bf16_in_hardware(),
        frozen=args.freeze,
    )
    plan = Plan(
        out=args.out,
        name=args.name or args.out.name,
        simulated=args.simulate,
        labelled=tuple(args.labelled),
        recipe=recipe,
        profile=replace(profile, samples_per_column=args.samples or profile.samples_per_column),
        start=start,
        held_out=args.held_out or HELD_OUT,
        most_missed=MOST_MISSED if args.most_missed is None else args.most_missed,
        head=HeadPlan(args.head, args.features or "none", tuple(args.unlabelled)) if args.head else None,
    )
    bundle = train(plan)
    evidence = bundle.manifest.thresholds.evidence
    count = evidence["events"] + evidence["event_free"]
    print(f"{args.out}: {bundle.id}, AUC {evidence['auc']:.4f} on {count} simulated curves that it had not seen")
    return 0


def _size(text: str) -> dict[str, int]:
    """``256x128`` or ``128``."""
    columns, _, rows = text.partition("x")
    sizes = {"columns": int(columns), "rows": int(rows or columns)}
    if not all(size in range(64, 513, 32) for size in sizes.values()):
        raise argparse.ArgumentTypeError(f"{text}: multiples of 32 from 64 to 512, as in 256x128")
    return sizes


def _mistake(args: argparse.Namespace) -> str | None:
    """What is wrong with the options, in words, or None."""
    mistakes = {
        "nothing to learn from; give --simulate N, --labelled DIR, or both": not args.simulate and not args.labelled,
        "--simulate and --seed are 0 or more, --epochs 1 or more": min(args.simulate, args.seed, args.epochs - 1) < 0,
        "--name (or else --out) stands in every event: use characters that can be printed": not (
            args.name or args.out.name
        ).isprintable(),
        "--threads is 0 to 256": not 0 <= args.threads <= 256,
        "--held-out is 100 or more": args.held_out is not None and args.held_out < 100,
        "--most-missed is 0 or more and below 0.5": args.most_missed is not None and not 0 <= args.most_missed < 0.5,
        "--rate is above 0 and at most 1": args.rate is not None and not 0 < args.rate <= 1,
        "--samples is 2 to 16": args.samples is not None and not 2 <= args.samples <= 16,
        "--width is 64 with --init imagenet:FILE; leave it out": args.init.startswith("imagenet:")
        and args.width not in (None, 64),
        "--width is 4 to 128": args.width is not None and not 4 <= args.width <= 128,
        "--width and --size are those of the --init model; leave them out": args.init != "scratch"
        and not args.init.startswith("imagenet:")
        and (args.width or args.size) is not None,
        "--freeze and --head build on weights; name them with --init": args.init == "scratch"
        and bool(args.freeze or args.head),
        "--freeze trains by gradient, --head fits in one go; choose one": bool(args.freeze and args.head),
        "--features and --unlabelled belong to --head; add --head logistic": not args.head
        and bool(args.features or args.unlabelled),
        f"--out {args.out} exists and is no model; name another folder": args.out.exists()
        and not (args.out / "manifest.json").is_file(),
    }
    return next((text for text, is_so in mistakes.items() if is_so), None)
