"""The routes: what the page and scripts ask, checked, and answered as JSON. A mistake is a 4xx with one sentence."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from daemon import __version__
from daemon.common.ending import Closing
from daemon.common.errors import UserError
from daemon.common.text import clean, first_line
from daemon.guard.morning import last_report
from daemon.judging import Verdict
from daemon.labels import Label
from daemon.labels.sessions import FIELDS, LONGEST, Sessions
from daemon.learn.order import Orderer
from daemon.ledger.wire import Event
from daemon.review.cutting import Cutting
from daemon.review.desk import Desk, told
from daemon.review.drawing import Heats, draw, packed
from daemon.review.night import Night
from daemon.review.outlook import Certifying
from daemon.review.queues import ALWAYS, Aims, Item, QueueName, otherwise
from daemon.review.request import (
    Door,
    Guard,
    Refused,
    flag,
    is_blind_for,
    known_queue,
    number_of,
    object_of,
    queue_name,
    rater_of,
    said_of,
    sent,
    text_of,
    who,
)
from models.reasons import REASONS

log = logging.getLogger(__name__)

_HERE = Path(__file__).parent
_OF_REPORT = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
MOST_LIMIT = 1_000
MOST_LABELS = 500  # at once
_ON_SHEETS = 240  # curves that are dealt out at once
_ALIKE_AMONG = 5_000


class Answer(JSONResponse):
    """JSON; what is not a finite number is null, and what is no proper text is spelt out."""

    def render(self, content: Any) -> bytes:
        text = json.dumps(_finite(content), ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


Work = Callable[["Review", Request], Any]


class Review(Closing):
    """All that the routes are answered from."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.cutting = desk, Cutting(desk)
        self.night = Night(desk, self.cutting.serving)
        self.certifying = Certifying(desk)
        self.heats = Heats(desk.config.state)
        self.orderer = Orderer(desk.config, desk.has_labels)
        self._opened, self._counting = threading.Lock(), threading.Lock()
        self._in_hand = 0

    @property
    def is_held_up(self) -> bool:
        """Whether an end in order would take long: a thread works for a request, or for what a person has opened."""
        return self._in_hand > 0 or self._opened.locked()

    def do(self, work: Work, request: Request) -> Any:
        """On a thread of the pool."""
        with self._counting:
            self._in_hand += 1
        try:
            return work(self, request)
        finally:
            with self._counting:
                self._in_hand -= 1

    def open(self) -> None:
        """A person has opened the page: what takes seconds to load is loaded now, beside the first curves."""
        if self._opened.acquire(blocking=False):
            self.cutting.open()
            threading.Thread(target=self._warm, name="warm", daemon=True).start()

    def close(self) -> None:
        self.cutting.close()
        self.orderer.close()

    def aims(self) -> Aims:
        self.orderer.open()
        return replace(self.cutting.aims(), ranking=self.orderer.now.ranking)

    def _warm(self) -> None:
        try:
            last = self.desk.ledger.last(1)
            self.night.state(None, ALWAYS, self.aims(), [])
            self.night.scores(ALWAYS)
        except (Refused, UserError):
            return
        if last:
            self.heats.warm(last[0]["data"]["model"])


def application(review: Review, door: Door) -> Guard:
    """The whole page, behind its door."""
    pages = Environment(loader=FileSystemLoader(_HERE / "templates"), autoescape=True)
    page = pages.get_template("page.html").render(instrument=review.desk.config.instrument, version=__version__)

    async def index(request: Request) -> Response:
        review.open()
        return HTMLResponse(page)

    async def report(request: Request) -> Response:
        """The page of the last night: one file, without scripts, whose styles stand in it."""
        file = await run_in_threadpool(last_report, review.desk.config.state)
        if file is None:
            raise Refused(404, "no report lies here yet: `afm-triage report --html FILE` writes one")
        return FileResponse(file, media_type="text/html", headers={"content-security-policy": _OF_REPORT})

    async def healthz(request: Request) -> Response:
        return Answer({"ok": True})

    def answering(work: Work) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            await request.body()  # read here, so that the thread has it at hand
            found = await run_in_threadpool(review.do, work, request)
            return found if isinstance(found, Response) else Answer(found)

        return endpoint

    routes = [
        Route("/", index),
        Route("/report", report),
        Route("/healthz", healthz),
        Route("/api/queue", answering(queue)),
        Route("/api/state", answering(state)),
        Route("/api/night", answering(night)),
        Route("/api/curve/{id}", answering(curve)),
        Route("/api/curve/{id}/heat", answering(heat)),
        Route("/api/alike/{id}", answering(alike)),
        Route("/api/sheets", answering(sheets)),
        Route("/api/scores", answering(scores)),
        Route("/api/labels", answering(add_labels), methods=["POST"]),
        Route("/api/labels/{id}", answering(remove_label), methods=["DELETE"]),
        Route("/api/skips", answering(skip), methods=["POST"]),
        Route("/api/cut", answering(cut)),
        Route("/api/cut", answering(move_cut), methods=["POST"]),
        Route("/api/sheet", answering(sheet)),
        Route("/api/sheet", answering(draw_sheet), methods=["POST"]),
        Route("/api/session", answering(begin_session), methods=["POST"]),
        Mount("/static", StaticFiles(directory=_HERE / "static")),
    ]
    handlers: dict[Any, Any] = {Refused: _refuse, HTTPException: _refuse_http, Exception: _fail}
    served = Starlette(routes=routes, exception_handlers=handlers)
    served.router.redirect_slashes = False  # one address a thing
    return Guard(served, door)


def _refuse(request: Request, error: Refused) -> Response:
    return Answer({"error": str(error)}, error.status)


def _refuse_http(request: Request, error: HTTPException) -> Response:
    said = {404: "there is nothing of this name here", 405: "this cannot be done here"}
    return Answer({"error": said.get(error.status_code, error.detail)}, error.status_code, error.headers)


def _fail(request: Request, error: Exception) -> Response:
    log.error(clean(f"{request.method} {request.url.path}: {first_line(error)}"))
    return Answer({"error": f"internal error, {type(error).__name__}: the page's own output says more"}, 500)


# What is looked at.


def queue(review: Review, request: Request) -> list[dict[str, Any]]:
    """What a rater is asked next; without a rater, what nobody has answered yet."""
    name, rater = queue_name(request), request.query_params.get("rater")
    limit = number_of(request, "limit", 100, MOST_LIMIT)
    items = _items(review, request, name, limit if rater else MOST_LIMIT)
    found = _described(review, items, rater, is_blind=is_blind_for(request, name))
    return found if rater else [one for one in found if one["label"] is None or name == "disagreements"][:limit]


def _items(review: Review, request: Request, name: QueueName, limit: int, *, is_dealt: bool = False) -> list[Item]:
    desk, rater = review.desk, who(request) or ""
    within = desk.within(request.query_params.get("session", "all"))  # the page says which: a script wants them all
    is_blind = is_blind_for(request, name)
    return desk.queue(name, rater, limit, within, review.aims(), is_blind=is_blind, is_dealt=is_dealt)


def _described(review: Review, items: Sequence[Item], rater: str | None, *, is_blind: bool) -> list[dict[str, Any]]:
    """What the page needs to list them. Of a question nothing tells that it is one, so the rater's own word neither."""
    seqs = [item.seq for item in items]
    labels = review.desk.labels
    with told():
        said = labels.labelled(seqs)
    # Of a question, and on a sheet, it would say what a person has said before.
    hidden = {item.seq for item in items if item.kind != "plain" or item.queue == "sheet"}
    drawn = {item.seq for item in items if item.is_drawn}
    by_chance = {item.seq for item in items if item.queue == "drawn"}
    found = []
    for event in review.desk.events(seqs):
        own = [one.label for one in said.get(event["seq"], []) if rater in (None, one.rater)]
        label = own[-1] if own and event["seq"] not in hidden else None
        found.append(
            _item(event, label, is_blind=is_blind)
            | {"is_drawn": event["seq"] in drawn, "by_chance": event["seq"] in by_chance}
        )
    return found


def _item(event: Event, label: str | None, *, is_blind: bool) -> dict[str, Any]:
    data = event["data"]
    return {
        **_named(event),
        "score": None if is_blind else data["score"],
        "verdict": None if is_blind else data["verdict"],
        "reasons": [] if is_blind else data["reasons"],
        "label": label,
        "preview": data.get("preview"),
    }


def _named(event: Event) -> dict[str, Any]:
    data = event["data"]
    return {
        "id": event["id"],
        "path": data["path"],
        "curve": data["curve"],
        "name": f"{data['path']}#{data['curve']}",
        "folder": data.get("folder"),
        "acquired": data.get("acquired"),
        "time": event["time"],
    }


def curve(review: Review, request: Request) -> dict[str, Any]:
    """One curve, with what was found on it and said of it."""
    desk, event = review.desk, review.desk.decision(request.path_params["id"])
    data, is_blind = event["data"], flag(request, "blind")
    samples, is_compact = desk.curve(event)
    labels = desk.labels_on(event["seq"])
    rater = request.query_params.get("rater")
    own = labels if flag(request, "all") else [one for one in labels if one.rater == rater]
    own = [] if rater and desk.is_asking(rater, event["seq"]) else own
    judged = ("model", "verdict", "score", "thresholds", "cut")
    drawing = draw(samples)
    step = drawing.step if not is_blind and desk.is_disputed(event["seq"]) else None
    differs = None if is_blind else _disagreement(review, event, labels, rater)
    seen = None if step is None else step.words(drawing.force_unit, drawing.distance_unit)
    return {
        **_named(event),
        **{name: None if is_blind and name != "model" else data.get(name) for name in judged},
        "session": desk.session_of(event["seq"]),
        "reasons": [] if is_blind else [{"reason": one, "text": _text_of(one)} for one in data["reasons"]],
        "labels": [_said_label(one) for one in own],
        "disagreement": "; ".join(filter(None, (seen, differs))) or None,
        "step": None if step is None else asdict(step),
        "points": len(samples),
        "velocity_um_per_s": samples.velocity_um_per_s,
        "spring_constant_n_per_m": samples.spring_constant_n_per_m,
        "is_compact": is_compact,
        **drawing.plain(),
    }


def _disagreement(review: Review, event: Event, labels: Sequence[Label], rater: str | None) -> str | None:
    """Who or what sees it differently. What others say is for whoever has spoken, or was asked because they differ."""
    seq = event["seq"]
    if rater and review.desk.is_asking(rater, seq):
        return None
    may_know = not rater or rater in {one.rater for one in labels} or review.desk.is_of(rater, seq, "disagreements")
    if may_know and len({one.label for one in labels}) > 1:
        return clean(", ".join(f"{one.rater} says {one.label}" for one in labels))
    return otherwise(event, review.cutting.serving())


def _said_label(label: Label) -> dict[str, str]:
    return {"rater": label.rater, "label": label.label, "time": label.time, "reason": label.reason}


def _text_of(reason: str) -> str:
    return REASONS[reason].text if reason in REASONS else reason.replace("_", " ")


def heat(review: Review, request: Request) -> dict[str, str]:
    """Where the network that judged it looked: a value for each point that is drawn."""
    event = review.desk.decision(request.path_params["id"])
    samples, _ = review.desk.curve(event)
    along, drawn = review.heats.of(samples, event["data"]["model"]), draw(samples)
    return {"x": packed(drawn.x), "along": packed(np.nan_to_num(along[drawn.samples]))}


def alike(review: Review, request: Request) -> list[dict[str, Any]]:
    """Curves that look like this one, the likest first."""
    from daemon.review.lookalikes import nearest

    event, view = review.desk.decision(request.path_params["id"]), review.desk.ledger
    within = review.desk.within(request.query_params.get("session", "current")) or ALWAYS
    verdicts: tuple[Verdict, ...] = ("keep", "review")
    with told():
        among = [
            look.seq
            for verdict in verdicts
            for first, last in within
            for look in view.looks(verdict, after=first - 1, until=last, order="newest", limit=_ALIKE_AMONG)
        ]
        seqs = nearest(view, event["seq"], number_of(request, "limit", 6, 50), among)
    rater, labels = request.query_params.get("rater"), review.desk.labels
    with told():
        said = labels.labelled(seqs)
    own = {seq: next((one.label for one in said.get(seq, []) if one.rater == rater), None) for seq in seqs}
    is_blind = flag(request, "blind")  # then an earlier word of the rater's would lead them as well
    return [_item(one, None if is_blind else own[one["seq"]], is_blind=is_blind) for one in review.desk.events(seqs)]


def sheets(review: Review, request: Request) -> list[list[dict[str, Any]]]:
    """A queue dealt out on sheets of curves that look alike."""
    from daemon.review.lookalikes import sheets as dealt

    name, rater, view = queue_name(request), request.query_params.get("rater"), review.desk.ledger
    items = _items(review, request, name, _ON_SHEETS, is_dealt=True)
    with told():
        groups = dealt(view, [item.seq for item in items])
    by_seq = {item.seq: item for item in items}
    is_blind = is_blind_for(request, name)
    return [_described(review, [by_seq[seq] for seq in group], rater, is_blind=is_blind) for group in groups]


def scores(review: Review, request: Request) -> dict[str, Any]:
    """The scores of the last decisions, and the thresholds that they met."""
    serving = review.cutting.serving().serving
    within = review.desk.within(request.query_params.get("session", "current")) or ALWAYS
    known, count = review.night.scores(within)
    thresholds = None if serving is None else {"discard": serving[1].discard, "keep": serving[1].keep}
    return {"scores": known, "none": count, "thresholds": thresholds}


def state(review: Review, request: Request) -> dict[str, Any]:
    """How the night goes, in short; with ``?night=1`` all of :func:`night` and of what was learned too."""
    rater = who(request)
    within = review.desk.within(request.query_params.get("session", "current"))
    found = review.night.state(rater, within or ALWAYS, review.aims(), review.cutting.effect())
    if not request.query_params.get("night"):
        del found["night"], found["learning"]
    found |= {"order": review.orderer.now.plain(), "enough": review.desk.portion(within).plain()}
    return found | review.certifying.beside(found, review.cutting.needed(), rater)


def night(review: Review, request: Request) -> dict[str, Any]:
    """What is being missed, and how the tip is."""
    return review.night.guard()


# What is said.


def add_labels(review: Review, request: Request) -> Response:
    """One label, or a list of them: all are stored, or none."""
    given = sent(request)
    rows = given if isinstance(given, list) else [given]
    if not 1 <= len(rows) <= MOST_LABELS:
        raise Refused(400, f"send 1 to {MOST_LABELS} labels at once")
    stored = review.desk.say([said_of(row) for row in rows])
    if any(one.word == "keep" for one in stored) or review.cutting.rests_on(one.id for one in stored):
        review.cutting.look_again()
    said = [{"id": one.id, "label": one.word, "rater": one.rater, "time": one.time} for one in stored]
    return Answer([{**row, "reason": one.reason} for row, one in zip(said, stored, strict=True)], 201)


def remove_label(review: Review, request: Request) -> Response:
    rater = request.query_params.get("rater")
    review.desk.undo(request.path_params["id"], None if rater is None else rater.strip())
    if review.cutting.rests_on([request.path_params["id"]]):
        review.cutting.look_again()
    return Response(status_code=204)


def skip(review: Review, request: Request) -> Response:
    row = object_of(sent(request))
    id, rater = text_of(row, "id"), rater_of(row, "rater")
    review.desk.skip(id, rater, known_queue(text_of(row, "queue", is_needed=False)) or "review")
    return Answer({"id": id, "rater": rater}, 201)


def cut(review: Review, request: Request) -> dict[str, Any]:
    return review.cutting.proposal()


def move_cut(review: Review, request: Request) -> dict[str, Any]:
    return review.cutting.accept(rater_of(object_of(sent(request)), "by"))


def sheet(review: Review, request: Request) -> dict[str, Any]:
    """The certificate sheet that was drawn last, and what another would take and earn."""
    return review.certifying.state(who(request))


def draw_sheet(review: Review, request: Request) -> Response:
    """Draw one: ``{"kind": "uniform"}``, or weighted."""
    return Answer(review.certifying.draw(text_of(object_of(sent(request)), "kind")), 201)


def begin_session(review: Review, request: Request) -> Response:
    """Begin one with the next curve, or end the one that goes on: ``{"end": true}``."""
    row, labels = object_of(sent(request)), review.desk.labels
    said = {name: text_of(row, name, is_needed=False).strip() for name in FIELDS}
    if any(len(value) > LONGEST or clean(value) != value for value in said.values()):
        raise Refused(400, f"what is said of a session is at most {LONGEST} printable characters each")
    with told():
        sessions = Sessions(labels)
        session = sessions.end() if row.get("end") is True else sessions.begin(**said, origin="person", before=None)
    if session is None:
        raise Refused(409, "no session goes on")
    return Answer({name: getattr(session, name) for name in ("number", *FIELDS, "began", "ended", "first_seq")}, 201)
