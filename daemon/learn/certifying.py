"""The certificate of a blind sheet: what its events promise about all events, put into the model that serves.

A uniform sheet is a fair sample of all that was decided, so its confirmed events are one of all events. The exact rule
of models/certificate.py takes their logits: whatever cut lies below the limit that they set loses at most so many. It
holds for the session group that the sheet was drawn from, and for a cut that is in force already or is raised later, as
long as that lies below the limit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from daemon.common.errors import BAD_DATA, UserError
from daemon.config import Config
from daemon.judging.registry import Promotion, Registry
from daemon.labels import Labels
from daemon.labels.sheets import Progress, Sheets
from daemon.learn.ground import Ground, let_serve, survey
from daemon.ledger.view import LedgerView
from deploy.classifier import EngineId
from models.bundle import CONFIRMED, BadBundle, read
from models.certificate import CONFIDENCE, MAX_MISS, Certificate, Experiment, discard_limit, miss_bound, misses_allowed
from models.clock import utc_now


@dataclass(frozen=True, slots=True)
class Certified:
    """What a sheet has come to: ``promotion`` is of the model that carries its certificate; None, and why not."""

    sheet: int
    promotion: Promotion | None
    text: str  # one sentence without its full stop


def certify(config: Config, by: str) -> Certified | None:
    """Put what the last finished sheet of the present group has earned into the model; None where it is there already.

    A certificate that the answers of its sheet do not earn any more is taken back.
    Raises UserError 69 where there is no ledger, 74 where ledger or labels cannot be read, 65 where the model cannot
    or takes no certificate; OSError where the state takes no file.
    """
    registry = Registry(config.state / "models")
    with ExitStack() as closing:
        view = closing.enter_context(LedgerView(config.state / "ledger.sqlite"))
        labels = closing.enter_context(Labels(config.state / "labels.sqlite"))
        sheets = Sheets(labels)
        uniform = [one for one in sheets.all() if one.kind == "uniform"]
        if not uniform:
            return None
        ground = survey(config, view, labels)
        of_group = [sheets.progress(one, view) for one in reversed(uniform) if one.sample == ground.group]
        progress = next((one for one in of_group if one.is_done), None)
        held = None if ground.promotion is None else read(registry.folder_of(ground.promotion)).certificate
        carried = next((one for one in of_group if held is not None and _name(one) in held.experiments), None)
        events = view.decisions(progress.confirmed) if progress is not None else {}
        if carried is not None and not ground.bar.blocks:
            why = _earned(carried, ground, view.decisions(carried.confirmed)) if carried.is_done else "it is open again"
            if isinstance(why, str):
                return _taken_back(registry, carried, ground, why, by)
    if progress is None or progress is carried:
        return None
    number = progress.sheet.number
    certificate = _earned(progress, ground, events)
    if isinstance(certificate, str):
        return Certified(number, None, f"{progress.sheet.name} earns no certificate: {certificate}")
    evidence = {
        "basis": CONFIRMED,
        "events": certificate.events,
        "group": ground.group,
        "sheet": number,
        "decided": progress.sheet.decided,
        "confirmed": list(progress.confirmed),
        **({"band": [ground.own, ground.old]} if ground.own < ground.old else {}),
    }
    name, why = _model_name(ground, evidence), certificate.sentence()
    promotion = let_serve(registry, ground, name, ground.old, evidence, why=why, by=by, certificate=certificate)
    return Certified(number, promotion, f"{progress.sheet.name}: {certificate.sentence()}; {promotion.id} carries that")


def _taken_back(registry: Registry, progress: Progress, ground: Ground, why: str, by: str) -> Certified:
    """Answers were changed, and what the sheet has promised is a promise no more."""
    assert ground.promotion is not None  # it carries the certificate
    text = f"the certificate of {progress.sheet.name} is taken back, its answers were changed: {why}"
    try:
        after = registry.rollback(by, text, group=ground.group, base_id=ground.base.id, only=ground.promotion.id)
    except BadBundle as error:
        raise UserError(BAD_DATA, str(error)) from error
    serves = f"{after.id if after else ground.base.id} serves"
    return Certified(progress.sheet.number, None, f"{text}; {serves}")


def _name(progress: Progress) -> str:
    """The experiment that the certificate names."""
    sheet = progress.sheet
    return f"{sheet.sample or 'sessions without a sample'}, sheet {sheet.number}"


def _model_name(ground: Ground, evidence: Mapping[str, Any]) -> str:
    what = json.dumps([ground.network.id, ground.old, evidence])
    return f"sheet-{evidence['sheet']}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"


def _earned(progress: Progress, ground: Ground, events: Mapping[int, Mapping[str, Any]]) -> Certificate | str:
    """The certificate for the cut in force, or why there is none."""
    if ground.bar.blocks:
        return ground.bar.text
    scored = {one.seq: one for one in ground.events}
    # What has no score is looked at, whatever the cut: it is left out, and fewer events promise less.
    lacking = [seq for seq, event in events.items() if seq not in scored and event["data"]["score"] is not None]
    if lacking:
        return f"raters differ on {len(lacking)} of its events, or no copy is left to score them: `labels disagree`"
    logits = [scored[seq].logit - scored[seq].margin for seq in events if seq in scored]
    limit, allowed = discard_limit(logits, MAX_MISS, CONFIDENCE), misses_allowed(len(logits), MAX_MISS, CONFIDENCE)
    if limit is None or allowed is None:
        return f"{len(logits)} events are too few to promise at most {100 * MAX_MISS:g} % missed"
    cut = ground.logit(ground.old)
    if not cut < limit:
        return f"the cut in force discards {sum(one <= cut for one in logits)} of its {len(logits)} events"
    missed = sum(one <= cut for one in logits)
    said = json.dumps([[seq, "keep"] for seq in progress.confirmed])
    engines = [str(event["data"]["engine"]) for event in events.values()]
    return Certificate(
        max_miss=MAX_MISS,
        confidence=CONFIDENCE,
        bound=miss_bound(len(logits), allowed, CONFIDENCE),
        events=len(logits),
        missed=missed,
        allowed=allowed,
        limit_logit=limit,
        experiments={_name(progress): Experiment(len(logits), missed, hashlib.sha256(said.encode()).hexdigest())},
        weights_sha256=ground.network.weights_sha256,
        engine=next((one for one in engines if not _is_exact(one)), engines[0]),
        made=utc_now("seconds"),
    )


def _is_exact(engine: str) -> bool:
    try:
        return EngineId.parse(engine).precision == "fp32"
    except ValueError:
        return False
