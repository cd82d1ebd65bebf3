"""`pack`: curves of files into one archive, which `score` judges without opening the files again."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from daemon.blocks import PATIENCE_S
from daemon.common.errors import BAD_DATA, INPUT_OUTPUT, USAGE, UserError, need_folder
from daemon.common.options import Option
from daemon.common.text import clean, page
from daemon.sources import Ignored, words
from daemon.tables import need

if TYPE_CHECKING:
    from daemon.archive import Origin
    from daemon.archive.writer import ArchiveWriter
    from daemon.reading.ahead import Found

#: Blocks that are begun behind one that is not over: their rows wait on the disk, each block's in a file of its own.
_MOST_AHEAD = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    paths: Annotated[tuple[Path, ...], Option("files or folders", "PATH", is_positional=True)] = ()
    out: Annotated[Path, Option("the archive; never replaces a file", "FILE.h5")]
    distance: Annotated[bool, Option("keep the distance too: verdicts do not need it, places of ruptures do")] = False
    simulate: Annotated[int | None, Option("N simulated curves instead of files", "N")] = None
    seed: Annotated[int, Option("of these; the same gives the same bytes", "S")] = 1
    prevalence: Annotated[float, Option("share with an event", "P")] = 0.05
    cluster: Annotated[str | None, Option("have a Ray cluster read; local starts one here", "HOST:PORT")] = None
    patience: Annotated[float, Option("with --cluster: seconds that a node may say nothing", "S")] = PATIENCE_S


def run(options: Options) -> int:
    """Exit 0 when the archive is there; 65 when there was nothing to pack; 74 when a folder could not be listed."""
    _check(options)
    from daemon.archive.writer import ArchiveWriter
    from daemon.common.stdio import progress
    from daemon.processes.worker_pool import WorkersBroken

    begun_s = time.monotonic()
    unread = 0
    try:
        with (
            ArchiveWriter(options.out, with_distance=options.distance) as writer,
            closing(_packed(options, writer)) as origins,
        ):
            for origin in progress(origins, "packing", options.simulate):
                unread += origin.reason is not None
            writer.finish()
    except WorkersBroken as error:
        raise UserError(INPUT_OUTPUT, f"{options.out}: {error}; nothing was written") from error
    except (OSError, RuntimeError) as error:  # h5py's own words for a full disk
        raise UserError(INPUT_OUTPUT, f"{options.out}: {_plain(error)}; nothing was written") from error
    size_mb = options.out.stat().st_size / 1e6
    elapsed_s = max(time.monotonic() - begun_s, 1e-9)
    print(f"{writer.curves} curves in {options.out}, {size_mb:.1f} MB" + (f"; {unread} unreadable" if unread else ""))
    if sys.stderr.isatty():
        print(f"{elapsed_s:.1f} s, {writer.curves / elapsed_s:.0f} curves/s", file=sys.stderr)
    return 0


def _packed(options: Options, writer: ArchiveWriter) -> Generator[Origin]:
    from daemon.archive.writer import pack_files, pack_simulated
    from daemon.reading.ahead import find

    if options.simulate:
        yield from pack_simulated(options.simulate, options.seed, options.prevalence, writer)
        return
    found, ignored = find(options.paths), Ignored()
    if options.cluster is None:
        yield from pack_files(found, writer, ignored)
    else:
        yield from _packed_by_cluster(options, options.cluster, found, writer, ignored)
    if found.unlisted:
        names = ", ".join(clean(str(folder)) for folder in found.unlisted)
        raise UserError(INPUT_OUTPUT, f"nothing was written, these folders could not be listed: {names}")
    if not writer.has_curves:
        raise UserError(BAD_DATA, f"no force curve found; which are read: {page('files')}")
    ignored.add(found.ignored)
    if ignored.total:
        print(f"ignored: {words(ignored.kinds)}", file=sys.stderr)


def _packed_by_cluster(
    options: Options, address: str, found: Found, writer: ArchiveWriter, ignored: Ignored
) -> Iterator[Origin]:
    """The same rows in the same order. UserError for the first file that no node could read to its end."""
    need("pack --cluster", "cluster", "ray")
    from daemon.archive.writer import RowsInOrder, unpack_row
    from daemon.blocks import cut
    from daemon.blocks.cluster import Cluster
    from daemon.blocks.node import Connection, Settings
    from daemon.common.stdio import say
    from daemon.reading.ahead import Job, Stamp

    with Connection(address), RowsInOrder(options.out.absolute().parent) as waiting:
        cluster = Cluster(Settings("cpu", packs=True, with_distance=options.distance), say, options.patience)
        cluster.begin(None, options.paths)
        for block, answer in cluster.answers(cut(Job(one, Stamp.of(one)) for one in found), _MOST_AHEAD):
            _end_at(cluster.troubles)
            for _, kind in answer.ignored:
                ignored.note_kind(kind, 1)
            for content in waiting.add(block.number, answer.contents, is_last=answer.is_last):
                origin, curve = unpack_row(content)
                writer.add(origin, curve)
                yield origin
        _end_at(cluster.troubles)


def _end_at(troubles: Mapping[str, int]) -> None:
    """An archive has all of its curves or does not exist."""
    for text, code in troubles.items():
        raise UserError(code, f"{text}; nothing was written")


def _check(options: Options) -> None:
    from daemon.archive import is_archive
    from daemon.client.folders import refuse_watched

    if bool(options.paths) == (options.simulate is not None):
        raise UserError(USAGE, "name files or folders to pack, or --simulate N")
    if options.cluster is not None and options.simulate is not None:
        raise UserError(USAGE, "--cluster is for files, not for --simulate")
    if not options.patience > 0:
        raise UserError(USAGE, f"--patience {options.patience:g}: give seconds above 0")
    if options.simulate is not None and options.simulate < 1:
        raise UserError(USAGE, f"--simulate {options.simulate}: give 1 or more")
    if not 0.0 <= options.prevalence <= 1.0:
        raise UserError(USAGE, f"--prevalence {options.prevalence}: give a share between 0 and 1")
    if options.seed < 0:
        raise UserError(USAGE, f"--seed {options.seed}: give 0 or more")
    if options.out.exists():
        raise UserError(USAGE, f"--out {options.out}: exists already; name a new file, or remove that one first")
    need_folder("--out", options.out)
    refuse_watched({"--out": options.out})
    for path in options.paths:
        if not path.exists():
            raise UserError(BAD_DATA, f"{path}: no such file or folder")
        if is_archive(path):
            raise UserError(USAGE, f"{path}: is an archive already")


def _plain(error: Exception) -> str:
    number = getattr(error, "errno", None)  # h5py puts a page of its own into strerror
    return clean(os.strerror(number) if number else str(error))
