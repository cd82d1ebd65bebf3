"""`bench`: measured throughput and latency on this machine, part by part, beside what was promised."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path

from daemon.bench import PARTS
from daemon.bench.harness import Plan
from daemon.common.errors import BAD_DATA, INPUT_OUTPUT, USAGE, UserError
from deploy.engines import DEVICES, NAMES, PRECISIONS

_SOAK = 50_000
_QUICK = Plan()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bench``."""
    parts = "measure this alone (repeatable; all but swap and soak)"
    parser.add_argument("--only", choices=PARTS, action="append", metavar="PART", help=f"{parts}: {', '.join(PARTS)}")
    parser.add_argument("--model", metavar="NAME-or-DIR", default="shipped", help="model that judges (shipped)")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="where the service runs (auto)")
    parser.add_argument("--engine", choices=NAMES, default="auto", help="of the service and the stages (auto)")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="the same (auto)")
    parser.add_argument("--rates", metavar="R,R,…", default="1,10,100", help="files a second (1,10,100)")
    parser.add_argument("--files", metavar="N", type=int, default=_QUICK.files, help="at one rate, at most (300)")
    parser.add_argument("--hold", metavar="S", type=float, default=_QUICK.hold_s, help="each rate so long (8 s)")
    parser.add_argument("--burst", metavar="N", type=int, default=_QUICK.burst, help="files at once (1500)")
    parser.add_argument("--busy", metavar="N", type=int, default=_QUICK.busy, help="neighbours that compute (2)")
    parser.add_argument("--curves", metavar="DIR", action="append", type=Path, default=[], help="more real curves")
    parser.add_argument("--simulate", metavar="N", type=int, default=_QUICK.simulated, help="to compare engines (1000)")
    parser.add_argument("--seed", metavar="N", type=int, default=_QUICK.seed, help="of the simulated curves (1)")
    parser.add_argument("--soak", metavar="N", type=int, help="so many curves through one service (off)")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="one JSON object")
    shape.add_argument("--markdown", action="store_true", help="a page for deploy/measurements")
    parser.add_argument("--picture", metavar="FILE.svg", type=Path, help="latency against load, as SVG")


def run(args: argparse.Namespace) -> int:
    """About two and a half minutes with the defaults; bars that are missed are told, and are no error."""
    plan = plan_of(args)
    if args.picture is not None and "load" not in plan.parts:
        raise UserError(USAGE, "--picture shows the load; measure it too (--only load)")
    if args.picture is not None and not args.picture.absolute().parent.is_dir():
        raise UserError(INPUT_OUTPUT, f"{args.picture.parent}: no such folder; make it first")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    from daemon.bench.report import measure, write_page, write_report

    found = measure(plan, _say)
    if args.picture is not None:
        from daemon.bench.table import draw
        from daemon.common.files import write_whole

        write_whole(args.picture, draw(found))
    if args.json:
        print(json.dumps(found))
    elif args.markdown:
        print(write_page(found, f"afm-triage {shlex.join(sys.argv[1:])}"), end="")
    else:
        print(write_report(found))
    return 0


def plan_of(args: argparse.Namespace) -> Plan:
    """What was asked for. Raises UserError 64 for nonsense, 65 for a folder that is not there."""
    asked = set(args.only or _QUICK.parts) | ({"soak"} if args.soak is not None else set())
    rates = _rates(args.rates)
    if min(args.files, args.burst) < 1 or not args.hold > 0:
        raise UserError(USAGE, "--files and --burst take whole numbers from 1 on, --hold a number above 0")
    if min(args.busy, args.simulate, args.seed) < 0 or (args.soak is not None and args.soak < 1):
        raise UserError(USAGE, "--busy, --simulate and --seed take whole numbers from 0 on, --soak from 1 on")
    for folder in args.curves:
        if not folder.is_dir():
            raise UserError(BAD_DATA, f"--curves {folder}: no such folder")
    return Plan(
        parts=tuple(part for part in PARTS if part in asked),
        model=args.model,
        device=args.device,
        engine=args.engine,
        precision=args.precision,
        rates=rates,
        files=args.files,
        hold_s=args.hold,
        burst=args.burst,
        busy=args.busy,
        curves=tuple(args.curves),
        simulated=args.simulate,
        seed=args.seed,
        soak=args.soak or _SOAK,
    )


def _rates(text: str) -> tuple[float, ...]:
    try:
        rates = sorted({float(word) for word in text.split(",")})
    except ValueError:
        rates = []
    if not rates or not all(0 < rate <= 10_000 for rate in rates):
        raise UserError(USAGE, f"--rates {text}: numbers above 0 with commas between, as in 1,10,100")
    return tuple(rates)


def _say(text: str) -> None:
    if sys.stderr.isatty() or text.startswith("warning"):
        print(text, file=sys.stderr, flush=True)
