"""An archive of many curves, made by code: maps, single files of many formats, broken ones, and a packed archive.

Few curves are computed; each file gets bytes of its own, so that every curve has an identity of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from daemon.instrument import pack, variant
from models.simulate import simulate
from tests.faults.harness import CURVES
from tests.makers import a_retract, make_ibw, make_jpk, make_jpk_map, make_jpk_text, make_nanoscope

ROOT = Path(__file__).resolve().parents[2]
_A_FOLDER = 500  # files; an instrument begins a new folder for each sample
_LARGEST_MAP = 500
_POINTS = 512
_BROKEN_EACH = 60  # one file in so many is broken


@dataclass(frozen=True, slots=True)
class Plenty:
    """Where it lies, and how many curves are to be answered: a broken file is one, with a reason."""

    maps: Path
    files: Path
    archive: Path
    in_files: int  # of ``maps`` and ``files``
    in_archive: int

    @property
    def folders(self) -> tuple[Path, Path]:
        return self.maps, self.files

    @property
    def curves(self) -> int:
        return self.in_files + self.in_archive


def make(folder: Path, curves: int, *, in_maps: float = 0.6, in_archive: float = 0.2) -> Plenty:
    """Shares of the curves in maps and in an archive, the rest in single files.

    What lies there already of an earlier call with as many curves is used again.
    """
    note = folder / f"plenty-{curves}.json"
    maps, files, archive = folder / "maps", folder / "files", folder / "packed.h5"
    if not note.exists():
        for one in (maps, files):
            one.mkdir(parents=True, exist_ok=True)
        mapped, packed = round(curves * in_maps), round(curves * in_archive)
        in_files = _write(maps, _maps(mapped)) + _write(files, _files(curves - mapped - packed))
        _pack(archive, packed)
        note.write_text(json.dumps([in_files, packed]))
    return Plenty(maps, files, archive, *json.loads(note.read_text()))


def _write(folder: Path, contents: Iterable[tuple[str, bytes, int]]) -> int:
    """How many curves are in the folder then."""
    total = 0
    for number, (name, content, curves) in enumerate(contents):
        path = folder / f"sample{number // _A_FOLDER:03d}" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        total += curves
    return total


def _maps(curves: int) -> Iterator[tuple[str, bytes, int]]:
    """Of JPK, every sixth of NanoScope; the last one is as large as is left."""
    size = min(_LARGEST_MAP, max(curves // 12, 1))
    jpk = [make_jpk_map(size, _POINTS, seed=size * i, peak_pn=40.0 * i) for i in range(5)]
    volume = make_nanoscope(*a_retract(_POINTS, 7), curves=size)
    for number in range(curves // size):
        if number % 6 == 5:
            yield f"map-{number:05d}.spm", variant(volume, f"volume {number}"), size
        else:
            content = variant(jpk[number % len(jpk)], f"map {number}")
            yield f"map-{number:05d}.jpk-force-map", content, size
    if left := curves % size:
        yield "map-last.jpk-force-map", make_jpk_map(left, _POINTS, seed=99), left


def _files(curves: int) -> Iterator[tuple[str, bytes, int]]:
    """Mostly JPK, simulated and real; a tenth each of Igor, NanoScope and text."""
    simulated = [pack(one.curve) for one in simulate(min(curves // 20 + 5, 200), 11, 0.2)]
    jpk = simulated + [path.read_bytes() for path in sorted(CURVES.glob("force-save-*.jpk-force"))]
    others = (
        (".ibw", [make_ibw(*a_retract(_POINTS, i), dwell=8) for i in range(9)]),
        (".000", [make_nanoscope(*a_retract(_POINTS, 20 + i)) for i in range(9)]),
        (".txt", [make_jpk_text(*a_retract(_POINTS, 40 + i)) for i in range(9)]),
    )
    for number in range(curves):
        kind, mark = number % 10, f"file {number}"
        if number % _BROKEN_EACH == 17:
            yield f"broken-{number:06d}.jpk-force", _broken(number), 1
        elif kind < len(others):
            suffix, some = others[kind]
            yield f"curve-{number:06d}{suffix}", variant(some[number // 10 % len(some)], mark), 1
        else:
            yield f"curve-{number:06d}.jpk-force", variant(jpk[number % len(jpk)], mark), 1


def _broken(number: int) -> bytes:
    """Cut off, spoilt in the middle, no zip at all, or a curve without its samples."""
    whole = variant(make_jpk(*a_retract(_POINTS, number)), f"broken {number}")
    half = len(whole) // 2
    return (
        whole[: half + number % 100],
        whole[:half] + bytes(64) + whole[half + 64 :],
        b"no curve %d\n" % number * 40,
        variant(make_jpk(*a_retract(64, number), drop=(".dat",)), f"empty {number}"),
    )[number // _BROKEN_EACH % 4]


def _pack(archive: Path, curves: int) -> None:
    archive.unlink(missing_ok=True)
    words = ["pack", "--simulate", str(curves), "--seed", "5", "--prevalence", "0.1", "--out", str(archive)]
    subprocess.run([sys.executable, "-m", "daemon", *words], check=True, cwd=ROOT, capture_output=True, timeout=1800)
