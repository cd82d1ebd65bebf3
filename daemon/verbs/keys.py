"""`keys new|allow|revoke|list`: who may listen from other machines, by a CURVE key each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from daemon.client.folders import refuse_watched
from daemon.common import keys
from daemon.common.errors import BAD_DATA, INPUT_OUTPUT, USAGE, UserError, need_folder
from daemon.common.keys import Key
from daemon.common.options import Option
from daemon.common.sockets import Endpoint
from daemon.common.stdio import as_json
from daemon.common.text import clean
from daemon.config import Config, Flags, Keys, load
from daemon.config.origin import usual_port


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The list is a folder, and a running service looks at it once a second."""

    action: Annotated[Literal["new", "allow", "revoke", "list"], Option("", is_positional=True)]
    name: Annotated[
        str | None, Option("whom: new makes a key for it", "NAME", is_positional=True, unless="new: the service's own")
    ] = None
    public: Annotated[
        str | None, Option("allow: a public key, or a file of one", "KEY-or-FILE", is_positional=True, unless="none")
    ] = None
    out: Annotated[Path | None, Option("new: the file to copy to that computer", "FILE", unless="NAME.key")] = None
    server: Annotated[
        str | None,
        Option(
            "new: on the other computer itself, for the service of this public key", "KEY", unless="of this service"
        ),
    ] = None
    json: Annotated[bool, Option("list: as one JSON object")] = False
    service: Annotated[Flags, Keys("state", "instrument")]


def run(options: Options) -> int:
    """Exit 0; 64 for a name that is none, 65 for a key that is none, 74 where files cannot be read or written."""
    if options.name is not None and not re.fullmatch(keys.NAME, options.name):
        raise UserError(USAGE, f'"{clean(options.name)}" is no name for a key: letters, digits, ".", "_" and "-"')
    if options.action in ("allow", "revoke") and options.name is None:
        raise UserError(USAGE, f"{options.action} whom? afm-triage keys {options.action} NAME")
    if options.public is not None and options.action != "allow":
        raise UserError(USAGE, f"{options.action} takes no key; `keys allow NAME KEY` lets one in")
    if options.action == "new" and options.server is not None:
        return _made_elsewhere(options, options.server)
    config = load(options.service)
    if options.action == "list":
        return _list(config, options.json)
    said = {"new": _new, "allow": _allow, "revoke": _revoke}[options.action](config, options)
    print("\n".join(map(clean, said)))
    return 0


def _own(config: Config) -> tuple[Key, bool]:
    """The service's own key, and whether it was made just now. Raises UserError 78, 74."""
    if os.path.lexists(config.own_key):
        return keys.read(config.own_key, "keys.secret"), False
    keys.make_folder(config.own_key.parent, like=_owner(config))
    keys.write(config.own_key, key := Key.new(config.instrument), like=_owner(config))
    return key, True


def _owner(config: Config) -> Path:
    """The folder whose owner the service is: its state, as far as there is one."""
    return next(one for one in (config.state, *config.state.parents) if one.is_dir())


def _new(config: Config, options: Options) -> Iterator[str]:
    if options.name is None:
        own, is_made = _own(config)
        yield f"{config.own_key} {'is the key of the service, made now' if is_made else 'is there already, and stays'}"
        yield f"its public key is {own.public}"
        return
    file = _file_to_copy(options)
    _need_new(config, options.name)
    own, is_made = _own(config)
    key = Key.new(options.name, own.public)
    keys.write(file, key)
    _let_in(config, options.name, key.public)
    if is_made:
        yield f"{config.own_key} is the key of the service, made now; start the service anew once"
    yield f"{options.name} may listen; copy {file} to its computer, and keep no other copy. There:"
    where = f"--publish {_seen(config.publish)} --replay {_seen(config.replay)}"
    yield f"  afm-triage events --follow {where} --key {file.name}"
    if shut := {key: _opened(config, key) for key in ("publish", "replay") if key not in config.open_endpoints}:
        lines = " and ".join(f'{key} = "{endpoint}"' for key, endpoint in shut.items())
        yield f"other machines cannot reach {' and '.join(shut)} yet: write {lines} into the configuration"


def _opened(config: Config, key: str) -> str:
    """The endpoint of ``key`` at every address of this computer, with the port that it has."""
    return f"tcp://0.0.0.0:{Endpoint.parse(getattr(config, key)).port or usual_port(key, config.number)}"


def _seen(endpoint: str) -> str:
    """As another machine would write it."""
    return re.sub(r"//(0\.0\.0\.0|\[::\]|127\.0\.0\.1|localhost):", "//THIS-COMPUTER:", endpoint)


def _file_to_copy(options: Options) -> Path:
    file = options.out or Path(f"{options.name}{keys.SUFFIX}")
    need_folder("--out", file)
    refuse_watched({"--out": file})
    if file.exists():
        raise UserError(USAGE, f"{file} is there already; give --out another name, or take it away")
    return file


def _made_elsewhere(options: Options, server: str) -> int:
    """On a client's computer: the secret never leaves it."""
    if options.name is None:
        raise UserError(USAGE, "name this computer: afm-triage keys new NAME --server KEY")
    if not keys.is_key(server):
        raise UserError(BAD_DATA, f'"{clean(server)}" is no public key: 40 characters, as `keys list` prints them')
    file = _file_to_copy(options)
    keys.write(file, key := Key.new(options.name, server))
    print(f"{file} is made; now, where the service runs: afm-triage keys allow {options.name} '{key.public}'")
    return 0


def _allow(config: Config, options: Options) -> Iterator[str]:
    name = options.name or ""
    if options.public is None:
        raise UserError(USAGE, f"allow which key? afm-triage keys allow {name} KEY; `keys new {name}` makes one")
    public = options.public
    if not keys.is_key(public):
        if not Path(public).exists():
            raise UserError(BAD_DATA, f'"{clean(public)}" is no public key (40 characters) and no file of one')
        public = keys.read(Path(public), "key", needs_secret=False).public
    if (other := _allowed(config).get(public)) is not None:
        yield f"{other} may listen already, with this very key"
        return
    _need_new(config, name)
    own, is_made = _own(config)
    _let_in(config, name, public)
    yield f"{name} may listen" + (f"; {config.own_key} was made: start the service anew once" if is_made else "")
    yield f'its key needs the line that says whose it is: server-key = "{own.public}"'


def _need_new(config: Config, name: str) -> None:
    if keys.file_of(config.allow, name).exists():
        raise UserError(USAGE, f"{name} has a key already; take it away first: afm-triage keys revoke {name}")


def _let_in(config: Config, name: str, public: str) -> None:
    keys.make_folder(config.allow, like=_owner(config))
    keys.write(keys.file_of(config.allow, name), Key(name, public), like=_owner(config))


def _revoke(config: Config, options: Options) -> Iterator[str]:
    name = options.name or ""
    file, public = keys.file_of(config.allow, name), None
    with suppress(UserError):  # one that is no key goes too
        public = keys.read(file, "key", needs_secret=False).public
    try:
        file.unlink()
    except FileNotFoundError:
        there = ", ".join(sorted(_allowed(config).values())) or "nobody"
        raise UserError(BAD_DATA, f"{name} is not on the list in {config.allow}; on it: {there}") from None
    except OSError as error:
        raise UserError(INPUT_OUTPUT, f"{file} cannot be taken away: {error.strerror}; ask for it with sudo") from None
    if public is not None and (other := _allowed(config).get(public)) is not None:
        yield f"{name} is off the list, but the same key is still on it as {other}: afm-triage keys revoke {other}"
        return
    yield f"{name} may listen no more; a running service hangs up on it within seconds"


def _allowed(config: Config) -> dict[str, str]:
    try:
        return keys.allowed_in(config.allow)
    except OSError as error:
        raise UserError(
            INPUT_OUTPUT, f"{config.allow} cannot be read: {error.strerror}; ask for it with sudo"
        ) from None


def _heard_of(config: Config) -> str | None:
    """The public key of the service as it has told the verbs of this computer; None where they may not know."""
    from daemon.client.service_file import find

    with suppress(UserError):
        key = find(config).key
        return None if key is None else key.server
    return None


def _list(config: Config, is_json: bool) -> int:
    """The service's public key is no secret, but its file is: who may not read it has it from the verbs' own key."""
    found = _allowed(config)
    own = why = None
    if os.path.lexists(config.own_key):
        try:
            own = keys.read(config.own_key, "keys.secret").public
        except UserError as error:
            own = None if os.access(config.own_key, os.R_OK) else _heard_of(config)
            why = str(error)
    if is_json:
        named = [{"name": name, "public": public} for public, name in found.items()]
        print(as_json({"server_key": own, "secret": str(config.own_key), "allow": str(config.allow), "allowed": named}))
        return 0
    told = f'server-key = "{own}"' if own else why or "no key yet: keys new makes one"
    print(clean(f"the service of {config.instrument}: {told}"))
    for public, name in found.items():
        print(f"  {name:<16} {public}")
    if not found:
        print(f"  nobody may listen from another machine ({config.allow} is empty)")
    return 0
