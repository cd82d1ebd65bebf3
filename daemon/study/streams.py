"""`study streams`: a model on streams in which events are rare, simulated ones and, as far as files go, real ones.

Event-free curves decide how much is left to a person, and no two runs have the same. The simulated ones are hard on
purpose, so two mixes are told: all kinds as the simulator draws them, and mostly plain ones, as in the published
stream, of which 880 of 957 were discarded as plain noise. A control run of one's own, in which nothing can bind, says
more than either.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.common.errors import USAGE, UserError

if TYPE_CHECKING:
    from daemon.judging import Judge
    from daemon.study.stream_sources import Answers
    from deploy.serving import Model

EVENTS, CURVES, PLAIN = 13, 970, 880
#: Families of models.simulate in which the tip touches, lets go at once or not at all, and nothing else is meant.
PLAIN_KINDS = ("contact", "snap_off", "noise")
RECALLS = (0.98, 0.99, 0.995)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The defaults take two minutes on one core."""
    parser.add_argument("folders", metavar="DIR", nargs="*", type=Path, help="labelled folders for real streams")
    parser.add_argument("--control", metavar="PATH", type=Path, action="append", default=[], help="nothing binds in it")
    parser.add_argument("--model", default="shipped", help="shipped, or a model folder (shipped)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where it runs (auto)")
    parser.add_argument("--streams", metavar="N", type=int, default=200, help="how many (200)")
    parser.add_argument(
        "--pool", metavar="N", type=int, default=20_000, help="event-free curves they share; 0: no curve twice (20000)"
    )
    parser.add_argument("--system-column", metavar="NAME", default="system", help="column that names systems (system)")
    parser.add_argument("--apart", metavar="GLOB", action="append", default=[], help="systems not pooled with others")
    parser.add_argument("--least", metavar="N", type=int, default=4, help="of each kind for a line of its own (4)")
    parser.add_argument("--seed", metavar="N", type=int, default=970_013, help="no training has used it (970013)")
    parser.add_argument("--out", metavar="FILE.json", type=Path, help="also what the tables were made from")


def run(args: argparse.Namespace) -> int:
    """Exit 0 with the tables, 64 for options and 65 for labels that make no sense."""
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    if args.streams < 1 or args.least < 1 or not (args.pool == 0 or args.pool >= CURVES):
        raise UserError(USAGE, f"--streams and --least are 1 or more, --pool is 0 or at least {CURVES}")
    from daemon.config import ThresholdsConfig
    from daemon.judging.judge import judge_of, load_model
    from daemon.learn.labelled import read_labels
    from daemon.study.stream_sources import judge_control, judge_labelled
    from daemon.study.stream_table import write_text
    from deploy.engines import Wish

    labels = read_labels(args.folders, args.system_column)  # said first, before minutes of simulation
    model = load_model(args.model, Wish(args.device))
    judge = judge_of(model, ThresholdsConfig())
    control = judge_control(args.control, model, judge) if args.control else None
    real = judge_labelled(labels, model, judge) if labels else None
    report: dict[str, Any] = {
        "model": judge.model,
        "engine": judge.engine,
        "thresholds": {"discard": judge.thresholds.discard, "keep": judge.thresholds.keep},
        **{name: getattr(args, name) for name in ("streams", "pool", "seed", "least")},
        "simulated": _simulated(args, model, judge, control),
        "real": {} if real is None else _real(args, *real),
    }
    print(write_text(report))
    if args.out is not None:
        args.out.write_text(json.dumps(report, indent=1), encoding="utf-8")
        print(f"written: {args.out}", file=sys.stderr)
    return 0


def _simulated(args: argparse.Namespace, model: Model, judge: Judge, control: Answers | None) -> dict[str, Any]:
    """Streams of fresh events among each mix of event-free curves, and what their kinds came to."""
    import numpy as np

    from daemon.study.stream_sources import judge_simulated
    from models.statistics import Tally, best_cut, deal, share
    from models.statistics import redraw_streams as redraw

    streams, none = args.streams, CURVES - EVENTS
    held = judge_simulated("events", streams * EVENTS, args.seed, True, model, judge)
    free = judge_simulated("event-free curves", args.pool or streams * none, args.seed + 1, False, model, judge)
    plain = np.isin(free.kinds, PLAIN_KINDS)
    kinds = {"all": free.verdicts, "plain": free.verdicts[plain]}
    pools = [kinds["plain"], free.verdicts[~plain]]
    mixes = {
        "as simulated": redraw([free.verdicts], [none], streams, args.seed) if args.pool else deal(free.verdicts, none),
        f"{PLAIN} of {none} plain": redraw(pools, [PLAIN, none - PLAIN], streams, args.seed),
    }
    if control is not None:
        kinds["control runs"] = control.verdicts
        mixes["control runs"] = redraw([control.verdicts], [none], streams, args.seed)
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
    from models.statistics import VERDICTS, share

    return {verdict: share(verdicts, verdict) for verdict in VERDICTS}


def _real(args: argparse.Namespace, held: Answers, free: Answers) -> dict[str, Any]:
    """Streams of labelled curves, for each system with enough of both kinds and for all that are not told apart."""
    import numpy as np

    from models.statistics import Tally, share
    from models.statistics import redraw_streams as redraw

    both = (held.kinds, free.kinds)
    groups = {str(system): [kinds == system for kinds in both] for system in np.unique(held.kinds)}
    groups = {name: sides for name, sides in groups.items() if min(side.sum() for side in sides) >= args.least}
    together = f"pooled, without {', '.join(args.apart)}" if args.apart else "pooled"
    groups[together] = [
        np.array([not any(fnmatchcase(kind, glob) for glob in args.apart) for kind in kinds], bool) for kinds in both
    ]
    found = {}
    for name, (events, others) in groups.items():
        if events.any() and others.any():
            tally = Tally(
                redraw([held.verdicts[events]], [EVENTS], args.streams, args.seed),
                redraw([free.verdicts[others]], [CURVES - EVENTS], args.streams, args.seed),
            )
            found[name] = {
                "recall": share(held.verdicts[events], "keep", "review"),
                "review": share(free.verdicts[others], "review"),
                "streams": tally.summarise(),
            }
    return found
