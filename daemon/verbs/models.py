"""`models list|show|promote|rollback|build`: the models there are, which one serves, and its engines built ahead."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from daemon import config
from daemon.common.errors import BAD_DATA, UNREACHABLE, USAGE, UserError
from daemon.common.options import Group, Option, this_user
from daemon.common.text import clean
from daemon.config import Flags, Keys
from deploy.engines import DEVICES, NAMES, PRECISIONS
from models.clock import minute_of

if TYPE_CHECKING:
    from daemon.judging.registry import Change, Registry, Served
    from models.bundle import Bundle, Entry


_MOVE = Group("promote, rollback: a running service follows within a second, between two batches")
_BUILD = Group("build: compiled engines, into the state folder, before a service wants them")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Which model serves is a matter of the state folder."""

    action: Annotated[Literal["list", "show", "promote", "rollback", "build"], Option("", is_positional=True)]
    name: Annotated[
        str | None,
        Option("show, promote, build: which; also an id", "NAME-or-DIR", is_positional=True, unless="what serves"),
    ] = None
    json: Annotated[bool, Option("list, show: the manifest, or one JSON object a model")] = False
    group: Annotated[
        str | None, Option("the sample whose curves it is for", "SAMPLE", unless="the present one", group=_MOVE)
    ] = None
    why: Annotated[str, Option("for the history and the event", "TEXT", group=_MOVE)] = "by hand"
    by: Annotated[str | None, Option("who wants it", "NAME", unless="this user", group=_MOVE)] = None
    device: Annotated[str, Option("that they run on", choices=DEVICES, group=_BUILD)] = "auto"
    engine: Annotated[str, Option("one alone", choices=NAMES, unless="auto: all that run here", group=_BUILD)] = "auto"
    precision: Annotated[str, Option("int8 is calibrated on --curves", choices=PRECISIONS, group=_BUILD)] = "auto"
    curves: Annotated[tuple[Path, ...], Option("for int8: at least 100 curves of your own", "DIR", group=_BUILD)] = ()
    service: Annotated[Flags, Keys("state", "instrument")]


def run(options: Options) -> int:
    """Exit 0; 65 for a model that is none, or that may not serve: nothing is moved; 69 when nothing could be built."""
    settings = config.load(options.service, needs_state=options.action not in ("list", "show"))
    is_meant = options.action == "rollback" or (options.action == "list" and "state" in settings.origins)
    if is_meant and not settings.state.is_dir():
        from daemon.ledger.view import LedgerView

        LedgerView(settings.ledger_file).close()  # says that there is none, as every verb does
    if options.name is None and options.action == "promote":
        raise UserError(USAGE, "promote which? `afm-triage models list` names them")
    if options.name is not None and options.action in ("list", "rollback"):
        raise UserError(USAGE, f"{options.action} takes no name; promote {options.name} lets that model serve")
    from daemon.judging.judge import base_name, choose
    from daemon.judging.registry import Registry
    from models.bundle import BadBundle, read

    registry, base = Registry(settings.state / "models"), base_name(settings)
    try:
        if options.action == "list":
            return _list(registry, options.json, base, settings)
        if options.action == "promote":
            return _promote(options, registry, read(registry.find(base)), settings)
        chosen = choose(base, registry.models, settings.thresholds)
        if options.action == "rollback":
            return _rollback(options, registry, chosen.base_id)
        bundle = read(chosen.folder if options.name is None else registry.find(options.name))
    except BadBundle as error:
        raise UserError(BAD_DATA, str(error)) from None
    if options.action == "build":
        return _build(options, bundle, settings)
    return _show_one(bundle, registry, options.json)


def _promote(options: Options, registry: Registry, base: Bundle, settings: config.Config) -> int:
    assert options.name is not None
    made = registry.promote(options.name, base=base, group=_group(options), why=options.why, by=_who(options))
    print(clean(f"{made.id} serves from now on{_for_group(made.group)}, in the place of {made.base_id}"))
    if said := _refused(settings, made.id):
        print(clean(f"▲ {said}; a person has the last word, and takes it back with: models rollback"))
    if settings.thresholds.discard is not None:
        print(f"▲ [thresholds] discard = {settings.thresholds.discard:g} goes before its own discard threshold")
    if made.group != (now := registry.group()):
        print(clean(f"▲ the present session is another{_for_group(now)}: it serves when one of its sample begins"))
    return 0


def _refused(settings: config.Config, id: str) -> str | None:
    """That the gate has refused this very model, and by which tests; None where it has not, or nobody can read it."""
    from models.gate import refusal_of

    with suppress(OSError):
        if report := refusal_of(settings.state, id):
            return f"the gate has refused it at {minute_of(report.time)}: {', '.join(report.failed)}"
    return None


def _rollback(options: Options, registry: Registry, base_id: str) -> int:
    group = registry.group() if (asked := _group(options)) is None else asked
    was = registry.for_group(group, base_id)
    after = registry.rollback(_who(options), options.why, group=group, base_id=base_id)
    print(clean(f"{after.id if after else base_id} serves again{_for_group(group)}; taken back: {was and was.id}"))
    return 0


def _group(options: Options) -> str | None:
    from daemon.labels.sessions import group_of

    return None if options.group is None else group_of(options.group)


def _for_group(group: str) -> str:
    return f" for the sample {group}" if group else ""


def _who(options: Options) -> str:
    return (this_user() or "somebody") if options.by is None else options.by


def _show_one(bundle: Bundle, registry: Registry, as_json: bool) -> int:
    changes = [one for one in registry.history() if bundle.id in (one.id, one.before)]
    if as_json:
        history = [{"act": one.act, "time": one.time, "by": one.by, "why": one.why} for one in changes]
        print(json.dumps({"id": bundle.id, "folder": str(bundle.folder), **bundle.stored, "history": history}))
        return 0
    print(f"{clean(bundle.id)}\n{clean(str(bundle.folder))}")
    for one in changes:
        print(clean(_words(one, bundle.id)))
    print(f"\n{(bundle.folder / 'card.md').read_text()}", end="")
    return 0


def _words(change: Change, id: str) -> str:
    did = {
        "promote": "promoted" if change.id == id else f"gave way to {change.id}",
        "rollback": "came back" if change.id == id else "was taken back",
        "group": "came with its sample" if change.id == id else "went with its sample",
    }
    return f"{change.time} {did[change.act]}{_for_group(change.group)}, by {change.by}: {change.why}"


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


def _list(registry: Registry, as_json: bool, base: str, settings: config.Config) -> int:
    """What is registered, then what has judged for this state and is not among it; last, what serves."""
    from daemon.judging.judge import choose
    from models.bundle import BadBundle, entries

    served = {one.id: one for one in registry.served()}
    serving, passed_over, is_known = registry.serving(), None, True
    try:
        chosen = choose(base, registry.models, settings.thresholds)
        serving, passed_over = chosen.promotion, chosen.passed_over
    except BadBundle as error:  # no service could start with it; the others are listed all the same
        passed_over, is_known = f"the configured model: {error}", False
    for entry in entries(registry.models):
        one = served.pop(entry.bundle.id, None) if entry.bundle else None
        _show(entry, as_json, one.since if one else None, serving.id if serving else None)
        if entry.bundle and not as_json and (said := _refused(settings, entry.bundle.id)):
            print(clean(f"{'':<16} ▲ {said}"))
    for one in served.values():
        _show(_entry_of(one, registry), as_json, one.since, serving.id if serving else None, one.id)
    if not as_json:
        group = registry.group()
        changes = [one for one in registry.history() if one.act != "group" and one.group == group]
        if changes and changes[-1].act == "rollback" and changes[-1].before is not None:
            print(clean(f"{changes[-1].before}: {_words(changes[-1], changes[-1].before)}"))
    if serving is not None and not as_json:
        by = f"since {serving.time}, by {serving.by}: {serving.why}"
        print(clean(f"{serving.name} serves{_for_group(serving.group)} in the place of {serving.base_id} {by}"))
    elif is_known and not as_json:
        print(clean(f"{base} serves: the configured model, with nothing promoted in its place"))
    if passed_over is not None and not as_json:
        print(clean(f"▲ {passed_over}"))
    return 0


def _entry_of(served: Served, registry: Registry) -> Entry:
    """A model that has judged; its id alone where its folder holds another by now, and no copy is here."""
    from models.bundle import BadBundle, Entry, read

    try:
        return Entry(served.name, served.folder, read(registry.find(served.id)))
    except (BadBundle, OSError):
        return Entry(served.name, served.folder, None, "its folder is gone, not whole, or holds another model by now")


def _show(entry: Entry, as_json: bool, since: str | None, serving: str | None, id_then: str | None = None) -> None:
    from models.certificate import percent_up

    bundle = entry.bundle
    if as_json:
        id = bundle.id if bundle else id_then
        known: dict[str, object] = {"name": entry.name, "folder": str(entry.folder), "id": id, "problem": entry.problem}
        if bundle is not None:
            known |= {"parent": bundle.manifest.parent, "discard": bundle.discard, "keep": bundle.keep}
        print(json.dumps({**known, "served_since": since, "is_promoted": id is not None and id == serving}))
        return
    judged = f", judged first {since}" if since else ""
    if bundle is None:
        which = f"{id_then}{judged}: {entry.problem}" if id_then else f"unusable: {entry.problem}"
        print(clean(f"{entry.name:<16} {which}  {entry.folder}"))
        return
    promise = f"at most {percent_up(bundle.certificate.bound)} missed" if bundle.certificate else "no certificate"
    cut = f"discard at {bundle.discard:.3g}"
    parent = f"from {bundle.manifest.parent}, " if bundle.manifest.parent else ""
    basis = f"{parent}{cut}, {bundle.manifest.score_basis}, {promise}, {bundle.manifest.created}{judged}"
    print(clean(f"{entry.name:<16} {bundle.id}  {basis}  {entry.folder}"))
