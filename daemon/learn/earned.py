"""What a blind sheet has earned: the certificate that a cut may carry, from events of a uniform draw.

The events of a sheet are drawn from everything that was decided, discards too; so the exact rule of models.certificate
speaks of all events, and not only of those above the cut as confirmed events of the queues do.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

from daemon.labels import Labels
from daemon.labels.sheets import Sheets
from daemon.learn.ground import Ground, scored
from daemon.ledger.view import LedgerView
from deploy.classifier import EngineId
from models.certificate import Certificate, Experiment, discard_limit, miss_bound, misses_allowed
from models.clock import utc_now
from models.cut import CONFIDENCE, MAX_MISS

#: Logits of other engines are lowered by what they may be off, so that the promise holds in single precision.
_ENGINE = EngineId("torch", "cpu", "fp32")


def certificate_of(view: LedgerView, labels: Labels, ground: Ground, cut: float, instrument: str) -> Certificate | None:
    """What the last sheet of this session group promises for a discard cut, a score; None: nothing, or no cut so high.

    Raises UserError 74 where a decision is damaged.
    """
    sheets = Sheets(labels)
    sheet = sheets.current()
    if sheet is None or sheet.kind != "uniform" or sheet.sample != ground.group:
        return None
    progress = sheets.progress(sheet, view)
    allowed = misses_allowed(progress.events, MAX_MISS, CONFIDENCE)
    if not progress.is_done or allowed is None:
        return None
    known, unscored = scored(view, progress.confirmed, ground.network)
    if unscored:
        return None
    # A curve without a score is never discarded.
    without = [np.inf] * (progress.events - len(known))
    logits = np.array([*(one.logit - one.margin for one in known), *without])
    limit = discard_limit(logits, MAX_MISS, CONFIDENCE)
    if limit is None or not np.isfinite(limit) or not ground.logit(cut) < limit:
        return None
    missed = int((logits <= ground.logit(cut)).sum())
    words = labels.words()
    told = json.dumps([[seq, sorted(words[seq].items())] for seq in sorted(progress.confirmed)])
    digest = hashlib.sha256(told.encode()).hexdigest()
    return Certificate(
        max_miss=MAX_MISS,
        confidence=CONFIDENCE,
        bound=miss_bound(progress.events, allowed, CONFIDENCE),
        events=progress.events,
        missed=missed,
        allowed=allowed,
        limit_logit=limit,
        experiments={f"{ground.group or instrument}, {sheet.name}": Experiment(progress.events, missed, digest)},
        weights_sha256=ground.network.weights_sha256,
        engine=str(_ENGINE),
        made=utc_now("seconds"),
    )
