"""Events: CloudEvents names, our data, one JSON text each.

Decisions carry ``seq`` and are replayed from the ledger; every other kind carries ``data.last_seq`` instead and is
not. JSON Schemas of all kinds lie in ``daemon/schema``; inside ``v1`` fields are only ever added.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from daemon.judging import Decision
from models.clock import rfc3339

Event = dict[str, Any]

#: The kinds that tell of the service itself; "decision" is the one that tells of curves.
NOTICES = ("hello", "heartbeat", "status", "alarm", "model", "config")


def decision_data(decision: Decision, total_s: float) -> dict[str, Any]:
    """The ``data`` of a decision event, and a line of ``score --json``. ``total_s``: finished file noticed → now."""
    judge = decision.judge
    latency_s = {stage: round(seconds, 6) for stage, seconds in decision.latency_s.items()}
    return {
        "path": decision.path,
        "curve": decision.curve,
        "sha256": decision.sha256,
        "verdict": decision.verdict,
        "score": decision.score,
        "thresholds": {"discard": judge.thresholds.discard, "keep": judge.thresholds.keep},
        "reasons": decision.reasons,
        "model": judge.model,
        "pipeline": judge.pipeline,
        "score_basis": judge.score_basis,
        "prevalence": judge.prevalence,
        "force_unit": decision.force_unit,
        "engine": judge.engine,
        "certificate": judge.certificate,
        "latency_s": {**latency_s, "total": round(max(total_s, 0.0), 6)},
        "source": decision.source,
        "preview": decision.preview,
    }


def decision_event(
    decision: Decision, *, instrument: str, stream: str, seq: int, wall_s: float, total_s: float
) -> Event:
    """The event of one decision. Its ``id`` follows from the ledger, so that a replayed event is the same event."""
    head = _head("decision", instrument, stream, f"{stream}:{seq}", wall_s)
    subject = f"{decision.path}#{decision.curve}"
    return {**head, "subject": subject, "seq": seq, "data": decision_data(decision, total_s)}


def notice(kind: str, data: Mapping[str, Any], *, instrument: str, stream: str, last_seq: int, wall_s: float) -> Event:
    """An event of the service itself; ``last_seq`` tells a subscriber how far the ledger has come."""
    if kind not in NOTICES:
        raise ValueError(f"no such kind of event: {kind}")
    head = _head(kind, instrument, stream, str(uuid.uuid4()), wall_s)
    return {**head, "data": {**data, "last_seq": last_seq}}


def topic(event: Event) -> bytes:
    """``afm.<instrument>.<kind>``, and the verdict behind it for decisions: what subscribers filter by."""
    kind, verdict = kind_of(event), event["data"].get("verdict")
    return f"afm.{event['source'][1:]}.{kind}{f'.{verdict}' if kind == 'decision' else ''}".encode()


def decision_topic(instrument: str, verdict: str) -> bytes:
    return f"afm.{instrument}.decision.{verdict}".encode()


def kind_of(event: Mapping[str, Any]) -> str:
    """``decision`` of ``org.afmtriage.decision.v1``; "" for anything that is not an event of ours."""
    parts = str(event.get("type", "")).split(".")
    return parts[2] if len(parts) == 4 and parts[:2] == ["org", "afmtriage"] else ""


def encode(event: Mapping[str, Any]) -> bytes:
    """UTF-8 JSON in one line; what is not a finite number becomes null, because JSON has no NaN."""
    try:
        line = _LINE.encode(event)
    except ValueError:  # NaN or infinite: seldom, so that nothing is looked at twice
        line = _LINE.encode(_plain(event))
    try:
        return line.encode()
    except UnicodeEncodeError:  # a file name that is not UTF-8: escaped, so that it comes back unchanged
        return _ASCII.encode(_plain(event)).encode()


def decode(body: bytes) -> Event:
    """One event from the wire. Raises ValueError for anything that is not a JSON object."""
    event = json.loads(body)
    if not isinstance(event, dict):
        raise ValueError("an event is a JSON object")
    return event


def _head(kind: str, instrument: str, stream: str, identity: str, wall_s: float) -> Event:
    return {
        "specversion": "1.0",
        "type": f"org.afmtriage.{kind}.v1",
        "id": identity,
        "source": f"/{instrument}",
        "time": rfc3339(wall_s),
        "stream": stream,
    }


def _plain(value: Any) -> Any:
    """Only what JSON knows; numbers of numpy become numbers of Python."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    raise TypeError(f"{type(value).__name__} has no place in an event")


_LINE, _ASCII = (
    json.JSONEncoder(ensure_ascii=ascii_only, allow_nan=False, separators=(",", ":"), default=_plain)
    for ascii_only in (False, True)
)
