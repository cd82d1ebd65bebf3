"""The channels: how a message reaches a person, by mail, by ntfy, or as JSON to a webhook.

Whatever answers on the other side may hang, or dribble a byte now and then. So every message is sent by a process of
its own, ``python -m daemon.notify.channels FD``, in which each channel has a thread, and which is ended when its time
is over. It is told everything through its socket: nothing secret stands in its command line.

At least once: a message whose sender was ended after the receiver had taken it is sent again, as the same message.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import smtplib
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from email.header import Header
from email.message import EmailMessage
from email.utils import formatdate
from http.client import HTTPException
from pathlib import Path
from typing import Any

from daemon.common.errors import UserError
from daemon.common.keys import secret_line
from daemon.common.text import clean, first_line
from daemon.config.rule import SMTP_PORTS, NotifyConfig, SecretUrl
from daemon.ledger.events import Level
from daemon.processes import frames
from daemon.processes.child import serving, spawn
from models.clock import utc_now
from models.files import write_whole

#: From the start of the sender to its end: a person is to be told within a minute.
SEND_S = 30.0
#: Of it for the picture, and for one answer of the other side.
_PICTURE_S, _ANSWER_S = 18.0, 10.0
_MOST_ANSWER_BYTES, _MOST_TOLD = 4_096, 300
#: Characters: what is shorter, like the `api` of an address, is a word of everybody's.
_LEAST_SECRET = 4
_NTFY_BYTES, _NTFY_PRIORITY = 3_900, {"alarm": "5", "degraded": "3", "ok": "3"}
#: What the sender notes of each channel, for `doctor`, `check` and `status`.
NOTE = "notify-last.json"


class NotSent(Exception):
    """Why a message did not reach its channel, in words without a secret."""


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent. ``id`` stays the same when it is sent again."""

    id: str
    title: str  # one line
    text: str  # some lines
    level: Level


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a message on one channel; ``text`` says why not, or what is to be known."""

    is_sent: bool
    text: str = ""


@dataclass(frozen=True, slots=True)
class Mail:
    config: NotifyConfig

    def __str__(self) -> str:
        return f"mail to {', '.join(self.config.to)} by {self.config.smtp_host}:{self.port}"

    @property
    def port(self) -> int:
        return self.config.smtp_port or SMTP_PORTS[self.config.smtp_security]

    def send(self, message: Message, png: bytes | None) -> str:
        """Raises NotSent; "" or what is to be known."""
        config, security = self.config, self.config.smtp_security
        password = None if config.password_file is None else secret_in(config.password_file, "password_file")
        trusted = ssl.create_default_context()
        try:
            if security == "tls":
                opened: smtplib.SMTP = smtplib.SMTP_SSL(*self._place(), timeout=_ANSWER_S, context=trusted)
            else:
                opened = smtplib.SMTP(*self._place(), timeout=_ANSWER_S)
            with opened as server:
                if security == "starttls":
                    server.starttls(context=trusted)
                if password is not None:
                    server.login(config.smtp_user, password)
                refused = server.send_message(self._letter(message, png))
        except smtplib.SMTPRecipientsRefused as error:
            raise NotSent(f"every recipient was refused: {_answers(error.recipients)}") from None
        except smtplib.SMTPNotSupportedError:
            raise NotSent(
                f'{config.smtp_host} does not offer what is asked for (smtp_security = "{security}")'
            ) from None
        except smtplib.SMTPAuthenticationError as error:
            raise NotSent(f"{config.smtp_host} does not take user and password ({_said(error)})") from None
        except smtplib.SMTPResponseException as error:
            raise NotSent(f"{config.smtp_host} refused it ({_said(error)})") from None
        except (OSError, smtplib.SMTPException) as error:
            raise NotSent(f"{config.smtp_host}:{self.port}: {_why(error)}") from None
        return f"not to {_answers(refused)}" if refused else ""

    def _place(self) -> tuple[str, int, str]:
        """With the name of this computer, as the network need not be asked for its long form."""
        return self.config.smtp_host, self.port, socket.gethostname()

    def _letter(self, message: Message, png: bytes | None) -> EmailMessage:
        config, letter = self.config, EmailMessage()
        letter["Subject"], letter["To"] = clean(message.title), ", ".join(config.to)
        letter["From"] = config.sender or (config.smtp_user if "@" in config.smtp_user else config.to[0])
        letter["Date"], letter["Message-ID"] = formatdate(), f"<{message.id}@afm-triage.invalid>"
        letter["Auto-Submitted"] = "auto-generated"
        letter.set_content(message.text)
        if png is not None:
            letter.add_attachment(png, "image", "png", filename="afm-triage.png", disposition="inline")
        return letter


@dataclass(frozen=True, slots=True)
class Ntfy:
    config: NotifyConfig
    url: SecretUrl

    def __str__(self) -> str:
        return f"ntfy at {self.url.host}"

    def send(self, message: Message, png: bytes | None) -> str:
        """With the picture where the server takes one, else without. Raises NotSent."""
        token = self.config.ntfy_token_file
        headers = {"Title": _header(message.title), "Priority": _NTFY_PRIORITY[message.level]}
        headers |= {"Authorization": f"Bearer {secret_in(token, 'ntfy_token_file')}"} if token else {}
        text = message.text.encode()[:_NTFY_BYTES].decode(errors="ignore")
        if png is not None:
            told = {**headers, "Message": _header(text.replace("\n", "\\n")), "Filename": "afm-triage.png"}
            with suppress(_Refused):
                _post(self.url, png, told)
                return ""
        try:
            _post(self.url, text.encode(), headers)
        except _Refused as error:
            raise NotSent(str(error)) from None
        return "" if png is None else "without the picture, which its server does not take"


@dataclass(frozen=True, slots=True)
class Webhook:
    url: SecretUrl

    def __str__(self) -> str:
        return f"webhook at {self.url.host}"

    def send(self, message: Message, png: bytes | None) -> str:
        """JSON of id, title, level, text and picture (PNG in base64; null: none). Raises NotSent."""
        said = {**asdict(message), "text": f"{message.title}\n{message.text}", "time": utc_now()}
        headers = {"Content-Type": "application/json"}
        if png is not None:
            with suppress(_Refused):
                _post(self.url, json.dumps({**said, "picture": base64.b64encode(png).decode()}).encode(), headers)
                return ""
        try:
            _post(self.url, json.dumps({**said, "picture": None}).encode(), headers)
        except _Refused as error:
            raise NotSent(str(error)) from None
        return "" if png is None else "without the picture, which it does not take"


Channel = Mail | Ntfy | Webhook


def channels_of(config: NotifyConfig) -> dict[str, Channel]:
    """By their short names, in which nothing is secret."""
    found: dict[str, Channel] = {}
    if config.to and config.smtp_host:
        found["mail"] = Mail(config)
    if config.ntfy is not None:
        found["ntfy"] = Ntfy(config, config.ntfy)
    if config.webhook is not None:
        found["webhook"] = Webhook(config.webhook)
    return found


def secret_in(file: Path, key: str) -> str:
    """The first line of a file that nobody else may read. Raises NotSent."""
    try:
        return secret_line(file, key)
    except UserError as error:
        raise NotSent(str(error)) from None


class _Refused(Exception):
    """The server has answered, and does not take it."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """None: what is secret goes to the address that was given, and to no other."""
        return


def _post(url: SecretUrl, body: bytes, headers: Mapping[str, str]) -> None:
    """Through the proxy of the environment, where there is one. Raises _Refused, and NotSent where nobody answers."""
    request = urllib.request.Request(url.url, body, {"User-Agent": "afm-triage", **headers}, method="POST")
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=_ANSWER_S) as answer:
            answer.read(_MOST_ANSWER_BYTES)
    except urllib.error.HTTPError as error:
        with error:
            said = clean(error.read(_MOST_ANSWER_BYTES).decode(errors="replace").strip())
        raise _Refused(f"{url.host} answered {error.code} {error.reason}{said and f': {said}'}") from None
    except urllib.error.URLError as error:
        raise NotSent(f"{url.host}: {_why(error.reason)}") from None
    except (OSError, HTTPException) as error:
        raise NotSent(f"{url.host}: {_why(error)}") from None


def _header(text: str) -> str:
    """As a header can hold it: RFC 2047 where it is not ASCII."""
    return text if text.isascii() else Header(text, "utf-8", maxlinelen=10_000).encode()


def _why(error: object) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_ANSWER_S:.0f} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error) if isinstance(error, BaseException) else str(error)


def _said(error: smtplib.SMTPResponseException) -> str:
    answer = error.smtp_error
    return clean(f"{error.smtp_code} {answer.decode(errors='replace') if isinstance(answer, bytes) else answer}")[:200]


def _answers(refused: Mapping[str, tuple[int, bytes]]) -> str:
    return clean("; ".join(f"{to} ({code} {said.decode(errors='replace')})" for to, (code, said) in refused.items()))


# The parent's side.


def deliver(config: NotifyConfig, messages: Mapping[str, Message], state: Path) -> dict[str, Result]:
    """Send each channel its message, with a picture of the night of ``state``; what became of each, within 30 s.

    Raises nothing: whatever goes wrong is why a message was not sent.
    """
    until_s = time.monotonic() + SEND_S
    found: dict[str, Result] = {}
    try:
        child = spawn(__name__)
    except OSError as error:
        return dict.fromkeys(messages, Result(False, f"no process can be started to send it ({_why(error)})"))
    child.stand_back()  # verdicts go first
    try:
        said = {name: asdict(one) for name, one in messages.items()}
        frames.send(child.connection, {"notify": _plain(config), "messages": said, "state": str(state)}, (), until_s)
        while len(found) < len(messages):
            header, _ = frames.receive(child.connection, until_s=until_s)
            found[header["channel"]] = Result(header["is_sent"], header["text"])
    except TimeoutError:
        pass
    except (EOFError, OSError) as error:
        why = f"the process that sends it has {child.last_words()} ({_why(error)})"
        found |= {name: Result(False, why) for name in messages.keys() - found.keys()}
    finally:
        child.end()
    late = Result(False, f"not taken within {SEND_S:.0f} s")
    results = {name: found.get(name, late) for name in messages}
    note(state, results)
    return results


def note(state: Path, results: Mapping[str, Result]) -> None:
    """For whoever asks later whether a message last arrived; no state folder is made for it."""
    now = utc_now("seconds")
    told = {name: {"time": now, **asdict(one)} for name, one in results.items()}
    with suppress(OSError):  # a full disk is what the message is about
        if state.is_dir():
            write_whole(state / NOTE, (json.dumps({**noted(state), **told}, indent=1) + "\n").encode())


def noted(state: Path) -> dict[str, dict[str, Any]]:
    """Channel -> when its last message was sent (``time``), ``is_sent``, and ``text``."""
    with suppress(OSError, ValueError):
        found = json.loads((state / NOTE).read_bytes())
        if isinstance(found, dict):
            return {str(name): one for name, one in found.items() if isinstance(one, dict) and "time" in one}
    return {}


def _plain(config: NotifyConfig) -> dict[str, Any]:
    """For the socket alone: with what is secret in it."""
    names = ("to", "sender", "smtp_host", "smtp_port", "smtp_security", "smtp_user")
    said: dict[str, Any] = {name: getattr(config, name) for name in names}
    said |= {name: (one := getattr(config, name)) and one.url for name in ("ntfy", "webhook")}
    return said | {name: (one := getattr(config, name)) and str(one) for name in ("password_file", "ntfy_token_file")}


def _restored(said: Mapping[str, Any]) -> NotifyConfig:
    urls = {name: said[name] and SecretUrl(said[name]) for name in ("ntfy", "webhook")}
    files = {name: said[name] and Path(said[name]) for name in ("password_file", "ntfy_token_file")}
    return NotifyConfig(**{**said, "to": tuple(said["to"]), **urls, **files})


# The child's side.


def _within(seconds: float, name: str, work: Any) -> Any:
    """What ``work`` returns, or None where it takes longer, or fails."""
    made: queue.Queue[Any] = queue.Queue()

    def run() -> None:
        try:
            made.put(work())
        except Exception as error:
            print(f"no picture for a message: {first_line(error)}", file=sys.stderr)
            made.put(None)

    threading.Thread(target=run, name=name, daemon=True).start()
    with suppress(queue.Empty):
        return made.get(timeout=seconds)
    return None


def _send_one(name: str, channel: Channel, message: Message, png: bytes | None, done: queue.Queue[Any]) -> None:
    try:
        is_sent, text = True, channel.send(message, png)
    except NotSent as error:
        is_sent, text = False, str(error)
    except Exception as error:  # whatever it is: the others are sent
        is_sent, text = False, first_line(error)
    done.put((name, Result(is_sent, without_secrets(text, channel)[:_MOST_TOLD])))


def _words_of(config: NotifyConfig) -> set[str]:
    """Password and token, and the password as SMTP carries it."""
    found: set[str] = set()
    for file in (config.password_file, config.ntfy_token_file):
        with suppress(NotSent):
            if file is not None:
                word = secret_in(file, "")
                sent = (word, f"\0{config.smtp_user}\0{word}")
                found |= {word, *(base64.b64encode(one.encode()).decode() for one in sent)}
    return found


def without_secrets(text: str, channel: Channel) -> str:
    """What a server answers may repeat what it was sent: `Cannot POST /TOPIC` is what many say by default."""
    secrets: set[str] = set()
    if not isinstance(channel, Mail):
        _, _, path, query, _ = urllib.parse.urlsplit(channel.url.url)
        secrets = {path.strip("/"), query, *path.split("/")}
        secrets |= {urllib.parse.unquote(one) for one in secrets}
    if not isinstance(channel, Webhook):
        secrets |= _words_of(channel.config)
    for one in sorted(secrets, key=len, reverse=True):
        text = text.replace(one, "…") if len(one) >= _LEAST_SECRET else text
    return text


def _serve(connection: socket.socket) -> None:
    header, _ = frames.receive(connection)
    png = _within(_PICTURE_S, "picture", lambda: _picture(Path(header["state"])))
    channels = channels_of(_restored(header["notify"]))
    done: queue.Queue[tuple[str, Result]] = queue.Queue()
    wanted: Sequence[str] = list(header["messages"])
    for name in wanted:
        message = Message(**header["messages"][name])
        if name in channels:
            args = (name, channels[name], message, png, done)
            threading.Thread(target=_send_one, args=args, name=name, daemon=True).start()
        else:
            done.put((name, Result(False, "is not configured any more")))
    for _ in wanted:
        name, result = done.get(timeout=SEND_S)
        frames.send(connection, {"channel": name, **asdict(result)})


def _picture(state: Path) -> bytes | None:
    from daemon.notify.picture import png_of

    return png_of(state)


def main(descriptor: int) -> None:
    """Send what the parent wants sent, and end without waiting for whoever hangs."""
    with serving(descriptor) as connection, suppress(queue.Empty):
        _serve(connection)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
