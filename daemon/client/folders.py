"""The watched folders, for a verb: which they are, and a look that no share holds up: a child process takes it."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal

from daemon.common.errors import USAGE, UserError
from daemon.common.mounts import resolve, watched_mount
from daemon.common.text import clean
from daemon.config import Config, assumed
from daemon.config.origin import served_states
from daemon.processes.apart import Silent, ask
from daemon.sources.scan import LINK, ODD, ODDITIES, stamp_of, walk
from models.files import write_whole

#: A share that is well answers within milliseconds; a verb waits no longer than this for one that is not.
SHARE_S = 1.5
DAY_S = 86400.0
#: Of a share so many names are asked about.
_MOST_NAMES = 500

#: "silent": a share does not answer; "closed": this user may not list it.
Standing = Literal["there", "missing", "file", "closed", "silent"]


def standings(folders: Iterable[Path]) -> dict[Path, Standing]:
    """How each folder stands; all together wait no longer than one of them."""
    wanted = list(dict.fromkeys(folders))
    with ThreadPoolExecutor(max(1, len(wanted)), "folder") as threads:
        return dict(zip(wanted, threads.map(_standing, wanted), strict=True))


def is_share(folder: Path) -> bool:
    """Whether touching it may take forever, whatever the configuration says of it."""
    return watched_mount(folder).is_network


def names_in(folder: Path) -> Iterator[tuple[str, str | None]]:
    """Every name below a folder, with the reason why it is passed over where it is no regular file.

    Of a share only the names in itself; what does not answer has none.
    """
    if is_share(folder):
        yield from _names_on_share(folder)
        return
    for listing in walk(str(folder)):
        yield from ((name, None) for name in listing.files)
        for name in listing.odd:
            stamp = stamp_of(f"{folder}/{listing.directory}/{name}")
            yield name, None if stamp is None else ODDITIES.get(stamp)


def wait_for_shares(paths: Iterable[Path]) -> None:
    """Until the shares that these lie on answer: whoever then touches one that hangs could not be ended by Ctrl-C."""
    shares = [path for path in paths if is_share(path)]
    for limit_s in (SHARE_S, DAY_S) if shares else ():
        try:
            ask("stat", *shares, limit_s=limit_s)
            return
        except Silent:
            names = ", ".join(clean(str(path)) for path in shares)
            print(f"afm-triage: {names} does not answer; waiting for it, Ctrl-C leaves", file=sys.stderr, flush=True)


def _standing(folder: Path) -> Standing:
    if not is_share(folder):
        if not folder.is_dir():
            return "file" if folder.exists() else "missing"
        return "there" if os.access(folder, os.R_OK | os.X_OK) else "closed"
    try:
        (found,) = ask("stat", folder, limit_s=SHARE_S)
        if isinstance(found, OSError):
            return "missing"
        if not stat.S_ISDIR(found.st_mode):
            return "file"
        (may_list,) = ask("may_list", folder, limit_s=SHARE_S)
    except Silent:
        return "silent"
    return "there" if may_list is True else "closed"


def _names_on_share(folder: Path) -> Iterator[tuple[str, str | None]]:
    try:
        (names,) = ask("names", folder, limit_s=SHARE_S)
        if isinstance(names, OSError):
            return
        shown = names[:_MOST_NAMES]
        stats = ask("lstat", *(folder / name for name in shown), limit_s=SHARE_S)
    except Silent:
        return
    for name, found in zip(shown, stats, strict=True):
        if not isinstance(found, OSError) and not stat.S_ISDIR(found.st_mode):
            odd = ODDITIES[LINK if stat.S_ISLNK(found.st_mode) else ODD]
            yield name, None if stat.S_ISREG(found.st_mode) else odd


# The watched folders: the service's own, also for a verb that was not told of them.
#
# The service leaves a note of them in its state folder. The note outlives it: what is put into such a folder
# while it rests is judged at its next start.

NOTE = "watched.json"


def note(config: Config) -> None:
    """The service writes which folders it watches; whole or not at all."""
    folders = [str(folder) for folder in config.watch]
    write_whole(config.state / NOTE, (json.dumps({"watch": folders}, indent=1) + "\n").encode())


def watched_folders(config: Config, *, asks: bool = True) -> list[Path]:
    """Resolved: those of ``config``, and those of the service on its state folder, be it running or at rest.

    Not ``asks``: of the service what its note says, without waiting for an answer.
    """
    known = (_ask(config) if asks else []) or _read(config.state / NOTE)
    return list(dict.fromkeys(map(resolve, (*config.watch, *map(Path, known)))))


def refuse_watched(
    targets: Mapping[str, Path | None], config: Config | None = None, *, trees: Collection[str] = ()
) -> None:
    """UserError 64 for a target (option -> place, None: not given) in a watched folder: nothing is written there.

    Watched is what ``config`` and its service watch, and what any service does that runs on this computer, as far as
    this user may look. Without ``config``, as of a verb that was told of no service, nobody is waited for, and nothing
    that is wrong with a service matters. ``trees``: options whose folder takes files under names of the instrument's,
    and so must not hold a watched folder either.
    """
    wanted = {option: target for option, target in targets.items() if target is not None}
    if not wanted:
        return
    own = watched_folders(assumed(), asks=False) if config is None else watched_folders(config)
    others = (resolve(folder) for state in served_states() for folder in _read(state / NOTE))
    for folder in dict.fromkeys([*own, *others]):
        for option, target in wanted.items():
            real = resolve(target)
            if real.is_relative_to(folder):
                what = f"{option} {target} lies in the watched folder {folder}"
                raise UserError(USAGE, f"{what}, which is the instrument's: name a place outside it")
            if option in trees and folder.is_relative_to(real):
                raise UserError(USAGE, f"{option} {target} holds the watched folder {folder}: name a folder of its own")


def _ask(config: Config) -> list[str]:
    from daemon.client.service_file import find  # ZeroMQ and all that: only where a service was named
    from daemon.client.status import gather

    # Waiting for an answer takes a second: only where somebody may give one.
    if not find(config).is_alive and "replay" not in config.origins:
        return []
    return _texts(gather(config).get("watch"))


def _read(file: Path) -> list[str]:
    with suppress(OSError, ValueError, RecursionError):
        said = json.loads(file.read_bytes())
        return _texts(said.get("watch")) if isinstance(said, dict) else []
    return []


def _texts(said: object) -> list[str]:
    return [one for one in said if isinstance(one, str)] if isinstance(said, list) else []
