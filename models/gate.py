"""The gate: the statistics that a candidate network has to pass before it may take the place of its parent.

Each test looks at plain arrays and gives one :class:`Finding` with its figures. Everything that is compared is paired:
both networks have seen the same curves, each at its own cut. A look at a candidate spends error: look i is allowed
:func:`alpha` of i, so that all looks of a parent together let harm of the stated size through with less than 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.certificate import CONFIDENCE, MAX_MISS, events_needed
from models.clock import end_of_night, minute_of
from models.files import write_whole
from models.metrics import at_least, auc, class_weights, reliability_slope

#: Error that all looks at candidates of one parent may spend together.
WHOLE = 0.05
#: Golden events that the parent finds, below which "none newly lost" says too little: 5 % lost, 95 % sure.
FEWEST_GOLDEN = events_needed(MAX_MISS, CONFIDENCE)
#: Of simulated events: what the candidate may lose more than the parent, at the most, as sure as the look asks.
MOST_NET_LOSS = 0.005
#: Evidence of harm on simulated events that refuses, whatever the look.
HARM = 0.05
#: Curves of the stream, not trained on, below which a pile is no forecast.
FEWEST_SHADOW = 1_000
#: Points of the stream that must leave the pile for another network, or another cut, to be worth its risk.
LEAST_GAIN = 0.05
#: The area under the ROC curve on simulated curves may be this much below the parent's.
AUC_BELOW = 0.01
#: The least area under the ROC curve on the laboratory's own labelled curves, by networks that had not seen them.
OWN_AUC = 0.8
#: The slope of the log odds, and the mean score over the prevalence, both lie between 1 / this and this.
CALIBRATED_WITHIN = 2.0
#: Times the parent's seconds a batch; the network is the same, so that only a machine that is busy comes near.
SLOWER = 2.0
#: Standard errors of the difference, as the gate will see it, that a chosen cut stays below the cut of equal loss: nine
#: sound candidates in ten then lose no more of the gate's simulated events than their parent.
SPARE = 1.3
#: Simulated events that the gate asks about.
SIMULATED = 2_000

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one test says. ``text`` names the test with its figures, in one sentence."""

    test: str
    passed: bool
    text: str
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the gate says of one candidate; a line of its log where a look was spent."""

    candidate: str  # its id; its folder where that holds no model
    parent: str  # id of the network that it would replace
    network: str  # SHA-256 of the parent's weights: looks are counted by it
    cut: float  # in force when it was looked at, a score
    night: str  # local date at its noon, from which it lasts to the next, YYYY-MM-DD
    time: str  # UTC, RFC 3339
    look: int  # its number, from 1; 0: none was spent
    alpha: float  # what the look may spend
    passed: bool
    findings: tuple[Finding, ...]
    group: str = ""  # the session group whose stream was asked

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the tests that refused it."""
        return tuple(one.test for one in self.findings if not one.passed)

    def sentences(self) -> Iterator[str]:
        """All of it in words; what refused it comes first."""
        yield from (one.text for one in self.findings if not one.passed)
        yield from (one.text for one in self.findings if one.passed)


def log_of(state: Path) -> Path:
    """Where the looks of a state are noted, a line each."""
    return state / "finetune" / "gate.jsonl"


def looks(state: Path) -> list[Report]:
    """The looks that were spent, oldest first; lines that a crash has cut, or nobody here wrote, are passed over.

    OSError where there is a log that cannot be read: nobody knows then what was spent.
    """
    found = []
    try:
        lines = log_of(state).read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    for line in lines:
        try:
            found.append(msgspec.json.decode(line, type=Report))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return found


def next_look(state: Path, network: str, night: str) -> tuple[int, Report | None]:
    """The number of the next look on children of a network, and the one that this night has had. OSError as above."""
    spent = [one for one in looks(state) if one.network == network]
    return len(spent) + 1, next((one for one in spent if one.night == night), None)


def note_last(state: Path, report: Report) -> None:
    """Keep what the gate has just said, also where no look was spent: whole or not at all. OSError for a full disk."""
    write_whole(_last_of(state), msgspec.json.encode(report))


def last_said(state: Path) -> Report | None:
    """What the gate said last: the note, or a look that is newer because a crash came before the note."""
    said = looks(state)[-1:]
    with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
        said.insert(0, msgspec.json.decode(_last_of(state).read_bytes(), type=Report))
    return max(said, key=lambda one: one.time, default=None)


def _last_of(state: Path) -> Path:
    return log_of(state).with_name("last.json")


def refusal_of(state: Path, candidate: str) -> Report | None:
    """What the gate said last of this model, where it has refused it. OSError as the log of looks does."""
    said = [one for one in (*looks(state), last_said(state)) if one is not None and one.candidate == candidate]
    last = max(said, key=lambda one: one.time, default=None)
    return last if last is not None and not last.passed else None


def lift(state: Path, change: int) -> None:
    """A person teaches on after this change of the registry, a rollback, so that a timer may as well."""
    write_whole(_lifted_of(state), msgspec.json.encode(sorted({*lifted(state), change})))


def lifted(state: Path) -> frozenset[int]:
    """The rollbacks after which a person has taught on; damage lifts none."""
    with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
        return frozenset(msgspec.json.decode(_lifted_of(state).read_bytes(), type=list[int]))
    return frozenset()


def _lifted_of(state: Path) -> Path:
    return log_of(state).with_name("lifted.json")


def taken(last: Report) -> str:
    """That tonight's look was taken, and from when on the next one may be, in local time."""
    return (
        f"look: one a night, and number {last.look} was taken at {minute_of(last.time)}; the next may be taken from"
        f" {end_of_night(last.night)} on, and none is used up until then"
    )


def alpha(look: int) -> float:
    """The error that look number ``look``, from 1, may spend: 0.05 / 2, / 4, / 8 …; ValueError below 1."""
    if look < 1:
        raise ValueError("looks are counted from 1")
    return float(WHOLE * 0.5**look)


def refuses(loss: float, events: int) -> float:
    """The chance that "none newly lost of so many events" refuses what truly loses this share of them."""
    return float(1 - (1 - loss) ** events)


def newly_lost(before: ArrayLike, after: ArrayLike, look_alpha: float) -> Finding:
    """None of the golden events that the parent finds may lie below the candidate's cut.

    ``before`` and ``after``, (n,): whether each is found, that is kept or shown. Needs :data:`FEWEST_GOLDEN` that the
    parent finds. With 0 lost of n a true loss x stays unseen with chance (1 - x)ⁿ.
    """
    found, still = np.asarray(before, np.bool_), np.asarray(after, np.bool_)
    count, lost = int(found.sum()), int((found & ~still).sum())
    figures = {"events": float(count), "newly_lost": float(lost)}
    figures |= {f"refuses_{percent}": refuses(percent / 100, count) for percent in (2, 5, 10)}
    if lost:
        lie = "lies" if lost == 1 else "lie"
        was = "was" if lost == 1 else "were"
        text = f"newly lost: {lost} of {count} golden events {lie} below the candidate's cut and {was} found before"
        return Finding("newly lost", False, text, figures)
    if (few := too_few_golden(found)) is not None:
        return few
    most = 1 - look_alpha ** (1 / count)
    figures["at_most"] = most
    chances = ", ".join(f"{100 * figures[f'refuses_{percent}']:.0f} %" for percent in (2, 5, 10))
    text = (
        f"newly lost: 0 of {count} golden events, so at most {100 * most:.1f} % of their like"
        f" ({100 * (1 - look_alpha):.4g} % sure); a true loss of 2, 5 and 10 % is refused with {chances}"
    )
    return Finding("newly lost", True, text, figures)


def too_few_golden(found: ArrayLike) -> Finding | None:
    """What is to be said where the parent finds too few golden events, (n,), to tell; None where it does not."""
    count = int(np.asarray(found, np.bool_).sum())
    if count >= FEWEST_GOLDEN:
        return None
    needed = f"{FEWEST_GOLDEN - count} more"
    text = f"newly lost: {count} golden events that the parent finds are too few to tell: {needed}"
    return Finding("newly lost", False, text, {"events": float(count)})


def most_below(events: int) -> int:
    """Of so many confirmed events, how many may lie below a cut: surely at most 5 % of their like then do.

    None of fewer than 93. Were it none of any number, the cut would sink with every label.
    """
    below = 0
    while events_needed(MAX_MISS, CONFIDENCE, below + 1) <= events:
        below += 1
    return below


def mcnemar(before: ArrayLike, after: ArrayLike, look_alpha: float) -> Finding:
    """Simulated events: no evidence of harm, and the net loss is bounded.

    ``before`` and ``after``, (n,): whether each event is found. The exact one-sided test of McNemar (1947) on the
    pairs that differ, and the score bound of Tango (1998, Statistics in Medicine 17, 891) on their difference.
    """
    found, still = np.asarray(before, np.bool_), np.asarray(after, np.bool_)
    lost, won, count = int((found & ~still).sum()), int((~found & still).sum()), found.size
    p = at_least(lost, lost + won, 0.5) if lost + won else 1.0
    bound = net_loss_bound(lost, won, count, look_alpha)
    figures = {"events": float(count), "lost": float(lost), "won": float(won), "p": p, "net_loss_at_most": bound}
    passed = p > HARM and bound <= MOST_NET_LOSS
    told = f"of {count:,} simulated events {lost} are lost and {won} won"
    if p <= HARM:
        text = f"simulated events: {told}, which is no chance (p = {p:.2g}, McNemar)"
    elif bound > MOST_NET_LOSS:
        may = f"the net loss may be {100 * bound:.2f} %, more than {100 * MOST_NET_LOSS:g} %"
        text = f"simulated events: {told}: {may} ({100 * (1 - look_alpha):.4g} % sure)"
    else:
        may = f"at most {100 * bound:.2f} % net ({100 * (1 - look_alpha):.4g} % sure)"
        text = f"simulated events: {told}, {may}, p = {p:.2g} (McNemar)"
    return Finding("simulated events", passed, text, figures)


def net_loss_bound(lost: int, won: int, count: int, error: float) -> float:
    """The upper bound, ``1 - error`` sure, of the share lost minus the share won; 1 of none.

    Tango's score bound; where none is lost the exact one of the share lost, which is smaller at a small error.
    """
    if not count:
        return 1.0
    if not lost:
        return float(1 - error ** (1 / count))
    z, difference = NormalDist().inv_cdf(1 - error), (lost - won) / count

    def is_refuted(share: float) -> bool:
        """Whether a net loss of this share is too large for what was seen."""
        a = 2 * count
        b = -lost - won + (2 * count - lost + won) * share
        c = -won * share * (1 - share)
        won_share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = count * (2 * won_share + share * (1 - share))
        return count * (share - difference) >= z * math.sqrt(max(variance, 1e-300))

    low, high = max(difference, 0.0), 1.0
    if is_refuted(low):
        return low
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if is_refuted(middle) else (middle, high)
    return high


@dataclass(frozen=True, slots=True, eq=False)
class Shadow:
    """What both networks make of the group's latest decisions, none of which the candidate was trained on.

    Kept and reviewed curves are all judged again; of D discards those that the audit drew, each with its chance.
    """

    before: Flags  # (C,) of kept and reviewed curves: goes to review by the parent at the cut in force
    after: Flags  # (C,) goes to review by the candidate, or would be kept by it alone
    discards: int  # D
    piled: int  # of these, that the parent at the cut in force sends to review
    chances: Floats  # (d,) of the drawn ones
    enters: Flags  # (d,) the candidate does not discard it

    def __len__(self) -> int:
        return int(self.before.size) + self.discards


def pile(shadow: Shadow, look_alpha: float) -> Finding:
    """The pile has to be 5 points smaller by the best estimate, and surely smaller.

    The estimate is that of Horvitz & Thompson (1952): a drawn discard stands for 1 / chance. Its variance counts one
    more of the mean weight than was found, so that a few draws without a hit do not pass for knowledge; the stream that
    comes after this one adds its own. Both together are taken as normal.
    """
    count = len(shadow)
    if (few := too_few(count)) is not None:
        return few
    weights = 1 / shadow.chances[shadow.enters]
    one_more = shadow.discards / max(shadow.chances.size, 1)
    entering, variance = float(weights.sum()), float((weights * (weights - 1)).sum()) + one_more**2
    was, now = int(shadow.before.sum()) + shadow.piled, int(shadow.after.sum())
    before, after = was / count, (now + entering) / count
    moved = shadow.before.astype(np.float64) - shadow.after
    of_stream = max(float((moved**2).sum()) / count - (float(moved.sum()) / count) ** 2, 0.0) / count
    error = math.sqrt(of_stream + variance / count**2)
    gain = before - after
    at_least_gain = gain - NormalDist().inv_cdf(1 - look_alpha) * error
    figures = {
        "curves": float(count),
        "before": before,
        "after": after,
        "standard_error": error,
        "audited": float(shadow.chances.size),
        "gain": gain,
        "gain_at_least": at_least_gain,
    }
    told = f"{100 * before:.1f} to {100 * after:.1f} % of {count:,} curves that it has not learned from go to review"
    sure = f"{100 * at_least_gain:.1f} points less at least ({100 * (1 - look_alpha):.4g} % sure)"
    if gain < LEAST_GAIN:
        text = f"pile: {told}: for less than {100 * LEAST_GAIN:g} points no network is promoted"
    elif at_least_gain <= 0:
        audited = f"{shadow.chances.size} of {shadow.discards:,} discards can be judged again"
        text = f"pile: {told}, but it may not shrink at all: {sure}, for {audited}"
    else:
        text = f"pile: {told}, {sure}"
    return Finding("pile", gain >= LEAST_GAIN and at_least_gain > 0, text, figures)


def too_few(curves: int, of: int | None = None) -> Finding | None:
    """What is to be said where the stream is too short for a forecast; None where it is not.

    ``curves``: decisions by this model on this sample that the candidate has not learned from, ``of`` so many in all.
    """
    if curves >= FEWEST_SHADOW:
        return None
    among = "" if of is None else f" of {of:,}"
    text = (
        f"pile: {curves:,}{among} decisions by this model on this sample are left without those that it learns from,"
        f" too few to foresee the pile: {FEWEST_SHADOW - curves:,} more"
    )
    return Finding("pile", False, text, {"curves": float(curves)})


def calibrated(scores: ArrayLike, events: ArrayLike, prevalence: float) -> Finding:
    """Scores of simulated curves, (n,), are probabilities at the prevalence that the model states."""
    s, is_event = np.asarray(scores, np.float64), np.asarray(events, np.bool_)
    slope = reliability_slope(s, is_event, prevalence)
    ratio = float(np.average(s, weights=class_weights(is_event, prevalence))) / prevalence
    figures = {"slope": min(slope, 1e9), "mean_over_prevalence": ratio}
    passed = all(1 / CALIBRATED_WITHIN <= one <= CALIBRATED_WITHIN for one in (slope, ratio))  # also not NaN
    text = f"calibration: the slope is {slope:.2f}, the mean score {ratio:.2f} times the prevalence"
    if not passed:
        text += f"; both must lie between {1 / CALIBRATED_WITHIN:g} and {CALIBRATED_WITHIN:g}"
    return Finding("calibration", passed, text, figures)


def ranks(before: ArrayLike, after: ArrayLike, events: ArrayLike) -> Finding:
    """The candidate still tells simulated curves apart: (n,) logits of both networks; a collapsed one has AUC 0.5."""
    was, now = auc(before, events), auc(after, events)
    if was is None or now is None:
        return Finding("ranking", False, "ranking: there are no simulated curves of both kinds to rank")
    passed = now >= was - AUC_BELOW
    text = f"ranking: AUC {now:.4f} on simulated curves, the parent's is {was:.4f}"
    if not passed:
        text += f"; it may be {AUC_BELOW:g} lower at the most"
    return Finding("ranking", passed, text, {"auc": now, "auc_of_parent": was})


def ranks_own(cross_fitted: float, before: float) -> Finding:
    """What was learned holds on labelled curves that were not learned: the area under the ROC curve on them.

    ``cross_fitted``: each judged by a network that saw no curve of its experiment and day; ``before``: by the network
    that the tuning began with. Where three labels in ten are wrong no network gets beyond 0.7, however well it sees.
    """
    passed = cross_fitted >= max(OWN_AUC, before - AUC_BELOW)
    text = f"own ranking: AUC {cross_fitted:.3f} on labelled curves, by networks that had not seen them"
    if not passed:
        text += f"; it was {before:.3f} before, and {OWN_AUC:g} is the least: what these labels teach does not hold"
    return Finding("own ranking", passed, text, {"auc": cross_fitted, "auc_before": before})


def kept_wrongly(before: ArrayLike, after: ArrayLike) -> Finding:
    """Simulated curves without an event, (n,): the candidate keeps no more of them than the parent, but for chance."""
    was, now = np.asarray(before, np.bool_), np.asarray(after, np.bool_)
    more, fewer = int((now & ~was).sum()), int((was & ~now).sum())
    p = at_least(more, more + fewer, 0.5) if more + fewer else 1.0
    text = (
        f"kept: {int(now.sum())} of {now.size:,} simulated curves without an event, the parent keeps {int(was.sum())}"
    )
    figures = {"event_free": float(now.size), "kept": float(now.sum()), "kept_by_parent": float(was.sum()), "p": p}
    return Finding("kept", p > HARM, text + ("" if p > HARM else f", which is no chance (p = {p:.2g})"), figures)


def cut_is_low(cut: float, highest: float, score: Callable[[Floats], Floats]) -> Finding:
    """The candidate's discard cut, a logit, lies no higher than where it loses what the parent loses.

    ``score``: of logits, as people are told them.
    """
    at, limit = (float(score(np.array([one]))[0]) for one in (cut, highest))
    text = (
        f"cut: it discards up to a score of {at:.4g}; up to {limit:.4g} it loses no more simulated events than before"
    )
    if cut > highest:
        text += ", so that it is too high"
    return Finding("cut", cut <= highest, text, {"cut": cut, "highest": max(highest, -1e9)})


def latency(before_s: float, after_s: float) -> Finding:
    """Seconds of a batch by both networks, the best of some tries each."""
    ratio = after_s / before_s
    text = f"latency: {ratio:.2f} times the parent's, {SLOWER:g} at the most"
    return Finding("latency", bool(ratio <= SLOWER), text, {"ratio": ratio, "seconds": after_s})


def equal_loss_cut(before: ArrayLike, after: ArrayLike, cut: float, spare: float = 0.0) -> float:
    """The highest logit of the candidate at which it discards no more simulated events than the parent at its ``cut``.

    ``before`` and ``after``, (n,): the logits of the same events by the parent and by the candidate, infinite where a
    doubt keeps one from being discarded. ``spare``: it discards fewer, by so many standard errors of the difference on
    :data:`SIMULATED` events; :data:`SPARE` where a cut is chosen that the gate is to pass. ValueError without events.
    """
    old, new = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if not new.size or old.shape != new.shape:
        raise ValueError(f"{old.shape} and {new.shape} logits are not those of the same events")
    gone, ranked = old <= cut, np.sort(new)
    for count in range(min(int(gone.sum()), new.size - 1), -1, -1):
        limit = math.nextafter(float(ranked[count]), -math.inf)
        falls = new <= limit
        differing = int((falls != gone).sum()) / new.size
        if int(falls.sum()) - int(gone.sum()) <= -spare * math.sqrt(differing / SIMULATED) * new.size:
            return limit
    return math.nextafter(float(ranked[0]), -math.inf)
