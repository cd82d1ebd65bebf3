"""`models list|show|build`: the models there are, what one of them is, and its engines built ahead."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from daemon import config
from daemon.common.errors import BAD_DATA, UNREACHABLE, USAGE, UserError
from daemon.config.origin import add_service_options
from deploy.engines import DEVICES, NAMES, PRECISIONS

if TYPE_CHECKING:
    from models.bundle import Bundle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Contract section 3; promote and rollback come with the learning loop."""
    parser.add_argument("action", choices=("list", "show", "build"))
    parser.add_argument(
        "name", metavar="NAME-or-DIR", nargs="?", default="shipped", help="show, build: which (shipped)"
    )
    parser.add_argument("--json", action="store_true", help="list, show: the manifest, or one JSON object a model")
    building = parser.add_argument_group("build: compiled engines, into the state folder, before a service wants them")
    building.add_argument("--device", choices=DEVICES, default="auto", help="that they run on (auto)")
    building.add_argument("--engine", choices=NAMES, default="auto", help="one alone (auto: all that run here)")
    building.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="int8 is calibrated on --curves (auto)"
    )
    building.add_argument(
        "--curves",
        metavar="DIR",
        action="append",
        type=Path,
        default=[],
        help="for int8: at least 100 curves of your own",
    )
    add_service_options(parser)


def run(args: argparse.Namespace) -> int:
    """Exit 0; 65 when ``show`` or ``build`` names no usable model; 69 when nothing could be built."""
    settings = config.load(args, needs_state=args.action == "build")
    models = settings.state / "models"
    if args.action == "list":
        return _list(models, args.json)
    from models.bundle import BadBundle, read, resolve

    try:
        bundle = read(resolve(args.name, models))
    except BadBundle as error:
        raise UserError(BAD_DATA, str(error)) from None
    if args.action == "build":
        return _build(args, bundle, settings)
    if args.json:
        print(json.dumps({"id": bundle.id, "folder": str(bundle.folder), **bundle.stored}))
    else:
        print(f"{bundle.id}\n{bundle.folder}\n\n{(bundle.folder / 'card.md').read_text()}", end="")
    return 0


def _build(args: argparse.Namespace, bundle: Bundle, settings: config.Config) -> int:
    from daemon.engine.proof import build_ahead
    from daemon.learn.int8 import build_int8
    from deploy.classifier import EngineRequest, NoEngine

    cache = settings.state / "engines"
    if args.precision == "int8":
        if not args.curves:
            raise UserError(USAGE, "int8 is calibrated on curves of your own: name some with --curves DIR")
        print("\n".join(build_int8(bundle, args.curves, cache, settings.engine.threads or None)))
        return 0
    are_built = []
    try:
        for one in build_ahead(bundle, EngineRequest(args.device, args.engine, args.precision, cache=cache)):
            are_built.append(one.problem is None)
            what = "built, and judges known curves right" if one.problem is None else f"not built: {one.problem}"
            print(f"{one.engine:<24} {what} ({one.seconds:.1f} s)", flush=True)
    except NoEngine as error:
        raise UserError(UNREACHABLE, str(error)) from None
    if not any(are_built):
        raise UserError(UNREACHABLE, "nothing could be built; the service judges with the processor")
    print(f"kept in {cache}")
    return 0


def _list(models: Path, as_json: bool) -> int:
    from models.bundle import entries
    from models.certificate import percent_up

    for entry in entries(models):
        bundle = entry.bundle
        if as_json:
            known = {"name": entry.name, "folder": str(entry.folder), "id": bundle.id if bundle else None}
            print(json.dumps({**known, "problem": entry.problem}))
        elif bundle is None:
            print(f"{entry.name:<16} unusable: {entry.problem}")
        else:
            promise = (
                f"at most {percent_up(bundle.certificate.bound)} missed" if bundle.certificate else "no certificate"
            )
            basis = f"{bundle.manifest.score_basis}, {promise}, {bundle.manifest.created}"
            print(f"{entry.name:<16} {bundle.id}  {basis}  {entry.folder}")
    return 0
