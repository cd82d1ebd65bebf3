"""Study losses: every loss on an equal budget, over several seeds, and whether any differs from cross entropy.

Thresholds are chosen for each training by the one rule that the shipped model's are (daemon/learn). A trained
network is kept in ``--work``, so the study goes on after an interruption and can be extended by losses, seeds and sets.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from daemon.common.errors import USAGE, UserError
from daemon.common.options import Option
from daemon.common.text import align

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tests.studies.resampling import Comparison, Outcome
    from tests.studies.trials import Pool, Trials


EVENTS, CURVES = 13, 970  # of the stream whose results are published (arXiv 2606.09541)
ALL = "bce focal asymmetric_focal weighted_bce dice focal_dice multi"  # the first is what the others are held against


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Defaults fit a night on two cores."""

    folders: Annotated[tuple[Path, ...], Option("labelled folders to judge as well", "DIR", is_positional=True)] = ()
    losses: Annotated[tuple[str, ...], Option(f"first: reference ({ALL})", "NAME", nargs="+", unless="")] = tuple(
        ALL.split()
    )
    seeds: Annotated[int, Option("trainings of each loss", "N")] = 3
    curves: Annotated[int, Option("simulated curves to train on", "N")] = 30_000
    held_out: Annotated[int, Option("to calibrate on", "N")] = 8_000
    judged: Annotated[int, Option("to make streams of", "N")] = 10_000
    epochs: Annotated[int, Option("times through the data", "N")] = 2
    width: Annotated[int, Option("channels of the first layer", "N")] = 16
    size: Annotated[int, Option("columns and rows of the picture", "N")] = 96
    system_column: Annotated[str, Option("column that names systems", "NAME")] = "system"
    apart: Annotated[tuple[str, ...], Option("systems in a set of their own", "GLOB")] = ()
    draws: Annotated[int, Option("of the bootstrap", "N")] = 1000
    seed: Annotated[int, Option("of data and bootstrap", "N")] = 3_000_000
    threads: Annotated[int, Option("", "N")] = 1
    work: Annotated[Path, Option("keeps what is trained", "DIR")]
    out: Annotated[Path | None, Option("also what the tables were made from", "FILE.json")] = None


def run(options: Options) -> int:
    """Exit 0 with the tables, 64 for options and 65 for labels that make no sense."""
    _check(options)
    from models.raster import RasterProfile
    from tests.studies.trials import Budget, Trials, train_all

    profile = RasterProfile(columns=options.size, rows=options.size)
    real = _real_sets(options, profile) if options.folders else {}
    budget = Budget(
        options.curves,
        options.held_out,
        options.judged,
        options.epochs,
        options.width,
        profile,
        options.seed,
        threads=options.threads,
    )
    trials, seeds = Trials(budget, options.work), range(1, options.seeds + 1)
    train_all(trials, options.losses, seeds)
    sets: dict[str, tuple[Pool, float | None]] = {"simulated streams": (trials.judged(), EVENTS / CURVES)}
    sets |= {name: (pool, None) for name, pool in real.items()}
    report: dict[str, Any] = {"budget": budget.settings, "losses": options.losses, "seeds": list(seeds), "sets": {}}
    for name, (pool, share) in sets.items():
        report["sets"][name] = _compare(options, trials, name, pool, share)
    print(write_text(report))
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=1), encoding="utf-8")
        print(f"written: {options.out}", file=sys.stderr)
    return 0


def _check(options: Options) -> None:
    from models.loss import select

    for loss in options.losses:
        try:
            select(loss)
        except ValueError as error:
            raise UserError(USAGE, f"--losses: {error}") from None
    counts = (options.curves, options.held_out, options.judged)
    if min(counts) < 100 or min(options.epochs, options.seeds, options.draws, options.threads) < 1:
        raise UserError(USAGE, "--curves, --held-out and --judged are 100 or more, the other numbers 1 or more")
    if options.size not in range(64, 513, 32) or not 4 <= options.width <= 128:
        raise UserError(USAGE, "--size is a multiple of 32 from 64 to 512, --width 4 to 128")
    if len(set(options.losses)) < len(options.losses):
        raise UserError(USAGE, "--losses names one twice")


def _real_sets(options: Options, profile: Any) -> dict[str, Pool]:
    """The labelled curves that are sure, in two sets; one that lacks a kind is left out."""
    import numpy as np

    from daemon.learn.evidence import collect
    from models.reasons import LIFTING
    from tests.studies.trials import Pool

    found = collect(options.folders, profile, options.system_column)
    doubtful = np.array([bool(LIFTING.intersection(reasons)) for reasons in found.reasons])
    apart = np.array([any(fnmatchcase(name, glob) for glob in options.apart) for name in found.systems], bool)
    globs = ", ".join(options.apart)
    names = (f"labelled curves, without {globs}" if globs else "labelled curves", f"labelled curves of {globs}")
    sets = {}
    for name, chosen in zip(names, (found.sure & ~apart, found.sure & apart), strict=True):
        events = found.events[chosen]
        if events.any() and not events.all():
            sets[name] = Pool(found.edges[chosen], events, doubtful[chosen])
    return sets


def _compare(options: Options, trials: Trials, name: str, pool: Pool, share: float | None) -> dict[str, Any]:
    import numpy as np

    from tests.studies.resampling import compare

    seeds = range(1, options.seeds + 1)
    outcomes = [_outcome(trials, loss, seeds, name, pool, share) for loss in options.losses]
    compared = compare(outcomes, options.draws, options.seed)
    count, ones = CURVES if share else pool.events.size, np.ones(pool.events.size)
    tables = [outcome.tables(ones).mean(0) * count for outcome in outcomes]
    return {
        "events": int(pool.events.sum()),
        "event_free": int((~pool.events).sum()),
        "share": share,
        "losses": {
            loss: {"table": tables[place].tolist(), **_told(compared[place])}
            for place, loss in enumerate(options.losses)
        },
    }


def _outcome(trials: Trials, loss: str, seeds: range, name: str, pool: Pool, share: float | None) -> Outcome:
    import numpy as np

    from models.calibrate import choose_cut, fit_platt
    from tests.studies.resampling import Outcome

    held_out = trials.held_out()
    scores: list[NDArray[np.float64]] = []
    verdicts: list[NDArray[np.str_]] = []
    for seed in seeds:
        known = trials.logits(loss, seed, "held-out", held_out)
        calibration = fit_platt(known, held_out.events, 0.02)
        cut = choose_cut(calibration, known, held_out.events)
        if share is None:  # real curves are few, and the folders may be others next time
            logits = trials.infer(trials.network(loss, seed), pool)
        else:
            logits = trials.logits(loss, seed, "judged", pool)
        scores.append(logits)  # the calibration keeps the order, and logits do not run into 1.0
        verdicts.append(pool.judge(calibration.score(logits), cut.discard, cut.keep))
    return Outcome(np.stack(scores), np.stack(verdicts), pool.events, share)


def _told(found: Comparison) -> dict[str, Any]:
    """Each figure by its name: mean, difference with both intervals, and the difference of each seed."""
    from tests.studies.resampling import FIGURES

    return {
        figure: {
            "mean": float(found.mean[k]),
            "difference": float(found.difference[k]),
            "interval": [float(found.low[k]), float(found.high[k])],
            "strict": [float(found.strict_low[k]), float(found.strict_high[k])],
            "by_seed": found.by_seed[:, k].tolist(),
        }
        for k, figure in enumerate(FIGURES)
    }


# The losses as tables for a terminal, and in one sentence each what the tables say.

#: figure -> what its column is called
_NAMES = {
    "ap": "AP",
    "recall": "recall",
    "cut": "event-free discarded",
    "review": "left to a person",
    "keep": "kept",
}
_BETTER = {"ap": 1, "recall": 1, "cut": 1}  # more of these is better; the others have no better side of their own


def write_text(report: Mapping[str, Any]) -> str:
    """The whole study; ``report`` is what ``--out`` writes."""
    budget = report["budget"]
    size = f"{budget['profile']['columns']}x{budget['profile']['rows']}"
    lines = [
        f"each loss: {budget['curves']} simulated curves, {budget['epochs']} epochs, width {budget['width']}, {size}, "
        f"{len(report['seeds'])} seeds; thresholds of each training from {budget['held_out']} held-out curves",
    ]
    for name, found in report["sets"].items():
        lines += ["", *_set(name, found, report["losses"])]
    return "\n".join(lines)


def _set(name: str, found: Mapping[str, Any], losses: Sequence[str]) -> list[str]:
    mix = ", weighted to 13 events among 970; counts are of one such stream" if found["share"] else ""
    title = f"{name}: {found['events']} events, {found['event_free']} event-free curves{mix}; means over seeds"
    head = ("loss", *_NAMES.values(), "events kept/review/discarded", "event-free kept/review/discarded")
    figures = [
        (loss, *(f"{one[key]['mean']:.4f}" for key in _NAMES), *_triage(one["table"], bool(found["share"])))
        for loss, one in found["losses"].items()
    ]
    differences = [("less " + losses[0], *(f"{_NAMES[key]} [95 %]" for key in _NAMES))]
    differences += [
        (loss, *(_difference(one[key]) for key in _NAMES)) for loss, one in list(found["losses"].items())[1:]
    ]
    return [title, *align([head, *figures]), "", *align(differences), *_sentences(found, losses)]


def _triage(table: Sequence[Sequence[float]], rare: bool) -> tuple[str, str]:
    event, none = ([row[side] for row in table] for side in (0, 1))
    return "/".join(f"{n:.2f}" if rare else f"{n:.1f}" for n in event), "/".join(f"{n:.1f}" for n in none)


def _difference(one: Mapping[str, Any]) -> str:
    """A star where the interval excludes 0, two where the one that all comparisons together keep does too."""
    stars: int = sum(low > 0 or high < 0 for low, high in (one["interval"], one["strict"]))
    low, high = one["interval"]
    return f"{one['difference']:+.4f} [{low:+.4f}, {high:+.4f}]" + "*" * stars


def _sentences(found: Mapping[str, Any], losses: Sequence[str]) -> list[str]:
    told = []
    for key, sign in _BETTER.items():
        sides: dict[str, list[str]] = {"better": [], "worse": []}
        for loss in losses[1:]:
            low, high = found["losses"][loss][key]["strict"]
            if low > 0 or high < 0:
                sides["better" if sign * low > 0 else "worse"].append(loss)
        text = "; ".join(f"{side} than {losses[0]}: {', '.join(who)}" for side, who in sides.items() if who)
        told.append(f"{_NAMES[key]}: {text or f'no loss differs from {losses[0]}'}")
    return ["** at 95 % for all comparisons together (Bonferroni), * for this one alone. By **:", *told]
