"""What a user did that cannot work: one line, one exit code (sysexits), never a traceback."""

from __future__ import annotations

USAGE, BAD_DATA, UNREACHABLE, INTERNAL, ALREADY_RUNNING, INPUT_OUTPUT, BAD_CONFIG = 64, 65, 69, 70, 73, 74, 78


class UserError(Exception):
    """``raise UserError(BAD_DATA, "labels.csv row 3: no such file a.ibw; remove the row or restore the file")``."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code
