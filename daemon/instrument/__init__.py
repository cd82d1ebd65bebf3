"""An instrument to rehearse with: real files written into a folder as one writes them.

``rename`` writes under a temporary name and renames, as sync tools do; ``grow`` writes pieces over some hundred
milliseconds under the final name, as most instruments do; ``burst`` writes several files back to back, each at once.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count as counting
from pathlib import Path
from typing import Literal, get_args

from daemon import ending
from daemon.errors import BAD_DATA, UserError
from daemon.formats import claim, find_other, find_reader, is_first_half, is_second_half
from daemon.formats.blob import Blob
from daemon.instrument.variant import variant
from daemon.reading import Unfinished, Unreadable

Writer = Literal["rename", "grow", "burst"]
WRITERS: tuple[Writer, ...] = get_args(Writer)
_BURST = 8  # files back to back
_PIECES = 6  # of a growing file
_GROW_S = 0.3  # from its first piece to its last, less where the rate asks for it


@dataclass(frozen=True, slots=True)
class Specimen:
    """A recording to play: one file, or the two of an Asylum pair."""

    files: tuple[Path, ...]
    folder: Path  # where it is put below the target folder


def specimens(sources: Sequence[Path]) -> list[Specimen]:
    """What ``sources`` (files, or folders with all below them) hold that a reader knows, in order of their names.

    Raises UserError (65) when a source is missing or there is nothing to play.
    """
    found: dict[Path, Specimen] = {}
    for source in sources:
        if not source.exists():
            raise UserError(BAD_DATA, f"{source}: no such file or folder")
        for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if not is_second_half(file.name) and file.is_file() and (file == source or _is_readable(file)):
                folder = file.parent.relative_to(source) if source.is_dir() else Path()
                found.setdefault(file.resolve(), Specimen(_with_companion(file), folder))
    if not found:
        raise UserError(BAD_DATA, f"no force curve in {', '.join(map(str, sources))}; name files that `score` can read")
    return list(found.values())


def _is_readable(file: Path) -> bool:
    if claim(file.name) is False:
        return False
    try:
        return find_reader(file.name, Blob(file)) is not None
    except (Unfinished, Unreadable):
        return True  # some lab's broken file: the service has an answer to it


def _with_companion(file: Path) -> tuple[Path, ...]:
    other = find_other(file) if is_first_half(file.name) else None
    return (file,) if other is None else (file, other)


def play(
    found: Sequence[Specimen],
    into: Path,
    *,
    rate: float,
    writer: Writer,
    count: int | None = None,
    fresh: bool = False,
) -> Iterator[Path]:
    """Write recordings at ``rate`` a second, and yield the path of each once its writer has closed it.

    Without ``count`` each is written once, byte for byte. With it they are repeated until there are so many: from the
    second time on under a fresh name, with bytes of their own and the same curve; if ``fresh``, from the first.
    """
    write = {"rename": _renamed, "grow": _grown, "burst": _at_once}[writer]
    group = _BURST if writer == "burst" else 1
    run = secrets.token_hex(8)
    begun_s = time.monotonic()
    for number in range(len(found) if count is None else count):
        cycle, which = divmod(number, len(found))
        due_s = begun_s + number // group * group / rate
        ending.pause(due_s - time.monotonic())
        specimen = found[which]
        paths = _places(specimen, into, cycle)
        grow_s = min(_GROW_S, 0.6 / rate / len(paths))
        for source, path in zip(specimen.files, paths, strict=True):
            content = source.read_bytes()
            write(path, variant(content, f"{run}/{number}") if cycle or fresh else content, grow_s)
        yield paths[0]


def _places(specimen: Specimen, into: Path, cycle: int) -> list[Path]:
    """Names that are free; the tag goes first, because readers look at how a name ends."""
    folder = into / specimen.folder
    folder.mkdir(parents=True, exist_ok=True)
    for tag in counting(cycle + 1):
        paths = [folder / (file.name if tag == 1 else f"r{tag:03d}-{file.name}") for file in specimen.files]
        if not any(os.path.lexists(path) for path in paths):
            return paths
    raise AssertionError("numbers do not end")


def _renamed(path: Path, content: bytes, grow_s: float) -> None:
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_bytes(content)
    os.rename(unfinished, path)


def _at_once(path: Path, content: bytes, grow_s: float) -> None:
    with open(path, "xb", buffering=0) as file:
        file.write(content)


def _grown(path: Path, content: bytes, grow_s: float) -> None:
    step = -(-len(content) // _PIECES) or 1
    with open(path, "xb", buffering=0) as file:
        for start in range(0, len(content), step):
            if start:
                ending.pause(grow_s / (_PIECES - 1))
            file.write(content[start : start + step])
