"""`evaluate`: a model on labelled folders, per system and pooled, with exact intervals."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from daemon.config import ThresholdsConfig
from daemon.errors import BAD_DATA, UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Contract section 3."""
    parser.add_argument("model", metavar="MODEL", help="shipped, or a model folder")
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="with a labels.csv")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--report", metavar="FILE.html", type=Path, help="also as one self-contained page")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where it runs (auto)")


def run(args: argparse.Namespace) -> int:
    """Exit 0 with the figures, 65 when labels make no sense (one line a row)."""
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    from daemon.judging import judge_of, load_model
    from daemon.progress import progress
    from daemon.training.evaluation import evaluate, judge_all
    from daemon.training.evaluation_page import write_html, write_text
    from daemon.training.labelled import curves_of, read_labels

    labels = read_labels(args.folders)
    model = load_model(args.model, args.device)
    judge = judge_of(model, ThresholdsConfig())
    rows = sum(len(folder.rows) for folder in labels)
    problems: list[str] = []
    judged = judge_all(progress(curves_of(labels, problems), "evaluating", rows), model, judge)
    if problems:
        raise UserError(BAD_DATA, "\n".join(problems))
    if not judged:
        raise UserError(BAD_DATA, "the labelled folders hold no curve")
    report = evaluate(judged, judge)
    print(json.dumps(report) if args.json else write_text(report))
    if args.report is not None:
        args.report.write_text(write_html(report), encoding="utf-8")
        print(f"report: {args.report}", file=sys.stderr)
    return 0
