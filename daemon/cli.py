"""The command line: one sub-command a verb, exit codes from sysexits."""

from __future__ import annotations


def main(argv: list[str] | None = None) -> int:
    """Placeholder until the verbs land."""
    raise SystemExit(64)
