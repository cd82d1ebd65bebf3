"""`make study TOPIC=left-out`: do labels of other laboratories' curves help on a system that the model has never seen?

Each system in turn is left out: the model is fine-tuned on simulated curves mixed with the labelled ones of all
other systems, calibrated and cut on held-out simulated curves by the rule of ``train``, and judges the system that was
left out. Beside it stand the model as it is, and the same fine-tuning without labels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

from daemon.common.errors import BAD_DATA, UserError
from daemon.common.options import Option
from daemon.common.text import align
from daemon.learn.evidence import Collection
from models.metrics import auc, clopper_pearson
from tests.studies.resampling import Statistic, difference, spread
from tests.studies.trials import Answers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from daemon.learn.evidence import Collection


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A run that was ended goes on in ``--work``, fold by fold."""

    folders: Annotated[tuple[Path, ...], Option("with a labels.csv", "DIR", is_positional=True)]
    model: Annotated[str, Option("what is fine-tuned")] = "shipped"
    system_column: Annotated[str, Option("column that names systems", "NAME")] = "system"
    teach: Annotated[tuple[str, ...] | None, Option("systems whose labels teach", "GLOB", unless="all")] = None
    mute: Annotated[tuple[str, ...], Option("systems whose labels never teach", "GLOB")] = ()
    least: Annotated[int, Option("smaller systems are left out together", "N")] = 1
    apart: Annotated[tuple[str, ...], Option("pooled also without these", "GLOB")] = ()
    simulate: Annotated[int, Option("curves in the mix", "N")] = 10_000
    held_out: Annotated[int, Option("curves to calibrate on", "N")] = 6_000
    epochs: Annotated[int, Option("", "N")] = 1
    rate: Annotated[float, Option("", "R")] = 2e-4
    seed: Annotated[int, Option("", "N")] = 1
    threads: Annotated[int, Option("", "N")] = 1
    work: Annotated[Path, Option("kept folds", "DIR")] = Path(".left-out")
    out: Annotated[Path | None, Option("also what the table was made from", "FILE.json")] = None


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Systems that are judged by one fine-tuned model, and the curves that it was taught with."""

    tested: tuple[str, ...]
    taught: NDArray[np.bool_]  # (N,)


def run(options: Options) -> int:
    """Exit 0 with the table, 65 for labels that make no sense."""
    from daemon.learn.evidence import collect
    from daemon.learn.head import parent_of
    from tests.studies.trials import Tuner

    bundle = parent_of(options.model)
    collection = collect(options.folders, bundle.profile, options.system_column)
    folds = list(split(collection, options.teach or ["*"], options.mute, options.least))
    work = begin(options, bundle.id, collection)
    tuner = Tuner(
        bundle, options.simulate, options.held_out, options.epochs, options.rate, options.seed, options.threads, work
    )
    answers = {"as it is": tuner.judge_untuned(collection)}
    answers["no labels"] = tuner.judge("no-labels", collection, None)
    answers["labels"] = tuner.judge_untuned(collection)  # replaced fold by fold; what no fold tests stays as it is
    for number, fold in enumerate(folds):
        tuned = tuner.judge(f"fold-{number}", collection, fold.taught)
        for system in fold.tested:
            answers["labels"] = answers["labels"].replaced(tuned, collection.systems == system)
    found = {
        "model": bundle.id,
        "settings": settings(options),
        "left_out": collection.left_out,
        **report(collection, answers, options.apart, options.seed),
    }
    print(write_text(found))
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def split(collection: Collection, teach: Sequence[str], mute: Sequence[str], least: int = 1) -> Iterator[Fold]:
    """One fold a system whose labels teach; one more for all those whose labels never do.

    Those of fewer than ``least`` sure curves share a fold: fewer trainings, and none of them teaches another.
    """
    import numpy as np

    systems = [str(name) for name in np.unique(collection.systems)]
    teaching = [name for name in systems if _is_of(name, teach) and not _is_of(name, mute)]
    small = [name for name in teaching if (collection.sure & (collection.systems == name)).sum() < least]
    for tested in [(name,) for name in teaching if name not in small] + ([tuple(small)] if small else []):
        yield _fold(tested, [other for other in teaching if other not in tested], collection)
    if others := tuple(name for name in systems if name not in teaching):
        yield _fold(others, teaching, collection)


def _fold(tested: tuple[str, ...], taught: list[str], collection: Collection) -> Fold:
    import numpy as np

    mask = np.isin(collection.systems, taught)
    if not (mask & collection.events).any() or not (mask & collection.sure & ~collection.events).any():
        wanted = f"without {', '.join(tested)} no labelled events or no event-free curves are left to learn from"
        raise UserError(BAD_DATA, f"{wanted}; label more systems, or change --teach and --mute")
    return Fold(tested, mask)


def _is_of(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def settings(options: Options) -> dict[str, Any]:
    """What decides the outcome."""
    names = ("system_column", "teach", "mute", "least", "simulate", "held_out", "epochs", "rate", "seed")
    return {name: getattr(options, name) for name in names}


def begin(options: Options, model: str, collection: Collection) -> Path:
    """The work folder: gone on with when it is of this very study, else made afresh."""
    from tests.studies.workplace import open_workplace

    return open_workplace(options.work, {**settings(options), "model": model, "curves": collection.digest})


# The table of `left-out`: each system as the model as it is, without and with labels of the others judges
# it.

_FIGURES = ("auc", "recall", "discarded")


def report(
    collection: Collection, answers: Mapping[str, Answers], apart: Sequence[str], seed: int
) -> dict[str, dict[str, Any]]:
    """``{"groups": {name: {"events", "event_free", "unsure", "arms": {…}}}, "differences": {name: {…}}}``."""
    everything = np.ones(len(collection), bool)
    groups = {str(name): collection.systems == name for name in np.unique(collection.systems)}
    pooled = {"pooled": everything}
    if apart:
        chosen = np.array([any(fnmatchcase(str(name), glob) for glob in apart) for name in collection.systems])
        pooled = {f"pooled, without {', '.join(apart)}": ~chosen, **pooled}
    return {
        "groups": {name: _group(collection, answers, mask) for name, mask in {**groups, **pooled}.items()},
        "differences": {name: _gaps(collection, answers, mask, seed) for name, mask in pooled.items()},
    }


def _group(collection: Collection, answers: Mapping[str, Answers], mask: NDArray[np.bool_]) -> dict[str, Any]:
    events, free = mask & collection.events, mask & collection.sure & ~collection.events
    unsure = mask & ~collection.sure
    return {
        "events": int(events.sum()),
        "event_free": int(free.sum()),
        "unsure": int(unsure.sum()),
        "arms": {name: _figures(one, events, free, unsure) for name, one in answers.items()},
    }


def _figures(
    one: Answers, events: NDArray[np.bool_], free: NDArray[np.bool_], unsure: NDArray[np.bool_]
) -> dict[str, Any]:
    sure, below = events | free, one.verdicts == "discard"
    lost, cut, count, others = int(below[events].sum()), int(below[free].sum()), int(events.sum()), int(free.sum())
    return {
        "auc": auc(one.scores[sure], events[sure]),
        "auc_interval": spread(auc, one.scores[sure], events[sure]),
        "recall": (count - lost) / count if count else None,
        "recall_interval": clopper_pearson(count - lost, count),
        "discarded": cut / others if others else None,
        "discarded_interval": clopper_pearson(cut, others),
        "unsure_discarded": int(below[unsure].sum()),
    }


def _mean_of(wanted: bool) -> Statistic:
    """Mean of what a method says of the events, or of the event-free curves."""

    def statistic(values: NDArray[np.float64], events: NDArray[np.bool_]) -> float | None:
        chosen = values[events == wanted]
        return float(chosen.mean()) if chosen.size else None

    return statistic


def _gaps(collection: Collection, answers: Mapping[str, Answers], mask: NDArray[np.bool_], seed: int) -> dict[str, Any]:
    """With labels less without, paired over curves."""
    sure = mask & collection.sure
    events = collection.events[sure]
    first, second = answers["labels"], answers["no labels"]
    saved = [(one.verdicts[sure] != "discard").astype(float) for one in (first, second)]
    return {
        "auc": difference(auc, first.scores[sure], second.scores[sure], events, seed=seed),
        "recall": difference(_mean_of(True), saved[0], saved[1], events, seed=seed),
        "discarded": difference(_mean_of(False), 1 - saved[0], 1 - saved[1], events, seed=seed),
    }


def write_text(found: Mapping[str, Any]) -> str:
    """Lines for a terminal: one a system, three figures an arm."""
    arms = list(next(iter(found["groups"].values()))["arms"])
    rows = [["", "", "", *(part for arm in arms for part in (arm, "", ""))]]
    rows.append(["system", "events", "free", *(("AUC", "recall", "cut") * len(arms))])
    for name, group in found["groups"].items():
        cells = [_number(group["arms"][arm][figure]) for arm in arms for figure in _FIGURES]
        rows.append([name, str(group["events"]), str(group["event_free"]), *cells])
    lines = align(rows)
    notes = [
        f"{found['model']}; recall: events not discarded, cut: event-free curves discarded",
        *(line for name, gaps in found["differences"].items() for line in _lines(name, gaps)),
        *(
            f"{name}: unsure discarded "
            + ", ".join(f"{one['unsure_discarded']} ({arm})" for arm, one in group["arms"].items())
            + f" of {group['unsure']}"
            for name, group in found["groups"].items()
            if name.startswith("pooled")
        ),
    ]
    return "\n".join([*lines, "", *notes])


def _lines(name: str, gaps: Mapping[str, Sequence[float] | None]) -> list[str]:
    told = {figure: gap for figure, gap in gaps.items() if gap is not None}
    parts = [f"{figure} {gap[0]:+.3f} [{gap[1]:+.3f}, {gap[2]:+.3f}]" for figure, gap in told.items()]
    return [f"{name}: labels less no labels: {', '.join(parts)}"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
