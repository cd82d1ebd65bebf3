"""The words: a report as one paragraph, as sentences that a page shares, and as one screen of a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from daemon.common.text import MARKS, bars, clean, duration, latency, many, score_in_words, share
from daemon.ledger.numbers import ADVICE, Told
from daemon.report import Bar, Gap, Report
from daemon.sources import words as kinds_in_words
from models.certificate import between
from models.clock import spoken, spoken_start
from models.metrics import clopper_pearson

#: Lines of a screen that name alarms and folders.
_ALARMS, _FOLDERS = 3, 3
_IN_WORDS = 3  # of a trend as short as this there is nothing to draw
_WIDTH = 80
#: The last word of a run that has no end is so old at the most while it goes on.
_FRESH_S = 300.0
#: A service that ran so much of a time ran all through it.
_MOSTLY = 0.98


def headline(report: Report) -> str:
    """``afm1, Fri 27 Nov 17:40 to Sat 28 Nov 02:57``."""
    if report.first is None or report.last is None:
        begin = "the beginning" if report.since is None else spoken(report.since)
        end = "" if report.until is None else f" until {spoken(report.until)}"
        return f"{report.instrument}, since {begin}{end}"
    return f"{report.instrument}, {spoken(report.first)} to {spoken(report.last)}"


def paragraph(report: Report) -> str:
    """What happened, in sentences: what was kept, what waits, what can have been missed, and was everything well."""
    return " ".join(filter(None, [*_brought(report), missed_in_all(report), *_wellness(report)]))


def _brought(report: Report) -> Iterator[str]:
    if not report.curves:
        last = f" The last one before was measured {spoken(report.last_before)}." if report.last_before else ""
        yield f"No curve was measured in this time.{last}"
        yield _of_older(report)
        return
    counts = report.counts
    some, every = counts["keep"], many(report.curves, "curve")
    kept = f"{some:,} of {every} ({share(some, report.curves)}) {'was' if some == 1 else 'were'} kept"
    kept = kept if some else f"None of {every} was kept"
    rate = "" if report.per_hour is None else f", {report.per_hour:.3g} an hour while the instrument measured"
    holds = "holds" if report.kept_but_not == 1 else "hold"
    not_so = f"; people say that {report.kept_but_not:,} of them {holds} no event" if report.kept_but_not else ""
    yield f"{kept}{rate}{not_so}."
    if counts["review"]:
        unsure = f"{counts['review']:,} ({share(counts['review'], report.curves)}) {_are(counts['review'])} unsure"
        open_ones = f"nobody has looked at {report.waiting:,} yet" if report.waiting else "all were looked at"
        yield f"{unsure}; {open_ones}."
    yield _of_older(report)


def _of_older(report: Report) -> str:
    if report.older is None:
        return ""
    one = report.older
    return (
        f"{many(one.curves, 'more curve')} ({one.keep:,} kept) {'was' if one.curves == 1 else 'were'} judged in this "
        f"time and dated before it (an older folder, or a clock that was set back): `--since {one.after}` has them too."
    )


def missed_in_all(report: Report) -> str:
    """How many events can have been thrown away at the most."""
    missed = report.missed
    if not report.curves:
        return ""
    if not missed.discards:
        return "Nothing was discarded, so no event was thrown away."
    nights = f"{many(missed.discards, 'discard')} of {_its_nights(report)}"
    if missed.at_most is None:
        return (
            f"Nobody has looked blind at any of the {nights}, so nobody knows how many events were thrown away: "
            "`afm-triage review`."
        )
    rest = f"; from all {missed.of_nights:,} of the night" if missed.of_nights > missed.discards else ""
    return f"At most {many(missed.at_most, 'event')} can lie among the {nights} (95 % sure{rest})."


def _its_nights(report: Report) -> str:
    nights = max((one.nights for one in report.missed.unseen), default=0)
    if report.missed.of_nights > report.missed.discards:
        return "this time"
    return "this night" if nights == 1 else f"these {nights} nights"


def _wellness(report: Report) -> Iterator[str]:
    alarms, advice = split(report.alarms)
    killed = killed_runs(report)
    faults = []
    if alarms:
        faults.append(many(len(alarms), "alarm"))
    if advice:
        faults.append(f"{many(len(advice), 'piece')} of advice on tip or run")
    if killed:
        faults.append(f"the service ended {_times(killed)} without stopping in order")
    if report.silences:
        longest = report.silences[0]
        faults.append(f"{many(len(report.silences), 'silence')}, the longest of {duration(longest.seconds)}")
    if faults:
        standing = sum(one.ended is None and one.left is None for one in alarms) if report.running else 0
        now = f"; {standing} of the alarms still stand{'s' if standing == 1 else ''}" if standing else ""
        yield f"Not everything was quiet: {', '.join(faults)}{now}."
    elif any(note.startswith("alarms") for note in report.notes):
        yield "Whether everything was well is not known: there is no logbook."
    elif report.ran_s:
        part = report.asked_s is None or report.ran_s < min(_MOSTLY * report.asked_s, report.asked_s - _FRESH_S)
        ran = f" in the {duration(report.ran_s)} that the service ran" if part else ""
        yield f"Everything was well{ran}."
    if not report.runs and report.ran_s is not None:
        yield "The service did not run in this time, so nothing watched over it."
    if report.until is None and not report.running:
        yield "The service does not run now."


def split(told: Sequence[Told]) -> tuple[list[Told], list[Told]]:
    """Alarms and troubles of the service, and advice for whoever is at the microscope."""
    alarms = [one for one in told if not one.name.startswith(ADVICE)]
    return alarms, [one for one in told if one.name.startswith(ADVICE)]


def killed_runs(report: Report) -> int:
    """Runs of the service that ended without stopping; one that runs now is none."""
    open_ones = [run for run in report.runs if run.ended is None]
    return len(open_ones) - bool(report.running and open_ones and open_ones[-1] == report.runs[-1])


def screen(report: Report, width: int = _WIDTH) -> list[str]:
    """One screen; lines that begin with ▲ are what was not well."""
    lines = [headline(report), *_wrapped(paragraph(report), width)]
    for name, texts in _rows(report, width - 10):
        for number, text in enumerate(texts):
            lines.append(f"{'' if number else name:<9} {clean(text)}".rstrip())
    return lines


def _rows(report: Report, room: int) -> Iterator[tuple[str, list[str]]]:
    if report.bars:
        yield "by " + period_of(report.bars), _trend(report.bars, room)
    if len(report.folders) > 1:
        yield "folders", _folders(report, room)
    if report.reasons:
        told = ", ".join(f"{name} {sum(counts.values()):,}" for name, counts in report.reasons.items())
        yield "reasons", [_cut(told, room)]
    if report.discarded:
        yield "look at", _worth_a_look(report, room)
    alarms, advice = split(report.alarms)
    if told_of := [alarm_in_words(one) for one in (*alarms, *advice)]:
        rest = [f"and {len(told_of) - _ALARMS:,} more: --html FILE shows all"] if len(told_of) > _ALARMS else []
        yield "▲ told", [line for one in told_of[:_ALARMS] for line in _wrapped(one, room)] + rest
    if report.silences:
        others = f"; and {len(report.silences) - 1:,} more" if len(report.silences) > 1 else ""
        yield (
            "silent",
            _wrapped(silence_in_words(report.silences[0]).removeprefix("no curve from ") + others, room),
        )
    if said := tip_in_words(report):
        yield "tip", [_cut(said, room)]
    yield "missed?", [_cut(one, room) for one in missed_in_words(report)]
    if report.raters:
        who = ", ".join(f"{one.rater} {one.keep + one.discard + one.unsure:,}" for one in report.raters)
        yield "said", _wrapped("; ".join((f"labels by {who}", *report.agreement[:1])), room)
    if served := [line for one in service_in_words(report) for line in _wrapped(one, room)]:
        yield "service", served
    if said := kinds_in_words(report.ignored):
        yield "ignored", [_cut(f"files that are no curves: {said}", room)]
    if report.notes:
        yield "note", [line for one in report.notes for line in _wrapped(one, room)]


def _worth_a_look(report: Report, room: int) -> list[str]:
    """Discards by name: first those that people call an event, then what the second opinion disputes most."""
    told = []
    for one in report.discarded[:_FOLDERS]:
        why = f"  score {score_in_words(one.score)}{', people: an event' if one.said == 'keep' else ''}"
        told.append(f"{_cut_left(one.name, room - len(why))}{why}")
    rest = report.missed.disputed + report.missed.confirmed["discard"] - len(told)
    return told + ([f"and {rest:,} more discards: `afm-triage review`, disputed"] if rest > 0 else [])


def _trend(some: Sequence[Bar], room: int) -> list[str]:
    if len(some) <= _IN_WORDS:
        return [_bar_in_words(one) for one in some]
    wide, whole = min(len(some), room - 34), sum(one.curves for one in some)
    rows = []
    for name, heights in (
        ("curves", [one.curves for one in some]),
        ("kept", [one.keep for one in some]),
        ("unsure", [one.review for one in some]),
    ):
        shown, part = heights[-wide:], "" if name == "curves" else f" ({share(sum(heights), whole)})"
        rows.append(f"{name:<7}{bars([float(one) for one in shown], len(shown))}  at most {max(shown):,}{part}")
    left_out = f", the last {wide} of {len(some)} {period_of(some)}s" if wide < len(some) else ""
    when = f"{spoken_start(some[-wide].start)} … {spoken_start(some[-1].start)}{left_out}"
    if len(rows[0]) + len(when) + 4 <= room:
        return [f"{rows[0]}    {when}", *rows[1:]]
    return [*rows, f"{'':<7}{when}"]


def _bar_in_words(one: Bar) -> str:
    parts = ((one.keep, "kept"), (one.review, "unsure"))
    told = ", ".join(f"{count:,} {what} ({share(count, one.curves)})" for count, what in parts)
    return f"{spoken_start(one.start)}  {many(one.curves, 'curve')}" + (f": {told}" if one.curves else "")


def _folders(report: Report, room: int) -> list[str]:
    most = sorted(report.folders, key=lambda one: -one.curves)[:_FOLDERS]
    told = []
    for one in most:
        numbers = f"{MARKS['keep']} {one.keep:,}  {MARKS['review']} {one.review:,}  {MARKS['discard']} {one.discard:,}"
        told.append(f"{_cut_left(one.folder, room - len(numbers) - 2)}  {numbers}")
    return told + ([f"and {len(report.folders) - _FOLDERS:,} more"] if len(report.folders) > _FOLDERS else [])


def alarm_in_words(one: Told) -> str:
    """``02:14 to 03:10 disk: …``."""
    end = f"to {time_of(one.ended, one.since)}" if one.ended else "until the service ended" if one.left else "on"
    name = "" if one.name.startswith(ADVICE) else f" {one.name}:"
    begin = spoken(one.since)
    return clean(f"{begin} {end}{name} {one.text}")


def silence_in_words(one: Gap) -> str:
    why = (
        ""
        if one.ran is None
        else ", while the service ran"
        if one.ran
        else ", and the service did not run all the time"
    )
    begin, end = spoken(one.since), time_of(one.until, one.since)
    return f"no curve from {begin} to {end} ({duration(one.seconds)}){why}"


def tip_in_words(report: Report) -> str:
    """Of the first blocks and the last: a night's change at a glance."""
    if report.tip is None:
        return ""
    told = []
    for name, values in (("noise", report.tip.noise), ("adhesion", report.tip.adhesion)):
        known = [value for value in values if value is not None]
        if known:
            few = max(len(known) // 5, 1)
            first, last = sorted(known[:few])[few // 2], sorted(known[-few:])[few // 2]
            told.append(f"{name} {first:.3g} → {last:.3g} {report.tip.unit or ''}".rstrip())
    return ", ".join(told)


def missed_in_words(report: Report) -> list[str]:
    """Three numbers that never merge, and the second opinion, a line each."""
    missed = report.missed
    found = missed.canaries.get("found", 0)
    judged = found + missed.canaries.get("missed", 0)
    lost = missed.canaries.get("lost", 0)
    path = (
        f"path: {found:,} of {many(judged, 'simulated event')} found" if judged else "path: no simulated event was sent"
    )
    path += f", {lost:,} lost in the line" if lost else ""
    if missed.counted_since and (judged or lost):
        path += f" since {spoken(missed.counted_since)[-5:]}, by whole hours"
    confirmed = sum(missed.confirmed.values())
    if confirmed:
        shown = confirmed - missed.confirmed["discard"]
        within = between(*clopper_pearson(shown, confirmed))
        events = f"your events: {shown:,} of {confirmed:,} shown, {missed.confirmed['discard']:,} discarded ({within})"
    else:
        events = "your events: nobody has confirmed one of this time yet"
    bound = "no bound" if missed.at_most is None else f"at most {missed.at_most:,}"
    unseen = f"unseen: {bound} of {many(missed.discards, 'discard')}; {missed.looked_at:,} looked at blind"
    second = (
        f"second opinion: disputes {many(missed.disputed, 'discard')}, {missed.disputed_looked_at:,} looked at"
        if missed.disputed
        else ""
    )
    return [path, events, unseen, *filter(None, [second])]


def service_in_words(report: Report) -> list[str]:
    """Which model and engine judged, how fast, and how often the service began."""
    models = ", ".join(one.model for one in report.models)
    engines = ", ".join(report.engines)
    took = report.latency_s
    speed = "" if took["p50"] is None else f"verdict after {latency(took['p50'])}, 99 % within {latency(took['p99'])}"
    if not report.models:
        return [one for one in [runs_in_words(report)] if one]
    return [
        "; ".join(filter(None, [f"{models}{f' on {engines}' if engines else ''}", speed])),
        *filter(None, [runs_in_words(report)]),
    ]


def runs_in_words(report: Report) -> str:
    if not report.runs:
        return ""
    begun = [run for run in report.runs if report.since is None or run.began >= report.since]
    killed = killed_runs(report)
    started = f"started {_times(len(begun))}" if begun else "ran through"
    ends = f", ended {_times(killed)} without stopping" if killed else ""
    now = "runs now" if report.running else "does not run now"
    return f"{started}{ends}, {now}"


def time_of(written: str, beside: str) -> str:
    """The same; only the time where the day is that of ``beside``."""
    told, other = spoken(written), spoken(beside)
    return told[-5:] if told[:-5] == other[:-5] else told


def period_of(some: Sequence[Bar]) -> str:
    """hour, day or month: what one bar holds."""
    return {13: "hour", 10: "day"}.get(len(some[0].start), "month") if some else "hour"


def _wrapped(text: str, room: int) -> list[str]:
    return textwrap.wrap(text, room, break_on_hyphens=False)  # a command is copied


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"


def _cut_left(text: str, room: int) -> str:
    return text if len(text) <= room else f"…{text[1 - room :]}"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
