r"""The text header of NanoScope files: lists of ``\key: value`` lines, one list a section, padded to a fixed size.

Ciao parameters read ``\@4:Z scale: V [Sens. DeflSens] (0.0003750000 V/LSB) 2.500000 V``: a soft scale in brackets, a
hard scale in parentheses, a hard value. A physical value is the number times hard scale times soft scale.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from daemon.reading import Unfinished, Unreadable

_END = b"\\*File list end"
_MOST_HEADER_BYTES = 1 << 20
_CIAO = re.compile(
    r"(?:\[(?P<soft>[^\]]*)\])?\s*(?:\((?P<hard>[-+\d.eE]+)[^)]*\))?\s*(?P<value>[-+]?[\d.]+(?:[eE][-+]?\d+)?)?"
)
_SENSITIVITY = re.compile(r"V\s+(?P<value>[-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*(?P<unit>\S*)")
_METRES = {"nm/V": 1e-9, "pm/V": 1e-12, "um/V": 1e-6, "µm/V": 1e-6, "~m/V": 1e-6}


@dataclass(frozen=True)
class Ciao:
    """One ``@`` parameter: name of its soft scale, hard scale per stored step, hard value."""

    soft: str
    hard: float
    value: float


@dataclass
class Section:
    """One list of the header. Its lines stay as they are: of some 800, twenty are ever asked for."""

    title: str
    lines: list[str] = field(default_factory=list)

    def get(self, key: str) -> str | None:
        """The value of a key, the first one where it stands twice; None when it is missing."""
        start, end = "\\" + key, len(key) + 1
        for line in self.lines:
            if line.startswith(start) and line[end : end + 1] in ("", ":"):
                return line[end + 1 :].strip()
        return None

    def integers(self, key: str) -> list[int]:
        """All whole numbers of a value; empty when it is missing or none."""
        return [int(word) for word in (self.get(key) or "").split() if word.lstrip("-").isdigit()]

    def number(self, key: str) -> float | None:
        try:
            return float((self.get(key) or "").split()[0])
        except (ValueError, IndexError):
            return None

    def parameters(self) -> Iterator[tuple[str, str]]:
        """Key and value of every ``@`` parameter."""
        return (_split(line[1:]) for line in self.lines if line.startswith("\\@"))

    def ciao(self, ending: str) -> Ciao | None:
        """The ``@`` parameter whose name ends so; versions differ in number prefix and capitals."""
        ending = ending.lower()
        return next((_parse_ciao(value) for key, value in self.parameters() if key.lower().endswith(ending)), None)


def parse(head: bytes, size_bytes: int) -> list[Section]:
    """The sections of a header.

    Raises ``Unfinished("truncated")`` when the file ends before the header does, ``Unreadable`` when there is no end.
    """
    end = head.find(_END)
    if end < 0:
        if len(head) >= min(size_bytes, _MOST_HEADER_BYTES) and size_bytes > _MOST_HEADER_BYTES:
            raise Unreadable("unreadable")
        raise Unfinished("truncated")
    lines = head[:end].decode("latin-1").splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("\\*")]
    bounds = pairwise([*starts, len(lines)])
    return [Section(lines[start][2:].strip(), lines[start + 1 : stop]) for start, stop in bounds]


def sensitivity_m_per_v(sections: list[Section], soft: str) -> float | None:
    """The sensitivity a soft scale names, in m/V; None when it is not there or was never calibrated.

    Some versions write it without a unit: then it is in nm/V, except 1.000000, which means "never set".
    """
    for section in sections:
        text = section.get(f"@{soft}")
        found = _SENSITIVITY.search(text) if text else None
        if found:
            value, unit = float(found["value"]), found["unit"]
            if unit in _METRES:
                return value * _METRES[unit]
            return value * 1e-9 if not unit and value != 1.0 else None
    return None


def _split(line: str) -> tuple[str, str]:
    """Key and value of a parameter; in ``@4:Z scale: V …`` the first colon belongs to the key."""
    if line[1:3].rstrip(":").isdigit() and ":" in line[:4]:
        head, _, rest = line.partition(":")
        key, _, value = rest.partition(":")
        return f"{head}:{key}", value.strip()
    key, _, value = line.partition(":")
    return key, value.strip()


def _parse_ciao(text: str) -> Ciao | None:
    found = _CIAO.match(text.lstrip("VCS").lstrip())
    if not found or found["value"] is None:
        return None
    try:
        return Ciao(found["soft"] or "", float(found["hard"] or 0), float(found["value"]))
    except ValueError:
        return None
