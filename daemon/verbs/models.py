"""`models list|show|build`: the models there are, what one of them is, and its engines built ahead."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from daemon import config
from daemon.common.errors import BAD_DATA, UNREACHABLE, USAGE, UserError
from daemon.common.options import Group, Option
from daemon.common.text import clean
from daemon.config import Flags, Keys
from deploy.engines import DEVICES, NAMES, PRECISIONS

if TYPE_CHECKING:
    from daemon.judging.judge import Served
    from models.bundle import Bundle, Entry


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
        return _list(settings.state, options.json)
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


def _list(state: Path, as_json: bool) -> int:
    """What is registered, then what has judged for this state and is not among it."""
    from daemon.judging.judge import served_by
    from models.bundle import entries

    served = {one.id: one for one in served_by(state)}
    for entry in entries(state / "models"):
        one = served.pop(entry.bundle.id, None) if entry.bundle else None
        _show(entry, as_json, one.since if one else None)
    for one in served.values():
        _show(_entry_of(one), as_json, one.since, one.id)
    return 0


def _entry_of(served: Served) -> Entry:
    """A model that has judged, from where it lay; its id alone where that holds another by now, or nothing."""
    from models.bundle import BadBundle, Entry, id_in, read

    try:
        if id_in(served.folder) != served.id:
            return Entry(served.name, served.folder, None, "its folder holds another model by now")
        return Entry(served.name, served.folder, read(served.folder))
    except (BadBundle, OSError):
        return Entry(served.name, served.folder, None, "its folder is gone, or not whole any more")


def _show(entry: Entry, as_json: bool, since: str | None, id_then: str | None = None) -> None:
    from models.certificate import percent_up

    bundle = entry.bundle
    if as_json:
        known = {"name": entry.name, "folder": str(entry.folder), "id": bundle.id if bundle else id_then}
        print(json.dumps({**known, "problem": entry.problem, "served_since": since}))
        return
    judged = f", judged first {since}" if since else ""
    if bundle is None:
        which = f"{id_then}{judged}: {entry.problem}" if id_then else f"unusable: {entry.problem}"
        print(clean(f"{entry.name:<16} {which}  {entry.folder}"))
        return
    promise = f"at most {percent_up(bundle.certificate.bound)} missed" if bundle.certificate else "no certificate"
    basis = f"{bundle.manifest.score_basis}, {promise}, {bundle.manifest.created}{judged}"
    print(clean(f"{entry.name:<16} {bundle.id}  {basis}  {entry.folder}"))
