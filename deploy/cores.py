"""The cores: how many threads an engine may keep busy on a machine that belongs to an instrument."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def default_threads() -> int:
    """The cores this process may use, less one for the instrument; at least one."""
    return max(1, usable_cores() - 1)


def usable_cores() -> int:
    """Those it may be scheduled on, or fewer where its control group has bought less time than they have.

    A container with two cores' worth of time on a machine of 64 sees all 64, and is halted when it uses them.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *quotas(_own_group())]))


def quotas(group: Path) -> Iterator[int]:
    """Whole cores, rounded up, that a control group (v2), or one above it, is limited to; none where none is."""
    for folder in (group, *group.parents):
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            yield -(-int(quota) // int(period))


def _own_group() -> Path:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    return next((CGROUP / line[4:] for line in lines if line.startswith("0::/")), CGROUP)
