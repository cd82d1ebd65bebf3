"""The destination: where a verb is told to write, looked at before the work begins and not when it is done."""

from __future__ import annotations

from pathlib import Path

from daemon.errors import USAGE, UserError


def need_folder(option: str, file: Path) -> None:
    """UserError 64 when the folder that ``file`` shall lie in is not there; it may be a slip of the pen."""
    if not file.absolute().parent.is_dir():
        raise UserError(USAGE, f"{option} {file}: its folder does not exist; make it first")
