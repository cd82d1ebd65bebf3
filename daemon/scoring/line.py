"""A line of ``score --out``: the data of an event and the state of the file, and what of it a later run looks at."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from daemon.judging import Decision, Judge
from daemon.ledger import events

OPENING = b'{"path":'  # how every line begins


@dataclass(frozen=True, slots=True)
class Line:
    """What was said about one curve, and by whom."""

    path: str
    curve: int
    sha256: str | None
    size_bytes: int
    mtime_ns: int
    curves: int  # of the file
    engine: str
    made_by: tuple[str, str, str]  # model, pipeline, thresholds


def write_line(decision: Decision, file: Mapping[str, int] | None = None) -> bytes:
    """One line of JSON with its end; ``file`` as :meth:`daemon.scoring.job.Stamp.with_curves` says it."""
    data = events.decision_data(decision, time.monotonic() - decision.noticed_s)
    return events.encode(data if file is None else {**data, "file": file}) + b"\n"


def read_line(content: bytes) -> Line:
    """The inverse, as far as a later run needs it. ValueError for what ``score --out`` has not written."""
    try:
        data = json.loads(content)
        file = data["file"]
        thresholds = data["thresholds"]
        return Line(
            path=str(data["path"]),
            curve=int(data["curve"]),
            sha256=data["sha256"],
            size_bytes=int(file["size_bytes"]),
            mtime_ns=int(file["mtime_ns"]),
            curves=int(file["curves"]),
            engine=str(data["engine"]),
            made_by=_made_by(data["model"], data["pipeline"], thresholds["discard"], thresholds["keep"]),
        )
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise ValueError("no verdict of score --out") from error


def made_by(judge: Judge) -> tuple[str, str, str]:
    """What lines must have in common with those that are added to them."""
    return _made_by(judge.model, judge.pipeline, *judge.thresholds.both)


def _made_by(model: str, pipeline: str, discard: float, keep: float) -> tuple[str, str, str]:
    return f"model {model}", f"pipeline {pipeline}", f"thresholds {discard:g} and {keep:g}"
