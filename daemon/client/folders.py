"""A look at watched folders for a verb: what lies on a share is looked at by a child process, and only for a moment."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from daemon.common.mounts import watched_mount
from daemon.common.text import clean
from daemon.processes.apart import Silent, ask
from daemon.sources.scan import LINK, ODD, ODDITIES, stamp_of, walk

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
