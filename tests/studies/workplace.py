"""The workplace: a folder in which a long study keeps what is done, so that it goes on after an interruption."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daemon.common.errors import USAGE, UserError
from models.files import write_whole
from models.metrics import clopper_pearson

_NOTE = "study.json"


def open_workplace(folder: Path, settings: Mapping[str, Any]) -> Path:
    """Go on in ``folder`` when it is of these very settings, else empty it. UserError 64 where it is no workplace."""
    wanted = json.dumps(settings, sort_keys=True)
    note = folder / _NOTE
    if folder.exists() and not note.is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(USAGE, f"--work {folder} exists and is of no study; name another folder")
    if not note.is_file() or note.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_whole(note, wanted.encode())
    return folder


# Shares: hits out of a number, with the exact interval, as studies report and print them.


def share(hits: int, of: int) -> dict[str, Any]:
    """``hits`` of ``of`` with the Clopper-Pearson 95 % interval, ready for JSON."""
    return {"hits": hits, "of": of, "interval": list(clopper_pearson(hits, of))}


def percent(found: Mapping[str, Any] | None) -> str:
    """``3.1 % [2.0, 4.6]``; a dash where there is nothing to share."""
    if found is None or not found["of"]:
        return "-"
    low, high = found["interval"]
    return f"{100 * found['hits'] / found['of']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
