"""`explain`: one force curve, its verdict, and where the network looked, as a picture."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from daemon.common.errors import USAGE, UserError
from daemon.common.files import need_folder
from daemon.config import Asked


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``explain``."""
    parser.add_argument("file", metavar="FILE", type=Path, help="a file of force curves")
    parser.add_argument("--curve", metavar="I", type=int, default=0, help="which retract of the file, from 0 (0)")
    parser.add_argument("--out", metavar="PNG", type=Path, required=True, help="the picture to write")
    parser.add_argument("--config", metavar="TOML", help="judge as the service of this configuration does")
    parser.add_argument("--model", metavar="NAME-or-DIR", help="model that judges (shipped, or the configuration's)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where it runs (auto)")


def run(args: argparse.Namespace) -> int:
    """Exit 0 with the picture written, 65 for a file or a curve that there is not, 74 when it cannot be written."""
    if args.out.suffix.lower() != ".png":
        raise UserError(USAGE, f"--out {args.out}: the picture is a PNG; give it a name that ends in .png")
    need_folder("--out", args.out)
    if args.curve < 0:
        raise UserError(USAGE, "--curve counts the retracts of the file from 0")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    from daemon.explain import explain, find_reading
    from daemon.explain.picture import draw
    from daemon.judging.judge import judge_of, load_model
    from deploy.classifier import EngineRequest

    asked = Asked.of(args)
    reading = find_reading(args.file, args.curve, asked.text)
    model = load_model(asked.model, EngineRequest(args.device), asked.models)
    explanation = explain(reading, model, judge_of(model, asked.thresholds, text=asked.text))
    fresh = args.out.with_name(f".{args.out.name}.{os.getpid()}")
    try:
        fresh.write_bytes(draw(explanation))
        fresh.replace(args.out)
    finally:
        fresh.unlink(missing_ok=True)
    decision = explanation.decision
    score = "no score" if decision.score is None else f"score {decision.score:.4f}"
    print(f"{args.out}: {decision.verdict}, {score}")
    return 0
