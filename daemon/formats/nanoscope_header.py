r"""The text header of NanoScope files: lists of ``\key: value`` lines, one list a section, padded to a fixed size.

Ciao parameters read ``\@4:Z scale: V [Sens. DeflSens] (0.0003750000 V/LSB) 2.500000 V``: a soft scale in brackets, a
hard scale in parentheses, a hard value. A physical value is the number times hard scale times soft scale.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

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
    """One list of the header."""

    title: str
    keys: dict[str, str] = field(default_factory=dict)

    def integers(self, key: str) -> list[int]:
        """All whole numbers of a value; empty when it is missing or none."""
        return [int(word) for word in self.keys.get(key, "").split() if word.lstrip("-").isdigit()]

    def number(self, key: str) -> float | None:
        try:
            return float(self.keys[key].split()[0])
        except (KeyError, ValueError, IndexError):
            return None

    def ciao(self, ending: str) -> Ciao | None:
        """The ``@`` parameter whose name ends so; versions differ in number prefix and capitals."""
        ending = ending.lower()
        for key, value in self.keys.items():
            if key.startswith("@") and key.lower().endswith(ending):
                return _parse_ciao(value)
        return None


def parse(head: bytes, size_bytes: int) -> list[Section]:
    """The sections of a header.

    Raises ``Unfinished("truncated")`` when the file ends before the header does, ``Unreadable`` when there is no end.
    """
    end = head.find(_END)
    if end < 0:
        if len(head) >= min(size_bytes, _MOST_HEADER_BYTES) and size_bytes > _MOST_HEADER_BYTES:
            raise Unreadable("unreadable")
        raise Unfinished("truncated")
    sections: list[Section] = []
    for line in head[:end].decode("latin-1").splitlines():
        if line.startswith("\\*"):
            sections.append(Section(line[2:].strip()))
        elif line.startswith("\\") and sections:
            key, _, value = _split(line[1:])
            sections[-1].keys.setdefault(key, value)
    return sections


def sensitivity_m_per_v(sections: list[Section], soft: str) -> float | None:
    """The sensitivity a soft scale names, in m/V; None when it is not there or was never calibrated.

    Some versions write it without a unit: then it is in nm/V, except 1.000000, which means "never set".
    """
    for section in sections:
        text = section.keys.get(f"@{soft}")
        found = _SENSITIVITY.search(text) if text else None
        if found:
            value, unit = float(found["value"]), found["unit"]
            if unit in _METRES:
                return value * _METRES[unit]
            return value * 1e-9 if not unit and value != 1.0 else None
    return None


def _split(line: str) -> tuple[str, str, str]:
    """Key and value; in ``@4:Z scale: V …`` the first colon belongs to the key."""
    if line.startswith("@") and line[1:3].rstrip(":").isdigit() and ":" in line[:4]:
        head, colon, rest = line.partition(":")
        key, colon, value = rest.partition(":")
        return f"{head}:{key}", colon, value.strip()
    key, colon, value = line.partition(":")
    return key, colon, value.strip()


def _parse_ciao(text: str) -> Ciao | None:
    found = _CIAO.match(text.lstrip("VCS").lstrip())
    if not found or found["value"] is None:
        return None
    try:
        return Ciao(found["soft"] or "", float(found["hard"] or 0), float(found["value"]))
    except ValueError:
        return None
