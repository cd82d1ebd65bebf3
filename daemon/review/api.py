"""The routes: what the page and scripts ask, checked, and answered as JSON. A mistake is a 4xx with one sentence."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from daemon import __version__
from daemon.common.text import clean
from daemon.labels import Label, read_word
from daemon.ledger.wire import Event
from daemon.review.desk import Desk, Said
from daemon.review.security import Door, Guard, Refused
from models.reasons import REASONS

_HERE = Path(__file__).parent
QUEUES = ("kept", "review", "discards", "disagreements")
MOST_LIMIT = 1_000
MOST_LABELS = 500  # at once
_MOST_NAME, _MOST_REASON = 100, 2_000


class Answer(JSONResponse):
    """JSON; what is not a finite number is null."""

    def render(self, content: Any) -> bytes:
        return json.dumps(_finite(content), ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "backslashreplace"
        )


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def application(desk: Desk, door: Door) -> Guard:
    """The whole page, behind its door."""
    page = Environment(loader=FileSystemLoader(_HERE / "templates"), autoescape=True)

    async def index(request: Request) -> Response:
        return HTMLResponse(
            page.get_template("page.html").render(instrument=desk.config.instrument, version=__version__)
        )

    async def healthz(request: Request) -> Response:
        return Answer({"ok": True})

    def answering(work: Callable[[Desk, Request], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            await request.body()  # read here, so that the thread has it at hand
            found = await run_in_threadpool(work, desk, request)
            return found if isinstance(found, Response) else Answer(found)

        return endpoint

    routes = [
        Route("/", index),
        Route("/healthz", healthz),
        Route("/api/queue", answering(queue)),
        Route("/api/state", answering(state)),
        Route("/api/curve/{id}", answering(curve)),
        Route("/api/labels", answering(add_labels), methods=["POST"]),
        Route("/api/labels/{id}", answering(remove_label), methods=["DELETE"]),
        Mount("/static", StaticFiles(directory=_HERE / "static")),
    ]
    handlers: dict[Any, Any] = {Refused: _refuse, HTTPException: _refuse_http, Exception: _fail}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), door)


def _refuse(request: Request, error: Refused) -> Response:
    return Answer({"error": str(error)}, error.status)


def _refuse_http(request: Request, error: HTTPException) -> Response:
    said = {404: "there is nothing of this name here", 405: "this cannot be done here"}
    return Answer({"error": said.get(error.status_code, error.detail)}, error.status_code, error.headers)


def _fail(request: Request, error: Exception) -> Response:
    return Answer({"error": f"internal error, {type(error).__name__}"}, 500)


def queue(desk: Desk, request: Request) -> list[dict[str, Any]]:
    """The curves of a queue that its rater has not labelled yet."""
    name = request.query_params.get("name", "review")
    if name not in QUEUES:
        raise Refused(400, f"name must be one of {', '.join(QUEUES)}")
    rater, limit = request.query_params.get("rater"), _number(request, "limit", 100, MOST_LIMIT)
    is_blind = _flag(request, "blind")
    own: dict[tuple[str, int], Label] = {}
    others: dict[tuple[str, int], set[str]] = {}
    for label in desk.current():
        others.setdefault(label.identity, set()).add(label.label)
        if rater is None or label.rater == rater:
            own[label.identity] = label
    found = []
    for event in _queued(name, desk.last(), others):
        its = _identity(event)
        if name == "disagreements" or its not in own:
            found.append(_item(event, own.get(its), is_blind=is_blind))
            if len(found) == limit:
                break
    return found


def _queued(name: str, newest_first: Sequence[Event], said: Mapping[tuple[str, int], set[str]]) -> Iterator[Event]:
    """Of the last decisions those of a queue, in the order in which they are looked at."""
    if name == "disagreements":
        yield from (one for one in newest_first if len(said.get(_identity(one), ())) > 1)
        return
    verdict = {"kept": "keep", "review": "review", "discards": "discard"}[name]
    chosen = [one for one in newest_first if one["data"]["verdict"] == verdict]
    if name == "review":
        chosen.sort(key=lambda one: (one["data"]["score"] is None, -(one["data"]["score"] or 0.0)))
    yield from chosen


def _identity(event: Event) -> tuple[str, int]:
    data = event["data"]
    return Label(
        data["path"], data["curve"], "unsure", "", "", sha256=data["sha256"], folder=data.get("folder")
    ).identity


def _item(event: Event, label: Label | None, *, is_blind: bool) -> dict[str, Any]:
    data = event["data"]
    return {
        "id": event["id"],
        "path": data["path"],
        "curve": data["curve"],
        "name": f"{data['path']}#{data['curve']}",
        "folder": data.get("folder"),
        "acquired": data.get("acquired"),
        "time": event["time"],
        "score": None if is_blind else data["score"],
        "verdict": None if is_blind else data["verdict"],
        "reasons": [] if is_blind else data["reasons"],
        "label": label and label.label,
        "preview": data.get("preview"),
    }


def curve(desk: Desk, request: Request) -> dict[str, Any]:
    """One curve, with what was found on it and said of it."""
    event = desk.decision(request.path_params["id"])
    data, is_blind = event["data"], _flag(request, "blind")
    drawing, samples, is_compact = desk.drawing(event)
    rater, identity = request.query_params.get("rater"), _identity(event)
    labels = [one for one in desk.current() if one.identity == identity]
    own = labels if _flag(request, "all") else [one for one in labels if one.rater == rater]
    shown = {} if is_blind else {name: data.get(name) for name in ("verdict", "score", "thresholds", "cut")}
    return {
        **dict.fromkeys(("verdict", "score", "thresholds", "cut")),
        **shown,
        "id": event["id"],
        "path": data["path"],
        "curve": data["curve"],
        "name": f"{data['path']}#{data['curve']}",
        "folder": data.get("folder"),
        "acquired": data.get("acquired"),
        "time": event["time"],
        "session": None,
        "model": data["model"],
        "reasons": [] if is_blind else [{"reason": one, "text": _text_of(one)} for one in data["reasons"]],
        "labels": [{"rater": one.rater, "label": one.label, "time": one.time} for one in own],
        "points": len(samples),
        "velocity_um_per_s": _velocity(samples.distance, samples.duration_s),
        "spring_constant_n_per_m": samples.spring_constant_n_per_m,
        "is_compact": is_compact,
        **drawing.plain(),
    }


def _text_of(reason: str) -> str:
    return REASONS[reason].text if reason in REASONS else reason.replace("_", " ")


def _velocity(distance: Any, duration_s: float | None) -> float | None:
    """Of the retract, in µm/s."""
    if distance is None or not duration_s:
        return None
    return float(abs(distance[-1] - distance[0])) * 1e6 / duration_s


def add_labels(desk: Desk, request: Request) -> Response:
    """One label, or a list of them: all are stored, or none."""
    given = _json(request)
    rows = given if isinstance(given, list) else [given]
    if not 1 <= len(rows) <= MOST_LABELS:
        raise Refused(400, f"send 1 to {MOST_LABELS} labels at once")
    said = [_said(row) for row in rows]
    stored = zip(said, desk.add(said), strict=True)
    return Answer(
        [{"id": one.id, "label": its.label, "rater": its.rater, "time": its.time} for one, its in stored], 201
    )


def remove_label(desk: Desk, request: Request) -> Response:
    rater = request.query_params.get("rater")
    desk.remove(request.path_params["id"], None if rater is None else rater.strip())
    return Response(status_code=204)


def _json(request: Request) -> Any:
    """What was sent; the body lies ready, as ``answering`` has read it."""
    try:
        return json.loads(request._body)
    except (ValueError, RecursionError):
        raise Refused(400, "what was sent is no JSON") from None


def _said(row: Any) -> Said:
    if not isinstance(row, dict):
        raise Refused(400, 'a label is an object: {"id": …, "label": …, "rater": …}')
    texts = {name: _text(row, name) for name in ("id", "label", "rater")}
    reason, queue, kind = (_text(row, name, is_needed=False) for name in ("reason", "queue", "kind"))
    rater = texts["rater"].strip()
    if not rater or len(rater) > _MOST_NAME or clean(rater) != rater:
        raise Refused(400, f"rater is a name of 1 to {_MOST_NAME} printable characters")
    if len(reason) > _MOST_REASON:
        raise Refused(400, f"reason has at most {_MOST_REASON} characters")
    try:
        return Said(texts["id"], read_word(texts["label"]), rater, reason, queue or None, kind or "plain")
    except ValueError as error:
        raise Refused(400, str(error)[:200]) from None


def _text(row: Mapping[str, Any], name: str, *, is_needed: bool = True) -> str:
    value = row.get(name)
    if value is None and not is_needed:
        return ""
    if not isinstance(value, str):
        raise Refused(400, f"{name} must be a text" if name in row else f"{name} is missing")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(400, f"{name} is no proper text") from None
    return value


def _number(request: Request, name: str, usual: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return usual
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) >= 1):
        raise Refused(400, f"{name} is a whole number from 1")
    return min(int(text), most)


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "0") not in ("", "0", "false")


def state(desk: Desk, request: Request) -> dict[str, Any]:
    """How the night goes, in short."""
    said = desk.status()
    ledger = desk.ledger
    return {
        "instrument": desk.config.instrument,
        "running": bool(said),
        "health": [{k: one.get(k) for k in ("name", "level", "text")} for one in said.get("health", [])],
        "last_curve_s": said.get("last_curve_s"),
        "rate_per_s": said.get("rate_per_s"),
        "counts": ledger.verdict_counts(),
        "stream": ledger.stream,
        "last_seq": ledger.last_seq,
        "session": said.get("current_session"),
        "model": said.get("model"),
        "version": __version__,
    }
