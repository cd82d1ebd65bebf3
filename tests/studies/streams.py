"""Study streams: a model on streams in which events are rare, simulated ones and, as far as files go, real ones.

Event-free curves decide how much is left to a person, and no two runs have the same. The simulated ones are hard on
purpose, so two mixes are told: all kinds as the simulator draws them, and mostly plain ones, as in the published
stream, of which 880 of 957 were discarded as plain noise. A control run of one's own, in which nothing can bind, says
more than either.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from daemon.batch import score
from daemon.common.errors import BAD_DATA, USAGE, UserError
from daemon.common.options import Option
from daemon.common.stdio import progress
from daemon.common.text import align
from daemon.judging import Judge, verdict_of
from daemon.learn.evaluation import judge_all
from daemon.learn.evidence import LabelledFolder, curves_of
from daemon.reading.ahead import Found
from deploy.serving import Model
from models.reasons import DOUBTS, LIFTING
from models.simulate import Simulated, simulate

if TYPE_CHECKING:
    from daemon.judging import Judge
    from deploy.serving import Model


EVENTS, CURVES, PLAIN = 13, 970, 880
#: Families of models.simulate in which the tip touches, lets go at once or not at all, and nothing else is meant.
PLAIN_KINDS = ("contact", "snap_off", "noise")
RECALLS = (0.98, 0.99, 0.995)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The defaults take two minutes on one core."""

    folders: Annotated[tuple[Path, ...], Option("labelled folders for real streams", "DIR", is_positional=True)] = ()
    control: Annotated[tuple[Path, ...], Option("nothing binds in it", "PATH")] = ()
    model: Annotated[str, Option("shipped, or a model folder")] = "shipped"
    device: Annotated[Literal["auto", "cpu", "cuda"], Option("where it runs")] = "auto"
    streams: Annotated[int, Option("how many", "N")] = 200
    pool: Annotated[int, Option("event-free curves they share; 0: no curve twice", "N")] = 20_000
    system_column: Annotated[str, Option("column that names systems", "NAME")] = "system"
    apart: Annotated[tuple[str, ...], Option("systems not pooled with others", "GLOB")] = ()
    least: Annotated[int, Option("of each kind for a line of its own", "N")] = 4
    seed: Annotated[int, Option("no training has used it", "N")] = 970_013
    out: Annotated[Path | None, Option("also what the tables were made from", "FILE.json")] = None


def run(options: Options) -> int:
    """Exit 0 with the tables, 64 for options and 65 for labels that make no sense."""
    if options.streams < 1 or options.least < 1 or not (options.pool == 0 or options.pool >= CURVES):
        raise UserError(USAGE, f"--streams and --least are 1 or more, --pool is 0 or at least {CURVES}")
    from daemon.config import ThresholdsConfig
    from daemon.judging.judge import judge_of, load_model
    from daemon.learn.evidence import read_labels
    from deploy.classifier import EngineRequest

    labels = read_labels(options.folders, options.system_column)  # said first, before minutes of simulation
    model = load_model(options.model, EngineRequest(options.device))
    judge = judge_of(model, ThresholdsConfig())
    control = judge_control(options.control, model, judge) if options.control else None
    real = judge_labelled(labels, model, judge) if labels else None
    report: dict[str, Any] = {
        "model": judge.model,
        "engine": str(judge.engine),
        "thresholds": {"discard": judge.thresholds.discard, "keep": judge.thresholds.keep},
        **{name: getattr(options, name) for name in ("streams", "pool", "seed", "least")},
        "simulated": _simulated(options, model, judge, control),
        "real": {} if real is None else _real(options, *real),
    }
    print(write_text(report))
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=1), encoding="utf-8")
        print(f"written: {options.out}", file=sys.stderr)
    return 0


def _simulated(options: Options, model: Model, judge: Judge, control: Answers | None) -> dict[str, Any]:
    """Streams of fresh events among each mix of event-free curves, and what their kinds came to."""
    import numpy as np

    from tests.studies.resampling import Tally, best_cut, deal, share
    from tests.studies.resampling import redraw_streams as redraw

    streams, none = options.streams, CURVES - EVENTS
    held = judge_simulated("events", streams * EVENTS, options.seed, True, model, judge)
    free = judge_simulated("event-free curves", options.pool or streams * none, options.seed + 1, False, model, judge)
    plain = np.isin(free.kinds, PLAIN_KINDS)
    kinds = {"all": free.verdicts, "plain": free.verdicts[plain]}
    pools = [kinds["plain"], free.verdicts[~plain]]
    mixes = {
        "as simulated": redraw([free.verdicts], [none], streams, options.seed)
        if options.pool
        else deal(free.verdicts, none),
        f"{PLAIN} of {none} plain": redraw(pools, [PLAIN, none - PLAIN], streams, options.seed),
    }
    if control is not None:
        kinds["control runs"] = control.verdicts
        mixes["control runs"] = redraw([control.verdicts], [none], streams, options.seed)
    events = deal(held.verdicts, EVENTS)
    cuts = {recall: best_cut(held.scores, free.scores, recall) for recall in RECALLS}
    return {
        "recall": share(held.verdicts, "keep", "review"),
        "event_free": {name: _by_verdict(verdicts) for name, verdicts in kinds.items()},
        "lifted": {str(reason): int((free.lifted == reason).sum()) for reason in np.unique(free.lifted) if reason},
        "mixes": {name: Tally(events, others).summarise() for name, others in mixes.items()},
        "ranking": {str(recall): {"discard": cut, "discarded": told} for recall, (cut, told) in cuts.items()},
        "event_kinds": _by_kind(held),
        "event_free_kinds": _by_kind(free),
    }


def _by_kind(answers: Answers) -> dict[str, Any]:
    import numpy as np

    return {str(kind): _by_verdict(answers.verdicts[answers.kinds == kind]) for kind in np.unique(answers.kinds)}


def _by_verdict(verdicts: Any) -> dict[str, Any]:
    from tests.studies.resampling import VERDICTS, share

    return {verdict: share(verdicts, verdict) for verdict in VERDICTS}


def _real(options: Options, held: Answers, free: Answers) -> dict[str, Any]:
    """Streams of labelled curves, for each system with enough of both kinds and for all that are not told apart."""
    import numpy as np

    from tests.studies.resampling import Tally, share
    from tests.studies.resampling import redraw_streams as redraw

    both = (held.kinds, free.kinds)
    groups = {str(system): [kinds == system for kinds in both] for system in np.unique(held.kinds)}
    groups = {name: sides for name, sides in groups.items() if min(side.sum() for side in sides) >= options.least}
    together = f"pooled, without {', '.join(options.apart)}" if options.apart else "pooled"
    groups[together] = [
        np.array([not any(fnmatchcase(kind, glob) for glob in options.apart) for kind in kinds], bool) for kinds in both
    ]
    found = {}
    for name, (events, others) in groups.items():
        if events.any() and others.any():
            tally = Tally(
                redraw([held.verdicts[events]], [EVENTS], options.streams, options.seed),
                redraw([free.verdicts[others]], [CURVES - EVENTS], options.streams, options.seed),
            )
            found[name] = {
                "recall": share(held.verdicts[events], "keep", "review"),
                "review": share(free.verdicts[others], "review"),
                "streams": tally.summarise(),
            }
    return found


# Where a stream's curves come from: simulator, labelled folders, control runs; all judged as the service judges.

BATCH = 64


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What the model says of N curves."""

    verdicts: NDArray[np.str_]  # (N,)
    scores: NDArray[np.float64]  # (N,), infinity where no score could discard the curve
    kinds: NDArray[np.str_]  # (N,): family of a simulated curve, system of a labelled one
    lifted: NDArray[np.str_]  # (N,): the reason that alone made review of a discard, or ""

    def __len__(self) -> int:
        return int(self.verdicts.size)

    def of(self, chosen: NDArray[np.bool_]) -> Answers:
        """(N,) -> the chosen ones."""
        return Answers(self.verdicts[chosen], self.scores[chosen], self.kinds[chosen], self.lifted[chosen])


def judge_simulated(what: str, count: int, seed: int, event: bool, model: Model, judge: Judge) -> Answers:
    """``count`` fresh curves, all with an event or all without."""
    curves = iter(progress(simulate(count, seed, float(event)), what, count))
    told: list[tuple[str, float, str, str]] = []
    while batch := list(islice(curves, BATCH)):
        told += _judge(batch, model, judge)
    return _answers(told)


def judge_labelled(folders: Sequence[LabelledFolder], model: Model, judge: Judge) -> tuple[Answers, Answers]:
    """(curves with an event, curves without), those labelled `unsure` left aside. UserError 65 for what has no file."""
    problems: list[str] = []
    rows = sum(len(folder.rows) for folder in folders)
    judged = judge_all(progress(curves_of(folders, problems), "labelled curves", rows), model, judge)
    if problems:
        raise UserError(BAD_DATA, "\n".join(problems))
    held, free = (
        _answers([(one.verdict, _or_inf(one.score), one.system, "") for one in judged if one.label == label])
        for label in ("keep", "discard")
    )
    return held, free


def judge_control(paths: Sequence[Path], model: Model, judge: Judge) -> Answers:
    """Files of runs in which nothing can bind, so that none holds an event. UserError 65 when there is no file."""
    if missing := [str(path) for path in paths if not path.exists()]:
        raise UserError(BAD_DATA, f"--control {', '.join(missing)}: no such file or folder")
    decisions = score(progress(Found(paths), "control runs"), model, judge)
    told = [
        (one.verdict, _or_inf(one.score), one.path, _lifted(one.verdict, one.score, one.reasons, judge))
        for one in decisions
    ]
    if not told:
        raise UserError(BAD_DATA, f"--control {' '.join(map(str, paths))}: no curve file")
    return _answers(told)


def _judge(batch: Sequence[Simulated], model: Model, judge: Judge) -> list[tuple[str, float, str, str]]:
    told: list[tuple[str, float, str, str]] = []
    for item, one in zip(batch, model.judge([item.curve for item in batch]), strict=True):
        verdict = verdict_of(one.score, one.reasons, judge.thresholds)
        free = LIFTING.intersection(one.reasons)
        worth = np.inf if free else _or_inf(one.score)
        told.append((verdict, worth, item.family, _lifted(verdict, one.score, one.reasons, judge)))
    return told


def _lifted(verdict: str, score: float | None, reasons: Sequence[str], judge: Judge) -> str:
    if score is None or (verdict == "review" and score <= judge.thresholds.discard):
        return " and ".join(sorted(DOUBTS.intersection(reasons)) or ["no_score"])
    return ""


def _or_inf(score: float | None) -> float:
    return np.inf if score is None else score


def _answers(told: Iterable[tuple[str, float, str, str]]) -> Answers:
    rows = list(told)
    verdicts, scores, kinds, lifted = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [], [])
    return Answers(
        np.array(verdicts, np.str_), np.array(scores, np.float64), np.array(kinds, np.str_), np.array(lifted, np.str_)
    )


# The rare streams as text for a terminal, beside what was published and what is asked for.

RECALL_BAR, REVIEW_BAR = 0.98, 0.033
_PUBLISHED = "published (arXiv 2606.09541, one stream): recall 12/13, not discarded 9.2 %"


def write_text(report: Mapping[str, Any]) -> str:
    """The whole study; ``report`` is what ``--out`` writes."""
    limits, drawn = report["thresholds"], report["simulated"]
    twice = f"event-free curves drawn again and again from {report['pool']}" if report["pool"] else "no curve twice"
    lines = [
        f"{report['model']} by {report['engine']}: discard at {limits['discard']:.4g}, keep from {limits['keep']:.4g}",
        f"{report['streams']} simulated streams of 13 events among 970 (seed {report['seed']}; {twice})",
        "",
        *_mixes(drawn["mixes"]),
        _PUBLISHED,
        "",
        f"events not discarded: {_share(drawn['recall'])}",
        *(
            f"event-free curves left to a person, {name}: {_share(one['review'])}"
            for name, one in drawn["event_free"].items()
        ),
        f"by a reason and not by their score: {_stream_table_lifted(drawn)}",
        *(_ranking(recall, cut) for recall, cut in drawn["ranking"].items()),
        "",
        "simulated events",
        *_kinds(drawn["event_kinds"], "discard"),
        "",
        "simulated event-free curves",
        *_kinds(drawn["event_free_kinds"], "review"),
    ]
    if report["real"]:
        lines += ["", *_stream_table_real(report["real"], report["streams"], report["least"])]
    return "\n".join(lines)


def _mixes(mixes: Mapping[str, Mapping[str, float]]) -> list[str]:
    head = ("event-free curves", *_HEAD, f"bar: recall {RECALL_BAR:g}, {REVIEW_BAR:.1%} left")
    return align([head, *((name, *_figures(one), _bar(one)) for name, one in mixes.items())])


_HEAD = ("mean recall", "worst stream", "without a miss", "left to a person", "worst stream", "kept", "not discarded")


def _figures(one: Mapping[str, float]) -> tuple[str, ...]:
    return (
        f"{one['recall']:.4f}",
        f"{round(one['recall_worst'] * 13)}/13",
        f"{one['streams_without_miss']:.1%}",
        f"{one['review']:.2%}",
        f"{one['review_worst']:.2%}",
        f"{one['kept']:.2%}",
        f"{one['not_discarded']:.2%}",
    )


def _bar(one: Mapping[str, float]) -> str:
    words = {True: "reached", False: "missed"}
    return f"{words[one['recall'] >= RECALL_BAR]}, {words[one['review'] <= REVIEW_BAR]}"


def _stream_table_lifted(drawn: Mapping[str, Any]) -> str:
    """Of all simulated event-free curves: what no other threshold would change."""
    total = drawn["event_free"]["all"]["review"]["of"]
    return ", ".join(f"{reason} {count / total:.2%}" for reason, count in drawn["lifted"].items()) or "none"


def _ranking(recall: str, cut: Mapping[str, float]) -> str:
    """Chosen on the very curves it is told of, so a bound on what thresholds can do and no promise."""
    return (
        f"by ranking alone, a discard threshold of {cut['discard']:.4g} would save {float(recall):.1%} of these events "
        f"and discard {cut['discarded']:.1%} of the event-free, as simulated"
    )


def _kinds(kinds: Mapping[str, Mapping[str, Any]], told: str) -> list[str]:
    head = ("kind", "curves", "kept", "review", "discarded", f"{told} [exact 95 %]")
    rows = [
        (
            kind,
            str(one["keep"]["of"]),
            *(f"{one[v]['share']:.2%}" for v in ("keep", "review", "discard")),
            _share(one[told]),
        )
        for kind, one in kinds.items()
    ]
    return align([head, *rows])


def _stream_table_real(groups: Mapping[str, Mapping[str, Any]], streams: int, least: int) -> list[str]:
    head = ("system", *_HEAD, "events not discarded", "event-free left to a person")
    rows = [
        (name, *_figures(one["streams"]), _share(one["recall"]), _share(one["review"])) for name, one in groups.items()
    ]
    note = [
        f"real curves: {streams} streams of 13 among 970 of each system with {least} of both kinds, and of all",
        "together. Labelled curves are few, so a stream repeats them many times: the intervals are of the distinct",
        "curves. The mix of event-free curves is that of the files, where hard ones are more common than in a run.",
    ]
    return [*note, *align([head, *rows])]


def _share(one: Mapping[str, Any]) -> str:
    low, high = one["interval"]
    return f"{one['hits']}/{one['of']} = {one['share']:.2%} [{low:.2%}, {high:.2%}]"
