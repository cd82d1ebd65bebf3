"""Events: CloudEvents names, our data, one JSON text each.

Decisions carry ``seq`` and are replayed from the ledger; every other kind, a notice, carries ``data.last_seq`` instead
and is not. The types here are the one place that says which fields an event has: ``daemon/schema`` is made from them
(``make schema``). Inside ``v1`` fields are only ever added; one that older ledgers lack gets the default ``UNSET``.
"""

from __future__ import annotations

import inspect
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from daemon.judging import CutOrigin, Decision, Thresholds, Verdict
from daemon.ledger.numbers import (
    Count,
    CurrentSession,
    Disk,
    GuardNumbers,
    Moment,
    Pulse,
    Ruptures,
    ToldLabels,
    ToldSessions,
)
from daemon.sources import SourceHealth
from models.certificate import Promise
from models.clock import moment, rfc3339
from models.curve import ForceUnit
from models.goal import Goal
from models.raster import PreviewAxes

Name = Annotated[str, Meta(min_length=1)]
LastSeq = Annotated[int, Meta(ge=0, description="how far the decisions of this stream have come")]
Sha256 = Annotated[
    str, Meta(pattern="^[0-9a-f]{64}$", description="of the file's bytes; null when not one of them could be read")
]
Level = Literal["ok", "degraded", "alarm"]
State = Literal["starting", "ready", "degraded", "paused", "stopping"]


# Decisions.


class DecisionData(Struct, frozen=True, kw_only=True):
    """One curve's verdict."""

    path: Annotated[str, Meta(description="relative to the watched or scored folder, else as given")]
    folder: (
        Annotated[str | None, Meta(description="watched or scored, absolute; null: a file by itself, ingest")]
        | UnsetType
    ) = UNSET
    curve: Annotated[int, Meta(ge=0, description="retracts of the file in stored order, from 0")]
    acquired: (
        Annotated[
            Moment, Meta(description="when it was measured: by its file, else the file's own time; null: unknown")
        ]
        | UnsetType
        | None
    ) = UNSET
    sha256: Sha256 | None
    verdict: Verdict
    score: (
        Annotated[
            float,
            Meta(
                ge=0,
                le=1,
                description="calibrated probability of an event at the stated prevalence; null when none could be made",
            ),
        ]
        | None
    )
    thresholds: Thresholds
    cut: CutOrigin | UnsetType = UNSET
    reasons: Annotated[tuple[Annotated[str, Meta(pattern="^[a-z0-9_]+$")], ...], Meta(min_length=1)]
    model: Name
    pipeline: str
    score_basis: Literal["simulation", "labels"]
    prevalence: Annotated[float, Meta(ge=0, le=1, description="at which the score is calibrated")]
    force_unit: ForceUnit | None
    engine: Annotated[str, Meta(min_length=1, description="that scored it: maker, device and precision")]
    certificate: Promise | None
    latency_s: Annotated[
        Mapping[str, Annotated[float, Meta(ge=0)] | None],
        Meta(
            description="read, raster, infer; total: from the finished file being noticed to the commit",
            extra_json_schema={"required": ["total"]},
        ),
    ]
    source: Annotated[str, Meta(description="kind of source: watch, ingest")] | UnsetType = UNSET
    preview: (
        Annotated[
            str,
            Meta(
                description="uint8 (2, W): lower and upper edge of each column of the drawing",
                extra_json_schema={"contentEncoding": "base64"},
            ),
        ]
        | UnsetType
        | None
    ) = UNSET
    preview_axes: PreviewAxes | UnsetType | None = UNSET
    steps: (
        Annotated[
            float,
            Meta(
                ge=0,
                description="the second opinion: how far the strongest step beyond the surface, up or down, stands "
                "out from the curve's others; null: no signal",
            ),
        ]
        | UnsetType
        | None
    ) = UNSET
    ruptures: Ruptures | UnsetType | None = UNSET


def decision_data(decision: Decision, total_s: float) -> DecisionData:
    """The ``data`` of a decision event, and a line of ``score --json``. ``total_s``: finished file noticed → now."""
    judge = decision.judge
    latency_s = {stage: round(seconds, 6) for stage, seconds in decision.latency_s.items()}
    return DecisionData(
        path=decision.path,
        folder=decision.folder,
        curve=decision.curve,
        acquired=None if decision.acquired_s is None else moment(decision.acquired_s),
        sha256=decision.sha256,
        verdict=decision.verdict,
        score=decision.score,
        thresholds=judge.thresholds,
        cut=judge.cut,
        reasons=decision.reasons,
        model=judge.model,
        pipeline=judge.pipeline,
        score_basis=judge.score_basis,
        prevalence=judge.prevalence,
        force_unit=decision.force_unit,
        engine=str(judge.engine),
        certificate=judge.certificate,
        latency_s={**latency_s, "total": round(max(total_s, 0.0), 6)},
        source=decision.source,
        preview=decision.preview,
        preview_axes=decision.preview_axes,
        steps=decision.steps,
        ruptures=decision.ruptures,
    )


# Notices: what the service tells of itself. Whoever sends one leaves ``last_seq`` to the publisher.


class Hello(Struct, frozen=True):
    """Somebody subscribed, or the service has started."""

    version: str
    replay: Annotated[str, Meta(description='endpoint that answers ["since", SEQ]')]
    last_seq: LastSeq = 0


class Heartbeat(Struct, frozen=True):
    """The service lives, also when idle."""

    last_seq: LastSeq = 0
    guard: Pulse | None = None


class Health(Struct, frozen=True):
    """One thing that can be wrong."""

    name: Annotated[str, Meta(min_length=1, description="the same while it lasts")]
    level: Level
    text: Annotated[str, Meta(description="what a human should know or do")]
    since: Annotated[str, Meta(description="UTC, when it came to this level")]
    ok: bool
    is_advice: Annotated[bool, Meta(description="of the instrument: the service is as well as ever")] = False


class Alarm(Health, frozen=True):
    """A condition has changed: raised, or cleared (ok)."""

    last_seq: LastSeq = 0


class Model(Struct, frozen=True):
    """Another model judges from now on."""

    model: Name
    engine: str
    state: str
    parent: Annotated[str | None, Meta(description="the model that it was made from; null: none")] | UnsetType = UNSET
    cut: CutOrigin | UnsetType = UNSET
    why: Annotated[str, Meta(description="what brought it here: a promotion, a reload, a start")] | UnsetType = UNSET
    last_seq: LastSeq = 0


class ConfigOutcome(Struct, frozen=True):
    """A configuration was taken, or refused."""

    result: Literal["applied", "rejected"]
    reason: str | UnsetType = UNSET
    digest: str | UnsetType = UNSET
    changed: (
        Mapping[str, tuple[Annotated[Any, Meta(description="before")], Annotated[Any, Meta(description="after")]]]
        | UnsetType
    ) = UNSET
    needs_restart: list[str] | UnsetType = UNSET
    last_seq: LastSeq = 0


class ServingModel(Struct, frozen=True):
    """Which model judges, and what it promises."""

    id: str
    score_basis: Literal["simulation", "labels"]
    thresholds: Thresholds
    prevalence: float
    certificate: Promise | None
    cut: CutOrigin


class Messages(Struct, frozen=True, kw_only=True):
    """What is sent to a person when something is wrong, and whether it arrives."""

    to: Annotated[tuple[str, ...], Meta(description="where to, in words without any secret; empty: nowhere")]
    waiting: Annotated[int, Meta(ge=0, description="messages that have not arrived yet")]
    last_arrived: Annotated[Moment | None, Meta(description="when one last arrived everywhere; null: never")]
    trouble: Annotated[str, Meta(description='why one does not arrive; "" when all is well')]


class Status(Struct, frozen=True, kw_only=True):
    """How the service is."""

    instrument: str
    stream: str
    last_seq: LastSeq = 0
    pid: int
    version: str
    started_at: Annotated[str, Meta(description="UTC, RFC 3339")]
    uptime_s: float
    state: State
    health: list[Health]
    sources: list[SourceHealth]
    oldest_pending_s: float | None = None  # age of the oldest finished file that is not decided
    last_curve_s: float | None = None  # seconds since 1970
    counts: Annotated[
        Mapping[str, Count],
        Meta(
            description="decisions by verdict since the ledger began",
            extra_json_schema={"required": ["keep", "review", "discard"]},
        ),
    ]
    session: Annotated[
        Mapping[str, int],
        Meta(
            description="since the process started: seen = decided + duplicate + backlog",
            extra_json_schema={"required": ["seen", "decided", "duplicate", "backlog"]},
        ),
    ]
    current_session: CurrentSession | None = None  # tip, sample and goal, with counts of its own; null: none goes on
    ignored: Annotated[
        Mapping[str, Count],
        Meta(
            description="files passed over since the process started, by kind: a reason (image, table, link, "
            "not_regular, temporary, sentinel, companion, ingest_refused), and of unclaimed files the suffix too "
            "(unclaimed .pfc); companions are the second halves of pairs, which are read with the first and are not in "
            "session.ignored"
        ),
    ]
    review_queue: Annotated[int, Meta(ge=0, description="flagged curves that nobody has labelled")]
    model: ServingModel
    engine: Annotated[str, Meta(description="that judges now: maker, device and precision")]
    device: Annotated[str, Meta(description="cpu or cuda: where the engine runs that judges now")]
    engine_reasons: Annotated[
        tuple[str, ...], Meta(description="why it is not a better engine; empty when all is well")
    ]
    latency_s: Annotated[Mapping[str, float | None], Meta(description="p50 and p99 of the last decisions")]
    rate_per_s: float
    watch: list[str]
    metrics_port: int
    publish: str
    replay: str
    guard: GuardNumbers | None = None
    goal: Goal | None = None  # of the session that goes on, else of this night; null: nothing is known of it
    messages: Messages | None = None  # null: [notify] names nobody
    disk: Disk | None = None  # null: not looked at yet


Notice = Hello | Heartbeat | Status | Alarm | Model | ConfigOutcome | ToldLabels | ToldSessions

#: Every kind of event and what its ``data`` holds.
KINDS: dict[str, type[DecisionData | Notice]] = {
    "decision": DecisionData,
    "hello": Hello,
    "heartbeat": Heartbeat,
    "status": Status,
    "alarm": Alarm,
    "model": Model,
    "config": ConfigOutcome,
    "labels": ToldLabels,
    "sessions": ToldSessions,
}
_KIND_OF = {data: kind for kind, data in KINDS.items()}


# The envelope.


class _Head(Struct, frozen=True, kw_only=True):
    specversion: Literal["1.0"] = "1.0"
    type: str
    id: Annotated[str, Meta(min_length=1, description="unique")]
    source: Annotated[str, Meta(pattern="^/.+", description="/<instrument>")]
    time: Annotated[
        str,
        Meta(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$", description="UTC, RFC 3339, milliseconds"),
    ]
    stream: Annotated[str, Meta(min_length=1, description="identity of one ledger")]


class DecisionEvent(_Head, frozen=True, kw_only=True):
    """Its ``id`` follows from the ledger, so that a replayed event is the same event."""

    id: Annotated[str, Meta(min_length=1, description="unique; the same for an event that is replayed")]
    subject: Annotated[str, Meta(pattern=r"#\d+$", description="path#curve")]
    seq: Annotated[int, Meta(ge=1, description="from 1 without a gap within a stream")]
    data: DecisionData


class NoticeEvent(_Head, frozen=True, kw_only=True):
    """An event of the service itself."""

    data: Struct


def decision_event(
    decision: Decision, *, instrument: str, stream: str, seq: int, wall_s: float, total_s: float
) -> DecisionEvent:
    """The event of one decision."""
    return DecisionEvent(
        type=_type_of("decision"),
        id=f"{stream}:{seq}",
        source=f"/{instrument}",
        time=rfc3339(wall_s),
        stream=stream,
        subject=f"{decision.path}#{decision.curve}",
        seq=seq,
        data=decision_data(decision, total_s),
    )


def notice(data: Notice, *, instrument: str, stream: str, last_seq: int, wall_s: float) -> NoticeEvent:
    """An event of the service itself; ``last_seq`` tells a subscriber how far the ledger has come."""
    return NoticeEvent(
        type=_type_of(kind_of_notice(data)),
        id=str(uuid.uuid4()),
        source=f"/{instrument}",
        time=rfc3339(wall_s),
        stream=stream,
        data=msgspec.structs.replace(data, last_seq=last_seq),
    )


def kind_of_notice(data: Notice) -> str:
    """``alarm`` of an Alarm. Raises ValueError for what is no notice."""
    kind = _KIND_OF.get(type(data), "decision")
    if kind == "decision":
        raise ValueError(f"no such kind of event: {type(data).__name__}")
    return kind


def topic(instrument: str, kind: str, verdict: str | None = None) -> bytes:
    """``afm.<instrument>.<kind>``, and the verdict behind it for decisions: what subscribers filter by."""
    return f"afm.{instrument}.{kind}{f'.{verdict}' if verdict else ''}".encode()


def kind_of(event: Mapping[str, Any]) -> str:
    """``decision`` of ``org.afmtriage.decision.v1``; "" for anything that is not an event of ours."""
    parts = str(event.get("type", "")).split(".")
    return parts[2] if len(parts) == 4 and parts[:2] == ["org", "afmtriage"] else ""


def instrument_of(event: Mapping[str, Any]) -> str:
    """``afm1`` of an event whose source is ``/afm1``."""
    return str(event["source"]).removeprefix("/")


def _type_of(kind: str) -> str:
    return f"org.afmtriage.{kind}.v1"


# The JSON Schemas of ``daemon/schema``.


def schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of one kind of event, made from its types. A field is required unless its default is UNSET."""
    data, event = KINDS[kind], DecisionEvent if kind == "decision" else NoticeEvent
    _, parts = msgspec.json.schema_components([event, *KINDS.values()], ref_template="{name}")
    envelope = _inlined(parts[event.__name__], {**parts, "Event": {}})
    envelope["properties"] |= {"type": {"const": _type_of(kind)}, "data": _inlined(parts[data.__name__], parts)}
    del envelope["properties"]["data"]["description"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{kind}.v1.json",
        "title": inspect.getdoc(data),
        "description": "Fields may be added within v1, never removed or changed: ignore what you do not know.",
        **{name: part for name, part in envelope.items() if name != "description"},
    }


def write_schemas(folder: Path = Path(__file__).parents[1] / "schema") -> None:
    """One file a kind, for whoever reads events with other programs."""
    for kind in KINDS:
        text = json.dumps(schema(kind), indent=2, ensure_ascii=False) + "\n"
        (folder / f"{kind}.v1.json").write_text(text, encoding="utf-8")


def _inlined(node: Any, parts: Mapping[str, Any]) -> Any:
    """A part of a schema without references to others; the names of our classes are nobody else's business."""
    if isinstance(node, list):
        return [_inlined(item, parts) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inlined({**parts[node["$ref"]], **{key: one for key, one in node.items() if key != "$ref"}}, parts)
    made = {key: _inlined(one, parts) for key, one in node.items() if key not in ("title", "default", "properties")}
    if isinstance(said := made.get("description"), str):
        made["description"] = " ".join(said.split())
    if "properties" in node:
        made["required"] = [n for n, one in node["properties"].items() if n in node["required"] or "default" in one]
        made["properties"] = {name: _inlined(one, parts) for name, one in node["properties"].items()}
    if len(made.get("anyOf", ())) == 2 and made["anyOf"][1] == {"type": "null"}:
        one = made.pop("anyOf")[0]
        nullable = {"type": [one["type"], "null"]} if "type" in one else {"enum": [*one["enum"], None]}
        made |= {**one, **nullable}
    return made
