"""`explain`: one force curve, its verdict, and where the network looked, as a picture."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from daemon.common.errors import USAGE, UserError, need_folder
from daemon.common.options import Option
from daemon.common.text import clean
from daemon.judging.judge import Asked, JudgeOptions
from deploy.engines import DEVICES


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    file: Annotated[str, Option("a file, or a curve as events and status name it", "FILE", is_positional=True)]
    curve: Annotated[int | None, Option("which retract of the file, from 0", "I", unless="the first")] = None
    out: Annotated[Path, Option("the picture to write", "PNG")]
    judging: JudgeOptions
    device: Annotated[str, Option("where it runs", choices=DEVICES)] = "auto"


def run(options: Options) -> int:
    """Exit 0 with the picture written, 65 for a file or a curve that there is not, 74 when it cannot be written."""
    if options.out.suffix.lower() != ".png":
        raise UserError(USAGE, f"--out {options.out}: the picture is a PNG; give it a name that ends in .png")
    need_folder("--out", options.out)
    if options.curve is not None and options.curve < 0:
        raise UserError(USAGE, "--curve counts the retracts of the file from 0")
    from daemon.explain import explain, look_up
    from daemon.explain.picture import draw
    from daemon.judging.judge import load_asked
    from deploy.classifier import EngineRequest
    from models.files import write_whole

    asked = Asked.of(options.judging)
    subject, reading = look_up(options.file, options.curve, options.judging.service(), asked.text)
    model, judge, passed_over = load_asked(asked, EngineRequest(options.device))
    if passed_over:
        print(f"afm-triage: {clean(passed_over)}", file=sys.stderr)
    explanation = explain(reading, model, judge)
    write_whole(options.out, draw(explanation))
    decision = explanation.decision
    score = "no score" if decision.score is None else f"score {decision.score:.4f}"
    print(f"{options.out}: {subject.name}: {decision.verdict}, {score}")
    return 0
