"""`ledger`: care of what a state holds: how much it takes, a snapshot of it, whether it is sound, and what may go."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from daemon.common.errors import ALREADY_RUNNING, INPUT_OUTPUT, UNREACHABLE, USAGE, UserError
from daemon.common.options import Action, Actions, Option
from daemon.common.text import align, clean, duration, many, size
from daemon.config import Config, Flags, Keys, load
from daemon.config.origin import LEDGER_FILE

if TYPE_CHECKING:
    from daemon.ledger.space import Pruned, Pruner, Taken

_OF_SERVICE = Keys("state", "instrument")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    json: Annotated[bool, Option("the same as one JSON object")] = False
    service: Annotated[Flags, _OF_SERVICE]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    to: Annotated[
        Path | None,
        Option("folder for them, on another disk if possible, or a share", "DIR", unless="space.snapshot_to"),
    ] = None
    keep: Annotated[int | None, Option("so many stay, the newest", "N", unless="space.snapshots")] = None
    unattended: Annotated[bool, Option("for a timer: nothing to keep yet is no fault")] = False
    json: Annotated[bool, Option("the same as one JSON object")] = False
    service: Annotated[Flags, _OF_SERVICE]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify:
    snapshot: Annotated[
        Path | None,
        Option("folder of a snapshot; else the state itself and its snapshots", "SNAPSHOT", is_positional=True),
    ] = None
    json: Annotated[bool, Option("the same as one JSON object")] = False
    service: Annotated[Flags, _OF_SERVICE]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune:
    copies_bytes: Annotated[
        int | None, Option("that copies of curves in the ledger may take", "N", unless="space.copies_bytes")
    ] = None
    spool_bytes: Annotated[
        int | None, Option("that curves which came over ZeroMQ may take", "N", unless="space.spool_bytes")
    ] = None
    dry_run: Annotated[bool, Option("say what would go, and do nothing")] = False
    json: Annotated[bool, Option("the same as one JSON object")] = False
    service: Annotated[Flags, _OF_SERVICE]


_ACTIONS = {
    "size": Action(Size, "what takes how much, and when the disk is full"),
    "snapshot": Action(Snapshot, "a copy of what cannot be made again, beside the running service"),
    "verify": Action(Verify, "whether the ledger, or a snapshot, is as it was written"),
    "prune": Action(Prune, "copies and spooled files of discards that nobody waits for go; decisions never"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    action: Annotated[Size | Snapshot | Verify | Prune, Actions(_ACTIONS)]


def run(options: Options) -> int:
    """Exit 0; 64 for what makes no sense, 69 without a ledger, 73 while another does it, 74 for a disk or damage."""
    action = options.action
    config = load(action.service)
    if isinstance(action, Size):
        return _size(action, config)
    if isinstance(action, Snapshot):
        return _snapshot(action, config)
    if isinstance(action, Verify):
        return _verify(action, config)
    return _prune(action, config)


def _say(is_json: bool, told: Mapping[str, Any], lines: list[str]) -> None:
    print(json.dumps(told) if is_json else "\n".join(clean(line) for line in lines))


def _size(action: Size, config: Config) -> int:
    from daemon.ledger.space import taken

    found = taken(config.state)
    rows = [(what, size(count)) for what, count in found.bytes.items() if count]
    lines = [
        *align([("what", "takes"), *rows, ("all", size(sum(found.bytes.values())))]),
        f"{size(found.free_bytes)} are free on the disk of {config.state}",
        _growth(found),
    ]
    _say(action.json, {**asdict(found), "state": str(config.state)}, lines)
    return 0


def _growth(found: Taken) -> str:
    if not found.growth_bytes_per_day:
        return "nothing has come lately: it does not grow"
    day_s = 86_400
    full_s = found.free_bytes / found.growth_bytes_per_day * day_s
    left = "more than ten years" if full_s > 3650 * day_s else duration(full_s)
    grows = f"grows by {size(found.growth_bytes_per_day)} a day (over the last {duration(found.looked_back_s)})"
    return f"the state {grows}; if nobody else fills the disk, it is full in {left}"


def _snapshot(action: Snapshot, config: Config) -> int:
    from daemon.client.folders import refuse_watched
    from daemon.ledger.snapshot import home_of, take
    from models.clock import CLOCK

    to = action.to or config.space.snapshot_to
    keep = config.space.snapshots if action.keep is None else action.keep
    if keep < 1:
        raise UserError(USAGE, f"--keep {keep}: the one that is taken stays, so at least 1")
    home = home_of(config.state, to, config.instrument)
    refuse_watched({"--to" if action.to else "snapshot_to": home if to else None}, config)
    if action.unattended and not config.ledger_file.is_file():
        print(f"there is no ledger at {config.state} yet: nothing to keep")
        return 0
    began_s = time.monotonic()
    folder, manifest = take(config.state, home, config.instrument, keep=keep, wall_s=CLOCK.wall_s())
    took_s = time.monotonic() - began_s
    told = {
        "snapshot": str(folder),
        "bytes": manifest.bytes,
        "stream": manifest.stream,
        "last_seq": manifest.last_seq,
        "seconds": round(took_s, 3),
    }
    what = f"{many(manifest.last_seq, 'decision')}, {size(manifest.bytes)}, read through and sound"
    lines = [f"{folder}: {what} ({took_s:.1f} s)"]
    if not action.unattended:
        lines.append(f"to go back to it: {_way_back(config, folder)}")
    _say(action.json, told, lines)
    return 0


def _way_back(config: Config, folder: Path) -> str:
    """Two commands that put a snapshot in the place of a state. What was there stays, under another name."""
    import shlex

    state = str(config.state)
    aside = f"{state}.before"
    inside = folder.is_relative_to(config.state)
    source = str(Path(aside) / folder.relative_to(config.state)) if inside else str(folder)
    commands = f"{shlex.join(['mv', state, aside])} && {shlex.join(['cp', '-a', source, state])}"
    return f"end the service and its review page, then {commands}"


def _verify(action: Verify, config: Config) -> int:
    """Each file, or each snapshot, has a line; the first that is not sound makes it exit 74."""
    from daemon.ledger.snapshot import Damaged, Newer, home_of, known, newest_whole, verify

    if action.snapshot is not None:
        if not action.snapshot.is_dir():
            raise UserError(UNREACHABLE, f"no snapshot at {action.snapshot}: name the folder of one")
        folders = [action.snapshot]
    else:
        folders = []
        for home in {home_of(config.state, to, config.instrument) for to in (None, config.space.snapshot_to)}:
            folders += known(home)
    found = [] if action.snapshot is not None else _of_state(config.state)
    for folder in folders:
        try:
            manifest = verify(folder)
            found.append((str(folder), "sound", f"{many(manifest.last_seq, 'decision')}, taken {manifest.taken}"))
        except Damaged as error:
            found.append((str(folder), "newer" if isinstance(error, Newer) else "damaged", str(error)))
    bad = [one for one in found if one[1] != "sound"]
    rows = [dict(zip(("what", "is", "text"), one, strict=True)) for one in found]
    _say(action.json, {"well": not bad, "found": rows}, [f"{what}: {word}, {text}" for what, word, text in found])
    if not bad:
        return 0
    if bad[0][1] == "newer":
        raise UserError(INPUT_OUTPUT, f"{bad[0][0]} was {bad[0][2]}: leave it, and restore it with that version")
    whole = newest_whole(folders[0].parent) if folders else None
    advice = "no snapshot is whole: put a backup copy back" if whole is None else _way_back(config, whole)
    if bad[0][0] in map(str, folders):
        remedy = "is no use, remove it" + (f"; {whole} is whole" if whole else ", and take another (ledger snapshot)")
        raise UserError(INPUT_OUTPUT, f"{bad[0][0]} {remedy}")
    raise UserError(INPUT_OUTPUT, f"{bad[0][0]} is {bad[0][1]}: {advice}")


def _of_state(state: Path) -> list[tuple[str, str, str]]:
    """Ledger, labels and logbook: what each is, and how it is."""
    from daemon.ledger.file import open_for_reading
    from daemon.ledger.snapshot import look_at

    ledger = state / LEDGER_FILE
    open_for_reading(ledger).close()  # 69 where there is none; 74 for another program's, or a newer version's
    return [
        (str(path), *look_at(path))
        for path in (ledger, state / "labels.sqlite", state / "guard.sqlite")
        if path.is_file()
    ]


def _prune(action: Prune, config: Config) -> int:
    from daemon.common.locks import holder_of
    from daemon.ledger.space import Pruner

    copies, spool = _limits(action, config)
    if not config.ledger_file.is_file():
        raise UserError(UNREACHABLE, f"no ledger at {config.ledger_file}: name the right --state")
    if action.dry_run:
        went = _go(Pruner(config.state, None), copies, spool)
        given_back: int | None = None
    else:
        if (pid := holder_of(config.state)) is not None:
            raise UserError(
                ALREADY_RUNNING,
                f"a service (pid {pid}) runs on {config.state}, and prunes by itself: write the limits into [space] of "
                "its file and say `afm-triage reload`, or stop it first",
            )
        went, given_back = _prune_for_good(config, copies, spool)
    would = "would go" if action.dry_run else "went"
    lines = [
        f"{what}: {many(one.curves, 'curve')} {would}, {size(one.freed_bytes)}; {size(one.left_bytes)} stay"
        for what, one in went.items()
    ]
    if given_back is not None:
        lines.append(f"{size(given_back)} are given back to the disk")
    _say(action.json, {**{what: asdict(one) for what, one in went.items()}, "given_back_bytes": given_back}, lines)
    return 0


def _limits(action: Prune, config: Config) -> tuple[int | None, int | None]:
    """Of copies and spool, in bytes; None: no limit. A limit of 0, given as a flag: all goes that may."""
    space = config.space
    copies = (space.copies_bytes or None) if action.copies_bytes is None else action.copies_bytes
    spool = (space.spool_bytes or None) if action.spool_bytes is None else action.spool_bytes
    if copies is None and spool is None:
        raise UserError(USAGE, "no limit is set: give --copies-bytes N or --spool-bytes N, or [space] in the file")
    for flag, limit in (("--copies-bytes", copies), ("--spool-bytes", spool)):
        if limit is not None and limit < 0:
            raise UserError(USAGE, f"{flag} {limit}: give a number of bytes, 0 or more")
    return copies, spool


def _prune_for_good(config: Config, copies: int | None, spool: int | None) -> tuple[dict[str, Pruned], int]:
    """What went, and the bytes that the files of the ledger have become smaller by."""
    from daemon.common.locks import StateLock
    from daemon.ledger import Ledger, NotRecorded
    from daemon.ledger.file import compact
    from daemon.ledger.space import Pruner, free_bytes

    lock = StateLock(config.state)
    try:
        before = free_bytes(config.state)
        ledger = Ledger(config.ledger_file, config.instrument)
        try:
            went = _go(Pruner(config.state, ledger), copies, spool)
        except NotRecorded as error:
            raise UserError(INPUT_OUTPUT, f"{error}; what went before is gone for good, the rest stays") from None
        finally:
            ledger.close()
        compact(config.ledger_file)
        return went, max(free_bytes(config.state) - before, 0)
    finally:
        lock.release()


def _go(pruner: Pruner, copies: int | None, spool: int | None) -> dict[str, Pruned]:
    found = {}
    if copies is not None:
        found["copies"] = pruner.copies(copies)
    if spool is not None:
        found["spool"] = pruner.spool(spool)
    return found
