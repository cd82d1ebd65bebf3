"""`study gpu`: the model on the GPU of this machine: bits, speed, verdicts, a million curves, new weights, real faults.

Needs numpy, torch with CUDA and safetensors beside this repository, and TensorRT where it is installed; a part that
fails says so and hides no other. With ``--device cpu`` the study only tries itself: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.common.errors import BAD_DATA, UNREACHABLE, USAGE, UserError

if TYPE_CHECKING:
    from daemon.study.gpu_session import Session

PARTS = ("raster", "engines", "verdicts", "rescore", "plans", "swap", "faults")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Defaults take about five minutes of an H100."""
    parser.add_argument("--model", default="shipped", help="model that judges (shipped)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: only to try the study (cuda)")
    parser.add_argument(
        "--only", choices=PARTS, action="append", metavar="PART", help=f"repeatable: {', '.join(PARTS)}"
    )
    parser.add_argument("--simulate", metavar="N", type=int, default=4000, help="curves beside the bundled ones (4000)")
    parser.add_argument("--rescore", metavar="N", type=int, default=1_000_000, help="curves to judge again (1000000)")
    parser.add_argument("--seconds", metavar="S", type=float, default=1.0, help="each repeated measurement (1)")
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="of the simulated curves (1)")
    parser.add_argument(
        "--out", metavar="FILE.json", type=Path, help="also what the tables were made from, part by part"
    )


def run(args: argparse.Namespace) -> int:
    """Exit 0 with the tables, 64 for options that make no sense, 69 where there is no GPU."""
    if args.simulate < 1 or args.rescore < 1 or args.seed < 0 or not args.seconds > 0:
        raise UserError(USAGE, "--simulate and --rescore are 1 or more, --seconds above 0, --seed 0 or more")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    import tempfile

    import torch

    from daemon.learn.int8 import gather
    from daemon.study.gpu_session import Session
    from daemon.study.gpu_table import write_text
    from deploy.registry import resolve
    from models.bundle import BadBundle, read

    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError(UNREACHABLE, "there is no NVIDIA GPU that torch can use (--device cpu only tries the study)")
    try:
        bundle = read(resolve(args.model))
    except BadBundle as error:
        raise UserError(BAD_DATA, str(error)) from None
    curves = gather((Path(__file__).resolve().parents[1] / "curves",), args.simulate, args.seed, bundle.profile)
    found: dict[str, Any] = {"machine": _machine(args.device), "model": bundle.id, "settings": _settings(args)}
    with tempfile.TemporaryDirectory(prefix="afm-triage-") as folder:
        session = Session(bundle, args.device, curves, args.seconds, args.rescore, Path(folder) / "engines")
        for part in PARTS:
            if part in (args.only or PARTS):
                print(f"{part} …", file=sys.stderr, flush=True)
                found[part] = _measured(_parts()[part], session)
                _keep(args.out, found)
    print(write_text(found))
    return 0


def _parts() -> dict[str, Callable[[Session], dict[str, Any]]]:
    from daemon.study import gpu_faults, gpu_raster, gpu_speed, gpu_swap, gpu_verdicts

    return {
        "raster": gpu_raster.measure,
        "engines": gpu_speed.measure,
        "verdicts": gpu_verdicts.measure,
        "rescore": gpu_verdicts.rescore,
        "plans": gpu_swap.plans,
        "swap": gpu_swap.swap,
        "faults": gpu_faults.measure,
    }


def _measured(part: Callable[[Session], dict[str, Any]], session: Session) -> dict[str, Any]:
    """Whatever a part raises is what it found."""
    from daemon.study.gpu_session import failed

    try:
        return part(session)
    except Exception as error:
        return failed(error)


def _keep(out: Path | None, found: dict[str, Any]) -> None:
    """After every part: a library may end the process."""
    if out is not None:
        from daemon.common.files import write_whole

        write_whole(out, (json.dumps(found, indent=1) + "\n").encode())


def _machine(device: str) -> dict[str, Any]:
    import torch

    from deploy.tensorrt_engine import driver, flavours_here

    found: dict[str, Any] = {"torch": torch.__version__, "device": device, "cores": len(os.sched_getaffinity(0))}
    found["torch-tensorrt"] = ", ".join(flavour.distribution for flavour in flavours_here()) or "not installed"
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        found |= {"gpu": card.name, "capability": f"{card.major}.{card.minor}", "driver": driver()}
        found |= {"gpu_bytes": card.total_memory, "cuda": torch.version.cuda}
    return found


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in ("simulate", "rescore", "seconds", "seed", "only")}
