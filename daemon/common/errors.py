"""What a user did that cannot work: one line, one exit code (sysexits), never a traceback."""

from __future__ import annotations

from pathlib import Path

USAGE, BAD_DATA, UNREACHABLE, INTERNAL, ALREADY_RUNNING, INPUT_OUTPUT, BAD_CONFIG = 64, 65, 69, 70, 73, 74, 78


class UserError(Exception):
    """``raise UserError(BAD_DATA, "labels.csv row 3: no such file a.ibw; remove the row or restore the file")``."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def need_folder(option: str, file: Path) -> None:
    """UserError 64 when the folder that ``file`` shall lie in is not there; it may be a slip of the pen.

    Asked before the work begins, and not when it is done.
    """
    if not file.absolute().parent.is_dir():
        raise UserError(USAGE, f"{option} {file}: its folder does not exist; make it first")
