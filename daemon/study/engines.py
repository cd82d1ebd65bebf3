"""`study engines`: does every engine on a CPU give the verdicts of torch in single precision, and what does each cost.

Labels are not needed: every engine is asked of the same curves. The simulated ones are a stream in which events are
rare, the real ones whatever lies below the folders. Int8 is calibrated on every other real curve and asked of the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from daemon.common.errors import USAGE, UserError
from daemon.common.files import write_whole

FEWEST = 200  # real curves; with fewer, int8 is left out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Folders of real curves are what int8 is calibrated on, so without them it is left out."""
    parser.add_argument("folders", metavar="DIR", nargs="*", type=Path, help="real curves (without them: no int8)")
    parser.add_argument("--model", default="shipped", help="the model that is asked (shipped)")
    parser.add_argument("--curves", metavar="N", type=int, default=20_000, help="simulated ones (20000)")
    parser.add_argument("--prevalence", metavar="P", type=float, default=0.02, help="of events among them (0.02)")
    parser.add_argument("--seed", metavar="N", type=int, default=970_501, help="no training has used it (970501)")
    parser.add_argument("--seconds", metavar="S", type=float, default=1.0, help="a measurement of speed; 0: none (1)")
    parser.add_argument("--out", metavar="FILE.json", type=Path, help="what the tables were made from")


def run(args: argparse.Namespace) -> int:
    """Exit 0 with the tables, 64 for options that make no sense, 65 for folders that are not there."""
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    if args.curves < 0 or not 0 < args.prevalence < 1 or args.seconds < 0:
        raise UserError(USAGE, "--curves and --seconds are 0 or more, --prevalence lies between 0 and 1")
    if missing := [str(folder) for folder in args.folders if not folder.exists()]:
        raise UserError(USAGE, f"{', '.join(missing)}: no such file or folder")
    if not args.curves and not args.folders:
        raise UserError(USAGE, "nothing to ask: name folders of curves, or leave --curves at 20000")
    from daemon.study.engines_table import write_text

    with tempfile.TemporaryDirectory(prefix="afm-triage-") as cache:
        report = _study(args, Path(cache))
    if args.out is not None:
        write_whole(args.out, json.dumps(report, indent=1).encode() + b"\n")
        print(f"written: {args.out}", file=sys.stderr)
    print("\n".join(write_text(report)))
    return 0


def _study(args: argparse.Namespace, cache: Path) -> dict[str, Any]:
    from daemon.learn.int8 import gather
    from daemon.study.engines_agreement import agree, teach_int8
    from daemon.study.engines_cost import cost, installed_bytes
    from deploy.registry import resolve
    from models.bundle import read

    bundle = read(resolve(args.model))
    curves = gather(args.folders, args.curves, args.seed, bundle.profile, args.prevalence)
    taught = teach_int8(bundle, curves, cache, FEWEST)
    return {
        "model": bundle.id,
        "thresholds": {"discard": bundle.discard, "keep": bundle.keep},
        "curves": {"real": curves.real, "simulated": len(curves.names) - curves.real},
        **{name: getattr(args, name) for name in ("prevalence", "seed")},
        "int8": taught,
        "agreement": agree(bundle, curves, cache, isinstance(taught, dict)),
        "cost": cost(args.model, curves, cache, isinstance(taught, dict), args.seconds) if args.seconds else [],
        "installed_bytes": installed_bytes(),
    }
