"""The opener: what a console shows of a curve outside of its terminal, the picture of `explain` or the review page.

A picture takes seconds, in a process of its own; the console goes on drawing. What came of it stands in one line. A
program is opened only where there is a screen to open it on: else the line says where the picture lies, or which
address to type.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from daemon.client.service_file import find_page
from daemon.common.text import clean
from daemon.config import Config
from daemon.screens.board import Board, Entry

_GIVEN_UP_S = 2.0  # that a picture which nobody waits for any more gets to end


class Opener:
    """Tells its board what came of it; never raises for what cannot be opened."""

    def __init__(self, config: Config, board: Board) -> None:
        self._config, self._board = config, board
        self._folder: Path | None = None
        self._running: tuple[subprocess.Popen[str], Path] | None = None

    def explain(self) -> None:
        """Begin the picture of the selected curve; :meth:`look` tells when it is there."""
        entry = self._selected()
        if entry is None:
            return
        if self._running is not None:
            self._board.tell("one picture is being made already")
            return
        try:
            folder = self._folder = self._folder or Path(tempfile.mkdtemp(prefix="afm-triage-"))
            file = folder / f"{entry.seq}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', entry.label)[-80:]}.png"
            # By its full name, where the file is there: two folders may have curves of the same name.
            words = [sys.executable, "-m", "daemon", "explain", self._name(entry), "--out", str(file)]
            words += ["--state", str(self._config.state)]
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        except OSError as error:
            self._board.tell(f"no picture: {error}")
            return
        self._running = process, file
        self._board.tell(f"drawing {entry.label}: some seconds")

    def look(self) -> None:
        """Whether the picture is there."""
        if self._running is None or self._running[0].poll() is None:
            return
        (process, file), self._running = self._running, None
        assert process.stderr is not None
        with process.stderr as stream:
            said = stream.read().strip().splitlines()
        if process.returncode:
            self._board.tell(f"no picture: {clean(said[-1]) if said else f'exit code {process.returncode}'}")
        else:
            self._board.tell(f"picture: {file}{'' if _open(str(file)) else '  (open it before the console ends)'}")

    def open_page(self) -> None:
        """The selected curve on the review page."""
        entry = self._selected()
        if entry is None:
            return
        page = find_page(self._config.state)
        if page is None:
            start = shlex.join(["afm-triage", "review", "--state", str(self._config.state)])
            self._board.tell(f"no review page runs; start it with: {start}")
            return
        address = f"{page}#curve={self._board.status.get('stream')}:{entry.seq}"
        self._board.tell(f"{'opened' if _open(address) else 'open in a browser'}: {address}")

    def close(self) -> None:
        """Pictures lie in a temporary folder, which goes too; one that is still being made is given up."""
        if self._running is not None:
            process, _ = self._running
            process.terminate()
            try:
                process.wait(_GIVEN_UP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(_GIVEN_UP_S)
            if process.stderr is not None:
                process.stderr.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _selected(self) -> Entry | None:
        if self._board.selected is None:
            self._board.tell("select a curve with the arrows first")
        return self._board.selected

    def _name(self, entry: Entry) -> str:
        file = Path(entry.folder) / entry.path if entry.folder else None
        return f"{file}#{entry.curve}" if file is not None and "\ufffd" not in str(file) else entry.label


def _open(what: str) -> bool:
    """Whether a program was asked to show it: only where there is a desktop, never in this terminal."""
    program = shutil.which("xdg-open")
    if program is None or not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        subprocess.Popen(
            [program, what],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return False
    return True
