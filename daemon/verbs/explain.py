"""`explain`: force curves, their verdicts, and where the network looked, as pictures."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from daemon.common.errors import BAD_DATA, INPUT_OUTPUT, USAGE, UserError, need_folder
from daemon.common.options import Option
from daemon.common.text import clean
from daemon.judging.judge import Asked, JudgeOptions
from deploy.engines import DEVICES

if TYPE_CHECKING:
    from daemon.explain import Explanation, Judged
    from daemon.explain.picture import Form
    from daemon.judging import Judge
    from daemon.labels.curve_name import Subject
    from daemon.reading.pool import ReaderPool
    from deploy.classifier import EngineRequest
    from deploy.serving import Model

#: What a picture may be, by the end of its name.
FORMS: dict[str, Form] = {".png": "png", ".svg": "svg", ".pdf": "pdf"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    files: Annotated[
        tuple[str, ...],
        Option("a file, a curve as events and status name it, or a folder of files", "FILE", is_positional=True),
    ]
    curve: Annotated[int | None, Option("which retract of a file, from 0", "I", unless="the first")] = None
    out: Annotated[Path, Option("the picture: .png, .svg or .pdf; of several curves a folder for them", "PNG")]
    judging: JudgeOptions
    device: Annotated[str, Option("where it runs", choices=DEVICES)] = "auto"


def run(options: Options) -> int:
    """Exit 0 with the pictures written, 65 for a file or a curve that there is not, 74 when one cannot be written.

    Of several, those that can be drawn are; then the exit code is that of the first that could not.
    """
    if options.curve is not None and options.curve < 0:
        raise UserError(USAGE, "--curve counts the retracts of the file from 0")
    form = FORMS.get(options.out.suffix.lower())
    is_one = len(options.files) == 1 and not os.path.isdir(options.files[0])
    if form is None and (is_one or options.out.suffix) and not options.out.is_dir():
        named = "give it a name that ends in .png, .svg or .pdf, or name a folder that exists"
        raise UserError(USAGE, f"--out {options.out}: the picture is a PNG, SVG or PDF; {named}")
    if form is not None and not is_one:
        raise UserError(USAGE, f"--out {options.out}: several curves make several pictures; name a folder for them")
    need_folder("--out", options.out)
    from daemon.client.folders import refuse_watched
    from daemon.reading.pool import ReaderPool

    refuse_watched({"--out": options.out}, options.judging.service())

    asked = Asked.of(options.judging)
    with ReaderPool(1, rules=asked.text) as pool:
        drawing = _Drawing(options, asked, pool)
        if form is not None:
            drawing.draw(options.files[0], options.out, form)
            return 0
        return _draw_all(drawing, options)


def _draw_all(drawing: _Drawing, options: Options) -> int:
    """One picture a curve into the folder; a bad one is told and does not end the others."""
    try:
        options.out.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(INPUT_OUTPUT, f"--out {options.out}: {error.strerror}; choose another folder") from None
    codes, taken = list[int](), set[str]()
    for name in _names(options.files):
        try:
            drawing.draw(name, options.out / _free(Path(name), taken), "png")
        except UserError as error:
            print(f"afm-triage: {error}", file=sys.stderr)
            codes.append(error.exit_code)
    if not taken and not codes:
        raise UserError(BAD_DATA, f"{clean(' '.join(options.files))}: no file of force curves in it")
    return codes[0] if codes else 0


def _names(files: Sequence[str]) -> Iterator[str]:
    """Files and names as they are given, and of a folder every file of curves in it, in order."""
    from daemon.reading.ahead import find

    for file in files:
        if os.path.isdir(file):
            yield from (str(arrival.file) for arrival in find([Path(file)]))
        else:
            yield file


def _free(name: Path, taken: set[str]) -> str:
    """The name of its picture: that of the file, and of those with equal names the later ones with a number."""
    wanted, number = f"{clean(name.name)}.png", 1
    while wanted.casefold() in taken:
        number += 1
        wanted = f"{clean(name.name)}-{number}.png"
    taken.add(wanted.casefold())
    return wanted


class _Drawing:
    """What is loaded once for all pictures: the reader, and each model that judged one of the curves."""

    def __init__(self, options: Options, asked: Asked, pool: ReaderPool) -> None:
        self._options, self._asked, self._pool = options, asked, pool
        self._service = options.judging.service()
        self._judging: dict[str | None, tuple[Model, Judge]] = {}

    def draw(self, name: str, out: Path, form: Form) -> None:
        """Raises UserError for a curve that there is not (65) and a picture that cannot be written (74)."""
        from daemon.explain import explain, judged, look_up

        subject, reading = look_up(name, self._options.curve, self._service, self._asked.text, self._pool)
        before = judged(subject, self._service)
        if before is not None and before.sha256 != reading.sha256 and reading.sha256 is not None:
            print(f"afm-triage: {subject.name}: the file has changed since it was judged", file=sys.stderr)
            before = None
        explanation = explain(reading, *self._judge(subject, before), before)
        from daemon.explain.picture import draw  # matplotlib takes a second: only where there is a curve
        from models.files import write_whole

        try:
            write_whole(out, draw(explanation, form))
        except OSError as error:
            raise UserError(INPUT_OUTPUT, f"--out {out}: {error.strerror}; choose another --out") from None
        print(f"{out}: {subject.name}: {_said(explanation)}")

    def _judge(self, subject: Subject, before: Judged | None) -> tuple[Model, Judge]:
        """The model that judged the curve, between the thresholds of that moment; without one, what serves now."""
        from daemon.judging import CutOrigin
        from daemon.judging.judge import judge_of, load_model

        if self._options.judging.model is not None or before is None:
            return self._serving()
        try:
            if before.model not in self._judging:
                model = load_model(before.model, self._request(), self._service.state / "models")
                self._judging[before.model] = model, judge_of(model, self._asked.config.thresholds)
            model, judge = self._judging[before.model]
        except UserError as error:
            gone = f"the model that judged it cannot be had ({error}); shown is what serves now"
            print(f"afm-triage: {subject.name}: {gone}", file=sys.stderr)
            return self._serving()
        return model, replace(judge, thresholds=before.thresholds, cut=CutOrigin("configured", 0))

    def _serving(self) -> tuple[Model, Judge]:
        from daemon.judging.judge import load_asked

        if None not in self._judging:
            model, judge, passed_over = load_asked(self._asked, self._request())
            if passed_over:
                print(f"afm-triage: {clean(passed_over)}", file=sys.stderr)
            self._judging[None] = model, judge
        return self._judging[None]

    def _request(self) -> EngineRequest:
        from deploy.classifier import EngineRequest

        return EngineRequest(self._options.device)


def _said(explanation: Explanation) -> str:
    from daemon.explain import share

    decision = explanation.decision
    score = "no score" if decision.score is None else f"score {share(decision.score)}"
    return f"{decision.verdict}, {score}"
