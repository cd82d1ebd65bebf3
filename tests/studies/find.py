"""`make study TOPIC=find`: how long a search over a million curves takes, and whether it finds what a plain loop finds.

The million is simulated: ten instruments, fifty nights, two thousand curves a night, as tables a collector would leave
(:class:`daemon.tables.dataset.Dataset`, a part a night and instrument). One curve in 75 holds an event, with one to six
ruptures; the detector finds two in three of them, and one event-free curve in twenty has a mark that is none
(deploy/measurements/2026-11-28-ruptures.md). Single bonds break at 40 to 200 pN near the surface, chains like titin in
rows of 150 to 300 pN that lie 25 to 30 nm apart. Files without a spring constant, one in twelve, have no forces.

Each search is a process of its own, from its start to its end, as a person waits for it. *first* is the first of all,
*median* of those behind it: files then lie in the memory of the computer.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

from daemon.common.errors import INTERNAL, USAGE, UserError
from daemon.common.options import Option
from daemon.common.stdio import progress
from daemon.common.text import align, size
from daemon.tables import DECISIONS, schema
from daemon.tables.dataset import Dataset, parts_of
from models.files import write_whole

if TYPE_CHECKING:
    import pyarrow

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

FIRST_NIGHT = date(2026, 5, 11)
NIGHTS, INSTRUMENTS = 50, 10
_COLUMNS = 256  # of a preview
_EVENTS, _FOUND, _MARKS = 1 / 75, 0.65, 0.05
_NO_FORCES = 1 / 12  # of the files say no spring constant
_ENDING_S = 60.0

#: What a person might look for -> the words of it. June is 30 of the 50 nights.
JUNE = ("--since", "2026-06-01", "--until", "2026-06-30")
SEARCHES: dict[str, tuple[str, ...]] = {
    "150–250 pN at 60–120 nm, June": ("--force", "150..250", "--at", "60..120", *JUNE),
    "150–250 pN at 60–120 nm": ("--force", "150..250", "--at", "60..120"),
    "three of 150–300 pN, strongest": ("--force", "150..300", "--ruptures", "3..", "--order", "strongest"),
    "discards with 100 pN or more": ("--force", "100..", "--verdict", "discard"),
    "length 200 nm or more, one instrument": ("--length", "200..", "--instrument", "afm3"),
    "all that was kept": ("--verdict", "keep"),
    "everything": (),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The defaults take three minutes of two cores, and 700 MB of disk."""

    curves: Annotated[int, Option("of all nights together", "N")] = 1_000_000
    times: Annotated[int, Option("each search", "N")] = 5
    seed: Annotated[int, Option("of all draws", "N")] = 1
    work: Annotated[Path | None, Option("where the tables are made, and stay", "DIR", unless="they go")] = None
    out: Annotated[Path | None, Option("the table as JSON", "FILE.json")] = None


@dataclass(frozen=True, slots=True)
class Ruptures:
    """Of ``n`` curves. ``many`` (n,): of each; the others (sum of ``many``,)."""

    many: Whole
    force_pn: Floats
    position_nm: Floats


def ruptures_of(n: int, rng: np.random.Generator) -> tuple[NDArray[np.bool_], Ruptures]:
    """Which curves hold an event, and what the detector says of all of them."""
    is_event = rng.random(n) < _EVENTS
    is_chain = is_event & (rng.random(n) < 0.5)
    there = np.where(is_event, np.where(is_chain, rng.integers(2, 7, n), 1), 0)
    many = rng.binomial(there, _FOUND) + ((~is_event) & (rng.random(n) < _MARKS))
    of = np.repeat(np.arange(n), many)
    place = np.arange(of.shape[0]) - np.repeat(np.cumsum(many) - many, many)  # of each in its curve
    in_chain = is_chain[of]
    bond = np.exp(rng.normal(np.log(70.0), 0.5, of.shape[0]))
    unfolding = np.clip(rng.normal(210.0, 35.0, of.shape[0]), 60.0, None)
    first_nm = rng.gamma(2.0, 25.0, n)[of]
    position = first_nm + np.where(in_chain, place * rng.uniform(25.0, 30.0, n)[of], 0.0)
    return is_event, Ruptures(many.astype(np.int64), np.where(in_chain, unfolding, bond).round(2), position.round(2))


def previews(n: int, rng: np.random.Generator) -> list[bytes]:
    """Edges of a baseline with noise of its own, behind a push and a snap-off."""
    level = np.full((n, _COLUMNS), 80.0)
    level[:, :12] -= rng.uniform(20, 80, (n, 1)) * np.linspace(1.0, 0.0, 12)
    noise = rng.integers(1, 5, (n, 2, _COLUMNS), dtype=np.int16)
    edges = level[:, None, :].astype(np.int16) + noise * np.array([-1, 1], np.int16)[None, :, None]
    return [one.tobytes() for one in np.clip(edges, 0, 255).astype(np.uint8)]


def night(instrument: int, day: date, n: int, first_seq: int, rng: np.random.Generator) -> pyarrow.Table:
    """A night of one instrument as rows, from six in the evening on."""
    import pyarrow as pa

    is_event, found = ruptures_of(n, rng)
    start = datetime(day.year, day.month, day.day, 6, tzinfo=UTC)  # within one day of UTC: one part a night
    acquired_ms = int(start.timestamp() * 1e3) + np.sort(rng.integers(0, 12 * 3_600_000, n))
    score = np.where(is_event, rng.beta(4, 1, n), rng.beta(0.3, 12, n)).round(4)
    verdict = np.where(score >= 0.6, "keep", np.where(score >= 0.05, "review", "discard"))
    offsets = np.concatenate(([0], np.cumsum(found.many)))
    knows = rng.random(n) >= _NO_FORCES
    rupture = pa.StructArray.from_arrays(
        [
            pa.array(found.force_pn),
            pa.array((0.8 * found.force_pn).round(2)),
            pa.array(found.position_nm),
            pa.array(np.full(found.force_pn.shape[0], "separation")),
        ],
        fields=list(schema().field("ruptures").type.value_type),
    )
    strongest = np.full(n, np.nan)
    holds = np.flatnonzero(found.many)
    if holds.size:
        strongest[holds] = np.maximum.reduceat(found.force_pn, offsets[holds])
    stream, seqs = f"00000000-0000-4000-8000-{instrument:012d}", np.arange(first_seq, first_seq + n)
    axes = {"unit": "pN", "softness": 4.0, "low": -40.0, "high": 1000.0, "from_nm": -30.0, "to_nm": 900.0}
    latency = {"read": 0.0021, "raster": 0.0004, "infer": 0.0016, "total": 0.0183}
    cells: dict[str, Any] = {
        "instrument": [f"afm{instrument}"] * n,
        "stream": [stream] * n,
        "seq": seqs,
        "id": [f"{stream}:{seq}" for seq in seqs],
        "time": acquired_ms + 180,
        "folder": [f"/data/afm{instrument}"] * n,
        "path": [f"{day:%Y-%m-%d}/titin-{number:06d}.jpk-force" for number in range(n)],
        "curve": np.zeros(n, np.int64),
        "acquired": acquired_ms,
        "day": [day] * n,
        "sha256": [rng.bytes(32).hex() for _ in range(n)],
        "verdict": verdict.tolist(),
        "score": score,
        "discard_at": np.full(n, 0.05),
        "keep_at": np.full(n, 0.6),
        "reasons": [["score"]] * n,
        "model": ["shipped-2026-11-21"] * n,
        "pipeline": ["sigma-v1-256x128|sim-2026-11|thresholds:0.05/0.6"] * n,
        "score_basis": ["simulation"] * n,
        "prevalence": np.full(n, 0.013),
        "force_unit": ["N"] * n,
        "engine": ["onednn-cpu-int8"] * n,
        "latency_s": [latency] * n,
        "source": ["watch"] * n,
        "preview": previews(n, rng),
        "preview_axes": [axes] * n,
        "steps": rng.gamma(2.0, 1.5, n).round(3),
        "ruptures": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), rupture, mask=pa.array(~knows)),
        "strongest_rupture_pn": pa.array(np.where(knows, strongest, np.nan), pa.float64(), from_pandas=True),
    }
    made = []
    for one in schema():
        cell = cells.get(one.name)
        if cell is None:
            made.append(pa.nulls(n, one.type))
        elif isinstance(cell, pa.Array):
            made.append(cell.cast(one.type))
        else:
            made.append(
                pa.array(cell, pa.int64()).cast(one.type)
                if one.name in ("time", "acquired")
                else pa.array(cell, one.type)
            )
    return pa.Table.from_arrays(made, schema=schema())


def fill(tables: Path, curves: int, seed: int) -> Iterator[pyarrow.Table]:
    """Make the tables, night by night; each night as it was put there, for whoever looks at it too."""
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    each = max(curves // (NIGHTS * INSTRUMENTS), 1)
    with Dataset(tables / DECISIONS, schema(), ("day",)) as dataset:
        for number in range(NIGHTS):
            day = FIRST_NIGHT + timedelta(days=number)
            table = pa.concat_tables(night(one, day, each, number * each + 1, rng) for one in range(1, INSTRUMENTS + 1))
            dataset.commit(table)
            yield table


def matches(table: pyarrow.Table) -> int:
    """Curves with a rupture of 150 to 250 pN at 60 to 120 nm, one by one in plain Python."""
    every = table.column("ruptures").to_pylist()
    return sum(
        any(150 <= one["force_pn"] <= 250 and 60 <= one["position_nm"] <= 120 for one in some or ()) for some in every
    )


@dataclass(frozen=True, slots=True)
class Search:
    """What came of one: how many curves it told, and how long it took, start and end of its process included."""

    name: str
    curves: int
    first_s: float
    median_s: float


def search(name: str, words: tuple[str, ...], tables: Path, times: int) -> Search:
    """By the verb itself, as a person asks: it counts all, and shows 20 curves."""
    command = [sys.executable, "-m", "daemon", "find", "--tables", str(tables), *words]
    took_s, told = [], ""
    for _ in range(times):
        began_s = time.monotonic()
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_ENDING_S).stdout
        took_s.append(time.monotonic() - began_s)
    found = re.match(r"([\d,]+) curve", told)
    return Search(name, int(found[1].replace(",", "")) if found else 0, took_s[0], median(took_s))


def run(options: Options) -> int:
    """Exit 0 with the table; 70 when a search does not find what a plain loop finds."""
    if options.curves < NIGHTS * INSTRUMENTS or options.times < 1:
        raise UserError(USAGE, f"--curves {NIGHTS * INSTRUMENTS} and --times 1 are the least")
    with ExitStack() as closing:
        work = options.work or Path(closing.enter_context(TemporaryDirectory()))
        tables, wanted, in_june, curves = work / "tables", 0, 0, 0
        nights = fill(tables, options.curves, options.seed)
        for table in progress(nights, "nights", NIGHTS):
            count, day = matches(table), table.column("day")[0].as_py()
            wanted, curves = wanted + count, curves + table.num_rows
            in_june += count if day.month == 6 else 0
        disk_bytes = sum(file.stat().st_size for file in parts_of(tables / DECISIONS))
        told = [search(name, words, tables, options.times) for name, words in SEARCHES.items()]
    head = ("search", "curves", "first s", "median s")
    lines = [(one.name, f"{one.curves:,}", f"{one.first_s:.2f}", f"{one.median_s:.2f}") for one in told]
    print(f"{curves:,} curves, {size(disk_bytes)}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("\n".join(align([head, *lines])))
    is_right = [one.curves for one in told[:2]] == [in_june, wanted] and told[-1].curves == curves
    print(f"\na plain loop finds {in_june:,} and {wanted:,} of the first two: {'the same' if is_right else 'NOT so'}")
    if options.out is not None:
        write_whole(options.out, json.dumps([asdict(one) for one in told], indent=1).encode())
    return 0 if is_right else INTERNAL
