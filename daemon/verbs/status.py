"""`status`: one screen of state, one fact a line, or the same as JSON."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from rich.text import Text

from daemon.client import status
from daemon.client.status import (
    advice,
    events_now,
    last_curve_s,
    remembered,
    session_words,
    trends,
    troubles,
    unseen,
    verdicts_of,
)
from daemon.common.errors import UNREACHABLE
from daemon.common.options import Option
from daemon.common.stdio import as_json
from daemon.common.text import clean, duration, latency, many, rate, score, share, size
from daemon.config import Flags, Keys, load
from daemon.config.origin import served
from daemon.screens import BAD, BARS, KEEP, QUIET, REVIEW, WARN, Printer
from daemon.sources import heard, words
from models.clock import minute_of
from models.reasons import INFORMING

_TREND = 20  # blocks of curves in a row of bars
_LEFT = {"alarm": ("▲ ", BAD), "degraded": ("▲ ", WARN), "ok": ("", QUIET)}
_STYLES = {"ready": KEEP, "starting": BARS, "stopping": BARS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    service: Annotated[Flags, Keys("state", "instrument", "replay", "key")]
    json: Annotated[bool, Option("the same as one JSON object")] = False


def run(options: Options) -> int:
    """Exit 0 when the service runs and is well, 69 otherwise."""
    config = load(options.service)
    report = {**status.gather(config), "learning": status.learning_of(config)}
    from daemon.guard.morning import last_report, left_in

    is_named = config.file is not None or config.origins.keys() & {"state", "instrument", "replay", "key"}
    report["others"] = [] if is_named else [name for name in served() if name != config.instrument]
    written = last_report(config.state)
    report["last_report"] = None if written is None else str(written)
    if not report["running"]:  # of a service that runs all is known from itself
        report["guard"] = msgspec.to_builtins(left_in(config.state))
    if options.json:
        print(as_json(report, indent=1))
    else:
        printer = Printer()
        for line in page(report):
            printer.print(line)
    return 0 if status.is_well(report) else UNREACHABLE


def page(report: Mapping[str, Any]) -> list[Text]:
    """What :func:`daemon.client.status.gather` found."""
    head, facts = (_running_head, _running) if report["running"] else (_stopped_head, _stopped)
    rows = [Text.assemble((f"  {name:<9} ", QUIET), fact) for name, fact in facts(report)]
    others = [
        f"  {name} runs too: afm-triage status --instrument {name}" for name in map(clean, report.get("others", ()))
    ]
    return [head(report), *rows, *_flagged(report), *(Text(one, QUIET) for one in others)]


def _running_head(report: Mapping[str, Any]) -> Text:
    state, up = str(report.get("state")), duration(report.get("uptime_s") or 0)
    facts = f"   up {up}, process {report.get('pid')}, version {report.get('version')}"
    state_style = _STYLES.get(state, REVIEW)
    name = f"{report['instrument']}  "
    return Text.assemble((name, "bold"), (f"● {state}", state_style), (facts, QUIET))


def _running(report: Mapping[str, Any]) -> Iterator[tuple[str, Text]]:
    for source in report.get("sources") or []:
        mark = ("" if source.get("ok") else "▲ ", BAD)
        waiting = f", {source['waiting']} not finished yet" if source.get("waiting") else ""
        came = f", last curve {_ago(source['last_curve_s'])}" if source.get("last_curve_s") else ""
        yield "watches", Text.assemble(mark, clean(f"{source.get('name')}: {source.get('detail')}{waiting}{came}"))
    yield "curves", Text(_last_curve(report))
    yield "model", Text(_model(report.get("model") or {})).append(_engine(report))
    yield "promise", Text(_promise((report.get("model") or {}).get("certificate")))
    yield "decided", _counts(report.get("counts") or {})
    if session := report.get("current_session"):
        yield "session", Text.assemble(session_words(session), (":  ", QUIET), _counts(session["counts"]))
    if goal := report.get("goal"):
        yield "goal", Text(clean(str(goal.get("text"))))
    yield from _guard(report.get("guard") or {})
    yield from _learning(report)
    yield from _told(report)
    yield from _written(report)
    yield "handled", Text(_handled(report.get("session") or {}))
    if ignored := heard(report.get("ignored")):
        yield "ignored", Text(clean(words(ignored)))
    took = report.get("latency_s") or {}
    speed = rate(report.get("rate_per_s") or 0)
    yield "latency", Text(f"p50 {latency(took.get('p50'))}, p99 {latency(took.get('p99'))}; {speed} in the last minute")
    port = report.get("metrics_port")
    metrics = f", metrics http://127.0.0.1:{port}/metrics" if port else ""
    yield "speaks", Text(f"{report.get('publish')}, replay {report.get('replay')}{metrics}")
    if disk := report.get("disk"):
        full_s = disk.get("full_s")
        rest = f", full in {duration(full_s)} at the present rate" if full_s is not None else ""
        yield "disk", Text(f"{size(disk.get('free_bytes') or 0)} free{rest}")
    told = [(f"▲ {one}", BAD) for one in unseen(report, time.time())]
    told += [(f"▲ {one.get('name')}: {one.get('text')}", BAD) for one in troubles(report)]
    told += [(f"▲ {one}", WARN) for one in advice(report)]
    before = remembered(report.get("guard") or {}, is_running=True)
    for text, style in told or [("✓ all well now" if before else "✓ all well", KEEP)]:
        yield "health", Text(clean(text), style)
    for _, name, text in before:
        yield "before", Text(f"{name}{name and ': '}{text}", QUIET)


def _guard(guard: Mapping[str, Any]) -> Iterator[tuple[str, Text]]:
    """Three numbers that never merge, a second opinion, and the tip: a line each."""
    if unwatched := guard.get("no_path"):
        yield "path", Text(clean(unwatched), REVIEW)
    for name in ("path", "events", "unseen", "second"):
        if told := guard.get(name):
            is_well = told.get("is_well", True)
            now = events_now(told) if name == "events" else ""
            text = ("" if is_well else "▲ ") + "; ".join(filter(None, [str(told.get("text")), now]))
            yield name, Text(clean(text), "" if is_well else BAD)
    rows = [f"{name} {value} {row}" for name, value, row in trends(guard, _TREND)]
    if rows:
        yield "tip", Text(", ".join(rows))


def _learning(report: Mapping[str, Any]) -> Iterator[tuple[str, Text]]:
    """Once there is anything to say, a line each: a refusal has several reasons, and each is a long one."""
    for number, one in enumerate(filter(None, str((report.get("learning") or {}).get("text") or "").split("; "))):
        yield "" if number else "learning", Text(clean(one))


def _told(report: Mapping[str, Any]) -> Iterator[tuple[str, Text]]:
    """Who is told when something is wrong; what does not arrive is a trouble."""
    if messages := report.get("messages"):
        last, waiting = messages.get("last_arrived"), int(messages.get("waiting") or 0)
        arrived = f"the last was taken {minute_of(last)}" if last else "none was sent yet"
        waits = f"; {many(waiting, 'message')} on the way" if waiting else ""
        yield "messages", Text(clean(f"{', '.join(messages.get('to') or ())}; {arrived}{waits}"))


def _written(report: Mapping[str, Any]) -> Iterator[tuple[str, Text]]:
    """Where the page of the last night lies, that a timer has written."""
    if last := report.get("last_report"):
        yield "report", Text(clean(str(last)))


def _stopped_head(report: Mapping[str, Any]) -> Text:
    said = "▲ running without its state folder" if report.get("process") else "○ not running"
    return Text.assemble((f"{report['instrument']}  ", "bold"), (said, BAD), f"   {report['note']}")


def _stopped(report: Mapping[str, Any]) -> Iterator[tuple[str, Text]]:
    ledger = report["ledger"]
    if ledger is None:
        yield "ledger", Text(f"none to read in {report['state_dir']}; is --state, --config or --instrument right?")
        return
    yield "ledger", Text(f"{ledger['path']}, {ledger['last_seq']:,} decisions")
    yield "curves", Text(_last_curve(report))
    yield "decided", _counts(ledger["counts"])
    if last := ledger["last_decision"]:
        yield "last", Text(clean(f"{last['time']}  {last['verdict']}  {last['path']}#{last['curve']}"))
    guard = report.get("guard") or {}
    yield from _guard(guard)
    yield from _learning(report)
    yield from _written(report)
    for level, name, text in remembered(guard, is_running=False):
        mark, style = _LEFT[level]
        yield "left", Text(f"{mark}{name}{name and ': '}{text}", style)


def _last_curve(report: Mapping[str, Any]) -> str:
    came_s, oldest_s = last_curve_s(report), report.get("oldest_pending_s")
    told = "no curve yet" if came_s is None else f"last curve {_ago(came_s)}"
    return f"{told}; the oldest without a verdict waits for {duration(oldest_s)}" if oldest_s else told


def _ago(when_s: float) -> str:
    return f"{duration(time.time() - when_s)} ago"


def _model(model: Mapping[str, Any]) -> str:
    between = model.get("thresholds") or {}
    return (
        f"{model.get('id')}, keep from {_short(between.get('keep'))}, discard to {_short(between.get('discard'))},"
        f" calibrated on {model.get('score_basis')}"
    )


def _engine(report: Mapping[str, Any]) -> str:
    """What is wrong with it stands under health; what is on its way stands nowhere else."""
    coming = [] if report.get("state") == "degraded" else report.get("engine_reasons") or []
    return f", on {report.get('engine')}" + (f" ({clean('; '.join(coming))})" if coming else "")


def _promise(certificate: Mapping[str, Any] | None) -> str:
    if not certificate:
        return "none: no certificate says how many events are missed at the most"
    bound = math.ceil(1000 * (certificate.get("bound") or 1) - 1e-9) / 10  # never smaller than it is
    sure, data = 100 * (certificate.get("confidence") or 0), map(str, certificate.get("data") or [])
    promise = f"at most {bound:g} % of events missed, {sure:.6g} % sure"
    return f"{promise}, by {certificate.get('events')} events of {clean(', '.join(data))}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else "–"


def _counts(counts: Mapping[str, int]) -> Text:
    total = sum(counts.values())
    return Text(verdicts_of(counts)).append(f"   ({share(counts.get('discard', 0), total)} discarded)", QUIET)


def _handled(session: Mapping[str, int]) -> str:
    """Since the process began."""
    parts = [
        f"{int(session.get(name) or 0):,} {name}" for name in ("seen", "decided", "duplicate", "backlog", "ignored")
    ]
    return f"{parts[0]} = {parts[1]} + {parts[2]} + {parts[3]}; {parts[4]}"


def _flagged(report: Mapping[str, Any]) -> Iterator[Text]:
    waiting = int((report["ledger"] or report).get("review_queue") or 0)
    if not waiting:
        return
    yield Text(f"  {waiting:,} curves wait for a look" + (", the first of them:" if report["flagged"] else ""))
    for one in report["flagged"]:
        reasons = [reason for reason in one["reasons"] if reason != "score"]
        if "score" in one["reasons"] and INFORMING.issuperset(reasons):
            reasons.insert(0, "between the thresholds")
        why = ", ".join(reasons)
        name = clean(f"{one['path']}#{one['curve']}")
        yield Text.assemble((f"    ◐ {score(one['score'])}  ", REVIEW), name, (f"  {clean(why)}", QUIET))
