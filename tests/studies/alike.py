"""`make study TOPIC=alike`: are curves that look alike of one label, so that a sheet of them is answered at a glance.

Labelled curves, system by system and all together, are laid on sheets of look-alikes. Counted are those that a person
would have to tap: on each sheet the curves of the rarer label. Chance is the same sheets with the labels shuffled.
"""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from daemon.common.errors import USAGE, UserError
from daemon.common.options import Option
from daemon.common.text import align
from models.files import write_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHUFFLES = 1_000
NEAREST = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One group of curves; shares of its curves."""

    group: str
    curves: int
    events: int
    size: int  # of a sheet
    taps: float  # on a sheet of the rarer label
    taps_by_chance: float
    p: float  # shuffles with as few taps
    nearest_agree: float  # of the five that look most alike, of the same label
    nearest_by_chance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Labelled folders."""

    folders: Annotated[
        tuple[Path, ...], Option("labelled curves (each has a labels.csv)", "DIR", is_positional=True)
    ] = ()
    size: Annotated[int, Option("curves on a sheet", "N")] = 24
    least: Annotated[int, Option("curves that a system must have to be a row", "N")] = 20
    seed: Annotated[int, Option("of the shuffles", "N")] = 1
    out: Annotated[Path | None, Option("the table as JSON", "FILE.json")] = None


def run(options: Options) -> int:
    """Exit 0; UserError 65 for labels that make no sense."""
    from daemon.learn.evidence import collect
    from daemon.review.lookalikes import describe
    from models.raster import RasterProfile, previews

    if not options.folders or options.size < 2:
        raise UserError(USAGE, "name labelled folders, and sheets of two curves or more")
    found = collect(options.folders, RasterProfile())
    drawn = b"".join(b64decode(one) for one in previews(found.edges, RasterProfile()))
    described = describe(np.frombuffer(drawn, np.uint8).reshape(len(found), 2, -1))
    rng = np.random.default_rng(options.seed)
    groups = {"all": found.sure}
    groups |= {str(name): found.sure & (found.systems == name) for name in dict.fromkeys(found.systems)}
    rows = [
        row_of(name, described[where], found.events[where], options.size, rng)
        for name, where in groups.items()
        if where.sum() >= options.least and 0 < found.events[where].sum() < where.sum()
    ]
    if options.out:
        write_whole(options.out, json.dumps([asdict(row) for row in rows], indent=1).encode() + b"\n")
    cells = [[f"{one:.3g}" if isinstance(one, float) else str(one) for one in asdict(row).values()] for row in rows]
    print("\n".join(align([[name.replace("_", " ") for name in Row.__slots__], *cells])))
    return 0


def row_of(
    group: str, described: NDArray[np.float32], events: NDArray[np.bool_], size: int, rng: np.random.Generator
) -> Row:
    """``described`` (n, d) as the page's sheets have it, ``events`` (n,)."""
    from daemon.review.lookalikes import split

    sheets = split(described, size)

    def taps(labels: NDArray[np.bool_]) -> float:
        return sum(min(int(labels[one].sum()), one.size - int(labels[one].sum())) for one in sheets) / labels.size

    by_chance = np.array([taps(rng.permutation(events)) for _ in range(SHUFFLES)])
    away = ((described[:, None] - described[None]) ** 2).sum(axis=2)
    np.fill_diagonal(away, np.inf)
    agree = events[np.argsort(away, axis=1)[:, :NEAREST]] == events[:, None]
    share = float(events.mean())
    return Row(
        group=group,
        curves=events.size,
        events=int(events.sum()),
        size=size,
        taps=taps(events),
        taps_by_chance=float(by_chance.mean()),
        p=float((1 + (by_chance <= taps(events)).sum()) / (1 + SHUFFLES)),
        nearest_agree=float(agree.mean()),
        nearest_by_chance=share**2 + (1 - share) ** 2,
    )
