"""The printer: text with styles onto standard output, and the colours of every screen.

Nobody can tell whether a terminal is dark or light. So the colours lie between: each has a contrast of four or more
both on black and on white, which no terminal's own yellow, green or grey has. Where there are sixteen colours only,
the nearest of them is taken.
"""

from __future__ import annotations

from rich.console import Console

KEEP, REVIEW, ALARM = "color(28)", "color(130)", "color(160)"
QUIET = "color(243)"  # what explains; a discard
BARS = "color(31)"
BAD, WARN = f"bold {ALARM}", f"bold {REVIEW}"
VERDICTS = {"keep": KEEP, "review": REVIEW, "discard": QUIET}


class Printer(Console):
    """A rich console for lines of any length; a reader that has gone away (`| head`) is for our caller to handle."""

    def __init__(self) -> None:
        super().__init__(highlight=False, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        """Called while the BrokenPipeError is handled; rich itself would end the process with 1."""
        raise  # noqa: PLE0704 - the one that rich is handling
