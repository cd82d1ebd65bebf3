"""`pack`: curves of files into one archive, which `score` judges without opening the files again."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.common.errors import BAD_DATA, INPUT_OUTPUT, USAGE, UserError, need_folder
from daemon.common.text import clean
from daemon.sources.ignored import Ignored, words

if TYPE_CHECKING:
    from daemon.archive.layout import Origin
    from daemon.archive.writer import ArchiveWriter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Files or folders, or --simulate; and where to."""
    parser.add_argument("paths", metavar="PATH", nargs="*", type=Path, help="files or folders")
    parser.add_argument("--out", metavar="FILE.h5", type=Path, required=True, help="the archive; never replaces a file")
    parser.add_argument("--distance", action="store_true", help="keep the distance too (score does not need it)")
    parser.add_argument("--simulate", metavar="N", type=int, help="N simulated curves instead of files")
    parser.add_argument("--seed", metavar="S", type=int, default=1, help="of these; the same gives the same bytes (1)")
    parser.add_argument("--prevalence", metavar="P", type=float, default=0.05, help="share with an event (0.05)")


def run(args: argparse.Namespace) -> int:
    """Exit 0 when the archive is there; 65 when there was nothing to pack; 74 when a folder could not be listed."""
    _check(args)
    from daemon.archive.writer import ArchiveWriter
    from daemon.common.progress import progress
    from daemon.processes.worker_pool import WorkersBroken

    begun_s = time.monotonic()
    unread = 0
    try:
        with ArchiveWriter(args.out, with_distance=args.distance) as writer:
            for origin in progress(_packed(args, writer), "packing", args.simulate):
                unread += origin.reason is not None
            writer.finish()
    except WorkersBroken as error:
        raise UserError(INPUT_OUTPUT, f"{args.out}: {error}; nothing was written") from error
    except (OSError, RuntimeError) as error:  # h5py's own words for a full disk
        raise UserError(INPUT_OUTPUT, f"{args.out}: {_plain(error)}; nothing was written") from error
    size_mb = args.out.stat().st_size / 1e6
    elapsed_s = max(time.monotonic() - begun_s, 1e-9)
    print(f"{writer.curves} curves in {args.out}, {size_mb:.1f} MB" + (f"; {unread} unreadable" if unread else ""))
    if sys.stderr.isatty():
        print(f"{elapsed_s:.1f} s, {writer.curves / elapsed_s:.0f} curves/s", file=sys.stderr)
    return 0


def _packed(args: argparse.Namespace, writer: ArchiveWriter) -> Iterator[Origin]:
    from daemon.archive.writer import pack_files, pack_simulated
    from daemon.sources.existing import find

    if args.simulate:
        yield from pack_simulated(args.simulate, args.seed, args.prevalence, writer)
        return
    found, ignored = find(args.paths), Ignored()
    yield from pack_files(found, writer, ignored)
    if found.unlisted:
        names = ", ".join(clean(str(folder)) for folder in found.unlisted)
        raise UserError(INPUT_OUTPUT, f"nothing was written, these folders could not be listed: {names}")
    if not writer.has_curves:
        raise UserError(BAD_DATA, "no force curve found; see README for the formats that are read")
    ignored.add(found.ignored)
    if ignored.total:
        print(f"ignored: {words(ignored.kinds)}", file=sys.stderr)


def _check(args: argparse.Namespace) -> None:
    from daemon.archive.layout import is_archive

    if bool(args.paths) == (args.simulate is not None):
        raise UserError(USAGE, "name files or folders to pack, or --simulate N")
    if args.simulate is not None and args.simulate < 1:
        raise UserError(USAGE, f"--simulate {args.simulate}: give 1 or more")
    if not 0.0 <= args.prevalence <= 1.0:
        raise UserError(USAGE, f"--prevalence {args.prevalence}: give a share between 0 and 1")
    if args.seed < 0:
        raise UserError(USAGE, f"--seed {args.seed}: give 0 or more")
    if args.out.exists():
        raise UserError(USAGE, f"--out {args.out}: exists already; name a new file, or remove that one first")
    need_folder("--out", args.out)
    for path in args.paths:
        if not path.exists():
            raise UserError(BAD_DATA, f"{path}: no such file or folder")
        if is_archive(path):
            raise UserError(USAGE, f"{path}: is an archive already")


def _plain(error: Exception) -> str:
    number = getattr(error, "errno", None)  # h5py puts a page of its own into strerror
    return clean(os.strerror(number) if number else str(error))
