"""`make study TOPIC=flip`: is a curve upside down ever taken for an event, and what does looking cost.

Every curve is judged as its reader gives it and upside down. Four questions: does the check make doubt where the sign
is right; what would it find if the sign of all these curves were wrong; what becomes of verdicts if the sign is open;
and how many more pictures does the engine see.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from daemon.common.errors import USAGE, UserError
from daemon.common.options import Option
from daemon.common.text import align
from daemon.judging.sentinel import Sentinel
from models.files import write_whole

if TYPE_CHECKING:
    from daemon.judging import Judge, Thresholds
    from deploy.serving import Model, Scored
    from models.curve import Curve

BATCH = 64
PREVALENCE = 0.02


@dataclass(frozen=True, slots=True)
class Sample:
    """A curve whose truth is known."""

    group: str
    is_event: bool
    curve: Curve


@dataclass(frozen=True, slots=True, eq=False)
class Ways:
    """What is said of it as given, upside down, and with an open sign; its reasons stand in ``given``."""

    sample: Sample
    given: Scored
    upside_down: Scored
    open: Scored
    is_spot: tuple[bool, bool]  # whether the lot falls on it, as given and upside down


@dataclass(frozen=True, slots=True)
class Row:
    """One group of curves."""

    group: str
    curves: int
    events: int
    looks_like_an_event: int  # upside down at keep or above, of all
    discarded: int  # as given
    doubted: int  # of these, that are reviewed because of it, were all of them looked at
    doubted_live: int  # and by the sentinel
    alarm_after: int | None  # curves; None: never
    more_in_score: float  # pictures that the engine sees, as a share
    more_live: float  # and in service, where the sentinel grows wary
    lost: int  # events discarded if the sign of all were wrong, and nobody looked
    lost_live: int  # and with the sentinel
    alarm_after_if_wrong: int | None
    open_newly_discarded: int  # events discarded with an open sign that are not as given,
    open_saved: int  # and the reverse,
    open_cost: int  # and event-free curves that are discarded as given and not with an open sign


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Labelled folders, and curves of the simulator as a rare stream."""

    folders: Annotated[
        tuple[Path, ...], Option("labelled curves (each has a labels.csv)", "DIR", is_positional=True)
    ] = ()
    simulate: Annotated[int, Option("simulated curves beside them", "N")] = 5000
    seed: Annotated[int, Option("of the simulated ones", "N")] = 6_000_000
    model: Annotated[str, Option("the model that is asked")] = "shipped"
    out: Annotated[Path | None, Option("the table as JSON", "FILE.json")] = None


def run(options: Options) -> int:
    """Exit 0; UserError 65 for labels that make no sense."""
    from daemon.config import ThresholdsConfig
    from daemon.judging.judge import judge_of, load_model

    if options.simulate < 0 or options.seed < 0 or not (options.simulate or options.folders):
        raise UserError(USAGE, "name labelled folders, or give --simulate N; N and --seed are 0 or more")
    model = load_model(options.model)
    judge = judge_of(model, ThresholdsConfig())
    looked = list(look(samples(options.folders, options.simulate, options.seed), model))
    rows = [_row(group, some, judge) for group, some in _groups(looked)]
    if options.out:
        write_whole(options.out, json.dumps([asdict(row) for row in rows], indent=1).encode() + b"\n")
    print("\n".join(table(rows)))
    return 0


def samples(folders: Sequence[Path], simulated: int, seed: int) -> Iterator[Sample]:
    """Curves with a sure label, system by system, then simulated ones, two in a hundred with an event."""
    from daemon.common.stdio import progress
    from daemon.learn.evidence import curves_of, read_labels, refuse
    from models.simulate import simulate

    found, problems = read_labels(folders) if folders else [], list[str]()
    total = sum(len(folder.rows) for folder in found)
    for item in progress(curves_of(found, problems), "labelled curves", total):
        if item.row.label != "unsure":
            yield Sample(item.row.system, item.event, item.curve)
    refuse(problems)
    for one in progress(simulate(simulated, seed, PREVALENCE), "simulated curves", simulated):
        yield Sample("simulated", one.label == "keep", one.curve)


def look(coming: Iterable[Sample], model: Model) -> Iterator[Ways]:
    """Each curve judged in every way, as if its file stated the sign and without a check of it."""
    from models.frontend import OPEN, is_spot, prepare, prepare_to_judge, turned

    def stated(curve: Curve) -> Curve:
        return replace(curve, notes=tuple(note for note in curve.notes if note != OPEN))

    waiting, profile = iter(coming), model.bundle.profile
    while batch := list(islice(waiting, BATCH)):
        curves = [stated(one.curve) for one in batch]
        others = [turned(curve) for curve in curves]
        unsure = [replace(curve, notes=(*curve.notes, OPEN)) for curve in curves]
        ways = (prepare(curves, profile), prepare(others, profile), prepare_to_judge(unsure, profile))
        scored = (model.judge_prepared(way, drawn=False) for way in ways)
        for sample, other, given, upside_down, unsure_one in zip(batch, others, *scored, strict=True):
            yield Ways(sample, given, upside_down, unsure_one, (is_spot(sample.curve), is_spot(other)))


def _groups(looked: Sequence[Ways]) -> Iterator[tuple[str, list[Ways]]]:
    names = list(dict.fromkeys(one.sample.group for one in looked))
    if len(names) > 1:
        real = [one for one in looked if one.sample.group != "simulated"]
        yield "all labelled", real
    for name in names:
        yield name, [one for one in looked if one.sample.group == name]


def _row(group: str, looked: Sequence[Ways], judge: Judge) -> Row:
    thresholds = judge.thresholds
    keeps = [one.upside_down.score is not None and one.upside_down.score >= thresholds.keep for one in looked]
    discards = [_is_discard(one.given, thresholds) for one in looked]
    opens = [_is_discard(one.open, thresholds) for one in looked]
    events = [one.sample.is_event for one in looked]
    right = _live([(one, one.given, one.upside_down, one.is_spot[0]) for one in looked], thresholds)
    wrong = _live([(one, one.upside_down, one.given, one.is_spot[1]) for one in looked], thresholds)
    pictures = max(sum(one.given.score is not None for one in looked), 1)
    return Row(
        group=group,
        curves=len(looked),
        events=sum(events),
        looks_like_an_event=sum(keeps),
        discarded=sum(discards),
        doubted=sum(drop and keep for drop, keep in zip(discards, keeps, strict=True)),
        doubted_live=right.doubted,
        alarm_after=right.alarm_after,
        more_in_score=right.fixed / pictures,
        more_live=right.checked / pictures,
        lost=sum(one.sample.is_event and _is_discard(one.upside_down, thresholds) for one in looked),
        lost_live=wrong.lost,
        alarm_after_if_wrong=wrong.alarm_after,
        open_newly_discarded=sum(e and o and not d for e, o, d in zip(events, opens, discards, strict=True)),
        open_saved=sum(e and d and not o for e, o, d in zip(events, opens, discards, strict=True)),
        open_cost=sum(d and not o and not e for e, o, d in zip(events, opens, discards, strict=True)),
    )


@dataclass(slots=True)
class _Stream:
    """What became of a stream that the sentinel watched."""

    fixed: int = 0  # looked at whatever was before
    checked: int = 0  # looked at
    doubted: int = 0
    lost: int = 0  # events
    alarm_after: int | None = None


def _live(looked: Sequence[tuple[Ways, Scored, Scored, bool]], thresholds: Thresholds) -> _Stream:
    """(curve, as it is believed, upside down, whether the lot falls on it), one after the other, as in service."""
    sentinel, stream = Sentinel(), _Stream()
    for number, (one, believed, other, is_spot) in enumerate(looked, start=1):
        falls = _is_discard(believed, thresholds)
        is_fixed = falls and (is_spot or "no_contact" in believed.reasons)
        is_checked = is_fixed or (falls and bool(sentinel.wary_of))
        is_flipped = is_checked and other.score is not None and other.score >= thresholds.keep
        sentinel.observe("any", (*believed.reasons, "flipped") if is_flipped else believed.reasons)
        stream.fixed += is_fixed
        stream.checked += is_checked
        stream.doubted += is_flipped
        stream.lost += falls and one.sample.is_event and not is_flipped
        if stream.alarm_after is None and sentinel.summary():
            stream.alarm_after = number
    return stream


def _is_discard(one: Scored, thresholds: Thresholds) -> bool:
    from daemon.judging import verdict_of

    return verdict_of(one.score, one.reasons, thresholds) == "discard"


def table(rows: Sequence[Row]) -> list[str]:
    """Three tables in columns: is the check quiet, does it find, what does an open sign change."""

    def part(head: str, names: Sequence[str]) -> list[str]:
        cells = [[_cell(getattr(row, name)) for name in ("group", *names)] for row in rows]
        return [head, *align([["curves of", *(name.replace("_", " ") for name in names)], *cells]), ""]

    seen = ("curves", "looks_like_an_event", "discarded", "doubted", "doubted_live", "alarm_after")
    return [
        *part("The sign is right: does the check make doubt?", (*seen, "more_in_score", "more_live")),
        *part("The sign is wrong: what is lost?", ("events", "lost", "lost_live", "alarm_after_if_wrong")),
        *part("The sign is open: what changes?", ("events", "open_newly_discarded", "open_saved", "open_cost")),
    ][:-1]


def _cell(value: str | int | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1%}" if isinstance(value, float) else str(value)
