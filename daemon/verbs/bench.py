"""`bench`: measured throughput and latency on this machine, stage by stage."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from typing import Any

from daemon.errors import USAGE, UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Contract section 3."""
    parser.add_argument("--model", metavar="NAME-or-DIR", default="shipped", help="model that judges (shipped)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where it runs (auto)")
    parser.add_argument("--rate", metavar="R", type=float, default=10.0, help="files a second for the latency (10)")
    parser.add_argument("--files", metavar="N", type=int, default=300, help="files for the latency (300)")
    parser.add_argument("--burst", metavar="N", type=int, default=3000, help="files for the sustained rate (3000)")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """About a minute and a half with the defaults."""
    if args.files < 1 or args.burst < 1 or not args.rate > 0:
        raise UserError(USAGE, "--files and --burst take whole numbers from 1 on, --rate a number above 0")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    from daemon import bench
    from daemon.config import ThresholdsConfig
    from daemon.judging import judge_of, load_model
    from deploy.engines import Wish

    model = load_model(args.model, Wish(args.device))
    judge = judge_of(model, ThresholdsConfig())
    _say("stage by stage …")
    result: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "engine": model.engine,
        "model": model.id,
        "stages_ms": {
            stage: round(milliseconds, 3) for stage, milliseconds in bench.stages_ms(model, judge, bench.CURVES).items()
        },
        "network_per_s": round(bench.network_per_s(model), 1),
    }
    _say(f"{args.files} files at {args.rate:g} a second …")
    result["latency_ms"] = bench.latency(args.rate, args.files)
    _say(f"{args.burst} files at once …")
    result["sustained_per_s"] = round(bench.sustained(args.burst), 1)
    result["share_of_network"] = round(result["sustained_per_s"] / result["network_per_s"], 3)
    result["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print(json.dumps(result) if args.json else "\n".join(_table(result)))
    return 0


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


def _table(result: dict[str, Any]) -> list[str]:
    lines = [f"{result['machine']}; model {result['model']} on {result['engine']}", "", "milliseconds a curve"]
    lines += [f"  {stage:<16}{milliseconds:>9.3f}" for stage, milliseconds in result["stages_ms"].items()]
    latency = result["latency_ms"]
    lines += ["", f"closed file to received event, {latency['rate_per_s']:g} files a second (ms)"]
    for name, text in (("own_end", "formats that show their own end"), ("text", "text (must be still for 2 s)")):
        if spread := latency[name]:
            lines.append(f"  {text:<34} p50 {spread['p50']:>7} p99 {spread['p99']:>7}  ({spread['files']} files)")
    lines += [
        "",
        f"sustained, from files          {result['sustained_per_s']:>7} curves/s",
        f"the bare network, same run     {result['network_per_s']:>7} pictures/s  "
        f"(end to end reaches {100 * result['share_of_network']:.0f} %)",
    ]
    return lines
