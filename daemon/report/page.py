"""The page of a report: the paragraph first, then what to do, then the evidence, with curves and charts."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from daemon.charts import (
    Axis,
    Cell,
    Drawing,
    Picture,
    Tile,
    apart,
    copied,
    draw_trace,
    even_ticks,
    heading,
    listed,
    page,
    paragraph,
    pictures,
    places,
    short,
    table,
    tiles,
)
from daemon.common.text import clean, latency, many, score_in_words, share
from daemon.guard.logbook import Run
from daemon.report import Bar, Report
from daemon.report.decisions import MOST_DISCARDED, Break, Shown
from daemon.report.words import (
    alarm_in_words,
    headline,
    missed_in_all,
    missed_in_words,
    period_of,
    runs_in_words,
    silence_in_words,
    split,
    tip_in_words,
)
from daemon.report.words import paragraph as in_sentences
from daemon.sources import words as kinds_in_words
from models.clock import as_when, hour_of, since_1970, spoken, spoken_hour, spoken_start
from models.reasons import REASONS

_MOST_FOLDERS = 40
_WEEK_S = 6 * 86_400.0  # from so long on a day of the week names no day
_EFFECTS = {"informs": "", "lifts": "keeps a curve from being discarded", "blocks": "no score can be made"}
#: What people ask in the morning, and where on this page the answer stands.
_QUESTIONS = (
    ("What was missed?", "missed"),
    ("How is the tip?", "tip"),
    ("What came, hour by hour?", "hours"),
    ("Do we agree?", "people"),
    ("What was thrown away that I should see?", "discarded"),
    ("Which model judged?", "service"),
)


def write_html(report: Report) -> str:
    """One file that needs no other."""
    is_quiet = not report.alarms and not report.silences
    parts = [
        paragraph(in_sentences(report), "well" if is_quiet and report.curves else "lead"),
        places(_QUESTIONS),
        tiles(_tiles(report)),
        *_next(report),
        *_by_time(report),
        *_by_folder(report),
        *_kept(report),
        *_pile(report),
        *_thrown_away(report),
        *_missed(report),
        *_told(report),
        *_tip(report),
        *_people(report),
        *_service(report),
        paragraph(f"Made {spoken(report.made)} from {report.state_dir}.", "soft"),
    ]
    return page(headline(report), parts)


def _tiles(report: Report) -> Iterator[Tile]:
    counts = report.counts
    yield Tile("curves", f"{report.curves:,}", f"{counts['discard']:,} discarded: the files stay where they are")
    yield Tile("kept", f"{counts['keep']:,}", share(counts["keep"], report.curves) + " of all")
    rate = "–" if report.per_hour is None else f"{report.per_hour:.3g}"
    why = "it measured for less than a quarter of an hour" if report.curves else "no curve was measured"
    says = why if report.per_hour is None else "while the instrument measured, silences left out"
    yield Tile("kept an hour", rate, says)
    yield Tile("unsure", f"{counts['review']:,}", f"{share(counts['review'], report.curves)}; {report.waiting:,} wait")
    bound = report.missed.at_most
    yield Tile("thrown away at most", "?" if bound is None else f"{bound:,}", "events among the discards, 95 % sure")
    alarms, advice = split(report.alarms)
    yield Tile("alarms", f"{len(alarms):,}", f"{many(len(advice), 'piece')} of advice on tip and run")


def _next(report: Report) -> Iterator[str]:
    """What a person does now, each as a command to copy."""
    if not report.curves:
        return
    yield heading("What to do now")
    where = shlex.join(["--state", report.state_dir])
    since = _asked(report)
    if report.counts["keep"]:
        yield paragraph("The kept curves as a table and as copies:")
        yield copied(f"afm-triage collect{since} --csv kept.csv --copy kept {where}")
    if report.waiting or report.missed.discards:
        yield paragraph(f"Look at the {report.waiting:,} unsure ones, and blind at some of what was thrown away:")
        yield copied(f"afm-triage review {where}")


def _asked(report: Report) -> str:
    """The same span for another verb."""
    begin = as_when(report.since) if report.since else report.after or ""
    end = as_when(report.until) if report.until else report.last_seq or ""
    return (f" --since {begin}" if begin else "") + (f" --until {end}" if end else "")


def _by_time(report: Report) -> Iterator[str]:
    if not report.bars:
        return
    period = period_of(report.bars)
    yield heading(f"By the {period} of measurement", "hours")
    if period != "hour":
        yield paragraph(f"Only {period}s in which a curve was measured stand here.", "soft")
    yield pictures(
        [
            Picture(_bars(report.bars, f"curves by {period}", "all"), "Curves: kept, unsure above, the rest in grey."),
            Picture(_bars(report.bars, f"kept by {period}", "keep"), f"Kept curves, {report.counts['keep']:,} in all."),
            Picture(_bars(report.bars, f"share of unsure curves by {period}", "share"), "Share that is unsure, %."),
        ],
        "diagrams",
        "hour",
    )
    rows = [
        [
            spoken_start(one.start),
            f"{one.curves:,}",
            f"{one.keep:,}",
            share(one.keep, one.curves),
            f"{one.review:,}",
            share(one.review, one.curves),
        ]
        for one in report.bars
        if one.curves
    ]
    yield table((period, "curves", "kept", "share kept", "unsure", "share unsure"), rows)


def _numbers(*some: int) -> list[str]:
    return [f"{one:,}" for one in some]


def _bars(some: Sequence[Bar], title: str, what: str) -> str:
    """``what``: all, keep, or share (of unsure curves, in percent)."""
    heights = {
        "all": [float(one.curves) for one in some],
        "keep": [float(one.keep) for one in some],
        "share": [100 * one.review / one.curves if one.curves else 0.0 for one in some],
    }[what]
    ticks = even_ticks(max(heights))
    named = apart([spoken_start(one.start) for one in some])
    names = tuple(spoken_start(some[place].start) for place in named)
    across = Axis("", 0.0, float(len(some)), tuple(place + 0.5 for place in named), names=names)
    drawing = Drawing(title, across, Axis(title, 0.0, ticks[-1], ticks))
    for place, one in enumerate(some):
        wide, begun = (place + 0.08, place + 0.92), spoken_start(one.start)
        if what == "all":
            says = f"{begun}: {many(one.curves, 'curve')}, {one.keep} kept, {one.review} unsure"
            drawing.box(wide, (0.0, one.curves), "rest", says)
            drawing.box(wide, (0.0, one.keep + one.review), "none", says)
            drawing.box(wide, (0.0, one.keep), "event", says)
        elif what == "keep":
            drawing.box(wide, (0.0, one.keep), "event", f"{begun}: {one.keep} of {one.curves} kept")
        else:
            drawing.box(wide, (0.0, heights[place]), "none", f"{begun}: {one.review} of {one.curves} unsure")
    return str(drawing)


def _by_folder(report: Report) -> Iterator[str]:
    if not report.folders:
        return
    yield heading("By folder")
    head = ("folder", "curves", "kept", "share kept", "unsure", "share unsure", "first", "last")
    rows: list[list[str | Cell]] = [
        [
            Cell(one.folder, kind="path"),
            *_numbers(one.curves, one.keep),
            share(one.keep, one.curves),
            *_numbers(one.review),
            share(one.review, one.curves),
            spoken(one.first),
            spoken(one.last),
        ]
        for one in report.folders[:_MOST_FOLDERS]
    ]
    yield table(head, rows)
    if len(report.folders) > _MOST_FOLDERS:
        yield paragraph(f"And {len(report.folders) - _MOST_FOLDERS:,} more folders: --json has all of them.", "soft")
    if report.sessions:
        yield listed(_sessions(report))


def _sessions(report: Report) -> Iterator[str]:
    for one in report.sessions:
        said = ", ".join(f"{name} {one[name]}" for name in ("name", "sample", "tip", "operator", "goal") if one[name])
        counts = one["counts"]
        end = f"to {spoken(one['ended'])}" if one["ended"] else "and goes on"
        numbers = f"{counts.get('keep', 0):,} kept, {counts.get('review', 0):,} unsure, {sum(counts.values()):,} in all"
        yield f"Session {one['number']}{said and ': '}{said}; begun {spoken(one['began'])} {end}; {numbers}."


def _kept(report: Report) -> Iterator[str]:
    yield heading("Kept", "kept")
    total = report.counts["keep"]
    if not total:
        yield paragraph("Nothing was kept.")
        return
    if len(report.kept) < total:
        yield paragraph(
            f"{len(report.kept):,} of {total:,}, evenly over the time; `afm-triage collect` hands all of them over."
        )
    yield paragraph(
        "Forces are those of the ruptures as they stand in the raw curve, against its baseline: enough for a first "
        "look, no analysis. They are read from the ledger's smaller copies; `collect` measures the whole files, so its "
        "forces differ a little, and it may find more ruptures. Of the push "
        "only as much is drawn as leaves the pull its room.",
        "soft",
    )
    yield _drawn(report.kept, "kept", report)


def _pile(report: Report) -> Iterator[str]:
    yield heading("Unsure", "pile")
    if not report.counts["review"]:
        yield paragraph("No curve was unsure.")
    else:
        told = f"{report.counts['review']:,} were unsure, nobody has looked at {report.waiting:,} of them yet"
        yield paragraph(f"{told}{'; the likeliest:' if report.flagged else '.'}")
        yield _drawn(report.flagged, "pile", report)
    if report.reasons:
        rows: list[list[str | Cell]] = [
            [name, f"{sum(counts.values()):,}", f"{counts.get('review', 0):,}", *_meaning(name)]
            for name, counts in report.reasons.items()
        ]
        yield table(("reason", "curves", "of them unsure", "it means", "what it does"), rows)


def _meaning(name: str) -> tuple[Cell, Cell]:
    known = REASONS.get(name)
    if known is None:
        return Cell("", kind="words"), Cell("", kind="words")
    return Cell(known.text, kind="words"), Cell(_EFFECTS[known.effect], kind="words")


def _thrown_away(report: Report) -> Iterator[str]:
    yield heading("Thrown away, and worth a look", "discarded")
    lost = report.missed.confirmed["discard"]
    said = (f"{many(lost, 'discard')} people call an event; " if lost else "") + (
        f"the second opinion disputes {many(report.missed.disputed, 'discard')}, "
        f"{report.missed.disputed_looked_at:,} looked at"
    )
    rest = f" (at most {MOST_DISCARDED} are shown)" if len(report.discarded) == MOST_DISCARDED else ""
    yield paragraph(f"{said[0].upper()}{said[1:]}{rest}.")
    yield _drawn(report.discarded, "discard", report)


def _drawn(some: Sequence[Shown], mark: str, report: Report) -> str:
    """With the model that judged each, where there was more than one."""
    return pictures((_picture(one, len(report.models) > 1) for one in some), "thumbnails", mark)


def _picture(one: Shown, names_model: bool) -> Picture:
    reasons = ", ".join(_in_words(reason) for reason in one.reasons if reason != "score")
    said = {"keep": "people: an event", "discard": "people: no event", "unsure": "people: in doubt"}.get(one.said, "")
    told = [_forces(one.ruptures), said, reasons, spoken(one.acquired), one.model if names_model else ""]
    caption, name = "; ".join(filter(None, told)), one.name.rpartition("/")[2]
    return Picture(draw_trace(one.trace), caption, name, one.verdict, score_in_words(one.score), one.file)


def _in_words(reason: str) -> str:
    return REASONS[reason].text if reason in REASONS else reason


def _forces(some: Sequence[Break]) -> str:
    """``34 pN at 12 nm, 58 pN at 40 nm``; of many the strongest alone."""
    if not some:
        return ""
    if len(some) > 6:
        return f"{len(some)} ruptures, the strongest {_force(max(some, key=lambda one: one.force))}"
    return ", ".join(map(_force, some))


def _force(one: Break) -> str:
    at = "" if one.position_nm is None else f" at {one.position_nm:.0f} nm"
    return " ".join(filter(None, [short(one.force), f"{one.unit}{at}"]))


def _missed(report: Report) -> Iterator[str]:
    yield heading("What can have been missed", "missed")
    if bound := missed_in_all(report):
        yield paragraph(bound)
    path, events, _, *second = missed_in_words(report)
    bounds = [f"unseen: {one.text}" for one in report.missed.unseen]
    yield listed([_sentence(one) for one in (path, events, *bounds, *second)])
    yield paragraph(
        "Path: simulated events through the live line; they say whether the line works, nothing about real ones. Your "
        "events: real ones that people confirmed; they say nothing about curves that nobody was shown. Unseen: a bound "
        "from discards that chance put before people.",
        "soft",
    )


def _told(report: Report) -> Iterator[str]:
    yield heading("Alarms and silences", "alarms")
    alarms, advice = split(report.alarms)
    if not alarms and not advice and not report.silences:
        yield paragraph("None.")
    if alarms:
        yield listed((alarm_in_words(one) for one in alarms), "warning")
    if advice:
        yield listed(alarm_in_words(one) for one in advice)
    if report.silences:
        yield listed(silence_in_words(one) for one in report.silences[:20])
    for note in report.notes:
        yield paragraph(_sentence(note), "warning")


def _tip(report: Report) -> Iterator[str]:
    yield heading("The tip", "tip")
    if report.tip is None or not (said := tip_in_words(report)):
        yield paragraph("The curves of this time do not tell.")
        return
    yield paragraph(f"From the first fifth of the time to the last: {said}. Each point is the median of 50 curves.")
    unit = report.tip.unit or ""
    drawn = []
    for name, values, says in (
        ("noise", report.tip.noise, "Noise of the baseline: a dirty tip or the room shows here first."),
        ("adhesion", report.tip.adhesion, "Depth of the snap-off at the surface."),
    ):
        if picture := _course(report.tip.times, values, f"{name}, {unit}".rstrip(", ")):
            drawn.append(Picture(picture, says))
    yield pictures(drawn, "diagrams", "tip")


def _course(times: Sequence[str], values: Sequence[float | None], title: str) -> str:
    """A line over time; "" where fewer than two points are known."""
    known = sorted((since_1970(when), value) for when, value in zip(times, values, strict=True) if value is not None)
    if len(known) < 2 or known[0][0] == known[-1][0]:
        return ""
    first, last = known[0][0], known[-1][0]
    is_long = last - first > _WEEK_S
    named = {  # of equal words the first alone
        spoken_start(hour_of(at)[:10]) if is_long else spoken_hour(at): at
        for at in (first + share * (last - first) for share in (1.0, 0.75, 0.5, 0.25, 0.0))
    }
    names, at = tuple(named), tuple(named.values())
    ticks = even_ticks(max(value for _, value in known))
    drawing = Drawing(title, Axis("", first, last, at, names=names), Axis(title, 0.0, ticks[-1], ticks))
    drawing.line(known, "curve")
    for when, value in known[:: max(len(known) // 100, 1)]:
        says = f"{spoken_hour(when)}: {value:.3g}"
        drawing.dot(when, value, 2.5, "point", says)
    return str(drawing)


def _people(report: Report) -> Iterator[str]:
    yield heading("Who said what", "people")
    if not report.raters:
        yield paragraph("Nobody has labelled a curve of this time.")
        return
    rows = [
        [one.rater, *_numbers(one.keep + one.discard + one.unsure, one.keep, one.discard, one.unsure)]
        for one in report.raters
    ]
    yield table(("who", "curves", "keep", "discard", "unsure"), rows)
    told = [_sentence(one) for one in report.agreement]
    yield listed(
        told or ["No two people have labelled the same curve of this time, so how far they agree is not known."]
    )


def _service(report: Report) -> Iterator[str]:
    yield heading("The service", "service")
    rows = [[one.model, f"{one.curves:,}", spoken(one.first), spoken(one.last)] for one in report.models]
    yield table(("model that judged", "curves", "first measured", "last measured"), rows)
    took, lines = report.latency_s, []
    if report.engines:
        lines.append(
            "Engines: " + ", ".join(f"{name} ({many(count, 'curve')})" for name, count in report.engines.items())
        )
    if took["p50"] is not None:
        slow = latency(took["p99"])
        lines.append(f"From the finished file to its verdict: {latency(took['p50'])} in the middle, 99 % within {slow}")
    if said := runs_in_words(report):
        lines.append(f"It {said}")
    lines += [_run(run, report.running and run == report.runs[-1]) for run in report.runs[-20:]]
    if said := kinds_in_words(report.ignored):
        lines.append(f"Files passed over, as they are no curves: {said}")
    yield listed(_sentence(one) for one in lines)


def _run(one: Run, is_running: bool) -> str:
    end = f"was last seen {spoken(one.seen)}, and did not stop in order"
    end = f"stopped {spoken(one.ended)}" if one.ended else "runs now" if is_running else end
    return f"began {spoken(one.began)}, {end}; version {one.version}{f' on {one.engine}' if one.engine else ''}"


def _sentence(text: str) -> str:
    text = clean(text)
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?")) else ".")
