"""The fine-tuning of one night: labels teach the network, the gate looks at it, and it serves or is refused.

Everything of a run lies in ``STATE/finetune``; whoever is killed goes on with the same command.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from daemon.common.errors import BAD_DATA, UserError
from daemon.common.locks import lock_work_folder
from daemon.common.stdio import working
from daemon.config import Config
from daemon.judging.registry import Promotion, Registry
from daemon.labels import Labels
from daemon.labels.sessions import Sessions
from daemon.learn.gate import CrossFitted, look
from daemon.learn.ground import Ground, overridden, promote, stream_of, survey, taken_back
from daemon.learn.lessons import Taught, lessons_of
from daemon.learn.teaching import Course, Teaching, counts, digest_of
from daemon.ledger.view import LedgerView
from models.bundle import BadBundle, Bundle, read
from models.clock import minute_of, night_of
from models.files import remove_abandoned, remove_unfinished
from models.gate import SIMULATED, Report, lift, lifted, log_of, looks, next_look, note_last, taken, too_few

#: In the state: the work of a night, its candidates and the gate's log of looks.
FOLDER = "finetune"


@dataclass(frozen=True, slots=True, kw_only=True)
class Night(Course):
    """What a person, or a timer, asks for."""

    by: str
    is_unattended: bool = False  # by a timer: what a person took back stays taken back
    dry_run: bool = False  # all but the promotion, and no look is spent
    events: int | None = None  # confirmed ones that it takes; None: as the configuration says
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
            candidate = Teaching(config, night, ground, taught, folder).candidate()
        else:
            candidate = _named(config, night.candidate)
        return _through_the_gate(config, night, ground, taught, candidate)


def _survey(config: Config, night: Night) -> tuple[Ground, Taught]:
    events = config.finetune.events if night.events is None else night.events
    with LedgerView(config.ledger_file) as view, Labels(config.state / "labels.sqlite") as labels:
        ground = survey(config, view, labels)
        return ground, lessons_of(config, view, labels, ground, events=events)


def _nothing_to_do(config: Config, night: Night, ground: Ground, taught: Taught) -> str | None:
    """Why there is nothing to learn tonight, in one sentence."""
    with LedgerView(config.ledger_file) as view:
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
    if network.training.get("lessons") == digest_of(taught):
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
    _, tonight = next_look(config.state, ground.network.weights_sha256, night_of(time.time()))
    name = Teaching(config, night, ground, taught, config.state / FOLDER).name
    if tonight is not None and tonight.candidate.rpartition("-")[0] != name:
        return f"nothing is taught: {taken(tonight)}"
    if night.events is not None:
        return None
    keep = ground.network.keep if config.thresholds.keep is None else config.thresholds.keep
    with LedgerView(config.ledger_file) as view, Labels(config.state / "labels.sqlite") as labels:
        stream = stream_of(view, Sessions(labels).seqs_of(ground.group), ground.network, keep, ground.old)
    learned = int(np.isin(stream.seqs, taught.seqs[taught.trained]).sum())
    if (few := too_few(len(stream) - learned, len(stream))) is None:
        return None
    on = f' on the sample "{ground.group}"' if ground.group else ""
    return f"nothing is taught{on} yet: {few.text}"


def _named(config: Config, folder: Path) -> Bundle:
    """The model that a person names. UserError 65 where it is none."""
    try:
        return read(Registry(config.state / "models").find(folder))
    except BadBundle as error:
        raise UserError(BAD_DATA, f"--candidate {folder}: {error}") from None
    except OSError as error:
        raise UserError(BAD_DATA, f"--candidate {folder} cannot be read: {error.strerror}") from None


# The gate, and what comes after it.


def _through_the_gate(config: Config, night: Night, ground: Ground, taught: Taught, candidate: Bundle) -> Outcome:
    """Have the gate look at a candidate, and let it serve where it passes."""
    evidence = candidate.manifest.thresholds.evidence
    crossed = CrossFitted(evidence["cross_fitted"], evidence["own_ranking"]) if night.candidate is None else None
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
            crossed=crossed,
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
    with LedgerView(config.ledger_file) as view, Labels(config.state / "labels.sqlite") as labels:
        now = survey(config, view, labels)
    if (now.network.id, now.old, now.group) != (ground.network.id, ground.old, ground.group):
        return "model, cut or session have changed meanwhile; finetune again"
    return None


def _why(candidate: Bundle, taught: Taught) -> str:
    labels = candidate.manifest.thresholds.evidence.get("labels")
    counted = labels if isinstance(labels, dict) else counts(taught)
    return f"taught {counted.get('events', 0)} confirmed events, and passed the gate"
