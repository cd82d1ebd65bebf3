"""Tiny builders of files of further vendors, and of the images that lie beside curves; see makers.py."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from makers import SENSITIVITY_M_PER_V, SPRING_CONSTANT_N_PER_M, Samples, _wave, a_retract

Unit = Literal["N", "m", "V"]


def make_nid(
    curves: Sequence[tuple[Samples, Samples]] | None = None,
    *,
    unit: Unit = "N",
    bits: int = 32,
    sign: str = "Signed",
    sensor: bool = True,
    backward_in_time_order: bool = False,
    pulled_first: bool = False,
    valid: Mapping[int, int] | None = None,
    measured: int | None = None,
    spectra: bool = True,
    image: bool = True,
    spring_constant: float = SPRING_CONSTANT_N_PER_M,
    points: int | None = None,
    lines: int | None = None,
) -> bytes:
    """A Nanosurf file: curves (force, distance), an image, and a channel computed of the curves.

    ``valid``: line -> valid samples of its approach, the rest zero. ``measured``: lines that were measured, the rest
    empty. ``points`` and ``lines`` claim other numbers than there are.
    """
    curves = [a_retract()] if curves is None else curves
    number, length = len(curves), curves[0][0].shape[0]
    scale = {"N": 1.0, "m": SPRING_CONSTANT_N_PER_M, "V": SPRING_CONSTANT_N_PER_M * SENSITIVITY_M_PER_V}[unit]
    ranges = {"Deflection": (4e-9 / scale, -2e-9 / scale, unit), "Z-Axis Sensor": (4e-6, -2e-6, "m")}
    header = ["[DataSet]", "Version=2", "GroupCount=4", "Gr0-Name=Spec forward" if spectra else "Gr0-Name=Scan forward"]
    frames: list[tuple[str, str, Samples, tuple[float, float, str]]] = []
    for group, side in enumerate(("forward", "backward") if spectra else ()):
        for name in ranges if sensor else ("Deflection",):
            rows = []
            for force, distance in curves:
                row = -force / scale if name == "Deflection" else -distance
                forward = row if pulled_first else row[::-1]
                is_turned = side == "backward" and backward_in_time_order
                rows.append(forward[::-1] if is_turned else forward)
            frames.append((f"{group}:{name == 'Z-Axis Sensor':d}", f"Spec {side}", np.array(rows), ranges[name]))
        if group == 0:
            frames.append(("2:0", "SlopeOut00", np.zeros((1, number)), (1.0, 0.0, "N/m")))
    if image:
        frames.append(("3:1", "Scan forward", np.zeros((16, 16)), (1e-6, 0.0, "m")))
    header += [f"Gr{key.split(':')[0]}-Ch{key.split(':')[1]}=DataSet-{key}" for key, *_ in frames]
    header += ["", "[DataSet\\Calibration\\Scanhead]"]
    header += [f"In5=5,TipSignalDC,Deflection,m,{SENSITIVITY_M_PER_V * 10},0", "In15=16,TipSignalDC1,Deflection,V,10,0"]
    header += ["", "[DataSet\\Calibration\\Cantilever]", f"Prop0=D[{spring_constant}]*[N/m]", "Prop1=D[150000]*[Hz]"]
    payload = b""
    for key, frame, table, (width, least, in_unit) in frames:
        height, row_points = table.shape
        is_curve = frame.startswith("Spec")
        header += ["", f"[DataSet-{key}]", f"Points={points if points and is_curve else row_points}"]
        header += [f"Lines={lines if lines and is_curve else height}", f"Frame={frame}"]
        header += [f"CurLine={(height if measured is None else measured) - 1}", "Dim0Name=Z-Axis", "Dim0Unit=m"]
        name = "Deflection" if in_unit == unit else "Z-Axis Sensor"
        header += [f"Dim0Range={np.ptp(curves[0][1])}", "Dim0Min=0", f"Dim2Name={name}", f"Dim2Unit={in_unit}"]
        header += [f"Dim2Range={width!r}", f"Dim2Min={least!r}"]
        if is_curve:
            for line in range(height):
                count = (valid or {}).get(line, length) if frame == "Spec forward" else length
                header += [f"LineDim{line}Range={np.ptp(curves[0][1])}", f"LineDim{line}Points={count}"]
        header += ["SaveMode=Binary", f"SaveBits={bits}", f"SaveSign={sign}", "SaveOrder=Intel"]
        stored = np.rint((table - least) / width * 2.0**bits) - (2.0 ** (bits - 1) if sign == "Signed" else 0)
        block = np.clip(stored, *((-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if sign == "Signed" else (0, 2**bits - 1)))
        for line, count in (valid or {}).items() if frame == "Spec forward" else ():
            block[line] = np.concatenate([block[line, length - count :], np.zeros(length - count)])
        if is_curve and measured is not None:
            block[measured:] = 0
        payload += block.astype(f"<{'i' if sign == 'Signed' else 'u'}{bits // 8}").tobytes()
    return "\r\n".join(header).encode("latin-1") + b"\r\n\r\n\r\n#!" + payload


def make_park(
    curves: Sequence[tuple[Samples, Samples]] | None = None,
    *,
    channels: Sequence[str] = ("Vertical (A-B)", "Force", "Z Scan", "Z Detector", "Time Stamp"),
    kind: int = 2,
    category: int = 2,
    data_type: int | None = 2,
    repeats: int = 0,
    detector: bool = False,
    claimed_samples: int | None = None,
    spring_constant: float = SPRING_CONSTANT_N_PER_M,
) -> bytes:
    """A Park file of one small picture and curves (force, distance), approach = mirrored retract.

    ``repeats``: copies of the last sample behind each half. ``data_type`` None: the short header of version 1, which
    stores 16 bits. ``kind`` and ``category``: of the spectroscopy, and of the file (0 image, 2 spectroscopy).
    """
    curves = [a_retract()] if curves is None else curves
    samples = 2 * (curves[0][0].shape[0] + repeats)
    units = {
        "Vertical (A-B)": "V",
        "Lateral": "V",
        "Force": "nN",
        "Z Scan": "um",
        "Z Detector": "um",
        "Time Stamp": "usec",
    }
    gains = dict.fromkeys(units, 1.0) if data_type == 2 else {**dict.fromkeys(units, 1e-4), "Time Stamp": 1.0}
    dtype = {0: "<i2", 1: "<i4", 2: "<f4"}[data_type or 0]
    header = b""
    for name in [*channels, *[""] * (8 - len(channels))]:
        text, unit = name.encode("utf-16-le").ljust(64, b"\0"), units.get(name, "").encode("utf-16-le").ljust(16, b"\0")
        header += (
            text + unit + struct.pack("<dii", gains.get(name, 1.0), name.startswith("Z"), not name.startswith("Z"))
        )
    driving = list(channels).index("Z Scan") if "Z Scan" in channels else 0
    header += struct.pack("<5i", len(channels), 1, claimed_samples or samples, len(curves), driving)
    header = header.ljust(936, b"\0")
    if data_type is not None:
        header = header.ljust(976, b"\0") + struct.pack("<dd", spring_constant, 1e-6 / SENSITIVITY_M_PER_V)
        header = header.ljust(1052, b"\0") + struct.pack("<i", kind)
        header = header.ljust(1108, b"\0") + struct.pack("<i", data_type) + bytes(96)
    payload = b""
    for force, distance in curves:
        rows = {
            "Vertical (A-B)": -force / SPRING_CONSTANT_N_PER_M / SENSITIVITY_M_PER_V,
            "Lateral": np.sin(distance * 1e9),
            "Force": -force * 1e9,
            "Z Scan": distance * 1e6,
            "Z Detector": distance * 1e6 if detector else np.full(force.shape, -9.8),
        }
        for name in channels:
            if name == "Time Stamp":
                times = np.arange(force.shape[0]) * 20.0 + 120.0
                there, back = times, times + times[-1]
            else:
                back = rows[name]
                there = back[::-1]
            both = [np.append(half, np.full(repeats, half[-1])) / gains[name] for half in (there, back)]
            stored = np.concatenate(both)
            payload += (stored if data_type == 2 else np.rint(np.clip(stored, -32768, 32767))).astype(dtype).tobytes()
    main = struct.pack("<i", category).ljust(348, b"\0") + struct.pack("<i", data_type or 0) + bytes(228)
    picture = bytes(64)
    tags: dict[int, tuple[int, bytes]] = {256: (4, struct.pack("<I", 8)), 257: (4, struct.pack("<I", 8))}
    tags |= {273: (4, b""), 50432: (4, struct.pack("<I", 0x0E031301)), 50434: (1, picture), 50435: (7, main)}
    tags[50433] = (4, struct.pack("<I", 0x01000001 if data_type is None else 0x01000002))
    if category == 2:
        tags |= {50438: (7, header), 50439: (1, payload)}
    return make_tiff(tags)


def make_tiff(tags: Mapping[int, tuple[int, bytes]] | None = None) -> bytes:
    """A TIFF with one directory of these tags (type, content), its numbers behind it; an image where there are none."""
    tags = {256: (4, struct.pack("<I", 8)), 257: (4, struct.pack("<I", 8))} if tags is None else tags
    at = 8 + 2 + 12 * len(tags) + 4
    directory, contents = struct.pack("<H", len(tags)), b""
    for tag, (kind, content) in sorted(tags.items()):
        items = len(content) // {1: 1, 4: 4, 7: 1}[kind]
        value = content.ljust(4, b"\0") if len(content) <= 4 else struct.pack("<I", at + len(contents))
        directory += struct.pack("<HHI", tag, kind, items) + value
        contents += content if len(content) > 4 else b""
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + contents


def make_ibw_image(layers: int = 4, lines: int = 16, names: Sequence[str] = ("HeightTrace", "PhaseRetrace")) -> bytes:
    """An Asylum image: a wave of three dimensions, or of two with ``layers`` 0."""
    content = bytearray(_wave(np.zeros((lines, lines * max(layers, 1))), "ScanSize: 1e-06\rImagingMode: 0\r", names))
    struct.pack_into("<4i", content, 64 + 68, lines, lines, layers, 0)
    return bytes(content)


def make_ibw_cycles(
    curves: Sequence[tuple[Samples, Samples]], *, rest: int = 0, dwell: int = 0, indexes: bool = True
) -> bytes:
    """One wave of several pulls, approach = mirrored retract, with a dwell at the surface and a rest far from it."""
    defl, z = [np.zeros(0)], [np.zeros(0)]
    bounds, directions = ["0"], ["NaN"]
    for force, distance in curves:
        parts = [(force[::-1], distance[::-1], 1), (np.full(dwell, force[0]), np.full(dwell, distance[0]), 0)]
        parts += [(force, distance, -1), (np.full(rest, force[-1]), np.full(rest, distance[-1]), 0)]
        for part_force, part_distance, direction in parts:
            if part_force.size:
                defl.append(-part_force / SPRING_CONSTANT_N_PER_M)
                z.append(-part_distance)
                bounds.append(str(sum(map(len, z)) - 1))
                directions.append(str(direction))
    note = f"SpringConstant: {SPRING_CONSTANT_N_PER_M}\rNumPtsPerSec: 2000\r"
    if indexes:
        note += f"Indexes: {','.join(bounds)},\rDirection: {','.join(directions)},\r"
    position = np.concatenate(z)
    return _wave(np.column_stack([position, np.concatenate(defl), position]), note, ["Raw", "Defl", "ZSnsr"])


def make_nanoscope_image(points: int = 16) -> bytes:
    """A NanoScope image of one channel."""
    lines = ["\\*File list", "\\Version: 0x09200000", "\\*Ciao scan list", "\\*Ciao image list"]
    lines += ["\\Data offset: 4096", f"\\Data length: {4 * points * points}", f"\\Samps/line: {points}"]
    lines += ['\\@2:Image Data: S [Height] "Height"', "\\*File list end"]
    return "\r\n".join(lines).encode().ljust(4096, b"\x1a") + bytes(4 * points * points)


def make_hdf5(
    datasets: Mapping[str, Any], units: Mapping[str, str] | None = None, attributes: Mapping[str, Any] | None = None
) -> bytes:
    """An HDF5 file of these datasets, with their units as attributes."""
    import h5py

    target = io.BytesIO()
    with h5py.File(target, "w") as file:
        for path, values in datasets.items():
            file[path] = values
            if units and path in units:
                file[path].attrs["unit"] = units[path]
        for name, value in (attributes or {}).items():
            file.attrs[name] = value
    return target.getvalue()
