"""The keys: CURVE pairs of the service and of those who may listen, each a file, and what they put onto a socket.

A file is one that the ZeroMQ libraries of other languages read too (ZPL: CZMQ, ``zmq.auth.load_certificate``). One that
holds a secret is written for its owner alone, and not used when everybody can read it. What only this computer can
reach asks for no key.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from daemon.common.errors import BAD_CONFIG, INPUT_OUTPUT, UserError
from models.files import unfinished, write_synced

if TYPE_CHECKING:
    import zmq

#: Of whoever a key belongs to; the file's name too.
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
SUFFIX = ".key"
_Z85 = r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}"  # 32 bytes in ZeroMQ's alphabet (rfc.zeromq.org/spec/32)
_LINE = re.compile(r'\s*(name|public-key|secret-key|server-key)\s*=\s*"([^"]*)"\s*')
_LONGEST_BYTES, _LONGEST_LINE = 10_000, 1_000
_FOR_ALL = 0o007  # may read, write, or go through


@dataclass(frozen=True, slots=True)
class Key:
    """One file. Keys are 40 characters each; ``server`` is the service's public key, for a client that asks it.

    ``is_given``: by a person, who knows that it is asked for.
    """

    name: str
    public: str
    secret: str | None = None
    server: str | None = None
    is_given: bool = True

    @classmethod
    def new(cls, name: str, server: str | None = None) -> Self:
        import zmq

        public, secret = zmq.curve_keypair()
        return cls(name, public.decode(), secret.decode(), server)

    @property
    def is_client(self) -> bool:
        """Whether it has all that a client needs."""
        return self.secret is not None and self.server is not None

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Have ``socket`` show this key to the service, and take no other service for it; before it connects."""
        socket.curve_publickey, socket.curve_secretkey = self.public.encode(), (self.secret or "").encode()
        socket.curve_serverkey = (self.server or "").encode()


def is_key(text: str) -> bool:
    """Whether it is one key as text."""
    return re.fullmatch(_Z85, text) is not None


def read(file: Path, called: str, *, needs_secret: bool = True) -> Key:
    """The key in ``file``. ``called``: what the configuration calls it. Raises UserError 78 with what to do."""
    try:
        mode, content = _content(file)
        text = content.decode("utf-8", "replace")
    except FileNotFoundError:
        raise UserError(BAD_CONFIG, f"{called} {file} is not there; `afm-triage keys new` makes keys") from None
    except OSError as error:
        sudo = "; ask for it with sudo" if isinstance(error, PermissionError) else ""
        raise UserError(BAD_CONFIG, f"{called} {file} cannot be read: {error.strerror}{sudo}") from None
    found = {match[1]: match[2] for match in map(_LINE.fullmatch, text.splitlines()) if match}
    names = [name for name in ("public-key", "secret-key", "server-key") if name in found]
    if "public-key" not in found or not all(is_key(found[name]) for name in names):
        raise UserError(BAD_CONFIG, f"{called} {file} is no key; copy it again, or make another: afm-triage keys new")
    key = Key(found.get("name", file.stem), found["public-key"], found.get("secret-key"), found.get("server-key"))
    if key.secret is None and needs_secret:
        raise UserError(BAD_CONFIG, f"{called} {file} has no secret key in it; name the file that was made with it")
    if key.secret is not None and mode & _FOR_ALL:
        raise UserError(BAD_CONFIG, f"{called} {file} can be read by everybody, and is not used: chmod 600 {file}")
    return key


def read_client(file: Path, called: str) -> Key:
    """A key that a client can use. Raises UserError 78."""
    key = read(file, called)
    if not key.is_client:
        raise UserError(
            BAD_CONFIG,
            f"{called} {file} does not say which service it is for: add its line server-key, as `afm-triage keys list`"
            " prints it there",
        )
    return key


def write(file: Path, key: Key, mode: int | None = None, *, like: Path | None = None) -> None:
    """Whole or not at all. ``mode``: None is 0600 with a secret in it, 0644 without.

    ``like``: root gives the file to whom this folder belongs, so that a service of another user can read it. Raises
    UserError 74.
    """
    mode = mode or (0o644 if key.secret is None else 0o600)
    lines = ["#  A key of afm-triage" + ("" if key.secret is None else "; who has this file is let in: keep it secret")]
    lines += ["metadata", f'    name = "{key.name}"', "curve", f'    public-key = "{key.public}"']
    lines += [f'    secret-key = "{key.secret}"'] if key.secret else []
    lines += [f'    server-key = "{key.server}"'] if key.server else []
    try:
        with unfinished(file) as fresh:
            os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
            give_to_owner_of(like, fresh)
            fresh.chmod(mode)
            write_synced(fresh, ("\n".join(lines) + "\n").encode("ascii"))
    except OSError as error:
        raise UserError(INPUT_OUTPUT, f"{file} cannot be written: {error.strerror}") from None


def make_folder(folder: Path, *, like: Path) -> None:
    """``folder``, and what it lies in, for the owner of ``like``. Raises UserError 74."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        for one in reversed(missing):
            one.mkdir(0o755, exist_ok=True)  # its group shall let nobody in; setgid comes from above
            give_to_owner_of(like, one)
    except OSError as error:
        raise UserError(INPUT_OUTPUT, f"{folder} cannot be made: {error.strerror}") from None


def give_to_owner_of(like: Path | None, file: Path) -> None:
    """What root makes for the service is the service's; what that makes itself is of its folder's group."""
    if like is not None:
        owner, is_root = like.stat(), os.geteuid() == 0
        with suppress(PermissionError):
            os.chown(file, owner.st_uid if is_root else -1, owner.st_gid)


def file_of(folder: Path, name: str) -> Path:
    """Of a name that may be let in."""
    return folder / f"{name}{SUFFIX}"


def allowed_in(folder: Path, spoilt: Callable[[str], None] = lambda why: None) -> dict[str, str]:
    """Public key -> name, of all who may listen. A file that is none lets nobody in; of a folder that is not there too.

    ``spoilt`` hears why of each file that is none. Raises OSError where the folder cannot be listed.
    """
    found: dict[str, str] = {}
    for file in _files_in(folder):
        try:
            found[read(file, "key", needs_secret=False).public] = file.name.removesuffix(SUFFIX)
        except UserError as error:
            spoilt(str(error))
    return found


def changed_ns(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Another value whenever a key comes, goes or changes. Raises OSError where the folder cannot be listed."""
    found = []
    for file in _files_in(folder):
        with suppress(OSError):  # a link to nowhere, or it has gone just now
            its = file.stat()
            found.append((file.name, its.st_ctime_ns, its.st_ino))
    return tuple(found)


def _files_in(folder: Path) -> list[Path]:
    try:
        return sorted(one for one in folder.iterdir() if one.name.endswith(SUFFIX) and not one.name.startswith("."))
    except FileNotFoundError:
        return []


def _content(file: Path) -> tuple[int, bytes]:
    """Mode and first bytes of a regular file; of another, which might never end, an OSError."""
    with open(file, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as opened:
        mode = os.fstat(opened.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return stat.S_IMODE(mode), opened.read(_LONGEST_BYTES + 1)


def secret_line(file: Path, called: str) -> str:
    """The first line of a file that only its owner may read: a token, a password. Raises UserError 78."""
    try:
        mode, content = _content(file)
        if mode & 0o077:
            raise UserError(BAD_CONFIG, f"{called} {file} can be read by others, and is not used: chmod 600 {file}")
        line = content.partition(b"\n")[0].decode().strip()
    except OSError as error:
        raise UserError(BAD_CONFIG, f"{called} {file} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(BAD_CONFIG, f"{called} {file} is no text") from None
    if len(line) > _LONGEST_LINE:
        raise UserError(
            BAD_CONFIG, f"{called} {file} begins with a line of over {_LONGEST_LINE} characters: a wrong file?"
        )
    if not line:
        raise UserError(BAD_CONFIG, f"{called} {file} is empty: write the secret into its first line")
    return line
