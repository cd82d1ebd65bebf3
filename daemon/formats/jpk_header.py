"""The Java property headers of JPK archives, and how they turn stored numbers into SI units.

A channel is stored as big-endian numbers. An *encoder* (integers only) makes volts or metres of them; from that base a
chain of *conversions* leads, slot by slot, to the force. Newer files keep what all curves share in
``shared-data/header.properties`` and point there with ``key.*=N``. Rules: formats.md, section 2.3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from daemon.reading import Unfinished, Unreadable
from models.curve import Samples

Properties = dict[str, str]

_NO_KEY = frozenset("#!=" + "".join(filter(str.isspace, map(chr, range(256)))))  # what no key begins with
_LINE = re.compile(r"^([^#!=\s][^=\r\n]*)=([^\r\n]*)", re.MULTILINE)
_STORED = {
    "signedshort": ">i2",
    "unsignedshort": ">u2",
    "signedinteger": ">i4",
    "unsignedinteger": ">u4",
    "signedlong": ">i8",
    "float-data": ">f4",
    "float": ">f4",
    "double-data": ">f8",
    "double": ">f8",
}
_LONGEST_CHAIN = 8


def lines_of(text: bytes) -> list[str]:
    """The lines of a ``.properties`` file."""
    content = text.decode("latin-1").replace("\r\n", "\n")
    if "\r" in content:
        return [f"{key}={value}" for key, value in _LINE.findall(content)]
    return content.split("\n")


def parse(lines: list[str], beginning: str = "") -> Properties:
    """Keys and values of the lines that begin so. Escapes are left alone: no value we use has any."""
    parts = [line.partition("=") for line in lines if line.startswith(beginning)]
    return {key: value for key, mark, value in parts if mark and key and key[0] not in _NO_KEY}


def number(properties: Properties, key: str) -> float | None:
    """A value as a float, or None where it is missing or not a number."""
    try:
        return float(properties[key])
    except (KeyError, ValueError):
        return None


@dataclass(frozen=True)
class Step:
    slot: str
    unit: str
    multiplier: float
    offset: float


@dataclass(frozen=True)
class Scaling:
    """How one channel is stored and every unit its numbers can be taken to."""

    dtype: np.dtype[np.generic]
    base_unit: str
    encoder: Step | None
    slots: dict[str, Step]
    parents: dict[str, str]
    base: str
    default: str

    def chain(self, slot: str) -> list[Step] | None:
        """The steps from the stored base to ``slot``, in order; None when one of them is not defined."""
        steps: list[Step] = []
        while slot != self.base:
            if slot not in self.slots or len(steps) > _LONGEST_CHAIN:
                return None
            steps.append(self.slots[slot])
            slot = self.parents[slot]
        return steps[::-1]

    def factor(self, slot: str, parent: str) -> float | None:
        """What one unit of ``parent`` is in ``slot``, where the one follows directly from the other."""
        return self.slots[slot].multiplier if slot in self.slots and self.parents[slot] == parent else None

    def unit(self, slot: str) -> str:
        return self.base_unit if slot == self.base else self.slots[slot].unit

    @cached_property
    def default_chain(self) -> list[Step] | None:
        return self.chain(self.default)


def decode(content: bytes, points: int, scaling: Scaling) -> np.ndarray[tuple[int], np.dtype[np.generic]]:
    """The stored numbers of a channel, unscaled; shape (points,)."""
    if len(content) < points * scaling.dtype.itemsize:
        raise Unfinished("truncated")
    if len(content) > points * scaling.dtype.itemsize:
        raise Unreadable("unreadable")
    return np.frombuffer(content, scaling.dtype, points)


def apply(stored: np.ndarray[tuple[int], np.dtype[np.generic]], scaling: Scaling, steps: list[Step]) -> Samples:
    """Scale (n,) stored numbers; step by step, as the vendor's program does, so that values agree to the last bit."""
    samples: Samples = stored.astype(np.float64)
    for step in ([scaling.encoder] if scaling.encoder else []) + steps:
        samples = samples * step.multiplier + step.offset
    return samples


def scaling_of(properties: Properties, prefix: str) -> Scaling:
    """The scaling of the channel whose keys begin with ``prefix`` (its own header or the shared one)."""
    at = prefix + "data." if prefix + "data.type" in properties else prefix
    kind = properties.get(at + "encoder.type") or properties.get(at + "type", "")
    if kind not in _STORED:
        raise Unreadable("unreadable")
    sets = prefix + "conversion-set."
    slots, parents = {}, {}
    base = properties.get(sets + "conversions.base", "volts")
    for slot in properties.get(sets + "conversions.list", "").split():
        key = f"{sets}conversion.{slot}."
        step = _step(properties, slot, key + "scaling.")
        if step and properties.get(key + "defined") == "true":
            slots[slot] = step
            parents[slot] = properties.get(key + "base-calibration-slot", base)
    encoder = _step(properties, "encoder", at + "encoder.scaling.")
    if encoder is None and not kind.startswith(("float", "double")):
        raise Unreadable("unreadable")
    unit = encoder.unit if encoder else properties.get(at + "unit.unit", "")
    default = properties.get(sets + "conversions.default", base)
    return Scaling(np.dtype(_STORED[kind]), unit, encoder, slots, parents, base, default)


def _step(properties: Properties, slot: str, key: str) -> Step | None:
    multiplier, offset = number(properties, key + "multiplier"), number(properties, key + "offset")
    if multiplier is None or offset is None:
        return None
    unit = properties.get(key + "unit.unit") or properties.get(key + "unit", "")
    return Step(slot, unit, multiplier, offset)
