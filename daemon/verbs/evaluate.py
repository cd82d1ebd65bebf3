"""`evaluate`: a model on labelled folders, per system and pooled, with exact intervals."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from daemon.common.errors import BAD_DATA, INPUT_OUTPUT, UserError
from daemon.common.options import Option
from daemon.config import ThresholdsConfig
from daemon.labels.table import HELP, read_selection
from deploy.engines import DEVICES

FOLDER = "with a labels.csv: path, curve_index, label, system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    model: Annotated[str, Option("shipped, or a model folder", "MODEL", is_positional=True)]
    folders: Annotated[tuple[Path, ...], Option(FOLDER, "DIR", is_positional=True)]
    json: Annotated[bool, Option("one JSON object")] = False
    report: Annotated[Path | None, Option("also as one self-contained page with pictures", "FILE.html")] = None
    device: Annotated[str, Option("where it runs", choices=DEVICES)] = "auto"
    only: Annotated[str | None, Option(HELP, "LIST")] = None


def run(options: Options) -> int:
    """Exit 0 with the figures, 65 when labels make no sense (one line a row)."""
    if options.report is not None and (options.report.is_dir() or not options.report.parent.is_dir()):
        raise UserError(INPUT_OUTPUT, f"--report {options.report}: name a file in a folder that exists")
    from daemon.client.folders import refuse_watched
    from daemon.common.stdio import progress
    from daemon.judging.judge import judge_of, load_model
    from daemon.learn.evaluation import evaluate, judge_all, write_html, write_text
    from daemon.learn.evidence import KnownCurves, count_classes, curves_of, narrow, read_labels, refuse
    from deploy.classifier import EngineRequest
    from models.files import write_whole

    refuse_watched({"--report": options.report})
    labels = read_labels(options.folders)
    if options.only is not None:
        labels = narrow(labels, read_selection(options.only))
    classes = count_classes(labels)
    if not classes["keep"] + classes["discard"]:
        raise UserError(BAD_DATA, "no curve is labelled keep or discard: there is nothing to hold the model against")
    model = load_model(options.model, EngineRequest(options.device))
    judge = judge_of(model, ThresholdsConfig())
    problems: list[str] = []
    curves = progress(curves_of(labels, problems), "evaluating", sum(classes.values()))
    acquaintance = KnownCurves(model.bundle.stored)
    judged = judge_all(acquaintance.watch(curves), model, judge)
    refuse(problems)
    warnings = acquaintance.warnings(options.folders)
    report = {**evaluate(judged, judge), "warnings": warnings}
    print(json.dumps(report) if options.json else write_text(report))
    if options.report is not None:
        write_whole(options.report, write_html(report, judged).encode())
        print(f"report: {options.report}", file=sys.stderr)
    for line in warnings:
        print(f"afm-triage: {line}", file=sys.stderr)
    return 0
