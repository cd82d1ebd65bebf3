"""`make study TOPIC=baselines`: the model beside what a laboratory can have today, on labelled real curves.

A step detector without learning, and the plain published recipe, trained on simulated curves; beside the latter our own
recipe from scratch on the very same curves, as many times through them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

from daemon.bench.recipe import SIDE, Pictures, draw
from daemon.common.options import Option
from daemon.common.stdio import progress
from daemon.common.text import align
from daemon.labels.table import plain_path, read_csv, read_index
from daemon.learn.evidence import Collection
from deploy.torch_engine import bf16_in_hardware
from models.curve import Curve
from models.files import unfinished
from models.metrics import auc
from models.raster import RasterProfile
from models.simulate import Simulated, simulate
from models.train import Recipe, Run, gather, infer
from tests.studies.published import PublishedRun, Settings
from tests.studies.resampling import STATISTICS, difference, spread

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from daemon.learn.evidence import Collection
    from models.bundle import Bundle


STEPS, PUBLISHED, EQUAL = "step detector", "published recipe", "our recipe, equal curves"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A run that was ended goes on in ``--work``."""

    folders: Annotated[tuple[Path, ...], Option("with a labels.csv", "DIR", is_positional=True)]
    model: Annotated[str, Option("what is compared")] = "shipped"
    system_column: Annotated[str, Option("column that names systems", "NAME")] = "system"
    apart: Annotated[tuple[str, ...], Option("pooled also without these", "GLOB")] = ()
    simulate: Annotated[int, Option("curves to train on; 0: none", "N")] = 4_000
    epochs: Annotated[int, Option("times through them", "N")] = 3
    seed: Annotated[int, Option("", "N")] = 1
    threads: Annotated[int, Option("", "N")] = 1
    work: Annotated[Path, Option("kept work", "DIR")] = Path(".baselines")
    out: Annotated[Path | None, Option("also what the table was made from", "FILE.json")] = None


def run(options: Options) -> int:
    """Exit 0 with the table, 65 for labels that make no sense."""
    from daemon.learn.evidence import collect
    from daemon.learn.head import parent_of
    from models.steps import detect

    bundle = parent_of(options.model)
    collection = collect(options.folders, bundle.profile, options.system_column)
    scores = {"the model": _score(bundle, collection), STEPS: detect(collection.curves)}
    if options.simulate:
        scores |= _train(options, bundle, collection)
    names = [(row.path, row.index) for row in collection.rows]
    by_name = {method: dict(zip(names, told.tolist(), strict=True)) for method, told in scores.items()}
    found: dict[str, Any] = {
        "model": bundle.id,
        "settings": {name: getattr(options, name) for name in ("simulate", "epochs", "seed", "system_column")},
        "groups": report(collection, scores, options.apart, options.seed),
        "labelled_twice": compare(read_twice(options.folders), by_name),
    }
    print(write_text(found))
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def _score(bundle: Bundle, collection: Collection) -> NDArray[np.float64]:
    import torch

    from models.network import load
    from models.train import infer

    weights = {name: torch.from_numpy(tensor) for name, tensor in bundle.weights.items()}
    return infer(load(bundle.width, weights), collection.edges, bundle.profile)


def _train(options: Options, bundle: Bundle, collection: Collection) -> dict[str, NDArray[np.float64]]:
    """Both recipes on the same simulated curves."""
    from tests.studies.workplace import open_workplace

    settings = {name: getattr(options, name) for name in ("simulate", "epochs", "seed")}
    work = open_workplace(options.work, {**settings, "profile": bundle.profile.id})
    contest = Contest(bundle.profile, options.simulate, options.epochs, options.seed, options.threads, work)
    return {PUBLISHED: contest.published(collection), EQUAL: contest.ours(collection)}


# The ceiling: where curves were labelled twice, how well one set of labels knows the other.
#
# A method that is judged by labels cannot be shown to be better than they agree among themselves. Read from a
# column ``source_label`` of ``first=…;final=…``, in which every word but ``none`` is an event.

NO_EVENT = "none"


@dataclass(frozen=True, slots=True, eq=False)
class Twice:
    """N curves that were labelled twice."""

    names: tuple[tuple[str, int], ...]  # path and index
    first: NDArray[np.bool_]  # (N,), event or not
    final: NDArray[np.bool_]


def read_twice(folders: Sequence[Path]) -> Twice:
    """Every row that has both words; none where the column is missing."""
    found: dict[tuple[str, int], tuple[bool, bool]] = {}
    for folder in folders:
        for _, cells in read_csv((folder / "labels.csv").read_bytes()).rows:
            words = dict(part.split("=", 1) for part in cells.get("source_label", "").split(";") if "=" in part)
            if "first" in words and "final" in words:
                name = (plain_path(cells["path"]), read_index(cells.get("curve_index", "")))
                found[name] = (words["first"] != NO_EVENT, words["final"] != NO_EVENT)
    both = np.array(list(found.values()), bool).reshape(-1, 2)
    return Twice(tuple(found), both[:, 0], both[:, 1])


def compare(twice: Twice, scores: Mapping[str, Mapping[tuple[str, int], float]]) -> dict[str, object] | None:
    """Agreement, Cohen's kappa, and the AUC against ``first`` of knowing ``final``, beside that of each method.

    None where nothing was labelled twice. ``scores``: method -> curve -> score.
    """
    if not twice.names:
        return None
    known = [place for place, name in enumerate(twice.names) if all(name in method for method in scores.values())]
    first, final = twice.first[known], twice.final[known]
    agree = float((first == final).mean())
    chance = float(first.mean() * final.mean() + (1 - first.mean()) * (1 - final.mean()))
    names = [twice.names[place] for place in known]
    methods = {name: [method[curve] for curve in names] for name, method in scores.items()}
    return {
        "curves": len(known),
        "agreement": agree,
        "kappa": (agree - chance) / (1 - chance) if chance < 1 else None,
        "final_knows_first": auc(final.astype(float), first),
        "first_knows_final": auc(first.astype(float), final),
        "methods": {name: {"first": auc(told, first), "final": auc(told, final)} for name, told in methods.items()},
    }


# The table of `make study TOPIC=baselines`: each system and all of them, method by method.

Scores = Mapping[str, NDArray[np.float64]]


def report(collection: Collection, scores: Scores, apart: Sequence[str], seed: int) -> dict[str, Any]:
    """``{group: {"events", "event_free", "methods": {name: {statistic: …}}}}``; ambiguous curves are left aside."""
    chosen = np.array([any(fnmatchcase(str(name), glob) for glob in apart) for name in collection.systems])
    groups = {str(name): collection.systems == name for name in np.unique(collection.systems)}
    if apart:
        groups[f"pooled, without {', '.join(apart)}"] = ~chosen
        groups[f"pooled, {', '.join(apart)} alone"] = chosen
    groups["pooled"] = np.ones(len(collection), bool)
    return {name: _group(collection, scores, mask, seed) for name, mask in groups.items()}


def _group(collection: Collection, scores: Scores, mask: NDArray[np.bool_], seed: int) -> dict[str, Any]:
    mask = mask & collection.sure
    events = collection.events[mask]
    told = {name: method[mask] for name, method in scores.items()}
    first = next(iter(told.values()))
    return {
        "events": int(events.sum()),
        "event_free": int((~events).sum()),
        "methods": {
            method: {
                name: {"value": of(values, events), "interval": spread(of, values, events, seed=seed)}
                | ({} if values is first else {"less_the_model": difference(of, values, first, events, seed=seed)})
                for name, of in STATISTICS.items()
            }
            for method, values in told.items()
        },
    }


def write_text(found: Mapping[str, Any]) -> str:
    """Lines for a terminal: systems with both kinds, one line a method."""
    rows = [["system", "events", "free", "method", "AUC", "", "AP", "", "cut at 98 %", ""]]
    for name, group in found["groups"].items():
        if not group["events"] or not group["event_free"]:
            continue
        for place, (method, figures) in enumerate(group["methods"].items()):
            head = [name, str(group["events"]), str(group["event_free"])] if place == 0 else ["", "", ""]
            rows.append([*head, method, *(cell for figure in figures.values() for cell in _cells(figure))])
    lines = align(rows, left=range(len(rows[0])))
    notes = [
        f"{found['model']}; cut at 98 %: event-free curves below the highest cut that saves 98 % of the events;",
        "brackets: 95 %, bootstrap over curves. Systems of one kind of curve stand in the pooled lines only.",
    ]
    return "\n".join([*lines, "", *notes, *_ceiling(found["labelled_twice"])])


def _ceiling(twice: Mapping[str, Any] | None) -> list[str]:
    if twice is None:
        return []
    lines = [
        "",
        f"labelled twice: {twice['curves']} curves; event or not, the labels agree on {twice['agreement']:.1%}"
        f" (kappa {_number(twice['kappa'])}).",
        f"AUC against the first labels of one who knows the final ones: {_number(twice['final_knows_first'])};"
        f" the other way round {_number(twice['first_knows_final'])}.",
    ]
    for name, told in twice["methods"].items():
        lines.append(f"  {name}: {_number(told['first'])} against the first, {_number(told['final'])} the final")
    return lines


def _cells(figure: Mapping[str, Any]) -> tuple[str, str]:
    limits = figure["interval"]
    return _number(figure["value"]), "" if limits is None else f"[{limits[0]:.3f}, {limits[1]:.3f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


# Two recipes, one set of simulated curves: the published one and ours, each from scratch.

CONTEST_SEED = 3_000_000  # added to the seed: curves that no other part has drawn


@dataclass(frozen=True, slots=True)
class Contest:
    """What both recipes are given; everything long is kept in ``work``."""

    profile: RasterProfile
    simulated: int
    epochs: int
    seed: int
    threads: int
    work: Path

    def published(self, collection: Collection) -> NDArray[np.float64]:
        """(N,) logits of the published recipe."""
        events = np.array([item.label == "keep" for item in self._curves()])
        pictures = self._pictures((item.curve for item in self._curves()), self.simulated, "drawing simulated curves")
        settings = Settings(epochs=self.epochs, seed=self.seed, threads=self.threads, bf16=bf16_in_hardware())
        run = PublishedRun(pictures, events, settings, self.work / "published")
        for _ in progress(run, "the published recipe", len(run)):
            pass
        return run.score(np.stack(list(progress(draw(collection.curves), "drawing real curves", len(collection)))))

    def ours(self, collection: Collection) -> NDArray[np.float64]:
        """(N,) logits of our recipe, on those of the same curves that can be scored."""
        examples = gather(((item.curve, item.label == "keep") for item in self._curves()), self.profile)
        recipe = Recipe(epochs=self.epochs, seed=self.seed, threads=self.threads, bf16=bf16_in_hardware())
        run = Run(examples, self.profile, recipe, checkpoint=self.work / "ours")
        for _ in progress(run, "our recipe on the same curves", len(run)):
            pass
        return infer(run.network, collection.edges, self.profile)

    def _curves(self) -> Iterable[Simulated]:
        return simulate(self.simulated, self.seed + CONTEST_SEED, 0.5)

    def _pictures(self, curves: Iterable[Curve], count: int, what: str) -> Pictures:
        """Drawn once: 50 kB a picture."""
        kept = self.work / "pictures.npy"
        if not kept.is_file():
            pictures = np.zeros((count, SIDE, SIDE), np.uint8)
            for place, picture in enumerate(progress(draw(curves), what, count)):
                pictures[place] = picture
            with unfinished(kept) as fresh, fresh.open("wb") as stream:
                np.save(stream, pictures, allow_pickle=False)
        return np.asarray(np.load(kept, allow_pickle=False))
