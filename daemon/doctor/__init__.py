"""The doctor: looks at everything the service will need, and says of each problem what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.text import Text

from daemon.config import Config
from daemon.doctor import symptoms
from daemon.doctor.engines import engines
from daemon.doctor.finding import Finding

_MARKS = {"ok": ("✓", "green"), "note": ("·", "yellow"), "problem": ("✗", "bold red")}


def examine(config: Config) -> Iterator[Finding]:
    """Every finding, as it is made; the slow ones (torch, the model) come last."""
    yield from symptoms.versions()
    yield from symptoms.package_owners()
    yield from symptoms.inotify(config)
    yield from symptoms.watched_folders(config)
    yield from symptoms.state_folder(config)
    yield from symptoms.ports(config)
    yield from engines(config)


def line(finding: Finding) -> Text:
    """One finding, and what to do when it is a problem."""
    mark, style = _MARKS[finding.level]
    advice = (f"\n            → {finding.advice}" if finding.advice else "", "bold")
    return Text.assemble((f"{mark} ", style), (f"{finding.topic:<9} ", "bright_black"), finding.text, advice)


def as_json(findings: Sequence[Finding]) -> Mapping[str, Any]:
    """``ok`` and all findings."""
    return {"ok": is_well(findings), "findings": [asdict(one) for one in findings]}


def is_well(findings: Sequence[Finding]) -> bool:
    """No problem; notes are nothing to act on."""
    return all(one.level != "problem" for one in findings)
