"""`session`: a run with its tip, sample, operator, note and goal; what it brought, beside what all time did."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from daemon.client.status import verdicts_of
from daemon.common.errors import BAD_DATA, INPUT_OUTPUT, UserError
from daemon.common.options import Action, Actions, Option
from daemon.common.text import clean, duration
from daemon.config import Config, Flags, Keys, load
from daemon.judging.registry import Registry
from daemon.labels import Labels
from daemon.labels.sessions import FIELDS, Session, Sessions
from models.bundle import BadBundle
from models.clock import day_and_minute

_SHOWN = 10  # of the sessions before


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    name: Annotated[str, Option("what to call it", "TEXT")] = ""
    tip: Annotated[str, Option("the cantilever, and which of the box", "TEXT")] = ""
    sample: Annotated[str, Option("sessions of one sample share their cut", "TEXT")] = ""
    operator: Annotated[str, Option("who measures", "TEXT")] = ""
    note: Annotated[str, Option("anything else", "TEXT")] = ""
    goal: Annotated[str, Option("what it is for", "TEXT")] = ""
    service: Annotated[Flags, Keys("state", "instrument")]


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    service: Annotated[Flags, Keys("state", "instrument")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    json: Annotated[bool, Option("all sessions, as one JSON object")] = False
    service: Annotated[Flags, Keys("state", "instrument")]


_ACTIONS = {
    "begin": Action(Begin, "from the next curve on; one that goes on ends"),
    "end": Action(End, "with the last curve that was decided"),
    "show": Action(Show, "the one that goes on, and those before"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    action: Annotated[Begin | End | Show, Actions(_ACTIONS)]


def run(options: Options) -> int:
    """Exit 0; 64 for a text that is too long, 65 where no session goes on that could end."""
    action = options.action
    config = load(action.service)
    with Labels(config.state / "labels.sqlite") as labels:
        sessions = Sessions(labels)
        if isinstance(action, Begin):
            return _begin(action, config, sessions)
        if isinstance(action, End):
            return _end(config, sessions)
        return _show(action, config, sessions)


def _begin(asked: Begin, config: Config, sessions: Sessions) -> int:
    before = sessions.current()
    begun = sessions.begin(**{name: getattr(asked, name) for name in FIELDS})
    if before is not None:
        print(_ended(next(one for one in sessions.all() if one.number == before.number)))
    print(clean(f"session {begun.number} begins with decision {begun.first_seq:,}{_said(begun)}"))
    _turn_to(config, sessions.group(begun))
    return 0


def _end(config: Config, sessions: Sessions) -> int:
    ended = sessions.end()
    if ended is None:
        raise UserError(BAD_DATA, "no session goes on; begin one with: afm-triage session begin --sample TEXT")
    print(_ended(ended))
    _turn_to(config, "")
    return 0


def _turn_to(config: Config, group: str) -> None:
    """From now on the cut of this group serves; told where that is another model."""
    registry = Registry(config.state / "models")
    try:
        before, after = registry.serving(), registry.turn_to(group, by="session")
    except (BadBundle, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        code = INPUT_OUTPUT if isinstance(error, OSError) else BAD_DATA
        raise UserError(code, f"that is noted, but the model that judges stays as it was: {why}") from None
    if before != after:
        whose = clean(f"the curves of {group}") if group else "curves of no sample"
        serves = f"the cut of {whose}, {clean(after.name)}, serves" if after else f"the configured model serves {whose}"
        print(f"{serves} from the next batch on")


def _ended(session: Session) -> str:
    counts = session.counts({})
    return clean(f"session {session.number} ended: {_curves(counts)}")


def _curves(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    return f"{total:,} curve{'' if total == 1 else 's'}, {verdicts_of(counts)}"


def _said(session: Session) -> str:
    """``: sample titin, tip OMCL``, of what was said of it."""
    said = [f"{name} {value}" for name in FIELDS if (value := getattr(session, name))]
    return f": {', '.join(said)}" if said else ""


def _show(asked: Show, config: Config, sessions: Sessions) -> int:
    now = sessions.counted()
    every, current, words = sessions.all(), sessions.current(), sessions.labels.words()

    def labelled(one: Session) -> int:
        return 0 if one.stream != sessions.labels.stream else sum(one.holds(seq) for seq in words)

    if asked.json:
        told = [{**_plain(one, now), "labelled": labelled(one)} for one in every]
        going_on = next((one for one in told if current and one["number"] == current.number), None)
        print(json.dumps({"current": going_on, "sessions": told}))
        return 0
    if current is None:
        print("no session goes on")
    for one in every[-_SHOWN:]:
        counts = one.counts(now)
        state = "goes on" if one is every[-1] and current else f"until {day_and_minute(one.ended or one.began)}"
        what = f"session {one.number}, {day_and_minute(one.began)} {state}, {duration(one.seconds)}{_said(one)}"
        print(clean(f"{what}; {_curves(counts)}, {labelled(one):,} labelled"))
    print(f"all time: {_curves(now)}")
    return 0


def _plain(session: Session, now: Mapping[str, int]) -> dict[str, Any]:
    names = ("number", *FIELDS, "origin", "began", "ended", "first_seq", "last_seq")
    said = {name: getattr(session, name) for name in names}
    return {**said, "group": Sessions.group(session), "seconds": session.seconds, "counts": session.counts(now)}
