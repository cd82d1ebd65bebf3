"""`make study TOPIC=ruptures`: how far models.ruptures is off, and what it misses, on curves whose ruptures are known.

The truth is what the simulated detector would show of the force on what broke: with its error of the sensitivity, which
no reader of a file can know, and without its lag. Where several molecules pull side by side that is the drop of the
force, else the force against the baseline.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from daemon.common.errors import USAGE, UserError
from daemon.common.options import Option
from daemon.common.stdio import progress
from daemon.common.text import align
from models.files import write_whole
from models.ruptures import Rupture, prepare_to_tell, ruptures
from models.simulate import Scene, Simulated, compose, simulate
from models.simulate.mechanics import chance
from tests.studies.workplace import percent, share

NEAR = 0.012  # share of the retract within which a rupture is found
ONE_CHAIN = frozenset({"polymer", "far_out", "sawtooth", "dna"})  # one at a time: its force is that of the tip
FORCES_PN = (50.0, 100.0, 150.0)
STRENGTHS = ((0.0, 5.0), (5.0, 10.0), (10.0, 20.0), (20.0, math.inf))  # force, in times the noise of a sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Curves of the simulator, of which half hold an event. The default takes a minute on one core."""

    curves: Annotated[int, Option("simulated curves", "N")] = 6_000
    seed: Annotated[int, Option("9 and below were used while it was made", "N")] = 41
    judged: Annotated[int, Option("simulated events, and curves without, that the shipped model judges too", "N")] = 0
    out: Annotated[Path | None, Option("the figures as JSON", "FILE.json")] = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A true rupture, and what was found of it; nan where there is nothing to compare."""

    family: str
    strength: float  # force, in times the noise of a sample
    is_found: bool
    place: float = math.nan  # share of the retract
    truth_pn: float = math.nan
    told_pn: float = math.nan
    error_pn: float = math.nan
    apart_nm: float = math.nan  # of the separation


def run(options: Options) -> int:
    """Exit 0 with the tables."""
    if options.curves < 100 or min(options.seed, options.judged) < 0:
        raise UserError(USAGE, "--curves is 100 or more, --seed and --judged are 0 or more")
    pairs: list[Pair] = []
    marks = false = free = marked = 0
    spent_s = 0.0
    coming = simulate(options.curves, options.seed)
    for number, one in enumerate(progress(coming, "curves", options.curves)):
        began_s = time.process_time()
        found = ruptures(one.curve)
        spent_s += time.process_time() - began_s
        if one.label == "discard":
            free, marked = free + 1, marked + bool(found)
            continue
        made = compare(one, scene_of(options.seed, number), found)
        pairs += made
        marks += len(found)
        false += len(found) - sum(pair.is_found for pair in made)
    figures = {
        "curves": options.curves,
        "seed": options.seed,
        "milliseconds": 1e3 * spent_s / options.curves,
        "false": share(false, marks),
        "free": share(marked, free),
        "strengths": [row_of(f"{low:g} to {high:g}", some) for low, high, some in by_strength(pairs)],
        "families": [row_of(name, some) for name, some in by_family(pairs)],
        "all": row_of("all", pairs),
        "discards": discards(options.judged, options.seed) if options.judged else [],
    }
    if options.out is not None:
        write_whole(options.out, json.dumps(figures, indent=1).encode() + b"\n")
    print(write_text(figures))
    return 0


def discards(count: int, seed: int) -> list[dict[str, Any]]:
    """Of ``count`` simulated events, and as many curves without one: of those discarded, what their events tell.

    A row a force: true ruptures that reach it and are told as at least 0.7 of it, and curves without one that seem to.
    Only curves whose file says what makes a deflection a force.
    """
    from daemon.config import ThresholdsConfig
    from daemon.judging import verdict_of
    from daemon.judging.judge import judge_of, load_model

    model = load_model("shipped")
    judge, profile = judge_of(model, ThresholdsConfig()), model.bundle.profile
    found: list[tuple[float, float, bool]] = []  # true and told, pN, of the discards; whether the field has any
    for prevalence in (1.0, 0.0):
        coming = iter(progress(simulate(count, seed + 1, prevalence), "judged", count))
        while some := list(islice(coming, 64)):
            prepared = prepare_to_tell([one.curve for one in some], profile)
            for one, scored in zip(
                some, model.judge_prepared(prepared, judge.thresholds.both, drawn=False), strict=True
            ):
                if verdict_of(scored.score, scored.reasons, judge.thresholds) != "discard" or scored.prepared is None:
                    continue
                if (told := scored.prepared.ruptures) is not None:
                    true = max((each.force_pn for each in one.ruptures), default=0.0)
                    found.append((true, max((each.force_pn for each in told), default=0.0), bool(told)))
    rows = []
    for force in FORCES_PN:
        events, free = [one for one in found if one[0] >= force], [one for one in found if not one[0]]
        any_told, near = sum(one[2] for one in events), sum(one[1] >= 0.7 * force for one in events)
        seeming = sum(one[1] >= force for one in free)
        rows.append(
            {
                "force_pn": force,
                "told": share(any_told, len(events)),
                "near": share(near, len(events)),
                "seeming": share(seeming, len(free)),
            }
        )
    return rows


def scene_of(seed: int, number: int) -> Scene:
    """What a curve of :func:`models.simulate.simulate` was made from."""
    rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(number,))))
    return compose(rng, chance(rng, 0.5))


def compare(one: Simulated, scene: Scene, found: Sequence[Rupture]) -> list[Pair]:
    """Each true rupture with the nearest that was found; one that was found counts for one of them."""
    n, instrument, left = len(one.curve), scene.instrument, list(found)
    pairs: list[Pair] = []
    for true in one.ruptures:
        strength = true.force_pn / instrument.noise_pn
        near = [each for each in left if abs(each.index + 1 - true.index) <= NEAR * n]
        if not near:
            pairs.append(Pair(one.family, strength, is_found=False))
            continue
        each = min(near, key=lambda each: abs(each.index + 1 - true.index))
        left.remove(each)
        factor = {"pN": 1.0, "nm": instrument.spring}.get(each.unit, math.nan)
        told, error = (each.force, each.error) if one.family in ONE_CHAIN else (each.drop, each.drop_error)
        is_known = each.position_kind == "separation" and one.family in ONE_CHAIN
        bend = true.force_pn / instrument.spring
        at = float(instrument.travel_nm[true.index - 1]) - instrument.contact_nm - bend
        pairs.append(
            Pair(
                one.family,
                strength,
                is_found=True,
                place=abs(each.index + 1 - true.index) / n,
                truth_pn=instrument.gain * true.force_pn,
                told_pn=factor * told,
                error_pn=factor * error,
                apart_nm=abs(each.position_nm - at) if is_known else math.nan,
            )
        )
    return pairs


def by_strength(pairs: Sequence[Pair]) -> list[tuple[float, float, list[Pair]]]:
    """(low, high, those between)."""
    return [(low, high, [one for one in pairs if low <= one.strength < high]) for low, high in STRENGTHS]


def by_family(pairs: Sequence[Pair]) -> list[tuple[str, list[Pair]]]:
    """(family, its own), in order of the alphabet."""
    return [(name, [one for one in pairs if one.family == name]) for name in sorted({one.family for one in pairs})]


def row_of(name: str, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Median and 90 % of what they are off by, and how many were found."""
    off = finite((one.told_pn - one.truth_pn) / one.truth_pn for one in pairs)
    in_pn = finite(abs(one.told_pn - one.truth_pn) for one in pairs)
    within = finite(abs(one.told_pn - one.truth_pn) / one.error_pn for one in pairs)
    return {
        "name": name,
        "found": share(sum(one.is_found for one in pairs), len(pairs)),
        "bias": quantile(off, 0.5),
        "force": [quantile(np.abs(off), q) for q in (0.5, 0.9)],
        "force_pn": [quantile(in_pn, q) for q in (0.5, 0.9)],
        "place": [quantile(finite(one.place for one in pairs), q) for q in (0.5, 0.9)],
        "separation_nm": [quantile(finite(one.apart_nm for one in pairs), q) for q in (0.5, 0.9)],
        "within_two_errors": float(np.mean(within < 2)) if within.size else math.nan,
    }


def finite(values: Iterable[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Those that are numbers."""
    some = np.array(list(values), np.float64)
    return some[np.isfinite(some)]


def quantile(values: np.ndarray[Any, np.dtype[np.float64]], q: float) -> float:
    """NaN of nothing."""
    return float(np.quantile(values, q)) if values.size else math.nan


def write_text(found: dict[str, Any]) -> str:
    """Lines for a terminal."""
    head = ["", "found", "force: bias", "median", "90 %", "in pN: median", "90 %", "within 2 errors"]
    rows = [head, *(_cells(row) for row in (*found["strengths"], *found["families"], found["all"]))]
    of_all = found["all"]
    place, apart = of_all["place"], of_all["separation_nm"]
    return "\n".join(
        [
            f"{found['curves']} simulated curves, seed {found['seed']}: {found['milliseconds']:.1f} ms a curve",
            f"marks where nothing broke: {percent(found['false'])}; curves without an event that have one:"
            f" {percent(found['free'])}",
            f"place: off by {100 * place[0]:.3f} % of the retract at the median, 90 % within {100 * place[1]:.2f} %;"
            f" separation: {apart[0]:.1f} nm, 90 % within {apart[1]:.0f} nm",
            "",
            *align(rows),
            *(f"discards with a rupture of {row['force_pn']:g} pN: {_cell(row)}" for row in found["discards"]),
        ]
    )


def _cell(row: dict[str, Any]) -> str:
    told, near, seeming = (percent(row[name]) for name in ("told", "near", "seeming"))
    return f"of {row['told']['of']}, {told} are told with one, {near} near that; of those without, {seeming} as much"


def _cells(row: dict[str, Any]) -> list[str]:
    force = [f"{100 * value:.1f} %" for value in (row["bias"], *row["force"])]
    in_pn = [f"{value:.1f}" for value in row["force_pn"]]
    return [row["name"], percent(row["found"]), *force, *in_pn, f"{100 * row['within_two_errors']:.0f} %"]
