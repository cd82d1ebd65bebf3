"""Logging: one line a state change on standard error, never one a curve.

Under systemd each line begins with its priority (``<4>``), which the journal understands and strips.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time

_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _JournalLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"<{_PRIORITY.get(record.levelno, 6)}>{super().format(record)}".replace("\n", " | ")


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
        }
        return json.dumps({**line, "logger": record.name, "message": super().format(record)})


def set_up(level: str, form: str) -> None:
    """``form`` is "text" or "json"; calling it again (a reload) replaces what was there."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(_JsonLine("%(message)s"))
    elif "JOURNAL_STREAM" in os.environ:
        handler.setFormatter(_JournalLine("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
