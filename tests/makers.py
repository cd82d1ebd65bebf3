"""Tiny builders of native files, so that tests can have any curve in any format without a vendor's data.

Forces are given as the program sees them (pulling positive) and come back from the readers within the rounding of the
format. Every builder returns the bytes of a file.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]

SPRING_CONSTANT_N_PER_M = 0.05
SENSITIVITY_M_PER_V = 50e-9
_VOLTS_PER_STEP = 1e-6
_METRES_PER_STEP = 1e-12


def a_retract(points: int = 512, seed: int = 0, peak_pn: float = 150.0) -> tuple[Samples, Samples]:
    """(force in N, distance in m) of a plain retract: contact, adhesion, one rupture, baseline with noise."""
    rng = np.random.default_rng(seed)
    distance = np.linspace(0.0, 400e-9, points)
    force = np.zeros(points)
    contact = distance < 20e-9
    force[contact] = -0.4e-9 * (1 - distance[contact] / 20e-9)
    pulled = (distance > 60e-9) & (distance < 150e-9)
    force[pulled] = peak_pn * 1e-12 * ((distance[pulled] - 60e-9) / 90e-9) ** 3
    return force + rng.normal(0.0, 8e-12, points), distance


def make_jpk(
    force: Samples | None = None,
    distance: Samples | None = None,
    *,
    approach: bool = True,
    pauses: bool = False,
    spring_constant: float | str | None = SPRING_CONSTANT_N_PER_M,
    sensitivity: float | str | None = SENSITIVITY_M_PER_V,
    points_claimed: int | None = None,
    drop: Sequence[str] = (),
    extra: Mapping[str, bytes] | None = None,
) -> bytes:
    """A ``.jpk-force`` archive of one curve with a shared header; ``drop`` leaves out members that end so."""
    members = _jpk_series("", force, distance, approach, pauses, points_claimed)
    members["shared-data/header.properties"] = _jpk_shared(spring_constant, sensitivity)
    members = {"header.properties": b"jpk-data-file=spm-forcefile\nfile-format-version=2.0\n", **members}
    return _zipped({**members, **(extra or {})}, drop)


def make_jpk_map(
    curves: int, points: int = 128, *, drop: Sequence[str] = (), seed: int = 0, peak_pn: float = 150.0
) -> bytes:
    """A ``.jpk-force-map`` archive; curve i has seed + i."""
    members: dict[str, bytes] = {}
    for index in range(curves):
        force, distance = a_retract(points, seed + index, peak_pn)
        members |= _jpk_series(f"index/{index}/", force, distance, True, False, None)
    members["shared-data/header.properties"] = _jpk_shared(SPRING_CONSTANT_N_PER_M, SENSITIVITY_M_PER_V)
    members["header.properties"] = b"type=force-scan-map\n"
    return _zipped(members, drop)


def make_nanoscope(
    force: Samples | None = None,
    distance: Samples | None = None,
    *,
    curves: int = 1,
    width: int = 2,
    version: str = "0x09010300",
    approach_points: int | None = None,
    sensor: bool = True,
    spring_constant: float | str = SPRING_CONSTANT_N_PER_M,
    bytes_per_pixel: int = 2,
) -> bytes:
    """A NanoScope ramp, or (``curves`` > 1) a force volume of the same curve; approach = mirrored retract."""
    if force is None or distance is None:
        force, distance = a_retract()
    points = force.shape[0]
    header_bytes, block = 8192, 2 * points * width * curves
    volts_per_step = 24.0 / 65536
    lines = ["\\*Force file list", f"\\Version: {version}", f"\\Data length: {header_bytes}"]
    lines += ["\\@Sens. Zsens: V 10.00000 nm/V", "\\@Sens. ZsensSens: V 1000.000 nm/V", "\\*Ciao scan list"]
    lines += [f"\\@Sens. DeflSens: V {SENSITIVITY_M_PER_V * 1e9:.5f} nm/V", "\\*Ciao force list", "\\Scan rate: 1.0"]
    image = [f"\\Samps/line: {points} {approach_points or points}", f"\\Spring Constant: {spring_constant}"]
    image += [f"\\Bytes/pixel: {bytes_per_pixel}"]
    ramp_v = float(distance[-1] - distance[0]) / 10e-9
    channels = [("Deflection", "DeflSens", -force / SPRING_CONSTANT_N_PER_M / SENSITIVITY_M_PER_V)]
    if sensor:
        channels.append(("Height Sensor", "ZsensSens", -distance / 1000e-9))
    payload = b""
    for number, (name, soft, volts) in enumerate(channels):
        lines += ["\\*Ciao force image list", f"\\Data offset: {header_bytes + number * block}"]
        lines += [f"\\Data length: {block}", *image, f'\\@4:Image Data: S [{name}] "{name}"']
        lines += [f"\\@4:Z scale: V [Sens. {soft}] ({volts_per_step:.12f} V/LSB) 2.500000 V"]
        lines += [f"\\@4:Ramp size: V [Sens. Zsens] (0.001 V/LSB) {ramp_v:.6f} V"]
        stored = np.rint(volts / volts_per_step).astype(f"<i{width}")
        payload += np.concatenate([stored, stored] * curves).tobytes()
    if curves > 1:
        lines += ["\\*Ciao image list", f"\\Data offset: {header_bytes}", "\\Data length: 2"]
    lines.append("\\*File list end")
    return "\r\n".join(lines).encode("latin-1").ljust(header_bytes, b"\x1a") + payload


def make_ibw(
    force: Samples | None = None,
    distance: Samples | None = None,
    *,
    dwell: int = 0,
    spring_constant: float | str | None = SPRING_CONSTANT_N_PER_M,
    nan_ends: int = 0,
) -> bytes:
    """An Asylum single wave (Raw, Defl, ZSnsr) with approach, dwell and retract; NaN rows at both ends if asked."""
    if force is None or distance is None:
        force, distance = a_retract()
    deflection, position = -force / SPRING_CONSTANT_N_PER_M, -distance
    stay = np.ones(dwell)
    defl = np.concatenate([deflection[::-1], deflection[0] * stay, deflection])
    z = np.concatenate([position[::-1], position[0] * stay, position])
    if nan_ends:
        defl[:nan_ends] = defl[-nan_ends:] = np.nan
        z[:nan_ends] = z[-nan_ends:] = np.nan
    n, last = force.shape[0], defl.shape[0] - 1
    indexes, directions = ([0, n - 1, n + dwell - 1, last], "NaN,1,0,-1") if dwell else ([0, n - 1, last], "NaN,1,-1")
    note = f"Indexes: {','.join(map(str, indexes))}\rDirection: {directions}\rNumPtsPerSec: 2000\r"
    if spring_constant is not None:
        note += f"SpringConstant: {spring_constant}\r"
    return _wave(np.column_stack([z, defl, z]), note, ["Raw", "Defl", "ZSnsr"])


def make_ibw_pair(force: Samples | None = None, distance: Samples | None = None) -> tuple[bytes, bytes]:
    """(``…Defl.ibw``, ``…ZSnsr.ibw``) without a note: approach and retract in one array, a NaN at each end."""
    if force is None or distance is None:
        force, distance = a_retract()
    waves = []
    for samples in (-force / SPRING_CONSTANT_N_PER_M, -distance):
        column = np.concatenate([[np.nan], samples[::-1], samples[1:], [np.nan]])
        waves.append(_wave(column[:, None], "", None))
    return waves[0], waves[1]


def make_columns(*columns: Samples, header: str = "", separator: str = "\t") -> bytes:
    """Plain columns of text with a newline at the end."""
    rows = "".join(separator.join(f"{value:.7e}" for value in row) + "\n" for row in zip(*columns, strict=True))
    return (header + rows).encode("latin-1")


def make_jpk_text(force: Samples | None = None, distance: Samples | None = None, rows: int | None = None) -> bytes:
    """A text export of the JPK program, approach and retract; ``rows`` claims another number of points."""
    if force is None or distance is None:
        force, distance = a_retract()
    blocks = []
    for number, (style, step) in enumerate((("extend", -1), ("retract", 1))):
        lines = ["# TEXT EXPORT", "# force-settings.retract-k-length: 1"] if number == 0 else ["#"]
        lines += [
            f"# segmentIndex: {number}",
            f"# recorded-num-points: {rows or force.shape[0]}",
            f"# segment: {style}",
        ]
        lines += ["# columns: vDeflection measuredHeight", "# units: N m"]
        lines += [f"# sensitivity: {SENSITIVITY_M_PER_V}", f"# springConstant: {SPRING_CONSTANT_N_PER_M}", "#"]
        lines += [f"{-f:.7e} {d:.7e}" for f, d in zip(force[::step], distance[::step], strict=True)]
        blocks.append("\n".join(lines))
    return ("\n\n".join(blocks) + "\n").encode()


def _jpk_series(
    folder: str, force: Samples | None, distance: Samples | None, approach: bool, pauses: bool, claimed: int | None
) -> dict[str, bytes]:
    if force is None or distance is None:
        force, distance = a_retract()
    volts = -force / SPRING_CONSTANT_N_PER_M / SENSITIVITY_M_PER_V
    styles = ["extend"] * approach + ["pause"] * pauses + ["retract"] + ["pause"] * pauses
    members: dict[str, bytes] = {}
    for number, style in enumerate(styles):
        here = f"{folder}segments/{number}/"
        lines = [f"force-segment-header.num-points={claimed or force.shape[0]}", "force-segment-header.duration=0.5"]
        lines.append(f"force-segment-header.settings.style={style}")
        if style != "pause":
            step = 1 if style == "retract" else -1
            for link, (name, samples, unit) in enumerate(
                (("vDeflection", volts, _VOLTS_PER_STEP), ("measuredHeight", distance, _METRES_PER_STEP))
            ):
                lines += [f"channel.{name}.lcd-info.*={link}", f"channel.{name}.data.file.name=channels/{name}.dat"]
                lines.append(f"channel.{name}.data.num-points={claimed or force.shape[0]}")
                stored = (
                    np.full(samples.shape, 0x7FFFFFF0) if not np.isfinite(samples).all() else samples[::step] / unit
                )
                members[here + f"channels/{name}.dat"] = np.rint(stored).astype(">i4").tobytes()
        members[here + "segment-header.properties"] = "\n".join(lines).encode()
    return members


def _jpk_shared(spring_constant: float | str | None, sensitivity: float | str | None) -> bytes:
    lines = ["lcd-infos.count=2"]
    chains = (("0", "V", _VOLTS_PER_STEP, "volts", (("distance", sensitivity, "m"), ("force", spring_constant, "N"))),)
    for link, unit, step, base, chain in chains:
        lines += _jpk_channel(link, unit, step, base, chain, "force")
    lines += _jpk_channel("1", "m", _METRES_PER_STEP, "absolute", (("nominal", 1.0, "m"),), "nominal")
    return "\n".join(lines).encode()


def _jpk_channel(
    link: str, unit: str, step: float, base: str, chain: Sequence[tuple[str, float | str | None, str]], default: str
) -> list[str]:
    key = f"lcd-info.{link}."
    sets = key + "conversion-set."
    lines = [f"{key}type=integer-data", f"{key}encoder.type=signedinteger", f"{key}encoder.scaling.unit.unit={unit}"]
    lines += [f"{key}encoder.scaling.offset=0.0", f"{key}encoder.scaling.multiplier={step!r}"]
    lines += [f"{sets}conversions.base={base}", f"{sets}conversions.default={default}"]
    lines.append(f"{sets}conversions.list={' '.join(slot for slot, _, _ in chain)}")
    parent = base
    for slot, factor, slot_unit in chain:
        here = f"{sets}conversion.{slot}."
        lines.append(f"{here}defined={'false' if factor is None else 'true'}")
        if factor is not None:
            lines += [f"{here}base-calibration-slot={parent}", f"{here}scaling.multiplier={factor}"]
            lines += [f"{here}scaling.offset=0.0", f"{here}scaling.unit.unit={slot_unit}"]
        parent = slot
    return lines


def _zipped(members: Mapping[str, bytes], drop: Sequence[str]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            if not name.endswith(tuple(drop)) or not drop:
                archive.writestr(name, content)
    return target.getvalue()


def _wave(table: Samples, note: str, labels: Sequence[str] | None) -> bytes:
    """Igor binary wave, version 5, float32, little-endian (WaveMetrics Technical Note 003)."""
    rows, columns = table.shape
    data = table.astype("<f4").tobytes(order="F")
    wave = bytearray(320)
    struct.pack_into("<ii", wave, 12, rows * columns, 2)  # points; float32
    wave[28:32] = b"wave"
    struct.pack_into("<4i", wave, 68, rows, columns if labels else 0, 0, 0)
    struct.pack_into("<4d", wave, 84, 5e-4, 1.0, 1.0, 1.0)
    names = b"".join(label.encode().ljust(32, b"\0") for label in ["", *labels]) if labels else b""
    head = bytearray(64)
    struct.pack_into("<hhiii", head, 0, 5, 0, 320 + len(data), 0, len(note))
    struct.pack_into("<4i", head, 36, 0, len(names), 0, 0)
    checksum = -int(np.frombuffer(bytes(head) + bytes(wave), "<i2").sum(dtype=np.int64)) & 0xFFFF
    struct.pack_into("<H", head, 2, checksum)
    return bytes(head) + bytes(wave) + data + note.encode("latin-1") + names
