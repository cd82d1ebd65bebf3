"""Writing: a file that is there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """All of it or nothing, under its name; what is no regular file (a pipe, /dev/stdout) is written into instead.

    The unfinished file has a name that nobody who watches the folder takes for a curve.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_bytes(content)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
