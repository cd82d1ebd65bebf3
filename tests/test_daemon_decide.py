"""Decide: two thresholds, and the rule that only a score may discard."""

from __future__ import annotations

import numpy as np
import pytest

from daemon.judging import Judge, Thresholds, decide, identity_of, verdict_of
from daemon.reading import Reading
from daemon.sources import Arrival
from deploy.classifier import EngineId
from deploy.serving import Scored
from models.curve import Curve
from models.reasons import LIFTING

THRESHOLDS = Thresholds(discard=0.04, keep=0.62)
JUDGE = Judge("m", "p", EngineId("torch", "cpu", "fp32"), THRESHOLDS, "simulation", 0.02)


def reading(curve: bool = True, **changes: object) -> Reading:
    from pathlib import Path

    arrival = Arrival("watch", "run7/a.jpk-force", Path("/x/run7/a.jpk-force"), size_bytes=10, mtime_ns=5)
    fields: dict[str, object] = {"arrival": arrival, "index": 0, "sha256": "ab" * 32}
    fields["curve"] = Curve(np.zeros(100), "N") if curve else None
    return Reading(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("score", "reasons", "verdict"),
    [
        (0.62, (), "keep"),
        (0.6199, (), "review"),
        (0.0401, (), "review"),
        (0.04, (), "discard"),
        (0.0, ("no_contact",), "discard"),
        (None, ("too_short",), "review"),
        (float("nan"), (), "review"),
        *((0.0, (reason,), "review") for reason in sorted(LIFTING)),
        *((1.0, (reason,), "keep") for reason in sorted(LIFTING)),
    ],
)
def test_two_thresholds_with_a_floor_under_doubt(score: float | None, reasons: tuple[str, ...], verdict: str) -> None:
    assert verdict_of(score, reasons, THRESHOLDS) == verdict


def test_unreadable_file_is_review_with_its_reason_whatever_else() -> None:
    decision = decide([reading(curve=False, reason="truncated")], [None], JUDGE)[0]
    assert (decision.verdict, decision.score, decision.reasons) == ("review", None, ("truncated",))


def test_a_scored_curve_says_that_the_score_decided_and_what_else_was_seen() -> None:
    scored = Scored(0.9, ("no_contact",), preview="AAA=", raster_s=0.001, infer_s=0.002)
    decision = decide([reading(read_s=0.003)], [scored], JUDGE)[0]
    assert decision.verdict == "keep"
    assert decision.reasons == ("score", "no_contact")
    assert decision.latency_s == {"read": 0.003, "raster": 0.001, "infer": 0.002}
    assert (decision.force_unit, decision.preview) == ("N", "AAA=")


def test_a_curve_the_front_end_refused_does_not_claim_a_score() -> None:
    decision = decide([reading()], [Scored(None, ("nonfinite",))], JUDGE)[0]
    assert (decision.verdict, decision.reasons) == ("review", ("nonfinite",))


def test_identity_is_content_for_curves_and_content_and_place_for_the_unreadable() -> None:
    same = [identity_of(reading()), identity_of(reading(arrival=_moved()))]
    assert same[0] == same[1] == "ab" * 32 + "#0"
    lost = [identity_of(reading(curve=False)), identity_of(reading(curve=False, arrival=_moved()))]
    assert lost[0] != lost[1]
    assert identity_of(reading(curve=False, sha256=None)) != identity_of(
        reading(curve=False, sha256=None, arrival=_moved())
    )


def test_identity_over_zeromq_is_the_senders_id() -> None:
    arrival = Arrival("ingest", "n", _moved().file, known_curve="curve-7")
    assert identity_of(reading(arrival=arrival)) == identity_of(reading(arrival=arrival, sha256="cd" * 32))


def _moved() -> Arrival:
    from pathlib import Path

    return Arrival("watch", "elsewhere/b.jpk-force", Path("/x/b"), size_bytes=10, mtime_ns=5)
