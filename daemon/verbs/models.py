"""`models list|show|build`: the models there are, what one of them is, and its engines built ahead."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from daemon import config
from daemon.common.errors import BAD_DATA, UNREACHABLE, USAGE, UserError
from daemon.common.options import Group, Option
from daemon.config import Flags, Keys
from deploy.engines import DEVICES, NAMES, PRECISIONS

if TYPE_CHECKING:
    from models.bundle import Bundle


_BUILD = Group("build: compiled engines, into the state folder, before a service wants them")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Promote and rollback come with the learning loop."""

    action: Annotated[Literal["list", "show", "build"], Option("", is_positional=True)]
    name: Annotated[str, Option("show, build: which", "NAME-or-DIR", is_positional=True)] = "shipped"
    json: Annotated[bool, Option("list, show: the manifest, or one JSON object a model")] = False
    device: Annotated[str, Option("that they run on", choices=DEVICES, group=_BUILD)] = "auto"
    engine: Annotated[str, Option("one alone", choices=NAMES, unless="auto: all that run here", group=_BUILD)] = "auto"
    precision: Annotated[str, Option("int8 is calibrated on --curves", choices=PRECISIONS, group=_BUILD)] = "auto"
    curves: Annotated[tuple[Path, ...], Option("for int8: at least 100 curves of your own", "DIR", group=_BUILD)] = ()
    service: Annotated[Flags, Keys("state", "instrument")]


def run(options: Options) -> int:
    """Exit 0; 65 when ``show`` or ``build`` names no usable model; 69 when nothing could be built."""
    settings = config.load(options.service, needs_state=options.action == "build")
    models = settings.state / "models"
    if options.action == "list":
        return _list(models, options.json)
    from models.bundle import BadBundle, read, resolve

    try:
        bundle = read(resolve(options.name, models))
    except BadBundle as error:
        raise UserError(BAD_DATA, str(error)) from None
    if options.action == "build":
        return _build(options, bundle, settings)
    if options.json:
        print(json.dumps({"id": bundle.id, "folder": str(bundle.folder), **bundle.stored}))
    else:
        print(f"{bundle.id}\n{bundle.folder}\n\n{(bundle.folder / 'card.md').read_text()}", end="")
    return 0


def _build(options: Options, bundle: Bundle, settings: config.Config) -> int:
    from daemon.engine import build_ahead
    from daemon.learn.int8 import build_int8
    from deploy.classifier import EngineRequest, NoEngine

    cache = settings.state / "engines"
    if options.precision == "int8":
        if not options.curves:
            raise UserError(USAGE, "int8 is calibrated on curves of your own: name some with --curves DIR")
        print("\n".join(build_int8(bundle, options.curves, cache, settings.engine.threads or None)))
        return 0
    are_built = []
    try:
        for one in build_ahead(bundle, EngineRequest(options.device, options.engine, options.precision, cache=cache)):
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
