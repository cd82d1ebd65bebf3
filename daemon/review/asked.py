"""What was sent to the page, checked: a mistake is a Refused of one sentence, before anything is done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from daemon.common.text import clean
from daemon.labels import read_word
from daemon.review.desk import Said
from daemon.review.queues import QUEUES, QueueName
from daemon.review.security import Refused

_MOST_NAME, _MOST_REASON = 100, 2_000


def queue_name(request: Request) -> QueueName:
    name = request.query_params.get("name", "review")
    found = next((one for one in QUEUES if one == name), None)
    if found is None:
        raise Refused(400, "name must be one of kept, review, discards, disagreements, sheet")
    return found


def who(request: Request) -> str | None:
    """The rater that asks; None for nobody in particular."""
    return (request.query_params.get("rater") or "").strip() or None


def is_blind_for(request: Request, name: QueueName) -> bool:
    return name == "sheet" or flag(request, "blind")


def sent(request: Request) -> Any:
    """What was sent; the body lies ready, as ``answering`` has read it."""
    try:
        return json.loads(request._body)
    except (ValueError, RecursionError):
        raise Refused(400, "what was sent is no JSON") from None


def object_of(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise Refused(400, "send a JSON object")
    return row


def said_of(row: Any) -> Said:
    if not isinstance(row, dict):
        raise Refused(400, 'a label is an object: {"id": …, "label": …, "rater": …}')
    id, word, rater = text_of(row, "id"), text_of(row, "label"), rater_of(row, "rater")
    reason = None if row.get("reason") is None else text_of(row, "reason")
    name = text_of(row, "queue", is_needed=False)
    if reason is not None and len(reason) > _MOST_REASON:
        raise Refused(400, f"reason has at most {_MOST_REASON} characters")
    try:
        return Said(id, read_word(word), rater, reason, known_queue(name))
    except ValueError:
        raise Refused(400, "label must be keep, discard or unsure") from None


def known_queue(name: str) -> str | None:
    if name and not (len(name) <= _MOST_NAME and clean(name) == name):
        raise Refused(400, f"queue is a name of at most {_MOST_NAME} printable characters")
    return name or None


def rater_of(row: Mapping[str, Any], name: str) -> str:
    rater = text_of(row, name).strip()
    if not rater or len(rater) > _MOST_NAME or clean(rater) != rater:
        raise Refused(400, f"{name} is a name of 1 to {_MOST_NAME} printable characters")
    return rater


def text_of(row: Mapping[str, Any], name: str, *, is_needed: bool = True) -> str:
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


def number_of(request: Request, name: str, usual: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return usual
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) >= 1):
        raise Refused(400, f"{name} is a whole number from 1")
    return min(int(text), most)


def flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "0") not in ("", "0", "false")
