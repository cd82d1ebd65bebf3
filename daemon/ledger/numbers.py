"""The guard's numbers as everybody tells them: in the status, the heartbeat, on console and page.

Three of them never merge, for each is blind where the others see. *path*: whether simulated events pass through the
line; it says nothing about real ones. *your events*: how real events that people confirmed are judged; it says nothing
about those that nobody was shown. *unseen*: how many events can lie among the discards; it says nothing of the line.
Beside them stand a second opinion, and the watch over the tip. ``text`` is always one sentence for people.

The disk that the ledger lies on, sessions and labels as programs are told of them, and the plain types that every event
is made of, are here too. Fields are only ever added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct

from models.curve import MOST_TOLD, ToldRupture

#: How the name of a condition begins that is advice, in health.
ADVICE = "advice "

Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Moment = Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{3})?Z$")]  # UTC, RFC 3339
Ruptures = Annotated[
    tuple[ToldRupture, ...],
    Meta(
        max_length=MOST_TOLD,
        description="where the force falls at once, beyond the surface, in order of place; of more, the highest. "
        "Looked for where a step stands out. null: no signal, or a file that does not say what makes it a force",
    ),
]


class Path(Struct, frozen=True, kw_only=True):
    """Simulated curves through the live line, since this model and cut began to serve."""

    canaries: Annotated[int, Meta(ge=0, description="simulated events that were judged")]
    missed: Annotated[int, Meta(ge=0, description="of these, discarded")]
    lost: Annotated[int, Meta(ge=0, description="sent, and not judged within a minute, or without a score")]
    event_free: Annotated[int, Meta(ge=0, description="simulated curves without an event that were judged")] = 0
    false_kept: Annotated[int, Meta(ge=0, description="of the event-free, kept")]
    lower_bound: Annotated[
        float | None,
        Meta(description="at least this share of simulated events is found, 95 %, whenever it is looked at"),
    ]
    null: Annotated[float, Meta(ge=0, le=1, description="the share that this cut misses when all is well, at most")]
    since: Moment
    pending: Annotated[int, Meta(ge=0, description="sent, and still in the line")]
    is_well: bool
    text: str


class OneSession(Struct, frozen=True, kw_only=True):
    """Of the session that goes on; null: none does."""

    confirmed: Count
    kept_live: Count
    low: Annotated[float | None, Meta(description="of the share kept live")]
    high: Annotated[float | None, Meta(description="of the share kept live")]
    shown_live: Annotated[int, Meta(ge=0, description="kept or sent to review when decided")] = 0


class YourEvents(Struct, frozen=True, kw_only=True):
    """Real events that people confirmed; intervals are exact, 95 %; null: there is none yet."""

    confirmed: Annotated[int, Meta(ge=0, description="curves whose labels all say keep")]
    kept_live: Annotated[int, Meta(ge=0, description="of the confirmed, kept when they were decided")]
    shown_live: Annotated[int, Meta(ge=0, description="of the confirmed, kept or sent to review when decided")]
    shown_low: Annotated[float | None, Meta(description="of the share shown live")] = None
    shown_high: Annotated[float | None, Meta(description="of the share shown live")] = None
    live_low: Annotated[float | None, Meta(description="of the share kept live")]
    live_high: Annotated[float | None, Meta(description="of the share kept live")]
    scored_now: Annotated[int, Meta(ge=0, description="of the confirmed, scored by the model that serves now")]
    found_now: Annotated[int, Meta(ge=0, description="of the scored, not discarded by its cut")]
    low: Annotated[float | None, Meta(description="of the share found now")]
    high: Annotated[float | None, Meta(description="of the share found now")]
    session: OneSession | None
    text: str


class Unseen(Struct, frozen=True, kw_only=True):
    """Events among the discards of one model and cut, over all its nights."""

    discards: Count
    drawn: Annotated[int, Meta(ge=0, description="discards put before people")]
    looked_at: Annotated[int, Meta(ge=0, description="of the drawn, labelled")]
    found: Annotated[int, Meta(ge=0, description="of those looked at, events")]
    estimate: Annotated[float | None, Meta(description="events among the discards, by their weights")]
    at_most: Annotated[int | None, Meta(description="events among the discards, 95 %, whenever it is looked at")]
    nights: Annotated[int, Meta(ge=0, description="days with a discard of this model and cut")]
    text: str


class SecondOpinion(Struct, frozen=True, kw_only=True):
    """What a step detector sees that the network does not."""

    seen: Annotated[int, Meta(ge=0, description="curves that it judged")]
    disputed: Annotated[int, Meta(ge=0, description="of these, discarded though it sees a rupture")]
    looked_at: Annotated[int, Meta(ge=0, description="of the disputed, labelled")]
    confirmed: Annotated[int, Meta(ge=0, description="of those looked at, events")]
    least_in_all: Annotated[int | None, Meta(description="events that there are at least, found or not, 90 %")]
    least_missed: Annotated[int | None, Meta(description="of these, missed by both")]
    text: str


#: What a block tells of the tip, in the order in which people are told.
Quantity = Literal["noise", "tilt", "wave", "slope", "adhesion"]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
#: Blocks that everybody is shown, the last ones.
BLOCKS_SHOWN = 60


class TipPoint(Struct, frozen=True, kw_only=True):
    """Medians of 50 curves; null where the curves do not tell."""

    seq: Annotated[int, Meta(ge=0, description="how far the ledger had come")]
    time: Moment
    noise: Annotated[float | None, Meta(description="of the baseline, in the tip's unit")]
    tilt: Annotated[float | None, Meta(description="of the baseline over the curve, in the tip's unit; has a sign")]
    slope: Annotated[float | None, Meta(description="of the contact, in the tip's unit per µm")]
    adhesion: Annotated[float | None, Meta(description="depth of the snap-off, in the tip's unit")]
    wave: Annotated[float | None, Meta(description="slow swing of the baseline, in the tip's unit, as an rms")] = None


class Advice(Struct, frozen=True, kw_only=True):
    """Something to look at, from when on it is so."""

    kind: Annotated[
        str, Meta(pattern="^[a-z0-9_]+$", description="noise, tilt, wave, slope, adhesion, reason, yield, unit")
    ]
    since: Moment
    text: str


class Tip(Struct, frozen=True, kw_only=True):
    """How the tip and the run have been."""

    unit: Annotated[str | None, Meta(description="of noise, tilt and adhesion: pN, nm or mV; null: not known yet")]
    blocks: Annotated[tuple[TipPoint, ...], Meta(max_length=BLOCKS_SHOWN, description="the last ones")]
    advice: Annotated[tuple[Advice, ...], Meta(description="what holds now")]


class Told(Struct, frozen=True, kw_only=True):
    """An alarm, or advice, that was told and is not seen now."""

    name: Annotated[str, Meta(description="of the condition, as in health")]
    level: Literal["ok", "degraded", "alarm"]
    since: Moment
    ended: Annotated[str | None, Meta(description="when it was over; null: that was not seen")] = None
    left: Annotated[str | None, Meta(description="when the service ended that had told it, and it stood")] = None
    text: str


class GuardNumbers(Struct, frozen=True, kw_only=True):
    """What is being missed, and how the tip is; null: the guard is off, or has nothing to say yet."""

    path: Path | None = None
    events: YourEvents | None = None
    unseen: Unseen | None = None
    second: SecondOpinion | None = None
    tip: Tip | None = None
    no_path: Annotated[str | None, Meta(description="why there is no path, where it is not watched")] = None
    told: Annotated[tuple[Told, ...], Meta(description="before the service began, and not seen again since")] = ()


class Pulse(Struct, frozen=True, kw_only=True):
    """The guard's numbers in short; null: the guard is off, or has nothing to say yet."""

    recall_lower_bound: Annotated[float | None, Meta(description="of simulated events, 95 %")]
    canaries: Count
    confirmed: Annotated[int, Meta(ge=0, description="real events that people confirmed")]
    kept_live: Annotated[int, Meta(ge=0, description="of the confirmed")]
    lost_at_most: Annotated[int | None, Meta(description="events among the discards, 95 %")]
    shown_live: Annotated[int, Meta(ge=0, description="of the confirmed, kept or sent to review")] = 0


def in_short(guard: GuardNumbers) -> Pulse:
    """What a heartbeat says of them."""
    path, events, unseen = guard.path, guard.events, guard.unseen
    return Pulse(
        recall_lower_bound=path.lower_bound if path else None,
        canaries=path.canaries if path else 0,
        confirmed=events.confirmed if events else 0,
        shown_live=events.shown_live if events else 0,
        kept_live=events.kept_live if events else 0,
        lost_at_most=unseen.at_most if unseen else None,
    )


class Disk(Struct, frozen=True, kw_only=True):
    """That of the state folder."""

    free_bytes: Count
    full_s: Annotated[
        float | None, Meta(description="seconds until it is full at the present rate; null: it does not fill")
    ]


# What people have said: sessions and labels, as the service answers whoever asks for them.


class SessionWords(Struct, frozen=True):
    """What is known of a run from its beginning on."""

    number: Annotated[int, Meta(ge=1)]
    name: str
    tip: str
    sample: str
    operator: str
    note: str
    goal: str
    origin: Literal["person", "folder"]
    began: Moment


class CurrentSession(SessionWords, frozen=True):
    """The run that goes on, as people or a day folder began it."""

    seconds: Annotated[float, Meta(ge=0)]
    first_seq: Annotated[int, Meta(ge=1, description="its first decision")]
    counts: Annotated[
        Mapping[str, Count],
        Meta(
            description="its decisions by verdict",
            extra_json_schema={"required": ["keep", "review", "discard"]},
        ),
    ]


class ToldSession(SessionWords, frozen=True, kw_only=True):
    """A run with one tip on one sample: the decisions of ``stream`` from ``first_seq`` to ``last_seq``."""

    ended: Annotated[Moment | None, Meta(description="null: it goes on")]
    stream: Annotated[str, Meta(description="the ledger that the numbers count in")]
    first_seq: Annotated[int, Meta(ge=1)]
    last_seq: Annotated[Count | None, Meta(description="null: it goes on; below first_seq: nothing was decided")]


class ToldSessions(Struct, frozen=True, kw_only=True):
    """The answer to ["sessions", N]: those with a greater number, at most 1,000, oldest first; empty: no more."""

    sessions: tuple[ToldSession, ...]
    last_seq: Count = 0


class ToldLabel(Struct, frozen=True, kw_only=True):
    """One person's word on one curve, or that it was taken back."""

    number: Annotated[int, Meta(ge=1, description="in the order in which they were given")]
    path: str
    folder: Annotated[str | None, Meta(description="the watched one; null: not known")]
    curve: Count
    sha256: Annotated[str | None, Meta(description="of the file; null: the label is known by its path")]
    label: Literal["keep", "discard", "unsure"]
    rater: str
    reason: str
    time: Annotated[str, Meta(description="UTC, RFC 3339; the last word of a rater on a curve is the one that holds")]
    removed_by: Annotated[str | None, Meta(description="who took the label back, at this time: it holds no more")]
    undone: Annotated[str | None, Meta(description="when that itself was taken back: this line counts for nothing")]
    stream: Annotated[str | None, Meta(description="of the decision that the label is on, where one is known")]
    seq: Annotated[int | None, Meta(description="of that decision")]
    model: str | None
    pipeline: str | None
    verdict: Annotated[str | None, Meta(description="what was decided when the label was given")]
    score: float | None
    queue: Annotated[str | None, Meta(description="through which the curve came before the rater")]
    weight: Annotated[float | None, Meta(description="1 / probability with which it was drawn; null: it was chosen")]
    session: Annotated[int | None, Meta(description="number of the session that the curve is of")]
    extra: Annotated[Mapping[str, str], Meta(description="further columns of an imported table")]


class ToldLabels(Struct, frozen=True, kw_only=True):
    """The answer to ["labels", N]: those with a greater number, at most 1,000, in order; empty: no more.

    Whoever asked before asks for all of them anew where ``undone`` or ``before`` is not what it was.
    """

    labels: tuple[ToldLabel, ...]
    before: Annotated[str, Meta(description='a short name of label N; "" where there is none')]
    undone: Annotated[int, Meta(ge=0, description="removals that were taken back, of all")]
    last_seq: Count = 0
