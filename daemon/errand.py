"""The errand: a command that is run to its end, and that is ended with us."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from daemon import ending

_TERM_S, _KILL_S = 2.0, 5.0


def run_errand(
    command: Sequence[str], *, said: str | None = None, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """As subprocess.run with its output captured; ``said`` goes to its standard input.

    Raises KeyboardInterrupt when the process is asked to end meanwhile; the command has then been ended.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=cwd, env=env) as process:
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    out, err = process.communicate(said, timeout=ending.LOOK_S)
                    return subprocess.CompletedProcess(command, process.returncode, out, err)
                said = None  # it is given once
                ending.check()
        except BaseException:
            ending.allow(_TERM_S + _KILL_S)
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_TERM_S)
            process.kill()
            raise
