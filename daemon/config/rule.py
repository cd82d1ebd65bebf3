"""The rule: how one value of the file, the environment or a flag becomes what the service uses.

A rule is called with the raw value and the folder that relative paths start from; it returns the value or
raises ValueError with a sentence that says what to write instead, or one for each of several errors. ``read`` makes a
raw value of a text.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args
from urllib.parse import urlsplit

from daemon.common.mounts import MountSetting
from daemon.common.sockets import Endpoint
from daemon.formats.text_rule import TextRule, from_mapping

MONTH_S = 31 * 86400.0


class Rule:
    def __call__(self, raw: Any, folder: Path) -> Any:
        raise NotImplementedError

    def read(self, text: str) -> Any:
        return text


_KINDS = {bool: "true/false", int: "an integer", float: "a fraction", str: "a text", list: "a list", dict: "a table"}


def _kind(raw: Any) -> str:
    return _KINDS.get(type(raw), "a date or time")


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise ValueError(f'must be a text in quotes, "…", and is {_kind(raw)}')
    if not raw or "\0" in raw:
        raise ValueError("must not be empty" if not raw else "must not hold a NUL byte")
    return raw


class Name(Rule):
    """A word that may stand in topics, folder names and unit names."""

    def __call__(self, raw: Any, folder: Path) -> str:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", _text(raw)):
            raise ValueError(f'"{raw}" must be a short name of a-z, 0-9, "_" and "-"')
        return str(raw)


@dataclass(frozen=True)
class Choice(Rule):
    words: tuple[str, ...]

    def __call__(self, raw: Any, folder: Path) -> str:
        if _text(raw) not in self.words:
            raise ValueError(f'"{raw}" is none of {", ".join(self.words)}')
        return str(raw)


class Address(Rule):
    """A ZeroMQ endpoint."""

    def __call__(self, raw: Any, folder: Path) -> str:
        Endpoint.parse(_text(raw))
        return str(raw)


class Folder(Rule):
    """One path; ``~`` is the home folder, a relative one starts at ``folder``."""

    def __call__(self, raw: Any, folder: Path) -> Path:
        try:
            return Path(os.path.normpath(folder / Path(_text(raw)).expanduser()))
        except RuntimeError:
            raise ValueError(f'"{raw}" begins with the home folder of nobody here; write the whole path') from None


class Folders(Rule):
    """Several paths; one may be given as a plain text. In the environment they are separated by ``:``."""

    def __call__(self, raw: Any, folder: Path) -> tuple[Path, ...]:
        texts = [raw] if isinstance(raw, str) else raw
        if not isinstance(texts, list | tuple):
            raise ValueError(f'must be a list of folders, ["/data/afm1"], and is {_kind(raw)}')
        return tuple(dict.fromkeys(Folder()(text, folder) for text in texts))

    def read(self, text: str) -> Any:
        return [part for part in text.split(os.pathsep) if part]


class ModelName(Rule):
    """``shipped``, a name in the registry, or a folder (anything with a ``/`` in it)."""

    def __call__(self, raw: Any, folder: Path) -> str:
        return str(Folder()(raw, folder)) if "/" in _text(raw) or raw in (".", "..") else str(raw)


class Switch(Rule):
    """On or off; in the environment also 1 and 0."""

    def __call__(self, raw: Any, folder: Path) -> bool:
        if not isinstance(raw, bool):
            raise ValueError(f"must be true or false, without quotes, and is {_kind(raw)}")
        return raw

    def read(self, text: str) -> Any:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower(), text)


@dataclass(frozen=True)
class Number(Rule):
    """A number of [low, high]; ``whole`` refuses fractions."""

    low: float
    high: float
    whole: bool = False

    def __call__(self, raw: Any, folder: Path) -> float:
        if isinstance(raw, bool) or not isinstance(raw, int if self.whole else int | float):
            raise ValueError(f"must be a {'whole ' if self.whole else ''}number and is {_kind(raw)}")
        if not (math.isfinite(raw) and self.low <= raw <= self.high):
            raise ValueError(f"{raw} is out of range: {self.low:g} to {self.high:g}")
        return int(raw) if self.whole else float(raw)

    def read(self, text: str) -> Any:
        try:
            return int(text) if self.whole else float(text)
        except ValueError:
            return text  # the rule then says what is wrong with it


T = TypeVar("T")


def _tables(raw: Any, name: str, read: Callable[[dict[str, Any]], T]) -> tuple[T, ...]:
    """Each of the ``[[name]]`` tables as ``read`` makes it; with the errors of all."""
    if not isinstance(raw, list) or not all(isinstance(table, dict) for table in raw):
        raise ValueError(f"is a list of tables; write [[{name}]] on a line of its own above each")
    found, errors = [], []
    for number, table in enumerate(raw, 1):
        try:
            found.append(read(table))
        except ValueError as error:
            errors += [f"table {number}: {sentence}" for sentence in error.args]
    if errors:
        raise ValueError(*errors)
    return tuple(found)


class TextRules(Rule):
    """``[[text]]``: what the laboratory says of text files that do not say enough themselves."""

    def __call__(self, raw: Any, folder: Path) -> tuple[TextRule, ...]:
        return _tables(raw, "text", from_mapping)


@dataclass(frozen=True, slots=True)
class FolderSettings:
    """``[[folder]]``: what holds for one watched folder alone; None: as for all of them."""

    path: Path
    mounts: MountSetting | None = None  # instead of source.mounts
    silence_s: float | None = None  # an alarm when no curve came into this folder for so long; 0: never


class FolderTables(Rule):
    def __call__(self, raw: Any, folder: Path) -> tuple[FolderSettings, ...]:
        return _tables(raw, "folder", lambda table: _settings(table, folder))


_SETTINGS: dict[str, Rule] = {
    "path": Folder(),
    "mounts": Choice(get_args(MountSetting)),
    "silence_s": Number(0, MONTH_S),
}


def _settings(table: dict[str, Any], folder: Path) -> FolderSettings:
    found: dict[str, Any] = {}
    errors = [f'has no key "{key}"; it has {", ".join(_SETTINGS)}' for key in table if key not in _SETTINGS]
    for key, raw in table.items():
        if key in _SETTINGS:
            try:
                found[key] = _SETTINGS[key](raw, folder)
            except ValueError as error:
                errors += [f"{key} {sentence}" for sentence in error.args]
    if "path" not in table:
        errors.append('needs a path, as path = "/mnt/afm": one of the watched folders')
    elif len(table) == 1:
        errors.append("settles nothing; give mounts or silence_s")
    if errors:
        raise ValueError(*errors)
    return FolderSettings(**found)


@dataclass(frozen=True, slots=True)
class SpaceConfig:
    """``[space]``: how much of the disk a state may take, and when somebody should make room."""

    copies_bytes: Annotated[int, Number(0, 1e15, whole=True)] = 0  # of curves in the ledger; 0: no limit
    spool_bytes: Annotated[int, Number(0, 1e15, whole=True)] = 0  # of curves that came over ZeroMQ; 0: no limit
    full_s: Annotated[float, Number(0, MONTH_S)] = 86400.0  # an alarm when the disk is full in less; 0: never
    snapshots: Annotated[int, Number(1, 1000, whole=True)] = 3  # that are kept, the newest
    snapshot_to: Annotated[Path | None, Folder()] = None  # None: into the state folder itself


# ``[notify]``: who is told when something is wrong, and how.


class Line(Rule):
    """One line of text, "" where nothing is given."""

    def __call__(self, raw: Any, folder: Path) -> str:
        if not isinstance(raw, str) or not raw.isprintable():
            raise ValueError(f'must be a text in quotes, "…", on one line, and is {_kind(raw)}')
        return raw.strip()


@dataclass(frozen=True)
class Lines(Rule):
    """Several such texts, each like ``pattern``; one may be given as a plain text. In the environment by ``,``."""

    pattern: str
    like: str

    def __call__(self, raw: Any, folder: Path) -> tuple[str, ...]:
        texts = [raw] if isinstance(raw, str) else raw
        if not isinstance(texts, list | tuple) or not all(isinstance(one, str) for one in texts):
            raise ValueError(f"must be a list of texts, {self.like}, and is {_kind(raw)}")
        for one in texts:
            if not re.fullmatch(self.pattern, one):
                raise ValueError(f'"{one}" is none; write {self.like}')
        return tuple(dict.fromkeys(texts))

    def read(self, text: str) -> Any:
        return [part.strip() for part in text.split(",") if part.strip()]


class SecretUrl:
    """An address that whoever knows it may write to. Its text says where it leads, and never the rest of it."""

    __slots__ = ("url",)

    def __init__(self, url: str) -> None:
        self.url = url

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        digest = hashlib.sha256(self.url.encode()).hexdigest()[:6]
        return f"{parts.scheme}://{self.host}/… ({digest})"  # by its digest another one is told from it

    __repr__ = __str__

    @property
    def host(self) -> str:
        """With its port, where one is given."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretUrl) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)


class Url(Rule):
    """An http address. What is wrong with it is said without telling it."""

    def __call__(self, raw: Any, folder: Path) -> SecretUrl:
        url = _text(raw)
        try:
            parts = urlsplit(url)
            is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_good = False
        if not is_good or not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("must be an address that begins with https:// (or http://) and a host")
        if parts.username or parts.password:
            raise ValueError("must hold no user and password; ntfy takes a token from ntfy_token_file")
        return SecretUrl(url)


_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
#: Security of the connection to the mail server -> the port where none is given.
SMTP_PORTS = {"starttls": 587, "tls": 465, "none": 25}


@dataclass(frozen=True, slots=True)
class NotifyConfig:
    """``[notify]``: a message to a person when something is wrong: by mail, ntfy or a webhook, or several of them."""

    to: Annotated[tuple[str, ...], Lines(r"[^@\s,;<>\"]+@[^@\s,;<>\"]+", '["ada@example.org"]')] = ()
    sender: Annotated[str, Line()] = ""  # "": smtp_user where that is an address, else the first of `to`
    smtp_host: Annotated[str, Line()] = ""
    smtp_port: Annotated[int, Number(0, 65535, whole=True)] = 0  # 0: 587, or what smtp_security has
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    smtp_user: Annotated[str, Line()] = ""
    password_file: Annotated[Path | None, Folder()] = None  # its first line; nobody else may read it
    ntfy: Annotated[SecretUrl | None, Url()] = None  # with the topic
    ntfy_token_file: Annotated[Path | None, Folder()] = None
    webhook: Annotated[SecretUrl | None, Url()] = None  # gets JSON by POST
    level: Literal["alarm", "degraded", "advice"] = "alarm"  # the least that is told
    kinds: Annotated[tuple[str, ...], Lines(r"[a-z][a-z ]*", '["source", "path"]')] = ()  # of conditions; (): all
    cool_down_s: Annotated[float, Number(0, 86400)] = 900.0  # between two messages on the same kind
    most_a_night: Annotated[int, Number(1, 100, whole=True)] = 3  # messages on the same kind, from noon to noon

    @property
    def is_on(self) -> bool:
        return bool(self.to or self.ntfy or self.webhook)

    def conflicts(self) -> Iterator[str]:
        """Settings that are each fine and together are not, a "key: what to do" each."""
        if bool(self.to) != bool(self.smtp_host):
            missing, because = ("smtp_host", "to") if self.to else ("to", "smtp_host")
            yield f"notify.{missing}: is missing, and {because} is there; mail needs both"
        if bool(self.smtp_user) != bool(self.password_file):
            missing = "password_file" if self.smtp_user else "smtp_user"
            yield f"notify.{missing}: is missing; a mail server that asks for a password wants user and password"
        if self.password_file and self.smtp_security == "none" and self.smtp_host not in _LOCAL_HOSTS:
            yield 'notify.smtp_security: "none" would send the password for all to read; write "starttls" or "tls"'
        if self.ntfy_token_file and not self.ntfy:
            yield "notify.ntfy: is missing, and ntfy_token_file is there"
        is_open = self.ntfy is not None and self.ntfy.url.startswith("http:")
        if self.ntfy_token_file and self.ntfy and is_open and self.ntfy.host.partition(":")[0] not in _LOCAL_HOSTS:
            yield "notify.ntfy: begins with http:// and would send the token for all to read; write https://"
