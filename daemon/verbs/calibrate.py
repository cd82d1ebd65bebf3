"""`calibrate`: probabilities and both thresholds from labelled curves, with the certificate they earn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from daemon.common.errors import BAD_DATA, USAGE, UserError
from daemon.common.options import Group, Option

FOLDER = "with a labels.csv: path, curve_index, label, experiment"
_KEEP = Group("what is kept", is_choice=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    model: Annotated[str, Option("shipped, or a model folder", "MODEL", is_positional=True)]
    folders: Annotated[tuple[Path, ...], Option(FOLDER, "DIR", is_positional=True)]
    max_miss: Annotated[float, Option("share of events missed", "A")] = 0.05
    confidence: Annotated[float, Option("how sure of it", "C")] = 0.95
    prevalence: Annotated[float | None, Option("share of events in the stream", "P", unless="the model's")] = None
    precision: Annotated[float | None, Option("share of events among the kept", "P", unless="0.9", group=_KEEP)] = None
    review_share: Annotated[float | None, Option("share of the stream that people look at", "R", group=_KEEP)] = None
    out: Annotated[Path | None, Option("the model folder to make", "DIR", unless="MODEL-calibrated")] = None
    replace: Annotated[bool, Option("let the new model take the place of one that --out holds")] = False
    json: Annotated[bool, Option("what came of it as one JSON object")] = False


def run(options: Options) -> int:
    """Exit 0 with the new model in place; 65, and nothing written, for labels that do not allow the promise."""
    out = options.out or _beside(options.model)
    if wrong := _mistake(options, out):
        raise UserError(USAGE, wrong)
    from daemon.client.folders import refuse_watched
    from daemon.judging.judge import load_model
    from daemon.learn.calibration import CalibrationTarget, calibrate, gather_eligible, write_model, write_text
    from daemon.learn.evidence import read_labels
    from deploy.classifier import EngineRequest
    from models.bundle import BadBundle
    from models.calibrate import KeepRule

    refuse_watched({"--out": out})
    labels = read_labels(options.folders)
    model = load_model(options.model, EngineRequest("cpu", precision="fp32"))  # in which every engine decides
    rule = KeepRule() if options.precision is None else KeepRule(precision=options.precision)
    if options.review_share is not None:
        rule = KeepRule(precision=None, review_share=options.review_share)
    wish = CalibrationTarget(options.max_miss, options.confidence, options.prevalence, rule)
    outcome = calibrate(gather_eligible(labels, model), model.bundle, str(model.engine), wish)
    try:
        made = write_model(out, model.bundle, outcome, replaces=options.replace)
    except BadBundle as error:
        raise UserError(BAD_DATA, f"{error}; nothing was written") from error
    if options.json:
        parts = {name: made.stored[name] for name in ("calibration", "thresholds", "certificate", "parent")}
        print(json.dumps({"id": made.id, "folder": str(out), **parts}))
    else:
        print(f"{write_text(outcome)}\n{out}: {made.id}, made of {model.id}; take it with --model {out}")
    return 0


def _beside(model: str) -> Path:
    """``MODEL-calibrated``: beside the model's folder, or here for the one that came with the program."""
    folder = Path(model)
    return folder.with_name(f"{folder.resolve().name}-calibrated") if folder.is_dir() else Path(f"{model}-calibrated")


def _mistake(options: Options, out: Path) -> str | None:
    """What is wrong with the options, in words, or None."""
    from models.bundle import SHIPPED, objection

    place, no_place = out.resolve(), objection(out, replaces=options.replace)
    mistakes = {
        "--max-miss is 0.000001 or more and below 1, as in 0.05": not 1e-6 <= options.max_miss < 1,
        "--confidence is 0.5 to 0.999999, as in 0.95": not 0.5 <= options.confidence <= 0.999999,
        "--prevalence is 0.000001 to 0.999999, as in 0.02": options.prevalence is not None
        and not 1e-6 <= options.prevalence <= 0.999999,
        "--out names the model in every event: use characters that can be printed": not out.name.isprintable(),
        "--precision lies between 0 and 1, as in 0.9": options.precision is not None and not 0 < options.precision < 1,
        "--review-share is 0 to 1, as in 0.03": options.review_share is not None and not 0 <= options.review_share <= 1,
        f"--out {out} is the model that is calibrated, or the shipped one; name another folder": place == SHIPPED
        or (options.model != "shipped" and place == Path(options.model).resolve()),
        f"--out {out} {no_place}": no_place is not None,
    }
    return next((text for text, is_so in mistakes.items() if is_so), None)
