"""`models list|show`: the models there are, and what one of them is."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from daemon import config
from daemon.config.options import add_service_options
from daemon.errors import BAD_DATA, UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Contract section 3; build, promote and rollback come with the learning loop."""
    parser.add_argument("action", choices=("list", "show"))
    parser.add_argument("name", metavar="NAME-or-DIR", nargs="?", default="shipped", help="for show (shipped)")
    parser.add_argument("--json", action="store_true", help="the manifest, or one JSON object a model")
    add_service_options(parser)


def run(args: argparse.Namespace) -> int:
    """Exit 0, or 65 when ``show`` names no usable model."""
    models = config.load(args).state / "models"
    if args.action == "list":
        return _list(models, args.json)
    from deploy.registry import resolve
    from models.bundle import BadBundle, read

    try:
        bundle = read(resolve(args.name, models))
    except BadBundle as error:
        raise UserError(BAD_DATA, str(error)) from None
    if args.json:
        print(json.dumps({"id": bundle.id, "folder": str(bundle.folder), **bundle.manifest}))
    else:
        print(f"{bundle.id}\n{bundle.folder}\n\n{(bundle.folder / 'card.md').read_text()}", end="")
    return 0


def _list(models: Path, as_json: bool) -> int:
    from deploy.registry import entries
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
            basis = f"{bundle.score_basis}, {promise}, {bundle.manifest['created']}"
            print(f"{entry.name:<16} {bundle.id}  {basis}  {entry.folder}")
    return 0
