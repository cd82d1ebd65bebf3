"""`train`: from simulated curves and labelled folders to a model folder; resumable, whole at the end or not there.

``make model`` has the recipe of the shipped one.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from daemon.common.errors import USAGE, UserError
from daemon.common.options import Group, Option
from daemon.common.stdio import telling, working

_LOSSES = "focal, bce, weighted_bce, asymmetric_focal, dice, focal_dice, multi"  # torch is not imported for --help


def _size(text: str) -> tuple[int, int]:
    """Columns and rows of ``256x128`` or ``128``."""
    columns, _, rows = text.partition("x")
    size = int(columns), int(rows or columns)
    if not all(one in range(64, 513, 32) for one in size):
        raise argparse.ArgumentTypeError(f"{text}: multiples of 32 from 64 to 512, as in 256x128")
    return size


_FEW = Group(
    "few labels",
    "With a few dozen labelled curves: fit the last layer of --init on them in one go. The result is a model like any"
    " other; only linear features and heads can become one. Autoencoder, soft k-means and kernels put curves in order"
    " (`rank`); what each way is worth: `make study TOPIC=few-labels`. Probabilities and thresholds come from"
    " held-out simulated curves, as after any training; `calibrate` takes them from labels.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    simulate: Annotated[int, Option("train on N simulated curves", "N", unless="")] = 0
    labelled: Annotated[tuple[Path, ...], Option("has a labels.csv: path, curve_index, label", "DIR")] = ()
    loss: Annotated[str, Option(f"{_LOSSES}, or NAME:parameter=value,…", "NAME")] = "focal"
    init: Annotated[
        str,
        Option(
            "where to start: shipped, a model folder, imagenet:FILE.safetensors (torchvision's ResNet18), or scratch",
            "MODEL",
            unless="",
        ),
    ] = "scratch"
    freeze: Annotated[bool, Option("train the last layer of --init alone")] = False
    out: Annotated[Path, Option("the model folder to make", "DIR")]
    replace: Annotated[bool, Option("let the new model take the place of one that --out holds")] = False
    name: Annotated[str | None, Option("what events call the model", unless="the name of --out")] = None
    epochs: Annotated[int, Option("times through the data", "N")] = 4
    width: Annotated[int | None, Option("channels of the first layer", "N", unless="16")] = None
    size: Annotated[
        tuple[int, int] | None,
        Option("columns and rows of the picture", "CxR", parse=_size, unless="256x128"),
    ] = None
    samples: Annotated[
        int | None,
        Option("a retract is averaged to N samples a column", "N", unless="2; may change with --init"),
    ] = None
    rate: Annotated[float | None, Option("learning rate", "R", unless="0.002; 0.0002 with --init MODEL")] = None
    seed: Annotated[int, Option("", "N")] = 1
    threads: Annotated[int, Option("0: all cores but one", "N")] = 0
    most_missed: Annotated[float | None, Option("simulated events that may be discarded", "A", unless="0.018")] = None
    held_out: Annotated[int | None, Option("simulated curves to calibrate on", "N", unless="20000")] = None
    head: Annotated[
        Literal["logistic", "svm"] | None, Option("logistic regression or linear support vectors", group=_FEW)
    ] = None
    features: Annotated[
        Literal["none", "pca"] | None,
        Option("what the head looks at: all channels, or PCA", unless="none", group=_FEW),
    ] = None
    unlabelled: Annotated[
        tuple[Path, ...],
        Option(
            "curves nobody has labelled, to learn --features from",
            "DIR",
            unless="the labelled and simulated ones",
            group=_FEW,
        ),
    ] = ()


def run(options: Options) -> int:
    """Exit 0 with the model in place, 65 for labels that make no sense."""
    if wrong := _mistake(options):
        raise UserError(USAGE, wrong)
    from daemon.client.folders import refuse_watched

    refuse_watched({"--out": options.out})
    with telling():
        return _train(options)


def _train(options: Options) -> int:
    with working("loading what learns"):
        import daemon.learn.training  # noqa: F401 - the seconds that its libraries take are shown
    from daemon.learn.head import HeadPlan, require_sklearn, start_of
    from daemon.learn.training import HELD_OUT, MOST_MISSED, Plan, train
    from deploy.classifier import default_threads
    from deploy.torch_engine import bf16_in_hardware
    from models.loss import select
    from models.raster import RasterProfile
    from models.train import Recipe

    try:
        select(options.loss)
    except ValueError as error:
        raise UserError(USAGE, f"--loss: {error}") from None

    if options.head:
        require_sklearn()
    start = start_of(options.init)
    profile = start.parent.profile if start.parent else RasterProfile()
    if options.size is not None:
        columns, rows = options.size
        profile = replace(profile, columns=columns, rows=rows)
    recipe = Recipe(
        width=start.width or options.width or 16,
        epochs=options.epochs,
        rate=options.rate or (2e-4 if start.parent else 2e-3),
        loss=options.loss,
        seed=options.seed,
        threads=options.threads or default_threads(),
        bf16=bf16_in_hardware(),
        frozen=options.freeze,
    )
    plan = Plan(
        out=options.out,
        name=options.name or options.out.name,
        simulated=options.simulate,
        labelled=options.labelled,
        recipe=recipe,
        profile=replace(profile, samples_per_column=options.samples or profile.samples_per_column),
        start=start,
        replaces=options.replace,
        held_out=options.held_out or HELD_OUT,
        most_missed=MOST_MISSED if options.most_missed is None else options.most_missed,
        head=HeadPlan(options.head, options.features or "none", options.unlabelled) if options.head else None,
    )
    bundle = train(plan)
    evidence = bundle.manifest.thresholds.evidence
    count = evidence["events"] + evidence["event_free"]
    print(f"{options.out}: {bundle.id}, AUC {evidence['auc']:.4f} on {count} simulated curves that it had not seen")
    return 0


def _mistake(options: Options) -> str | None:
    """What is wrong with the options, in words, or None."""
    from models.bundle import objection

    no_place = objection(options.out, replaces=options.replace)
    mistakes = {
        "nothing to learn from; give --simulate N, --labelled DIR, or both": not options.simulate
        and not options.labelled,
        "--simulate and --seed are 0 or more, --epochs 1 or more": min(
            options.simulate, options.seed, options.epochs - 1
        )
        < 0,
        "--name (or else --out) stands in every event: use characters that can be printed": not (
            options.name or options.out.name
        ).isprintable(),
        "--threads is 0 to 256": not 0 <= options.threads <= 256,
        "--held-out is 100 or more": options.held_out is not None and options.held_out < 100,
        "--most-missed is 0 or more and below 0.5": options.most_missed is not None
        and not 0 <= options.most_missed < 0.5,
        "--rate is above 0 and at most 1": options.rate is not None and not 0 < options.rate <= 1,
        "--samples is 2 to 16": options.samples is not None and not 2 <= options.samples <= 16,
        "--width is 64 with --init imagenet:FILE; leave it out": options.init.startswith("imagenet:")
        and options.width not in (None, 64),
        "--width is 4 to 128": options.width is not None and not 4 <= options.width <= 128,
        "--width and --size are those of the --init model; leave them out": options.init != "scratch"
        and not options.init.startswith("imagenet:")
        and (options.width or options.size) is not None,
        "--freeze and --head build on weights; name them with --init": options.init == "scratch"
        and bool(options.freeze or options.head),
        "--freeze trains by gradient, --head fits in one go; choose one": bool(options.freeze and options.head),
        "--features and --unlabelled belong to --head; add --head logistic": not options.head
        and bool(options.features or options.unlabelled),
        f"--out {options.out} {no_place}": no_place is not None,
    }
    return next((text for text, is_so in mistakes.items() if is_so), None)
