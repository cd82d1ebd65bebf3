"""`calibrate`: probabilities and both thresholds from labelled curves, with the certificate they earn."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from daemon.common.errors import BAD_DATA, USAGE, UserError

FOLDER = "with a labels.csv: path, curve_index, label, experiment"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Contract section 3."""
    parser.add_argument("model", metavar="MODEL", help="shipped, or a model folder")
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help=FOLDER)
    parser.add_argument("--max-miss", metavar="A", type=float, default=0.05, help="share of events missed (0.05)")
    parser.add_argument("--confidence", metavar="C", type=float, default=0.95, help="how sure of it (0.95)")
    parser.add_argument("--prevalence", metavar="P", type=float, help="share of events in the stream (the model's)")
    keep = parser.add_mutually_exclusive_group()
    keep.add_argument("--precision", metavar="P", type=float, help="share of events among the kept (0.9)")
    keep.add_argument("--review-share", metavar="R", type=float, help="share of the stream that people look at")
    parser.add_argument("--out", metavar="DIR", type=Path, help="the model folder to make (MODEL-calibrated)")
    parser.add_argument("--json", action="store_true", help="what came of it as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Exit 0 with the new model in place; 65, and nothing written, for labels that do not allow the promise."""
    out = args.out or _beside(args.model)
    if wrong := _mistake(args, out):
        raise UserError(USAGE, wrong)
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    from daemon.judging.judge import load_model
    from daemon.learn.calibration import CalibrationTarget, calibrate, gather_eligible, write_model, write_text
    from daemon.learn.labelled import read_labels
    from deploy.classifier import EngineRequest
    from models.bundle import BadBundle
    from models.calibrate import KeepRule

    labels = read_labels(args.folders)
    model = load_model(args.model, EngineRequest("cpu", precision="fp32"))  # in which every engine decides
    rule = KeepRule() if args.precision is None else KeepRule(precision=args.precision)
    if args.review_share is not None:
        rule = KeepRule(precision=None, review_share=args.review_share)
    wish = CalibrationTarget(args.max_miss, args.confidence, args.prevalence, rule)
    outcome = calibrate(gather_eligible(labels, model), model.bundle, str(model.engine), wish)
    try:
        made = write_model(out, model.bundle, outcome)
    except BadBundle as error:
        raise UserError(BAD_DATA, f"{error}; nothing was written") from error
    if args.json:
        parts = {name: made.stored[name] for name in ("calibration", "thresholds", "certificate", "parent")}
        print(json.dumps({"id": made.id, "folder": str(out), **parts}))
    else:
        print(f"{write_text(outcome)}\n{out}: {made.id}, made of {model.id}; take it with --model {out}")
    return 0


def _beside(model: str) -> Path:
    """``MODEL-calibrated``: beside the model's folder, or here for the one that came with the program."""
    folder = Path(model)
    return folder.with_name(f"{folder.resolve().name}-calibrated") if folder.is_dir() else Path(f"{model}-calibrated")


def _mistake(args: argparse.Namespace, out: Path) -> str | None:
    """What is wrong with the options, in words, or None."""
    from models.bundle import SHIPPED

    taken = out.resolve()
    mistakes = {
        "--max-miss is 0.000001 or more and below 1, as in 0.05": not 1e-6 <= args.max_miss < 1,
        "--confidence is 0.5 to 0.999999, as in 0.95": not 0.5 <= args.confidence <= 0.999999,
        "--prevalence is 0.000001 to 0.999999, as in 0.02": args.prevalence is not None
        and not 1e-6 <= args.prevalence <= 0.999999,
        "--out names the model in every event: use characters that can be printed": not out.name.isprintable(),
        "--precision lies between 0 and 1, as in 0.9": args.precision is not None and not 0 < args.precision < 1,
        "--review-share is 0 to 1, as in 0.03": args.review_share is not None and not 0 <= args.review_share <= 1,
        f"--out {out} is the model that is calibrated, or the shipped one; name another folder": taken == SHIPPED
        or (args.model != "shipped" and taken == Path(args.model).resolve()),
        f"--out {out} exists and is no model; name another folder": out.exists()
        and not (out / "manifest.json").is_file(),
    }
    return next((text for text, is_so in mistakes.items() if is_so), None)
