"""Decide: two thresholds, and the rule that only a score may discard."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from daemon.judging import Judge, Thresholds, decide, identity_of, verdict_of
from daemon.ledger import events
from daemon.reading import Reading
from daemon.sources import Arrival
from deploy.classifier import EngineId
from deploy.serving import Scored
from models.curve import Curve, Prepared
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


def test_the_second_opinion_is_that_of_the_signal_and_changes_no_verdict() -> None:
    wave = np.zeros(512, np.float32)
    wave[200:] = -40.0
    seen, flat, unread = Prepared(wave), Prepared(np.zeros(512, np.float32)), Prepared(None, ("too_short",))
    scored = [Scored(0.01, (), prepared=item) for item in (seen, unread, flat)] + [None]
    readings = [reading(), reading(), reading(), reading(curve=False, reason="truncated")]
    told = decide(readings, scored, JUDGE)
    assert told[0].steps is not None
    assert told[0].steps > 3
    assert [one.steps for one in told[1:]] == [None, 0.0, None]
    assert [one.verdict for one in told[:3]] == ["discard"] * 3
    assert not any(one.is_disputed for one in told)
    assert events.decision_data(told[0], 0.0).steps == told[0].steps


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


def test_a_decision_knows_its_folder_and_when_the_curve_was_measured() -> None:
    from pathlib import Path

    arrival = Arrival("watch", "a.txt", Path("/x/a.txt"), mtime_ns=1_500_000_000, folder="/x")
    by_file, by_itself, unknown = decide(
        [
            reading(arrival=arrival),
            reading(arrival=arrival, acquired_s=7.25),
            reading(arrival=Arrival("ingest", "n", Path("x"))),
        ],
        [Scored(0.9, ())] * 3,
        JUDGE,
    )
    assert (by_file.folder, by_file.acquired_s) == ("/x", 1.5)
    assert (by_itself.acquired_s, unknown.acquired_s, unknown.folder) == (7.25, None, None)


@pytest.mark.parametrize(
    ("acquired_s", "told"),
    [
        (0.0, "1970-01-01T00:00:00Z"),
        (1.5, "1970-01-01T00:00:01.500Z"),
        (None, None),
        (1e300, None),
        (float("nan"), None),
    ],
)
def test_an_event_tells_the_time_in_utc_and_none_that_no_calendar_has(
    acquired_s: float | None, told: str | None
) -> None:
    (decision,) = decide([reading(acquired_s=acquired_s)], [Scored(0.9, ())], JUDGE)
    assert events.decision_data(replace(decision, acquired_s=acquired_s), 0.0).acquired == told


def _moved() -> Arrival:
    from pathlib import Path

    return Arrival("watch", "elsewhere/b.jpk-force", Path("/x/b"), size_bytes=10, mtime_ns=5)
