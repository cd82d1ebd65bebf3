"""A request to the page: who is let in, what may be asked, what was sent, and what every answer forbids.

A page of another site can make a browser ask here, and through a name of its own (DNS rebinding) even read what comes
back. So the Host must be this machine's, and an Origin, a Referer or the browser's own word (Sec-Fetch-Site) must not
be another site's. Where the page can be reached from other machines a token is demanded as well.

What was sent is checked before anything is done: a mistake is a Refused of one sentence.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import os
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from daemon.common.errors import BAD_CONFIG, INPUT_OUTPUT, UserError
from daemon.common.keys import secret_line
from daemon.common.text import clean
from daemon.labels import Word, read_word
from daemon.review.queues import QUEUES, QueueName
from models.files import write_whole

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: A sheet of labels is some 5 kB.
MOST_BODY_BYTES = 1 << 20
#: For a body to come; a browser on this machine needs milliseconds.
BODY_S = 10.0
COOKIE = "afm_triage_review"
TOKEN = "review-token"  # in the state folder
_MOST_NAME, _MOST_REASON = 100, 2_000
_OPEN = "/healthz"  # says nothing but that the page lives
_LOGIN = "/login"  # takes the token, typed into a form
_WRONG_S = 1.0  # before a wrong token is called wrong
_FORM = b"""<!doctype html><meta charset="utf-8"><title>afm-triage</title>
<form method="post" action="/login"><label>Token of this page:
<input type="password" name="token" autofocus autocomplete="current-password"></label> <button>Open</button></form>
<p>It lies in a file on the computer of the page; whoever looks after that knows it.</p>
"""
_HEADERS: Mapping[str, str] = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Refused(Exception):
    """The answer is this status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


_OF_A_TOKEN = r"[A-Za-z0-9._~+/=-]+"  # RFC 6750, and a cookie takes it as it is


def page_token(file: Path, called: str) -> str:
    """The token of a person's own, the first line of ``file``. Raises UserError 78."""
    token = secret_line(file, called)
    if not re.fullmatch(_OF_A_TOKEN, token):  # a browser would send another one back
        raise UserError(BAD_CONFIG, f"{called} {file}: a token is of letters, digits and -._~+/=")
    return token


def token_of(state: Path) -> str:
    """The token of this state, made where there is none; only this user can read it. Raises UserError 74."""
    file = state / TOKEN
    try:
        if file.is_file() and len(text := file.read_text(encoding="ascii", errors="replace").strip()) >= 32:
            file.chmod(0o600)
            return text
        before = os.umask(0o077)
        try:
            token = secrets.token_urlsafe(24)
            write_whole(file, f"{token}\n".encode(), is_synced=True)
        finally:
            os.umask(before)
    except OSError as error:
        raise UserError(INPUT_OUTPUT, f"{file}: {error.strerror}; a page for other machines needs its token") from None
    return token


@dataclass(frozen=True, slots=True)
class Door:
    """``token``: None where only this machine can knock."""

    token: str | None = None

    def check(self, scope: Scope) -> None:
        """Raises Refused."""
        headers = _headers(scope)
        host = headers.get("host", "")
        if not self._is_own(host):
            raise Refused(403, "this name is not that of this machine: open the address that the program printed")
        is_visit = scope["method"] == "GET" and scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
        if not is_visit and _is_of_another_page(headers, host):
            raise Refused(403, "a request of another page is not answered")
        if self.token is not None and scope["path"] not in (_OPEN, _LOGIN) and not self._is_known(scope, headers):
            raise Refused(401, "open the address with its token, as the program printed it")

    def is_entering(self, scope: Scope) -> bool:
        """Whether this visit brings the right token in its address; it is answered by a cookie."""
        return self.token is not None and scope["path"] == "/" and self.is_right(_in_address(scope))

    def is_right(self, given: str) -> bool:
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def _is_own(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name == "localhost":
            return True
        try:
            address = ipaddress.ip_address(name.partition("%")[0])
        except ValueError:
            # A name is only taken where the token guards too: whoever has a name point here does not have that.
            return self.token is not None and name.partition(".")[0] == socket.gethostname().partition(".")[0].lower()
        return self.token is not None or address.is_loopback

    def _is_known(self, scope: Scope, headers: Mapping[str, str]) -> bool:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.is_right(bearer.strip())
        return any(map(self.is_right, _cookies(headers))) or self.is_entering(scope)


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _cookies(headers: Mapping[str, str]) -> list[str]:
    """Our cookies; those of other programs on this machine, on whatever port, come too, and may look like anything."""
    pairs = [one.strip().partition("=") for one in headers.get("cookie", "").split(";")]
    return [value.strip('"') for name, _, value in pairs if name == COOKIE]


def _in_address(scope: Scope) -> str:
    asked: bytes = scope["query_string"]
    return parse_qs(asked.decode("latin-1")).get("token", [""])[0]


def _is_of_another_page(headers: Mapping[str, str], host: str) -> bool:
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return True
    named = headers.get("origin", headers.get("referer"))  # an old browser sends only the latter
    if named is None:
        return False
    try:
        return urlsplit(named).netloc.lower() != host.lower()  # "null", of a file or a frame, has no place at all
    except ValueError:
        return True


class Guard:
    """Stands before the application: the door, the size of what is sent, and the headers of every answer."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app, self._door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        is_begun = False

        async def send_guarded(message: Message) -> None:
            nonlocal is_begun
            if message["type"] == "http.response.start":
                is_begun = True
                there = {name.lower() for name, _ in message["headers"]}
                more = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in there]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        try:
            self._door.check(scope)
            if self._door.is_entering(scope):
                await _let_in(self._door.token or "", scope, send_guarded)
                return
            body = await _body_of(scope, receive)
            if scope["path"] == _LOGIN and scope["method"] == "POST":
                await self._log_in(body, scope)
                await _let_in(self._door.token or "", scope, send_guarded)
                return
            await self._app(scope, _again(body, receive), send_guarded)
        except Refused as refused:
            if not is_begun and refused.status == 401 and "text/html" in _headers(scope).get("accept", ""):
                await _ask_for_token(send_guarded)
            elif not is_begun:
                await _answer(refused.status, {"error": str(refused)}, send_guarded)

    async def _log_in(self, body: bytes, scope: Scope) -> None:
        """Raises Refused for a token that is wrong, after a while: nobody tries many."""
        given = parse_qs(body.decode("latin-1")).get("token", [""])[0]
        if not self._door.is_right(given.strip()):
            await asyncio.sleep(_WRONG_S)
            raise Refused(401, "that is not the token of this page")


async def _body_of(scope: Scope, receive: Receive) -> bytes:
    """All that is sent with a request. Raises Refused 413 for more than there is to say, 408 for what does not come."""
    if (length := _headers(scope).get("content-length", "0")).isdecimal() and int(length[:20]) > MOST_BODY_BYTES:
        raise Refused(413, f"more than {MOST_BODY_BYTES >> 20} MiB at once: send fewer labels")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, "the request ended before its end")
                body += message.get("body", b"")
                if len(body) > MOST_BODY_BYTES:
                    raise Refused(413, f"more than {MOST_BODY_BYTES >> 20} MiB at once: send fewer labels")
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise Refused(408, f"the request was not complete within {BODY_S:g} s") from None


def _again(body: bytes, receive: Receive) -> Receive:
    """What has been read is handed on, once."""
    rest = [body]

    async def receive_again() -> Message:
        if rest:
            return {"type": "http.request", "body": rest.pop(), "more_body": False}
        return await receive()

    return receive_again


async def _ask_for_token(send: Send) -> None:
    """A form, for a person with a browser."""
    policy = _HEADERS["content-security-policy"].replace("form-action 'none'", "form-action 'self'")
    headers = [(b"content-type", b"text/html"), (b"content-length", str(len(_FORM)).encode())]
    headers.append((b"content-security-policy", policy.encode()))
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": _FORM})


async def _let_in(token: str, scope: Scope, send: Send) -> None:
    """The token goes from the address, where it would be seen and sent on, into a cookie."""
    is_encrypted = _headers(scope).get("x-forwarded-proto") == "https"  # by the proxy that stands before us
    secure = "; Secure" if is_encrypted else ""
    cookie = f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Lax; Max-Age=31536000{secure}"
    headers = [(b"location", b"/"), (b"set-cookie", cookie.encode()), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _answer(status: int, value: object, send: Send) -> None:
    body = json.dumps(value).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status in (408, 413):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@dataclass(frozen=True, slots=True)
class Said:
    """One answer as a page sends it, checked."""

    id: str
    word: Word
    rater: str
    reason: str | None = None  # None: nothing is said of it, so that the one that holds stays
    queue: str | None = None


def queue_name(request: Request) -> QueueName:
    name = request.query_params.get("name", "review")
    found = next((one for one in QUEUES if one == name), None)
    if found is None:
        raise Refused(400, "name must be one of kept, review, discards, disagreements, sheet, found")
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
