"""Write a curve as a ``.jpk-force`` file, because every lab program opens those.

The layout is that of single curves of 2016 (format version 0.12): one folder a segment, each with its own channel
description, deflection stored as raw detector volts with the chain volts → distance → force beside it. The zip holds
fixed dates, so equal curves give equal bytes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

import numpy as np

from models.curve import Curve, Samples

_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can hold
_TIME_STAMP = "2026-01-01 00:00:00.000 +0000"
_SENSITIVITY_M_PER_V = 5e-8  # for volts of a curve whose own sensitivity is not known: it cancels out
_STEPS = 2**31 - 1  # of the positive half of the 32-bit encoder
Lines = Iterator[str]


def pack(curve: Curve) -> bytes:
    """The file of one curve: its approach, where it has one, and its retract.

    ValueError for a curve that the format cannot say: without a force unit, in newtons without spring constant, or
    with fewer than two samples.
    """
    if curve.force_unit is None or (curve.force_unit == "N" and curve.spring_constant_n_per_m is None):
        raise ValueError("a .jpk-force file needs the force unit, and for newtons the spring constant")
    if len(curve) < 2:
        raise ValueError("a .jpk-force file needs at least two samples")
    duration_s = curve.duration_s or 1.0
    segments = []
    height = _height(curve)
    if curve.approach_force is not None:
        way_in = None if height is None else _resampled(height[::-1], len(curve.approach_force))
        segments.append(("extend", curve.approach_force, way_in))
    segments.append(("retract", curve.force, height))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as container:
        _add(container, "header.properties", "\n".join(_series_header(len(segments), duration_s)).encode())
        _add(container, "segments/", b"")
        for number, (style, force, distance) in enumerate(segments):
            channels = _channels(curve, force, distance)
            folder = f"segments/{number}/"
            _add(container, folder, b"")
            lines = [*_segment_header(style, len(force), duration_s, distance), *_channel_headers(curve, channels)]
            _add(container, folder + "segment-header.properties", "\n".join(lines).encode())
            _add(container, folder + "channels/", b"")
            for name, samples in channels.items():
                stored = np.rint((samples - _offset(samples)) / _step(samples)).astype(">i4")
                _add(container, f"{folder}channels/{name}.dat", stored.tobytes())
    return target.getvalue()


def _height(curve: Curve) -> Samples | None:
    """Piezo height, growing away from the surface; a separation is turned back into the travel it came from."""
    if curve.distance is None or curve.distance_kind != "separation":
        return curve.distance
    stiffness, sensitivity = curve.spring_constant_n_per_m, curve.sensitivity_m_per_v
    if curve.force_unit == "N" and stiffness:
        return curve.distance + curve.force / stiffness
    if curve.force_unit == "V" and sensitivity:
        return curve.distance + curve.force * sensitivity
    return curve.distance + curve.force if curve.force_unit == "m" else None


def _resampled(samples: Samples, count: int) -> Samples:
    return np.interp(np.linspace(0.0, len(samples) - 1.0, count), np.arange(len(samples)), samples)


def _channels(curve: Curve, force: Samples, height: Samples | None) -> dict[str, Samples]:
    """Channel name -> samples in the unit of its encoder. In these files repulsion is positive."""
    sensitivity = curve.sensitivity_m_per_v or _SENSITIVITY_M_PER_V
    volts_per_unit = {"N": 1.0 / sensitivity / (curve.spring_constant_n_per_m or 1.0), "m": 1.0 / sensitivity, "V": 1.0}
    channels = {} if height is None else {"height": height, "measuredHeight": height}
    return channels | {"vDeflection": -force * volts_per_unit[str(curve.force_unit)]}


def _span(samples: Samples) -> float:
    low, high = float(samples.min()), float(samples.max())
    return max(high - low, 1e-9 * abs(low), 1e-30)


def _offset(samples: Samples) -> float:
    """Below the lowest sample: a row of stored zeros would read as an end that was never written."""
    return float(samples.min()) - 0.05 * _span(samples)


def _step(samples: Samples) -> float:
    return 1.1 * _span(samples) / _STEPS


def _add(container: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo(name, _DATE)
    member.compress_type = zipfile.ZIP_DEFLATED if content else zipfile.ZIP_STORED
    member.create_system = 0
    container.writestr(member, content)


def _series_header(segments: int, duration_s: float) -> Lines:
    series = "force-scan-series."
    yield "jpk-data-file=spm-forcefile"
    yield "file-format-version=0.12"
    yield "type=force-scan-series"
    yield f"{series}force-segments.count={segments}"
    yield f"{series}header.type=xy-position-force-scan-series-header"
    yield f"{series}header.position.x=0.0"
    yield f"{series}header.position.y=0.0"
    yield f"{series}header.position-index=0"
    yield f"{series}header.force-settings.type=relative-force-settings"
    yield f"{series}header.force-settings.extend-scan-time={duration_s!r}"
    yield f"{series}header.force-settings.retract-scan-time={duration_s!r}"
    yield f"{series}description.instrument=simulated"
    yield f"{series}description.source-software=afm-triage"


def _segment_header(style: str, points: int, duration_s: float, height: Samples | None) -> Lines:
    own, settings = "force-segment-header.", "force-segment-header.settings.segment-settings."
    start, end = (0.0, 0.0) if height is None else (float(height[0]), float(height[-1]))
    yield f"{own}type=xy-position-segment-header"
    yield f"{own}approach-id=simulated-00000"
    yield f"{own}duration={duration_s!r}"
    yield f"{own}num-points={points}"
    yield f"{own}time-stamp={_TIME_STAMP}"
    yield f"{own}name.name={style}-spm"
    yield f"{own}position-index=0"
    yield f"{own}settings.style={style}"
    yield f"{own}settings.feedback-mode.name=contact"
    yield f"{settings}type=z-{style}"
    yield f"{settings}style={style}"
    yield f"{settings}duration={duration_s!r}"
    yield f"{settings}num-points={points}"
    yield f"{settings}z-start={start!r}"
    yield f"{settings}z-end={end!r}"


def _channel_headers(curve: Curve, channels: dict[str, Samples]) -> Lines:
    yield f"channels.list={' '.join(channels)}"
    for name, samples in channels.items():
        data, unit = f"channel.{name}.data.", "V" if name == "vDeflection" else "m"
        yield f"{data}file.name=channels/{name}.dat"
        yield f"{data}file.format=raw"
        yield f"{data}type=integer"
        yield f"{data}encoder.type=signedinteger"
        yield f"{data}encoder.scaling.type=linear"
        yield f"{data}encoder.scaling.style=offsetmultiplier"
        yield f"{data}encoder.scaling.offset={_offset(samples)!r}"
        yield f"{data}encoder.scaling.multiplier={_step(samples)!r}"
        yield f"{data}encoder.scaling.unit.type=metric-unit"
        yield f"{data}encoder.scaling.unit.unit={unit}"
        yield f"{data}num-points={len(samples)}"
        yield f"channel.{name}.channel.name={name}"
        yield from _conversions(f"channel.{name}.conversion-set.", _slots(curve, name))


def _slots(curve: Curve, channel: str) -> list[tuple[str, str, float]]:
    """(slot, unit, multiplier) of each calibration after the stored one, in order."""
    if channel != "vDeflection":
        return [("nominal", "m", 1.0), ("calibrated", "m", 1.0)]
    slots = [("distance", "m", curve.sensitivity_m_per_v or _SENSITIVITY_M_PER_V)]
    if curve.force_unit == "V":
        return []
    return [*slots, ("force", "N", curve.spring_constant_n_per_m or 1.0)] if curve.force_unit == "N" else slots


def _conversions(prefix: str, slots: list[tuple[str, str, float]]) -> Lines:
    names = [name for name, _, _ in slots]
    yield f"{prefix}conversions.list={' '.join(names)}"
    yield f"{prefix}conversions.default={names[-1] if names else 'volts'}"
    yield f"{prefix}conversions.base=volts"
    for before, (name, unit, multiplier) in zip(["volts", *names], slots, strict=False):
        key = f"{prefix}conversion.{name}."
        yield f"{key}name={name.capitalize()}"
        yield f"{key}defined=true"
        yield f"{key}type=simple"
        yield f"{key}base-calibration-slot={before}"
        yield f"{key}calibration-slot={name}"
        yield f"{key}scaling.type=linear"
        yield f"{key}scaling.style=offsetmultiplier"
        yield f"{key}scaling.offset=0.0"
        yield f"{key}scaling.multiplier={multiplier!r}"
        yield f"{key}scaling.unit.type=metric-unit"
        yield f"{key}scaling.unit.unit={unit}"
