"""`evaluate`: a model on labelled folders, per system and pooled, with exact intervals."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from daemon.common.errors import BAD_DATA, INPUT_OUTPUT, UserError
from daemon.config import ThresholdsConfig
from daemon.labels.table import HELP, read_selection

FOLDER = "with a labels.csv: path, curve_index, label, system"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Contract section 3."""
    parser.add_argument("model", metavar="MODEL", help="shipped, or a model folder")
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help=FOLDER)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--report", metavar="FILE.html", type=Path, help="also as one self-contained page with pictures"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where it runs (auto)")
    parser.add_argument("--only", metavar="LIST", help=HELP)


def run(args: argparse.Namespace) -> int:
    """Exit 0 with the figures, 65 when labels make no sense (one line a row)."""
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    if args.report is not None and (args.report.is_dir() or not args.report.parent.is_dir()):
        raise UserError(INPUT_OUTPUT, f"--report {args.report}: name a file in a folder that exists")
    from daemon.common.files import write_whole
    from daemon.common.progress import progress
    from daemon.judging.judge import judge_of, load_model
    from daemon.learn.evaluation import evaluate, judge_all
    from daemon.learn.labelled import count_classes, curves_of, narrow, read_labels, refuse
    from daemon.learn.report import write_html, write_text
    from daemon.learn.training_record import KnownCurves
    from deploy.classifier import EngineRequest

    labels = read_labels(args.folders)
    if args.only is not None:
        labels = narrow(labels, read_selection(args.only))
    classes = count_classes(labels)
    if not classes["keep"] + classes["discard"]:
        raise UserError(BAD_DATA, "no curve is labelled keep or discard: there is nothing to hold the model against")
    model = load_model(args.model, EngineRequest(args.device))
    judge = judge_of(model, ThresholdsConfig())
    problems: list[str] = []
    curves = progress(curves_of(labels, problems), "evaluating", sum(classes.values()))
    acquaintance = KnownCurves(model.bundle.stored)
    judged = judge_all(acquaintance.watch(curves), model, judge)
    refuse(problems)
    warnings = acquaintance.warnings(args.folders)
    report = {**evaluate(judged, judge), "warnings": warnings}
    print(json.dumps(report) if args.json else write_text(report))
    if args.report is not None:
        write_whole(args.report, write_html(report, judged).encode())
        print(f"report: {args.report}", file=sys.stderr)
    for line in warnings:
        print(f"afm-triage: {line}", file=sys.stderr)
    return 0
