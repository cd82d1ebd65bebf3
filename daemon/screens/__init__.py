"""The printer: text with styles onto standard output."""

from __future__ import annotations

from rich.console import Console


class Printer(Console):
    """A rich console for lines of any length; a reader that has gone away (`| head`) is for our caller to handle."""

    def __init__(self) -> None:
        super().__init__(highlight=False, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        """Called while the BrokenPipeError is handled; rich itself would end the process with 1."""
        raise  # noqa: PLE0704 - the one that rich is handling
