"""The fine-tuning of one night: labels teach the network, the gate looks at it, and it serves or is refused.

Everything of a run lies in ``STATE/finetune``. Whoever is killed goes on with the same command: simulated curves, every
epoch and the candidate are found again, the last because it is called after what it is made of.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from daemon import __version__
from daemon.common import ending
from daemon.common.errors import BAD_DATA, UNREACHABLE, UserError
from daemon.common.locks import lock_work_folder
from daemon.common.progress import progress, working
from daemon.config import Config
from daemon.judging.registry import Promotion, Registry
from daemon.labels import Labels
from daemon.labels.sessions import Sessions
from daemon.learn.gate import look
from daemon.learn.ground import Ground, overridden, promote, stream_of, survey, taken_back
from daemon.learn.lessons import Taught, golden_fingerprints, lessons_of, untaught
from daemon.learn.training import Origin, as_stored, publish
from daemon.learn.training_record import TrainingRecord
from daemon.ledger.view import LedgerView
from deploy.cpu import default_threads
from models.bundle import BadBundle, Bundle, read
from models.calibrate import choose_like_parent, fit_platt
from models.clock import minute_of, night_of
from models.files import remove_abandoned, remove_unfinished, write_whole
from models.finetune import Lessons, Tuning, TuningRecipe, cross_fit, steps_of, tail_logits, trunk_of
from models.gate import SIMULATED, Report, lift, lifted, log_of, looks, note_last, taken, too_few
from models.loss import describe
from models.network import ResNet18, load
from models.raster import RasterProfile
from models.simulate import simulate
from models.train import Examples, gather

#: In the state: the work of a night, its candidates and the gate's log of looks.
FOLDER = "finetune"
#: Simulated curves that are replayed, so that nothing is forgotten.
REPLAYED = 4_000
#: Simulated curves that calibration and thresholds stand on, never learned from.
HELD_OUT = 8_000
#: Seeds far from those of training, of the gate and of the simulated loss.
_SEEDS = {"replayed": 61_000_000, "held-out": 62_000_000}
_FOLDS = 5
_NICE = 15
_CANDIDATE = "tuned-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """What a person, or a timer, asks for."""

    by: str
    is_unattended: bool = False  # by a timer: what a person took back stays taken back
    stands_back: bool = False  # this process works when the others leave it time: the instrument's curves go first
    dry_run: bool = False  # all but the promotion, and no look is spent
    device: str = "auto"
    events: int | None = None  # confirmed ones that it takes; None: as the configuration says
    simulate: int = REPLAYED
    held_out: int = HELD_OUT
    recipe: TuningRecipe = field(default_factory=lambda: TuningRecipe(threads=0))  # threads 0: all cores but one
    asked: int = SIMULATED  # simulated events that the gate asks about; with fewer than usual hardly anything passes
    candidate: Path | None = None  # nothing is learned: the gate looks at this model


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a night ended.

    ``waits``: nothing to learn yet; ``refused`` by the gate; ``held``: it passed, and was not promoted (a dry run, or a
    timer after a person took a promotion back); ``promoted``: it serves.
    """

    kind: Literal["waits", "refused", "held", "promoted"]
    sentences: tuple[str, ...]  # the first says how it ended
    model: str | None = None  # the candidate's id
    folder: Path | None = None  # where it lies
    report: Report | None = None  # of the gate
    promotion: Promotion | None = None


def finetune(config: Config, night: Night) -> Outcome:
    """Teach, calibrate, have the gate look, promote. Some minutes for 500 labels, and less than 1 GB of memory.

    Raises UserError: 65 for labels that contradict each other, or a candidate that is no model; 69 without a ledger, or
    without the GPU that is asked for; 73 while another one works; 74 where ledger or labels cannot be read. OSError
    where the state takes no file.
    """
    ground, taught = _survey(config, night)
    if (why := _nothing_to_do(config, night, ground, taught)) is not None:
        return Outcome("waits", (why, *taught.sentences()))
    folder = config.state / FOLDER
    with lock_work_folder(folder, "another finetune works on this state"):
        remove_unfinished(folder)
        remove_abandoned(folder)
        if night.candidate is None:
            candidate = _Teaching(config, night, ground, taught, folder).candidate()
        else:
            candidate = _named(config, night.candidate)
        return _through_the_gate(config, night, ground, taught, candidate)


def _survey(config: Config, night: Night) -> tuple[Ground, Taught]:
    events = config.finetune.events if night.events is None else night.events
    with LedgerView(config.state / "ledger.sqlite") as view, Labels(config.state / "labels.sqlite") as labels:
        ground = survey(config, view, labels)
        return ground, lessons_of(config, view, labels, ground, events=events, never=golden_fingerprints())


def _nothing_to_do(config: Config, night: Night, ground: Ground, taught: Taught) -> str | None:
    """Why there is nothing to learn tonight, in one sentence."""
    with LedgerView(config.state / "ledger.sqlite") as view:
        if (fixed := overridden(config, view.last(1))) is not None:
            return fixed  # no cut of a candidate would be the one that serves
    back = _still_taken_back(config, night, ground)
    if night.candidate is not None:
        if back:
            return f"a timer promotes nothing after that: {back}; `finetune` of a person does"
        serves = _named(config, night.candidate).id == ground.network.id
        return f"{ground.network.id} serves already" if serves else None
    return _nothing_to_teach(config, night, ground, taught, back)


def _nothing_to_teach(config: Config, night: Night, ground: Ground, taught: Taught, back: str | None) -> str | None:
    if taught.missing is not None:
        return f"nothing is learned yet: {taught.missing}; label on the review page: afm-triage review"
    network = ground.network.manifest
    if network.training.get("lessons") == _digest_of(taught):
        return f"nothing new to learn: {ground.network.id}, which serves, has been taught all of these labels"
    if back:
        return f"a timer teaches nothing after that: {back}; `finetune` of a person does"
    return None if night.dry_run else _too_early(config, night, ground, taught)


def _still_taken_back(config: Config, night: Night, ground: Ground) -> str | None:
    """What a timer has to leave alone, in words; a person who teaches sets it free, whatever comes of that night."""
    registry = Registry(config.state / "models")
    change = registry.taken_back(ground.group)
    if change is None or change.number in lifted(config.state):
        return None
    if night.is_unattended:
        return taken_back(registry, ground.group)
    if not night.dry_run:
        log_of(config.state).parent.mkdir(exist_ok=True)
        lift(config.state, change.number)
    return None


def _too_early(config: Config, night: Night, ground: Ground, taught: Taught) -> str | None:
    """Why the gate could let nothing pass that is taught now, as far as that is known before teaching; one sentence.

    Whoever names a number of events has a candidate made all the same, where decisions alone are missing.
    """
    ours = [one for one in looks(config.state) if one.network == ground.network.weights_sha256]
    tonight = next((one for one in ours if one.night == night_of(time.time())), None)
    name = _Teaching(config, night, ground, taught, config.state / FOLDER).name
    if tonight is not None and tonight.candidate.rpartition("-")[0] != name:
        return f"nothing is taught: {taken(tonight)}"
    if night.events is not None:
        return None
    keep = ground.network.keep if config.thresholds.keep is None else config.thresholds.keep
    with LedgerView(config.state / "ledger.sqlite") as view, Labels(config.state / "labels.sqlite") as labels:
        stream = stream_of(view, Sessions(labels).seqs_of(ground.group), ground.network, keep, ground.old)
    learned = int(np.isin(stream.seqs, taught.seqs[taught.trained]).sum())
    if (few := too_few(len(stream) - learned, len(stream))) is None:
        return None
    on = f' on the sample "{ground.group}"' if ground.group else ""
    return f"nothing is taught{on} yet: {few.text}"


def _digest_of(taught: Taught) -> str:
    """What people have said, and of which curves."""
    said = sorted(zip(taught.fingerprints, taught.targets.tolist(), taught.groups.tolist(), strict=True))
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def _named(config: Config, folder: Path) -> Bundle:
    """The model that a person names. UserError 65 where it is none."""
    try:
        return read(Registry(config.state / "models").find(folder))
    except BadBundle as error:
        raise UserError(BAD_DATA, f"--candidate {folder}: {error}") from None
    except OSError as error:
        raise UserError(BAD_DATA, f"--candidate {folder} cannot be read: {error.strerror}") from None


# Teaching.


class _Teaching:
    """One candidate, out of what people have said until now."""

    def __init__(self, config: Config, night: Night, ground: Ground, taught: Taught, folder: Path) -> None:
        self._night, self._ground, self._taught, self._folder = night, ground, taught, folder
        self._parent, self._start = ground.network, untaught(ground, taught)
        self._recipe = replace(night.recipe, threads=night.recipe.threads or default_threads())
        self._device = _device_of(night.device)
        with LedgerView(config.state / "ledger.sqlite") as view:
            self._stream = view.stream

    @property
    def _made_of(self) -> dict[str, Any]:
        """Everything that decides what comes out."""
        recipe = {name: value for name, value in asdict(self._recipe).items() if name != "threads"}
        return {
            "parent": self._parent.id,
            "start": self._start.id,
            "cut": [self._ground.own, self._ground.old],
            "lessons": _digest_of(self._taught),
            "recipe": recipe,
            "simulated": self._night.simulate,
            "held_out": self._night.held_out,
        }

    @property
    def name(self) -> str:
        """Of the candidate, before it is made."""
        return _CANDIDATE + hashlib.sha256(json.dumps(self._made_of, sort_keys=True).encode()).hexdigest()[:8]

    def candidate(self) -> Bundle:
        """Found where it was made already, else made; OSError where the state takes no file."""
        made_of, name = json.dumps(self._made_of, sort_keys=True), self.name
        with suppress(BadBundle):
            return read(self._folder / name)
        _remove(self._folder / name)  # damaged, or half there
        self._begin(made_of)
        torch.set_num_threads(self._recipe.threads)
        if self._night.stands_back:
            os.nice(max(_NICE - os.nice(0), 0))
        with working("loading the network"):
            profile = self._parent.profile
            network, start = (_loaded(bundle) for bundle in (self._parent, self._start))
            taught_logits = self._taught.logits(network, profile)
        replayed = _drawn(self._folder, "replayed", profile, self._night.simulate)
        lessons = self._lessons(network, replayed)
        crossed = self._cross_fit(start, lessons)
        tuning = Tuning(start, lessons, self._recipe, self._folder / "checkpoint", self._device)
        for _ in progress(tuning, "tuning", len(tuning)):
            pass
        held_out = _drawn(self._folder, "held-out", profile, self._night.held_out)
        with working("choosing thresholds"):
            bundle = self._make(name, network, tuning.network.cpu(), held_out, crossed, taught_logits)
        self._tidy(name)
        return bundle

    def _begin(self, made_of: str) -> None:
        """Go on with what was begun for these very labels, else afresh; simulated curves are the same for all."""
        note = self._folder / "plan.json"
        if not note.is_file() or note.read_bytes() != made_of.encode():
            self._tidy(None)
            write_whole(note, made_of.encode())

    def _tidy(self, made: str | None) -> None:
        """Checkpoints go, and older candidates: what was promoted is kept elsewhere."""
        for part in ("checkpoint", "cross-fit"):
            shutil.rmtree(self._folder / part, ignore_errors=True)
        for old in self._folder.glob(f"{_CANDIDATE}*") if made else ():
            if old.name != made:
                shutil.rmtree(old, ignore_errors=True)

    def _lessons(self, network: ResNet18, replayed: Examples) -> Lessons:
        """What people said, and what is replayed; the trunk of the network has seen both."""
        with working("looking at the curves", None):
            own = self._taught.lessons(network, self._parent.profile, self._device)
            trunk = trunk_of(network, replayed.edges, self._parent.profile, self._device)
            return own + Lessons.replayed(trunk, replayed.labels)

    def _cross_fit(self, network: ResNet18, lessons: Lessons) -> tuple[NDArray[np.float64], str]:
        """(K,) logits of the curves that are learned from, by networks that saw no curve of their experiment."""
        recipe, folder = self._recipe, self._folder / "cross-fit"
        with working("cross-fitting", _FOLDS * steps_of(lessons, recipe)) as done:

            def step(_: int) -> None:
                ending.check()
                done()

            found = cross_fit(network, lessons, recipe, _FOLDS, folder, self._device, step)
        return found.logits[: len(self._taught.trained)], found.text

    def _make(
        self,
        name: str,
        parent: ResNet18,
        tuned: ResNet18,
        held_out: Examples,
        crossed: tuple[NDArray[np.float64], str],
        taught_logits: NDArray[np.float64],
    ) -> Bundle:
        """Calibrate and write. UserError 65 where the tuning ran away."""
        ground, taught, base = self._ground, self._taught, self._parent
        if not all(bool(torch.isfinite(tensor.half()).all()) for tensor in tuned.state_dict().values()):
            raise UserError(BAD_DATA, "the tuning ran away, weights are no longer finite; look at the labels again")
        network, events = as_stored(tuned), held_out.labels > 0.5
        trunk = trunk_of(parent, held_out.edges, base.profile, self._device)
        before, after = (tail_logits(one, trunk, self._device) for one in (parent, network))
        calibration = fit_platt(after, events, base.calibration.prevalence)
        own = ground.logit(ground.own) if ground.own < ground.old else None
        known = taught.is_event & taught.unseen_by(self._start)
        shown = (known & (taught_logits > ground.logit(ground.old)))[taught.trained]
        limits = ground.logit(ground.old), ground.logit(base.keep)
        cut = choose_like_parent(calibration, before, after, events, limits, crossed[0][shown], own)
        seqs = sorted(taught.seqs[taught.trained][shown].tolist())
        evidence = {
            **cut.evidence,
            "cross_fit": crossed[1],
            "group": ground.group,
            "labels": _counts(taught),
            **({"ledger": self._stream, "confirmed": seqs} if cut.is_of_labels else {}),
        }
        origin = Origin(name, __version__, self._training(), parent=base.id)
        return publish(
            self._folder / name, network.cpu(), base.profile, calibration, replace(cut, evidence=evidence), origin
        )

    def _training(self) -> dict[str, Any]:
        """What the manifest says of it."""
        record = TrainingRecord.of(self._parent.manifest.training)
        record = record.with_more({f"labels of {self._stream[:8]}": _digest_of(self._taught)}, self._taught.curves)
        return {**self._made_of, **record.for_manifest(), "loss": describe(self._recipe.loss)}


def _remove(path: Path) -> None:
    """Whatever it is. OSError where that cannot be."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _loaded(bundle: Bundle) -> ResNet18:
    return load(bundle.width, {name: torch.from_numpy(tensor) for name, tensor in bundle.weights.items()})


def _counts(taught: Taught) -> dict[str, int]:
    return {
        "curves": len(taught.trained),
        "events": int(taught.is_event[taught.trained].sum()),
        "event_free": int(taught.is_free[taught.trained].sum()),
        "golden": int(taught.golden.sum()),
        "experiments": len(taught.experiments),
    }


def _device_of(asked: str) -> str:
    if asked == "cuda" and not torch.cuda.is_available():
        raise UserError(UNREACHABLE, "--device cuda: torch finds no GPU here; leave it out, and the CPU learns")
    return "cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu"


def _drawn(folder: Path, what: str, profile: RasterProfile, count: int) -> Examples:
    """Simulated curves, drawn once for all nights."""
    name = f"{what}-{profile.id.replace(':', '-')}-{count}"
    kept = Examples.load(folder / name)
    if kept is not None and kept.edges.shape[1:] == (2, profile.columns) and np.isfinite(kept.labels).all():
        return kept
    for old in folder.glob(f"{what}-*.npy"):
        old.unlink()
    curves = progress(simulate(count, _SEEDS[what], 0.5), f"simulating {what} curves", count)
    drawn = gather(((item.curve, item.label == "keep") for item in curves), profile)
    drawn.save(folder / name)
    return drawn


# The gate, and what comes after it.


def _through_the_gate(config: Config, night: Night, ground: Ground, taught: Taught, candidate: Bundle) -> Outcome:
    """Have the gate look at a candidate, and let it serve where it passes."""
    evidence = candidate.manifest.thresholds.evidence
    crossed = tuple(evidence.get("cross_fitted", ())) if night.candidate is None else ()
    asks_anew = night.candidate is not None or night.dry_run
    if not asks_anew and (before := _refused_before(config, ground, candidate)) is not None:
        return Outcome("refused", tuple(_refusal(before, candidate, True)), candidate.id, candidate.folder, before)
    known = looks(config.state)
    with working("the gate looks"):
        report = look(
            config,
            candidate,
            ground.network,
            ground.old,
            None if taught.missing else taught,
            cross_fitted=crossed,
            spend=not night.dry_run,
            simulated=night.asked,
        )
    if not night.dry_run:
        note_last(config.state, report)
    if not report.passed:
        sentences = tuple(_refusal(report, candidate, report in known))
        return Outcome("refused", sentences, candidate.id, candidate.folder, report)
    why_not = "--dry-run" if night.dry_run else _meanwhile(config, ground)
    if why_not is not None:
        said = f"{candidate.id} passes the gate; nothing was promoted: {why_not}"
        return Outcome("held", (said, *_passed(report)), candidate.id, candidate.folder, report)
    registry, why = Registry(config.state / "models"), _why(candidate, taught)
    promotion = promote(registry, ground, candidate, why=why, by=night.by)
    when = "from now on" if registry.group() == promotion.group else f'when a session of "{promotion.group}" begins'
    said = f"{candidate.id} passed the gate and serves {when}; back with: models rollback"
    return Outcome("promoted", (said, *_passed(report)), candidate.id, candidate.folder, report, promotion)


def _refused_before(config: Config, ground: Ground, candidate: Bundle) -> Report | None:
    """The look that has refused this very candidate here: another one would spend error and find the same."""
    found = [one for one in looks(config.state) if (one.candidate, one.group) == (candidate.id, ground.group)]
    return found[-1] if found and not found[-1].passed else None


def _passed(report: Report) -> Iterator[str]:
    yield from (f"✓ {one}" for one in report.sentences())


def _refusal(report: Report, candidate: Bundle, is_old: bool) -> Iterator[str]:
    failed, *others = report.sentences()
    yield f"{candidate.id} is refused, and nothing was promoted: {failed}"
    if is_old:
        yield f"this is the answer of {minute_of(report.time)}: nothing was looked at again, and no look is used up"
    failures = len(report.failed) - 1
    yield from (f"✗ {one}" for one in others[:failures])
    yield from (f"✓ {one}" for one in others[failures:])


def _meanwhile(config: Config, ground: Ground) -> str | None:
    """Whether what the gate compared with is no more what serves: somebody adapted, promoted or began a session."""
    with LedgerView(config.state / "ledger.sqlite") as view, Labels(config.state / "labels.sqlite") as labels:
        now = survey(config, view, labels)
    if (now.network.id, now.old, now.group) != (ground.network.id, ground.old, ground.group):
        return "model, cut or session have changed meanwhile; finetune again"
    return None


def _why(candidate: Bundle, taught: Taught) -> str:
    labels = candidate.manifest.thresholds.evidence.get("labels")
    counted = labels if isinstance(labels, dict) else _counts(taught)
    return f"taught {counted.get('events', 0)} confirmed events, and passed the gate"
