"""The gate: a candidate network is promoted only where every test lets it through, and each refusal says which did not.

First the folder: it is a model, a child of the parent, differs from it only where the tuning may, and says what it was
trained on. That costs nothing and may be asked at any time. Then the statistics (models.gate), on golden events, fixed
simulated curves and the curves of the stream: a *look*, one a night, each with half the error of the one before. The
log of looks is ``STATE/finetune/gate.jsonl``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from daemon.common.stdio import progress
from daemon.common.text import clean, many
from daemon.config import Config
from daemon.formats.afmcurve import unpack
from daemon.formats.base import Unfinished, Unreadable
from daemon.judging import Thresholds, verdict_of
from daemon.labels import Labels
from daemon.labels.sessions import Sessions
from daemon.learn.evidence import TrainingRecord, fingerprint_of
from daemon.learn.ground import Stream, stream_of
from daemon.learn.lessons import Taught, golden_events, golden_fingerprints, is_held_out
from daemon.ledger.view import LedgerView
from deploy.classifier import EngineFault, EngineRequest, NoEngine
from deploy.serving import Model, Scored, SelfTestFailed
from models import gate
from models.bundle import BadBundle, Bundle, read
from models.calibrate import FEWEST
from models.clock import night_of, utc_now
from models.curve import Curve, Prepared
from models.files import append_line
from models.frontend import prepare_to_judge
from models.gate import SIMULATED, Finding, Report, Shadow, alpha, log_of, next_look
from models.network import load
from models.raster import RasterProfile
from models.reasons import DOUBTS
from models.simulate import simulate

#: Of the simulated curves that every candidate is asked about; nobody else draws them.
SEED = 83_000_000
#: Kept and reviewed curves of the stream that are judged again, the latest ones.
_MOST_JUDGED = 4_000
#: What of a network the tuning may change: the convolutions of layer4, and the last layer.
_TUNED = ("layer4.", "fc.")
_KEPT = (".bn1.", ".bn2.", ".downsample.1.")
_BATCH = 64
#: Curves, and how often, that the latency is measured on.
_TIMED, _TRIES = 32, 3
_EXACT = EngineRequest("cpu", precision="fp32")
#: Nothing is discarded, so that nothing is judged upside down.
_NO_LIMITS = (-1.0, 2.0)

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class CrossFitted:
    """What networks say of labelled curves that were tuned without their experiment and day."""

    events: Sequence[float]  # logits of the confirmed events that the parent does not discard
    ranking: tuple[float, float] | None  # as models.gate.ranks_own takes it; None where labels are of one kind


def look(
    config: Config,
    candidate: Bundle | Path,
    parent: Bundle,
    cut: float,
    taught: Taught | None,
    *,
    crossed: CrossFitted | None = None,
    spend: bool = True,
    simulated: int = SIMULATED,
) -> Report:
    """Every test on one candidate; moves nothing. A minute or two, on one core.

    ``parent``: the network that serves the present session group, ``cut`` its discard threshold in force, a score.
    ``crossed``: what was found out while it was tuned, None where nobody has. ``spend``: note the look, as one that may
    end in a promotion does. ``simulated``: events, and half as many curves without one; fewer let hardly anything pass.

    No look is spent on a folder that is no fit candidate, nor where there is too little to judge it by. The same
    candidate asked about again in the same night is answered from the log; another one is refused, and nothing spent.
    Raises UserError 69 without a ledger, 74 where ledger, labels or the golden events cannot be read; OSError where the
    state takes no line of the log.
    """
    night = night_of(time.time())
    number, last = next_look(config.state, parent.weights_sha256, night)

    def report(findings: Sequence[Finding], *, is_look: bool = False) -> Report:
        return Report(
            candidate=clean(str(candidate)) if model is None else model.id,
            parent=parent.id,
            network=parent.weights_sha256,
            cut=cut,
            night=night,
            time=utc_now("seconds"),
            look=number if is_look else 0,
            alpha=alpha(number),
            passed=bool(findings) and all(one.passed for one in findings),
            findings=tuple(findings),
            group=group,
        )

    with LedgerView(config.ledger_file) as view, Labels(config.state / "labels.sqlite") as labels:
        group, within = Sessions(labels).here()
        model, findings = examine(candidate, parent, taught)
        if model is None or not all(one.passed for one in findings):
            return report(findings)
        if last is not None and spend:
            is_same = (last.candidate, last.parent, last.cut, last.group) == (model.id, parent.id, cut, group)
            return last if is_same else report([Finding("look", False, gate.taken(last))])
        keep = parent.keep if config.thresholds.keep is None else config.thresholds.keep
        stream = stream_of(view, within, parent, keep, cut)
        judge = _Judge(model, Model.of(parent, _EXACT), Thresholds(cut, keep), alpha(number))
        golden = judge.golden(taught)
        if missing := [one for one in (gate.too_few_golden(golden[0]), gate.too_few(len(stream))) if one is not None]:
            return report([*findings, *missing])
        shadow = _shadow(view, stream, judge, config.thresholds.keep, may_discard=not config.require_certificate)
    if (few := gate.too_few(len(shadow), len(stream))) is not None:
        return report([*findings, few])
    said = report([*findings, *judge.findings(golden, shadow, taught, crossed, simulated)], is_look=spend)
    return _noted(config.state, said) if spend else said


def _noted(state: Path, said: Report) -> Report:
    log_of(state).parent.mkdir(parents=True, exist_ok=True)
    append_line(log_of(state), msgspec.json.encode(said))
    return said


# The folder.


def examine(candidate: Bundle | Path, parent: Bundle, taught: Taught | None) -> tuple[Model | None, list[Finding]]:
    """Whether this may be a candidate at all: the model, where a folder holds one, and what was found.

    A bundle is taken as it was read: what becomes of its folder meanwhile is nothing to it.
    """
    try:
        bundle = candidate if isinstance(candidate, Bundle) else read(candidate)
    except (BadBundle, OSError) as error:
        return None, [Finding("model", False, clean(f"model: {error}"))]
    findings = list(_differences(bundle, parent, taught))
    try:
        model = Model.of(bundle, _EXACT)
    except (SelfTestFailed, NoEngine, EngineFault) as error:
        text = clean(f"self-test: it does not judge known curves as its manifest says: {error}")
        return None, [*findings, Finding("self-test", False, text)]
    return model, [*findings, Finding("self-test", True, "self-test: it judges known curves as its manifest says")]


def _differences(child: Bundle, parent: Bundle, taught: Taught | None) -> Iterator[Finding]:
    def same(test: str, what: str, its: object, parents: object) -> Finding:
        text = f"{test}: as it has to be" if its == parents else f"{test}: {what} is {its} and has to be {parents}"
        return Finding(test, its == parents, text)

    yield same("raster", "the picture that it was made for", child.profile.id, parent.profile.id)
    its = child.manifest.network
    told = [f"{one.architecture}, width {one.width}" for one in (its, parent.manifest.network)]
    yield same("network", "its kind and size", *told)
    prevalences = (child.calibration.prevalence, parent.calibration.prevalence)
    yield same("prevalence", "at which its scores are probabilities", *prevalences)
    yield same("parent", "the model that it comes from", child.manifest.parent, parent.id)
    yield same("certificate", "a promise, which nobody has counted for these weights", child.certificate, None)
    if told[0] == told[1]:
        yield _weights_differ(child, parent)
    yield from _taught_on(child, parent, taught)
    yield _evidence_of(child)


def _weights_differ(child: Bundle, parent: Bundle) -> Finding:
    """Only what is tuned, and that it is."""
    changed = [name for name, tensor in parent.weights.items() if tensor.tobytes() != child.weights[name].tobytes()]
    foreign = [one for one in changed if not one.startswith(_TUNED) or any(part in one for part in _KEPT)]
    figures = {"changed": float(len(changed)), "foreign": float(len(foreign))}
    if foreign:
        which = f"{many(len(foreign), 'tensor')} that no tuning changes, the first {foreign[0]}"
        return Finding("foreign weights", False, f"foreign weights: it differs from its parent in {which}", figures)
    if not changed:
        return Finding(
            "foreign weights", False, "foreign weights: they are the parent's, so nothing was learned", figures
        )
    return Finding("foreign weights", True, "foreign weights: none, only the last layers have changed", figures)


def _taught_on(child: Bundle, parent: Bundle, taught: Taught | None) -> Iterator[Finding]:
    """What the training record says: it goes on from the parent's, knows its curves, and none of them is golden."""
    its, before = (TrainingRecord.of(one.manifest.training) for one in (child, parent))
    new = its.curves - before.curves
    known = new if taught is None else new & set(taught.fingerprints)
    figures = {"curves": float(len(new)), "unknown": float(len(new) - len(known))}
    if not its.curves >= before.curves:
        text = f"it leaves out {len(before.curves - its.curves)} curves that its parent was trained on"
    elif not new:
        text = "it was trained on no labelled curve that its parent does not know"
    elif known != new:
        text = f"{len(new) - len(known)} of {len(new)} curves that it was trained on were never labelled here"
    else:
        text = f"it was trained on {many(len(new), 'labelled curve')} more than its parent"
    is_sound = bool(new) and known == new and its.curves >= before.curves
    yield Finding("training record", is_sound, f"training record: {text}", figures)
    leaked = [one for one in new if one in golden_fingerprints() or is_held_out(one)]
    text = f"{len(leaked)} of {len(new)} curves that it was trained on are held out" if leaked else "none"
    yield Finding("leaked golden rows", not leaked, f"leaked golden rows: {text}", {"leaked": float(len(leaked))})


def _evidence_of(child: Bundle) -> Finding:
    """What the cut rests on."""
    cut = child.manifest.thresholds
    basis = str(cut.evidence.get("basis", ""))
    lists = [cut.evidence.get(name, []) for name in ("confirmed", "look_first")]  # `adapt` goes through them
    is_known = basis.startswith(("labels", "simulation")) and all(isinstance(one, list) for one in lists)
    enough = is_known and cut.events >= FEWEST
    text = f"evidence: the cut rests on {many(cut.events, 'event')} ({clean(basis) or 'nobody says which'})"
    if not enough:
        text += f", and {FEWEST} are the fewest"
    return Finding("evidence", enough, text, {"events": float(cut.events)})


# The statistics: both networks on the same curves.


@dataclass(frozen=True, slots=True, eq=False)
class _Logits:
    """What a network says of n curves. ``is_open``: a doubt keeps it from being discarded, whatever its score."""

    raw: Floats  # (n,), NaN without a score
    is_open: NDArray[np.bool_]  # (n,)

    def found(self, cut: float) -> NDArray[np.bool_]:
        """(n,): whether each is kept or shown at this cut, a logit."""
        return self.is_open | ~(self.raw <= cut)

    @property
    def to_lose(self) -> Floats:
        """(n,), infinite where a curve is not discarded at any cut."""
        return np.where(self.found(np.inf), np.inf, self.raw)


@dataclass(frozen=True, slots=True)
class _Judge:
    """Both networks, each at its own thresholds."""

    candidate: Model
    parent: Model
    thresholds: Thresholds  # of the parent, as they are in force
    alpha: float

    @property
    def models(self) -> tuple[Model, Model]:
        return self.parent, self.candidate

    @property
    def cuts(self) -> tuple[float, float]:
        """The logits below which the parent and the candidate discard."""
        return self.parent.bundle.calibration.logit(self.thresholds.discard), float(self.candidate.bundle.limits[0])

    def _simulated(self, count: int, prevalence: float) -> tuple[_Logits, _Logits]:
        prepared = _drawn(count, prevalence, self.parent.bundle.profile)
        what, parent = "simulated events" if prevalence else "curves without one", self.parent.bundle
        key = parent.weights_sha256, parent.profile, count, prevalence
        if key not in _OF_PARENTS:
            _OF_PARENTS[key] = _said(self.parent, prepared, what)
        return _OF_PARENTS[key], _said(self.candidate, prepared, what)

    def findings(
        self,
        golden: tuple[Flags, Flags],
        shadow: Shadow,
        taught: Taught | None,
        crossed: CrossFitted | None,
        simulated: int,
    ) -> Iterator[Finding]:
        """All that is asked in a look."""
        yield gate.newly_lost(*golden, self.alpha)
        yield from self.on_simulated(simulated)
        if own := self.own_events(taught, () if crossed is None else crossed.events):
            yield own
        if crossed is not None and crossed.ranking is not None:
            yield gate.ranks_own(*crossed.ranking)
        yield gate.pile(shadow, self.alpha)

    def golden(self, taught: Taught | None) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(n,): whether each golden event is found by the parent, and by the candidate."""
        events = prepare_to_judge(golden_events(), self.parent.bundle.profile)
        judges = zip(self.models, self.cuts, strict=True)
        found = [_said(model, events, "golden events").found(cut) for model, cut in judges]
        if taught is not None and taught.golden.any():
            own = [said[taught.golden] > cut for said, cut in zip(self._taught(taught), self.cuts, strict=True)]
            found = [np.concatenate(pair) for pair in zip(found, own, strict=True)]
        return found[0], found[1]

    def _taught(self, taught: Taught) -> tuple[Floats, Floats]:
        """(N,) logits of the labelled curves by the parent and by the candidate."""
        bundles = (one.bundle for one in self.models)
        parent, candidate = (taught.logits(load(one.width, one.weights), one.profile) for one in bundles)
        return parent, candidate

    def own_events(self, taught: Taught | None, cross_fitted: Sequence[float]) -> Finding | None:
        """The cut lies below the confirmed events that the parent shows, as a network sees it that did not learn it.

        So many of them may lie below that surely 5 % of their like do at most. Where nobody has worked that out, as the
        candidate itself sees it, which flatters it.
        """
        old, new = self.cuts
        logits, how = np.asarray(cross_fitted, np.float64), "by networks that had not seen them"
        if not logits.size and taught is not None and len(taught):
            before, after = self._taught(taught)
            logits, how = after[taught.is_event & (before > old)], "by itself, which has seen them: that proves little"
        if not logits.size:
            return None
        below = int((logits <= new).sum())
        most = gate.most_below(logits.size)
        text = f"own events: {below} of {logits.size} confirmed ones that the parent shows lie below the cut, {how}"
        if most or below:
            text += f"; {most} may"
        return Finding("own events", below <= most, text, {"events": float(logits.size), "below": float(below)})

    def on_simulated(self, events: int) -> Iterator[Finding]:
        """What fixed simulated curves say: is the network whole, is its cut, are its probabilities, is its speed."""
        held, free = self._simulated(events, 1.0), self._simulated(events // 2, 0.0)
        is_event = np.repeat([True, False], [events, events // 2])
        raw = [np.concatenate((one.raw, other.raw)) for one, other in zip(held, free, strict=True)]
        able = ~np.isnan(raw[0]) & ~np.isnan(raw[1])
        old, new = self.cuts
        yield gate.ranks(raw[0][able], raw[1][able], is_event[able])
        calibration = self.candidate.bundle.calibration
        yield gate.calibrated(calibration.score(raw[1][able]), is_event[able], calibration.prevalence)
        yield gate.mcnemar(held[0].found(old), held[1].found(new), self.alpha)
        highest = gate.equal_loss_cut(held[0].to_lose, held[1].to_lose, old)
        yield gate.cut_is_low(new, highest, calibration.score)
        keeps = self.parent.bundle.calibration.logit(self.thresholds.keep), float(self.candidate.bundle.limits[1])
        kept = [np.nan_to_num(one.raw, nan=-np.inf) >= keep for one, keep in zip(free, keeps, strict=True)]
        yield gate.kept_wrongly(*kept)
        yield gate.latency(*self._seconds())

    def _seconds(self) -> tuple[float, float]:
        """Of a batch by each network, the best of some tries, taken in turn."""
        prepared = prepare_to_judge([one.curve for one in simulate(_TIMED, SEED, 0.0)], self.parent.bundle.profile)
        signals = [one.signal for one in prepared if one.signal is not None]
        best = [np.inf, np.inf]
        for _ in range(_TRIES):
            for place, model in enumerate(self.models):
                begun_s = time.perf_counter()
                model.classify(signals)
                best[place] = min(best[place], time.perf_counter() - begun_s)
        return best[0], best[1]


#: What a network said of the simulated curves, for whoever looks at many candidates of it.
_OF_PARENTS: dict[tuple[str, RasterProfile, int, float], _Logits] = {}


@lru_cache(maxsize=2)
def _drawn(count: int, prevalence: float, profile: RasterProfile) -> list[Prepared]:
    curves = iter(progress((one.curve for one in simulate(count, SEED, prevalence)), "simulating for the gate", count))
    prepared: list[Prepared] = []
    while some := list(islice(curves, _BATCH)):
        prepared += prepare_to_judge(some, profile)
    return prepared


def _said(model: Model, prepared: Sequence[Prepared], what: str) -> _Logits:
    said: list[Scored] = []
    curves = iter(progress(prepared, f"the gate asks {what}", len(prepared)))
    while some := list(islice(curves, _BATCH)):
        said += model.judge_prepared(some, _NO_LIMITS, drawn=False)
    return _logits(said)


def _logits(said: Sequence[Scored]) -> _Logits:
    raw = np.array([np.nan if one.logit is None else one.logit for one in said], np.float64)
    return _Logits(raw, np.array([bool(DOUBTS.intersection(one.reasons)) for one in said], np.bool_))


def _shadow(view: LedgerView, stream: Stream, judge: _Judge, keep: float | None, *, may_discard: bool) -> Shadow:
    """The stream as both networks would have it; what the candidate was trained on is left out.

    ``keep``: the threshold that the configuration sets for every model.
    """
    learned = TrainingRecord.of(judge.candidate.bundle.manifest.training).curves
    verdicts = {seq: verdict for seq, (verdict, _) in view.steps(stream.seqs.tolist()).items()}
    is_shown = np.array([verdicts[seq] != "discard" for seq in stream.seqs.tolist()], np.bool_)
    first = max(int(np.flatnonzero(is_shown)[-_MOST_JUDGED:][0]), 0) if is_shown.sum() > _MOST_JUDGED else 0
    seqs, is_shown, piled = stream.seqs[first:], is_shown[first:], stream.is_piled(judge.thresholds.discard)[first:]
    chances = {one.seq: one.probability for one in view.draws(audit.number for audit in view.audits())}
    drawn = np.array([seq in chances for seq in seqs.tolist()], np.bool_) & ~is_shown
    asked = seqs[is_shown | drawn].tolist()
    again = _judged_again(view, asked, judge.candidate, learned, keep)
    gone = np.array([again.get(seq) == "learned" for seq in seqs.tolist()], np.bool_)
    stays = {seq: not (verdict == "discard" and may_discard) for seq, verdict in again.items()}

    def after(which: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Only what would be discarded leaves the pile; what cannot be judged again stays in it."""
        return np.array([stays.get(seq, True) for seq in seqs[which].tolist()], np.bool_)

    shown, discards, drawn = is_shown & ~gone, ~is_shown & ~gone, drawn & ~gone
    is_kept = np.array([again.get(seq) == "keep" for seq in seqs[shown].tolist()], np.bool_)
    before = piled[shown]
    return Shadow(
        before=before,
        after=after(shown) & ~(is_kept & ~before),
        discards=int(discards.sum()),
        piled=int((piled & discards).sum()),
        chances=np.array([chances[seq] for seq in seqs[drawn].tolist()], np.float64),
        enters=after(drawn),
    )


def _judged_again(
    view: LedgerView, seqs: Sequence[int], model: Model, learned: frozenset[str], keep: float | None
) -> dict[int, str]:
    """``seq`` -> the verdict of the candidate, or ``learned``; without those of which no copy can be read."""
    found: dict[int, str] = {}
    told = iter(progress(seqs, "the gate asks the stream", len(seqs)))
    thresholds = Thresholds(model.bundle.discard, model.bundle.keep if keep is None else keep)
    while some := list(islice(told, _BATCH)):
        curves: dict[int, Curve] = {}
        for seq in some:
            try:
                curve = unpack(view.compact_copy(seq) or b"")[0]
            except (Unfinished, Unreadable):
                continue
            if fingerprint_of(curve) in learned:
                found[seq] = "learned"
            else:
                curves[seq] = curve
        for seq, one in zip(curves, model.judge(list(curves.values()), thresholds.both), strict=True):
            found[seq] = verdict_of(one.score, one.reasons, thresholds)
    return found
