"""`make study TOPIC=ladder`: what confirmed events do to the discard cut, played live into a real service.

Each system is played into a service once, then as a long shadow stream with two events in a hundred. A few of its
events are confirmed through the review page, again and again other ones; what was not labelled tells what is lost, and
the shadow stream what leaves the pile. Two questions more: do wrong events fail safe, and do raters who differ move
nothing.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from daemon.common.errors import BAD_DATA, INTERNAL, UserError
from daemon.common.options import Option
from daemon.common.stdio import progress
from daemon.common.text import align
from models.files import write_whole

if TYPE_CHECKING:
    from daemon.client.service_file import TemporaryService
    from daemon.config import Config
    from tests.reviewhelp import Page

SYSTEMS = {
    "chromosomes": "nolicence/chromosome_bruker_000",
    "sofa": "open/sofa_asylum_ibw",
    "ev6": "nolicence/ev_jpk_export_txt",
    "i27": "open/hooke_picoforce_000",
    "live cells": "open/waite_livecell_txt",
}
RATERS = ("first", "final")  # of the live cells, as their source has them
_ROUND = re.compile(r"r\d+-")  # of a file that `replay --count` plays again
_DECIDED_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Labelled folders as the project's collection has them."""

    data: Annotated[Path, Option("the collection: a labels.csv and the folders it names", "DIR", is_positional=True)]
    systems: Annotated[tuple[str, ...], Option("only these (repeatable)", "NAME", choices=SYSTEMS)] = tuple(SYSTEMS)
    draws: Annotated[int, Option("of confirmed events, a system", "N")] = 200
    events: Annotated[int, Option("confirmed in each draw", "N")] = 5
    shadow: Annotated[int, Option("curves of the shadow stream", "N")] = 400
    seed: Annotated[int, Option("of the draws", "S")] = 1
    out: Annotated[Path | None, Option("the figures as JSON", "FILE")] = None


@dataclass(frozen=True, slots=True)
class Curve:
    """One decision whose truth is known."""

    seq: int
    id: str
    name: str
    score: float | None
    verdict: str
    is_event: bool | None  # None: ambiguous
    is_doubtful: bool
    said: Mapping[str, str]  # rater -> what the source says


@dataclass(frozen=True, slots=True)
class Drawn:
    """One draw: what moved, and what that does to curves that nobody has labelled."""

    moved: bool
    cut: float  # a score
    pile_before: float
    pile_after: float
    discarded: float  # of event-free curves
    lost: int  # events newly discarded
    of: int  # events not labelled


def run(options: Options) -> int:
    """Exit 0; 65 where the collection lacks a system."""
    labels = _truths(options.data)
    report: dict[str, Any] = {}
    for system in options.systems:
        folder = options.data / SYSTEMS[system]
        if not folder.is_dir():
            raise UserError(BAD_DATA, f"{folder}: no such folder; name a collection that has {system}")
        report[system] = _study(system, folder, labels, options)
        print(_told(system, report[system]), flush=True)
    if options.out is not None:
        write_whole(options.out, (json.dumps(report, indent=1) + "\n").encode())
    return 0


def _truths(data: Path) -> dict[str, tuple[bool | None, dict[str, str]]]:
    from daemon.labels.table import read_csv

    found: dict[str, tuple[bool | None, dict[str, str]]] = {}
    for _, row in read_csv((data / "labels.csv").read_bytes()).rows:
        pairs = (one.split("=", 1) for one in row.get("source_label", "").split(";") if "=" in one)
        words = {"keep": True, "discard": False}
        found[row["path"]] = words.get(row["label"]), {rater: said for rater, said in pairs if rater in RATERS}
    return found


def _study(system: str, folder: Path, labels: Mapping[str, Any], options: Options) -> dict[str, Any]:
    from daemon.client.service_file import TemporaryService
    from daemon.config import Config
    from tests.reviewhelp import Page

    files = sorted(folder.iterdir())
    truth = {file.name: labels.get(f"{SYSTEMS[system]}/{file.name}", (None, {})) for file in files}
    events = [file for file in files if truth[file.name][0] is True]
    free = [file for file in files if truth[file.name][0] is False]
    with ExitStack() as closing:
        service = closing.enter_context(TemporaryService())
        known = _play(service, [folder], None, 0)
        few = max(round(0.02 * options.shadow), 1)
        decided = _play(service, events, few, known)
        _play(service, free, options.shadow - few, decided)
        curves = _curves(service, truth)
        page = closing.enter_context(Page(service.state))
        config = Config(state=service.state)
        first, shadow = curves[:known], curves[known:]
        if system == "live cells":
            return _differ(page, config, first)
        found = _draw(page, config, first, shadow, options, np.random.default_rng(options.seed))
        found["wrong"] = _wrong(page, config, first, shadow, options, np.random.default_rng(options.seed + 1))
        if system == "chromosomes":
            found["live"] = _live(service, page, first, free, truth, options)
        return found


def _play(service: TemporaryService, sources: Sequence[Path], count: int | None, decided: int) -> int:
    """Play them, wait until all of it is decided; how many decisions there are then.

    ``count`` fresh ones, under fresh names: the first round of `replay --count` is the files as they are, which are
    known already.
    """
    from daemon.instrument import recordings
    from daemon.ledger.view import LedgerView

    round_of = len(recordings(sources))
    words = ["replay", *map(str, sources), "--into", str(service.watch), "--rate", "60", "--writer", "burst"]
    words += [] if count is None else ["--count", str(count + round_of)]
    subprocess.run([sys.executable, "-m", "daemon", *words], check=True, stdout=subprocess.DEVNULL)
    wanted, last = decided + (round_of if count is None else count), 0
    deadline_s = time.monotonic() + _DECIDED_S
    while time.monotonic() < deadline_s:
        with LedgerView(service.state / "ledger.sqlite") as view:
            last = view.last_seq
        if last >= wanted:
            return last
        time.sleep(0.1)
    raise UserError(INTERNAL, f"{last} of {wanted} curves were decided: {service.last_words()}")


def _curves(service: TemporaryService, truth: Mapping[str, Any]) -> list[Curve]:
    from daemon.ledger.view import LedgerView
    from daemon.ledger.wire import decode
    from models.reasons import DOUBTS

    with LedgerView(service.state / "ledger.sqlite") as view:
        decisions = [decode(body) for _, body in view.bodies_since(0)]
    found = []
    for event in decisions:
        data = event["data"]
        is_event, said = truth.get(_ROUND.sub("", Path(data["path"]).name), (None, {}))
        doubtful = bool(DOUBTS.intersection(data["reasons"]))
        name = Path(data["path"]).name
        found.append(Curve(event["seq"], event["id"], name, data["score"], data["verdict"], is_event, doubtful, said))
    return found


def _draw(
    page: Page, config: Config, first: Sequence[Curve], shadow: Sequence[Curve], options: Options, rng: Any
) -> dict[str, Any]:
    """Confirm some events, ask what moves, take the words back, and again."""
    events = [one for one in first if one.is_event and one.verdict != "discard"]
    if len(events) < options.events:
        return {"events": len(events), "draws": []}
    drawn = []
    for _ in progress(range(options.draws), "draws", options.draws):
        some = [events[place] for place in rng.choice(len(events), options.events, replace=False)]
        drawn.append(_confirmed(page, config, some, first, shadow))
    return {"events": len(events), "draws": [asdict(one) for one in drawn]}


def _confirmed(
    page: Page, config: Config, some: Sequence[Curve], first: Sequence[Curve], shadow: Sequence[Curve]
) -> Drawn:
    from daemon.learn.adaptation import propose

    _say(page, [(one, "keep", "study") for one in some])
    proposal = propose(config)
    for one in some:
        reply = page.ask(f"/api/labels/{one.id}?rater=study", "DELETE")
        assert reply.status == 204, reply.body
    cut, old = (proposal.new if proposal.moves else proposal.old), proposal.old
    rest = [one for one in first if one.is_event and one not in some]
    free = [one for one in shadow if one.is_event is False]
    return Drawn(
        moved=proposal.moves,
        cut=cut,
        pile_before=float(np.mean([_is_open(one, old) for one in shadow])),
        pile_after=float(np.mean([_is_open(one, cut) for one in shadow])),
        discarded=float(np.mean([_falls(one, cut) for one in free])),
        lost=sum(_falls(one, cut) and not _falls(one, old) for one in rest),
        of=len(rest),
    )


def _falls(one: Curve, cut: float) -> bool:
    return one.score is not None and one.score <= cut and not one.is_doubtful


def _is_open(one: Curve, cut: float) -> bool:
    return one.verdict != "keep" and not _falls(one, cut)


def _say(page: Page, said: Sequence[tuple[Curve, str, str]]) -> None:
    """Through the page's own API."""
    for start in range(0, len(said), 200):
        rows = [{"id": one.id, "label": word, "rater": rater} for one, word, rater in said[start : start + 200]]
        reply = page.ask("/api/labels", "POST", rows)
        assert reply.status == 201, reply.body


def _wrong(
    page: Page, config: Config, first: Sequence[Curve], shadow: Sequence[Curve], options: Options, rng: Any
) -> dict[str, Any]:
    """One of seven confirmed events is none."""
    events = [one for one in first if one.is_event and one.verdict != "discard"]
    none = [one for one in first if one.is_event is False and one.verdict != "discard"]
    if len(events) < 6 or not none:
        return {"draws": []}
    drawn = []
    for _ in range(max(options.draws // 4, 1)):
        some = [events[place] for place in rng.choice(len(events), 6, replace=False)]
        drawn.append(_confirmed(page, config, [*some, none[rng.integers(len(none))]], first, shadow))
    return {"draws": [asdict(one) for one in drawn]}


def _differ(page: Page, config: Config, first: Sequence[Curve]) -> dict[str, Any]:
    """Both raters of the source say what they said."""
    from daemon.learn.adaptation import propose

    both = [one for one in first if len(one.said) == len(RATERS)]
    words = [(one, "discard" if one.said[rater] == "none" else "keep", rater) for one in both for rater in RATERS]
    _say(page, words)
    proposal = propose(config)
    return {"shared": len(both), "moves": proposal.moves, "events": proposal.events, "why": list(proposal.missing)}


def _live(
    service: TemporaryService,
    page: Page,
    first: Sequence[Curve],
    free: Sequence[Path],
    truth: Mapping[str, Any],
    options: Options,
) -> dict[str, Any]:
    """Once in earnest: five events, `adapt`, and what the service then says of more such curves."""
    events = [one for one in first if one.is_event and one.verdict != "discard"][: options.events]
    _say(page, [(one, "keep", "study") for one in events])
    command = [sys.executable, "-m", "daemon", "adapt", "--state", str(service.state), "--json"]
    began_s = time.monotonic()
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    took_s = time.monotonic() - began_s
    time.sleep(2.0)
    before = len(_curves(service, truth))
    _play(service, free, 60, before)
    later = _curves(service, truth)[before:]
    from daemon.ledger.view import LedgerView

    with LedgerView(service.state / "ledger.sqlite") as view:
        data = view.last(1)[0]["data"]
    pile = float(np.mean([one.verdict == "review" for one in later]))
    return {
        "took_s": took_s,
        "forecast": [said["pile_before"], said["pile_after"]],
        "simulated_loss": said["simulated_loss"],
        "of_event_free": len(later),
        "pile_of_event_free": pile,
        "cut": data["cut"],
        "thresholds": data["thresholds"],
    }


# In words.


def _told(system: str, found: Mapping[str, Any]) -> str:
    if "shared" in found:
        verb = "moves" if found["moves"] else "stays"
        return f"{system}: {found['shared']} curves with two raters, {found['events']} confirmed: the cut {verb}; " + (
            "; ".join(found["why"])
        )
    if not found["draws"]:
        return f"{system}: only {found['events']} events above the cut: nothing can move"
    rows: list[tuple[str, ...]] = [
        ("", "draws", "moved", "pile before", "after [95 % of draws]", "event-free discarded", "newly lost")
    ]
    for name, draws in (("right", found["draws"]), ("1 of 7 wrong", found["wrong"]["draws"])):
        if draws:
            rows.append((name, *_row(draws)))
    lines = [f"{system}:", *align(rows)]
    if "live" in found:
        live = found["live"]
        lines.append(
            f"in earnest: adapt took {live['took_s']:.1f} s, then {live['pile_of_event_free']:.0%} of"
            f" {live['of_event_free']} event-free curves to review, cut {live['cut']}"
        )
    return "\n".join(lines)


def _row(draws: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    after = np.array([one["pile_after"] for one in draws])
    low, high = np.quantile(after, [0.025, 0.975])
    lost, of = sum(one["lost"] for one in draws), sum(one["of"] for one in draws)
    return (
        str(len(draws)),
        f"{np.mean([one['moved'] for one in draws]):.0%}",
        f"{100 * np.mean([one['pile_before'] for one in draws]):.1f} %",
        f"{100 * after.mean():.1f} % [{100 * low:.0f}, {100 * high:.0f}]",
        f"{np.mean([one['discarded'] for one in draws]):.1%}",
        f"{lost} of {of}",
    )
