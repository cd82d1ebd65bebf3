"""Standard input, output and error, as they may be found: closed, full, at their reader's end, or not in UTF-8."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from typing import Any

from daemon.clean import clean
from daemon.errors import INPUT_OUTPUT


def steady() -> None:
    """Called once, by the process: from here on no character can stop a verb, and no file takes a stream's number."""
    lowest = os.open(os.devnull, os.O_RDWR)
    while lowest < 3:  # a stream that was closed; else the ledger would get its number, and with it stray messages
        lowest = os.open(os.devnull, os.O_RDWR)
    os.close(lowest)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a shape that the terminal does not have is shown as "?"


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON that standard output can carry without loss: what its encoding does not have is escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text


def write_bytes(content: bytes) -> None:
    """Data for other programs is UTF-8, whatever the terminal speaks."""
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def complain(message: str) -> None:
    """One line on standard error, where it can be written, with nothing in it that steers a terminal."""
    with contextlib.suppress(OSError, ValueError):
        print("\n".join(f"{clean(line)}" for line in f"afm-triage: {message}".split("\n")), file=sys.stderr, flush=True)


def finish(code: int) -> int:
    """Write out what waits; the exit code, which tells when that cannot be done and nothing else was wrong."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            let_go(stream)
        except (OSError, ValueError):
            let_go(stream)
            code = code or INPUT_OUTPUT
    return code


def let_go(*streams: Any) -> None:
    """What was not written never will be: the interpreter shall not try it again when it ends."""
    for stream in streams:
        with contextlib.suppress(OSError, ValueError):
            number = stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
