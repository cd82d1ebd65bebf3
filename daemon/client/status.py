"""The status: how the service is, from its own answer; when it is down, what its ledger knows."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from daemon.client.feed import ask_status, why_deaf
from daemon.client.service_file import ServiceFile, find
from daemon.common.errors import INPUT_OUTPUT, UserError
from daemon.common.text import MARKS, bars, clean, duration, latency, many
from daemon.config import Config
from daemon.config.origin import LEDGER_FILE, SERVICE_FILE
from daemon.labels import Labels
from daemon.ledger.numbers import ADVICE
from daemon.ledger.view import LedgerView
from daemon.sources import SEEN_S
from models.certificate import between, percent_down
from models.clock import minute_of, since_1970

SHOWN_FLAGGED = 5  # curves that one screen names; `events --verdict review` shows all of them
_LABELS_S = 1.0  # for whoever holds the labels locked


def gather(config: Config) -> dict[str, Any]:
    """``running`` and, when it is, everything of the status event; ``ledger`` and ``flagged`` from the disk."""
    where = find(config)
    ledger, unreadable = (None, "") if _is_elsewhere(config) else _read_ledger(config)
    event = ask_status(where.replay, key=where.key)
    if (orphan := None if event else find_orphan(config.state)) and orphan.replay:
        where = replace(where, replay=orphan.replay)
        event = ask_status(where.replay, key=where.key)
    # With a ledger that cannot be read nobody can compare who answers at the usual address.
    is_stranger = bool(unreadable) and not where.is_alive and "replay" not in config.origins
    data = dict(event["data"]) if event and not is_stranger and _is_ours(event, config, ledger) else {}
    flagged = ledger.pop("flagged") if ledger else []
    report = {"running": bool(data), "instrument": config.instrument, "state_dir": str(config.state)}
    report["process"] = orphan.pid if orphan else None
    if data:  # where it speaks in fact, also when it was told to take any free port
        data |= {"publish": where.publish, "replay": where.replay}
    note = "" if data else orphan.words(config.state) if orphan else unreadable or _absence(where, config)
    return report | data | {"ledger": ledger, "flagged": flagged, "note": note}


@dataclass(frozen=True, slots=True)
class Orphan:
    """A service that runs while its state folder, or the files in it, are not where they were."""

    pid: int
    ledger: str  # where the kernel says that its ledger lies now
    replay: str  # where it was told to answer; "" where it was not

    def words(self, state: Path) -> str:
        gone = self.ledger.endswith(_DELETED)
        where = "was deleted" if gone else f"lies at {Path(self.ledger).parent}"
        remedy = "end it and start again" if gone else "put it back"
        return f"process {self.pid} runs on {state}, which {where}: {remedy}; nothing is announced meanwhile"


_DELETED = " (deleted)"


def find_orphan(state: Path) -> Orphan | None:
    """By the open files of the processes that this user may look into."""
    expected = f"{state.absolute()}/{LEDGER_FILE}"
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if not process.name.isdigit() or not (ledger := _open_ledger(process)):
                continue
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if "run" not in words:  # a backup, or whoever looks into the ledger
                continue
            home = os.path.join(os.readlink(process / "cwd"), _option(words, "--state"))
            is_of_it = os.path.normpath(home) == str(state.absolute()) or ledger.removesuffix(_DELETED) == expected
            if is_of_it and not _is_in_place(process, expected):
                return Orphan(int(process.name), ledger, _option(words, "--replay"))
    return None


def _open_ledger(process: Path) -> str:
    names = (os.readlink(descriptor) for descriptor in (process / "fd").iterdir())
    return next((name for name in names if Path(name.removesuffix(_DELETED)).name == LEDGER_FILE), "")


def _is_in_place(process: Path, expected: str) -> bool:
    """Whether its ledger and its service file are what the state folder has."""
    folder = Path(expected).parent
    return expected in map(os.readlink, (process / "fd").iterdir()) and (folder / SERVICE_FILE).exists()


def _option(words: Sequence[str], name: str) -> str:
    """The value of ``--name VALUE`` or ``--name=VALUE``; "" where it is not given."""
    given = [word.partition("=")[2] for word in words if word.startswith(f"{name}=")]
    given += [words[number + 1] for number, word in enumerate(words[:-1]) if word == name]
    return given[-1] if given else ""


def is_well(report: Mapping[str, Any]) -> bool:
    """Running, and nothing to worry about."""
    is_ready = bool(report["running"]) and report.get("state", "ready") in ("ready", "starting")
    return is_ready and not unseen(report, time.time())


def verdicts_of(counts: Mapping[str, int]) -> str:
    """``● keep 12   ◐ review 40   ○ discard 1,182``."""
    return "   ".join(f"{mark} {verdict} {counts.get(verdict, 0):,}" for verdict, mark in MARKS.items())


def session_words(told: Mapping[str, Any]) -> str:
    """``3, titin, tip OMCL, for 2 h 13 min``, of a current session as a status tells it."""
    said = [
        str(told[name]) if name in ("name", "sample") else f"{name} {told[name]}" for name in _SAID if told.get(name)
    ]
    return clean(", ".join([f"{told.get('number')}", *said, f"for {duration(float(told.get('seconds') or 0.0))}"]))


_SAID = ("name", "sample", "tip", "operator", "goal")  # of a session, on one line; the note is longer


def unseen(status: Mapping[str, Any], now_s: float) -> list[str]:
    """What a status does not call a trouble and yet is none to call well: folders that were not seen lately."""
    found = []
    for source in _list(status.get("sources")):
        if isinstance(source, dict) and source.get("ok") and source.get("folder") is not None:
            seen_s = source.get("last_seen_s")
            begun = float(status.get("uptime_s") or 0.0)
            unseen_s = now_s - seen_s if isinstance(seen_s, int | float) else begun
            if unseen_s > SEEN_S:
                found.append(f"source {source.get('name')}: has not been seen for {duration(unseen_s)}")
    return found


def promises(guard: Mapping[str, Any]) -> list[str]:
    """``path ≥ 96.3 %``, ``events 38 of 39 shown``, ``unseen ≤ 64 of 2,184``: three numbers that never merge, in short.

    One of which nothing is known yet is left out; a path that is not well begins with ▲.
    """
    path, events, discards = (guard.get(name) or {} for name in ("path", "events", "unseen"))
    said, bound = [], path.get("lower_bound")
    least = "" if bound is None else f" ≥ {percent_down(bound)}"
    if guard.get("no_path"):
        said.append("path not watched")
    elif path and not path.get("is_well"):
        judged = int(path.get("canaries") or 0)
        found = judged - int(path.get("missed") or 0)
        said.append(f"▲ path{least or ' not well'}" + (f", {found:,} of {judged:,} found" if judged else ""))
    elif least:
        said.append(f"path{least}")
    if events.get("confirmed"):
        said.append(f"events {events['shown_live']:,} of {events['confirmed']:,} shown")
    if discards.get("at_most") is not None:
        said.append(f"unseen ≤ {discards['at_most']:,} of {discards['discards']:,}")
    return said


def remembered(guard: Mapping[str, Any], *, is_running: bool) -> list[tuple[str, str, str]]:
    """What was told before and is not told now, the gravest first: (level, condition, words).

    ok: it needs nobody any more; "" for a condition whose words say all, as those of advice do.
    """
    found = []
    for one in guard.get("told") or ():
        name, text, began = str(one.get("name")), str(one.get("text")), minute_of(one["since"])
        left, level = f" {minute_of(one['left'])}" if one.get("left") else "", "ok"
        if one.get("ended"):
            said = f"from {began} to {minute_of(one['ended'])}: {text}"
        elif is_running:
            said = f"told since {began}, over or not seen again since the service ended{left}: {text}"
        else:
            still, level = f"still so when the service ended{left}", str(one.get("level"))
            end = _head_of(text)
            when = still if "since " in text[:end] else f"since {began}, {still}"
            said = f"{text[:end]} ({when}){text[end:]}"
        found.append((level, "" if name.startswith(ADVICE) else name, clean(said)))
    return sorted(found, key=lambda one: ("alarm", "degraded", "ok").index(one[0]))


def events_now(events: Mapping[str, Any]) -> str:
    """What the model that serves finds of the confirmed events, where that is another number than was shown live."""
    confirmed, scored, found = (int(events.get(name) or 0) for name in ("confirmed", "scored_now", "found_now"))
    if not scored or (scored, found) == (confirmed, events.get("shown_live")):
        return ""
    of = f"{scored:,}" + (f", re-judged so far of {confirmed:,}," if scored < confirmed else "")
    return f"the model that serves now finds {found:,} of {of} ({between(events['low'], events['high'])})"


def learned_in_short(learning: Mapping[str, Any]) -> str:
    """One line of how the teaching of the network stands, the last outcome with the tests that refused it first."""
    if learning["waits"]:
        return f"the timer waits until you type `afm-triage finetune`: {learning['waits']}"
    if not (last := learning["last"]):
        return str(learning["text"])
    on = f', on the sample "{last["sample"]}"' if last["sample"] else ""
    tests = ", ".join(dict.fromkeys(text.partition(":")[0] for text in last["why"]))
    return f"{last['outcome']}{tests and ': '}{tests}{on}, {minute_of(last['time'])}, {last['candidate']}"


def second_in_short(guard: Mapping[str, Any]) -> str:
    """Of the second opinion; "" where it disputes nothing."""
    second = guard.get("second") or {}
    disputed, looked = int(second.get("disputed") or 0), int(second.get("looked_at") or 0)
    return f"second opinion disputes {disputed:,}, {looked:,} looked at" if disputed else ""


def with_since(text: str, since: object) -> str:
    """``… without contact since 14:46: look …``: the moment stands before what to do, as advice says it."""
    try:
        moment = minute_of(str(since))
    except ValueError:
        return text
    if "since " in text:
        return text
    end = _head_of(text)
    return f"{text[:end]} since {moment}{text[end:]}"


def _head_of(text: str) -> int:
    """Where what is the matter ends, and what to do begins."""
    ends = [place for mark in (": ", "; ") if (place := text.find(mark)) >= 0]
    return min(ends, default=len(text))


def troubles(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The conditions of the service that are not well, each since when; :func:`advice` is another thing."""
    health = (one for one in _list(status.get("health")) if isinstance(one, dict))
    found = (one for one in health if not one.get("ok") and not one.get("is_advice"))
    return [{**one, "text": with_since(str(one.get("text")), one.get("since"))} for one in found]


def advice(status: Mapping[str, Any]) -> list[str]:
    """On tip and run, for whoever is at the microscope; what is grave enough for an alarm is among the troubles."""
    told = " ".join(str(one.get("text")) for one in troubles(status))
    said = ((status.get("guard") or {}).get("tip") or {}).get("advice") or ()
    return [clean(text) for one in said if (text := str(one.get("text"))) not in told]


def trends(guard: Mapping[str, Any], width: int) -> list[tuple[str, str, str]]:
    """Noise and adhesion: name, value of now with its unit, and a row of at most ``width`` bars over the last hours."""
    tip = guard.get("tip") or {}
    blocks: Sequence[Mapping[str, Any]] = tip.get("blocks") or ()
    edges = [place * len(blocks) // width for place in range(width + 1)]
    found = []
    for name in ("noise", "adhesion"):
        heights = []
        for start, stop in pairwise(edges):
            known = [float(one[name]) for one in blocks[start:stop] if one.get(name) is not None]
            if stop > start:
                heights.append(sum(known) / len(known) if known else 0.0)
        if any(heights):
            last = blocks[-1].get(name)
            value = "–" if last is None else f"{last:.3g} {clean(tip.get('unit') or '')}".rstrip()
            found.append((name, value, bars(heights, len(heights))))
    return found


def last_curve_s(report: Mapping[str, Any]) -> float | None:
    """When the last curve came, in seconds since 1970: as the service says, else by the ledger's last decision."""
    told = report.get("last_curve_s")
    if isinstance(told, int | float):
        return float(told)
    last = (report.get("ledger") or {}).get("last_decision")
    return since_1970(last["time"]) if last else None


def learning(state: Path, labels: Labels | None, needed: int) -> dict[str, Any]:
    """How the teaching of the network stands: what the gate said last, and what people have still to say.

    ``needed``: confirmed events from which on there is something to learn. ``labels``: None where they cannot be read.
    ``alpha`` is the error that the ``looks`` at candidates of the same parent have spent, of ``alpha_of``. Raises
    UserError 74 as the labels do.
    """
    from daemon.judging.registry import Change, Registry  # late, as are the next: a console starts sooner without them
    from daemon.labels.confirmed import events_of, missing_of
    from daemon.labels.sessions import Sessions
    from models.bundle import BadBundle
    from models.gate import WHOLE, Report, last_said, lifted, looks

    last, spent, history, before, one, back, group = None, [], list[Change](), list[Report](), None, None, ""
    with suppress(OSError, BadBundle):  # damaged, as others say
        before, one = looks(state), last_said(state)
        registry = Registry(state / "models")
        history, group = registry.history(), registry.group()
        if labels is not None:
            sessions = Sessions(labels)
            group = sessions.group(sessions.present())
        back = registry.taken_back(group)
        back = None if back is None or back.number in lifted(state) else back
    if one:
        made = [act for act in history if act.act != "group" and one.candidate in (act.id, act.before)]
        outcome = "passed" if one.passed else "refused"
        if by := [act.by for act in made if act.act == "promote" and act.id == one.candidate]:
            is_back = made[-1].act == "rollback" and made[-1].before == one.candidate
            outcome = f"taken back by {made[-1].by}, {made[-1].why}" if is_back else "promoted"
            if not one.passed and not is_back:
                outcome = f"promoted by {by[-1]}, although the gate refused it"
        spent = [other.alpha for other in before if other.network == one.network]
        why = [clean(finding.text) for finding in one.findings if not finding.passed]
        last = {
            "time": one.time,
            "candidate": one.candidate,
            "parent": one.parent,
            "sample": clean(one.group),
            "outcome": clean(outcome),
            "why": why,
        }
    events, stream = (None, None) if labels is None else (len(events_of(labels)), labels.stream)
    if labels is None and (state / LEDGER_FILE).is_file() and not (state / "labels.sqlite").exists():
        events = 0  # nobody has said a word yet
    found: dict[str, Any] = {"events": events, "events_needed": needed, "stream": stream, "last": last}
    found["waits"] = None if back is None else clean(f"{back.by} took the last promotion back, {back.why}")
    missing = missing_of(events, needed) if events is not None else None
    found |= {"looks": len(spent), "alpha": sum(spent), "alpha_of": WHOLE}
    return found | {"text": "; ".join(_learned(found, missing))}


def _learned(told: Mapping[str, Any], missing: str | None) -> Iterator[str]:
    """The last look first, then what there is to learn from; nothing where nobody has said anything yet."""
    if last := told["last"]:
        on = f' on the sample "{last["sample"]}"' if last["sample"] else ""
        yield f"{minute_of(last['time'])} {last['candidate']} {last['outcome']}{on}"
        yield from last["why"]
    if told["waits"]:
        yield f"a timer teaches nothing on this sample until you type `afm-triage finetune`: {told['waits']}"
    if told["looks"]:
        yield f"{many(told['looks'], 'look')} used up, the next is stricter"
    if missing:
        yield f"{missing} before the network learns"
    elif told["events"]:
        yield f"{many(told['events'], 'confirmed event')} to learn from ({told['events_needed']:,} are needed)"


def learning_of(config: Config) -> dict[str, Any]:
    """The same for whoever holds no labels open; of those that cannot be read nothing is told."""
    file = config.state / "labels.sqlite"
    with suppress(UserError):
        if file.is_file():  # looking must not make it
            with Labels(file, patience_s=_LABELS_S, is_reading=True) as labels:
                return learning(config.state, labels, config.finetune.events)
    return learning(config.state, None, config.finetune.events)


def _is_elsewhere(config: Config) -> bool:
    """Whether an address or a key names the service, which may be anywhere: no ledger of this machine is meant."""
    return (config.key is not None or "replay" in config.origins) and "state" not in config.origins and not config.watch


def _is_ours(event: Mapping[str, Any], config: Config, ledger: Mapping[str, Any] | None) -> bool:
    """Another instrument's service may answer at the default address."""
    if "instrument" in config.origins and event["data"].get("instrument") != config.instrument:
        return False
    return ledger is None or ledger["stream"] == event.get("stream")


def _flags(config: Config) -> str:
    """With which `run` would be the service that is asked about."""
    if config.file is not None:
        return shlex.join(["--config", str(config.file)])
    own = {"--state": config.state, "--instrument": config.instrument}
    words = [word for flag, value in own.items() if flag[2:] in config.origins for word in (flag, str(value))]
    return " ".join(["--watch DIR", shlex.join(words)]).rstrip()


def _absence(where: ServiceFile, config: Config) -> str:
    is_elsewhere = _is_elsewhere(config)
    why = why_deaf(where.replay, where.key) if where.is_alive or is_elsewhere else ""
    if why or is_elsewhere:
        return why or f"nothing answers at {where.replay}"
    if where.pid is None:
        start = f"start it with: afm-triage run {_flags(config)}"
        if config.ledger_file.exists():  # which only a service makes
            return f"the service on {config.state} was stopped; {start}"
        return f"no service has run on {config.state} yet; {start}"
    if where.is_alive:
        why = where.why_silent or "its log says more"
        return f"process {where.pid} is there but does not answer at {where.replay}; {why}"
    return f"it ran as process {where.pid} and has gone without stopping in order; start it again, nothing is lost"


def _read_ledger(config: Config) -> tuple[dict[str, Any] | None, str]:
    """What it knows; else why it cannot be read, "" where there is none."""
    try:
        with LedgerView(config.ledger_file) as view:
            last = view.last(1)
            known = {
                "path": str(view.path),
                "stream": view.stream,
                "last_seq": view.last_seq,
                "counts": view.verdict_counts(),
                "review_queue": view.unlabelled_count(config.state / "labels.sqlite"),
                "last_decision": {"time": last[0]["time"], **_brief(last[0]["data"])} if last else None,
                "flagged": list(islice(_unlabelled(view, config), SHOWN_FLAGGED)),
            }
            return known, ""
    except UserError as error:
        return None, str(error) if error.exit_code == INPUT_OUTPUT else ""


def _unlabelled(view: LedgerView, config: Config) -> Iterator[dict[str, Any]]:
    """Flagged curves that nobody has said a word on, oldest first."""
    labelled, after = _labelled(config), 0
    while portion := view.queue(after):
        for one in portion:
            if not labelled & {(one.sha256 or "", one.curve), (f"path {one.path}", one.curve)}:
                yield {"seq": one.seq, "time": one.time, **_brief(asdict(one))}
        after = portion[-1].seq


def _labelled(config: Config) -> set[tuple[str, int]]:
    file = config.state / "labels.sqlite"
    if not file.is_file():  # looking must not make it
        return set()
    try:
        with Labels(file, patience_s=_LABELS_S) as labels:
            return {(label.sha256 or f"path {label.path}", label.curve) for label in labels.current()}
    except UserError:  # locked, damaged, of a newer version: what the ledger knows is told all the same
        return set()


def _brief(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in ("verdict", "path", "curve", "score", "reasons") if name in data}


def _list(said: object) -> list[object]:
    return said if isinstance(said, list) else []


#: Verdict -> what it says, the one to look at first.
MEANINGS = {
    "keep": "an event, by the model",
    "review": "unsure, or something about the file; a person looks",
    "discard": "nothing there; the file stays where it is",
}


def lines(counts: Mapping[str, int], latency_s: Mapping[str, float | None], model: str, engine: str) -> Iterator[str]:
    """``counts`` of the session, by verdict; ``latency_s``: its median ("p50") and 99th percentile ("p99")."""
    for verdict, meaning in MEANINGS.items():
        yield f"  {verdict:<8} {counts.get(verdict, 0):>4,}   {meaning}"
    median_s, slowest_s = latency_s["p50"], latency_s["p99"]
    if median_s is not None and slowest_s is not None:
        median, slowest = latency(median_s), latency(slowest_s)
        yield f"finished file noticed to verdict on disk: median {median}, 99 % within {slowest}"
    yield f"model {model} on {engine}"
