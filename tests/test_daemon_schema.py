"""Events against their JSON Schemas: those that really go over the wire, not ones made for the purpose."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import zmq
from jsonschema import Draft202012Validator

from daemon.config import Config
from daemon.judging.judge import Serving
from daemon.labels import Label, Labels
from daemon.labels.sessions import Sessions, answers_of, name_of
from daemon.ledger import Ledger, events, wire
from daemon.ledger.numbers import ToldLabel
from daemon.metrics import STATES, Metrics
from daemon.publish import Publisher
from daemon.service.health import Condition, Health, Vigil
from daemon.service.report import StatusReport
from daemon.service.sessions import SessionWatch
from models.certificate import Promise
from tests.ledgerhelp import JUDGE, Clients, decision, next_of

SCHEMAS = Path(events.__file__).parents[1] / "schema"
KINDS = tuple(events.KINDS)
ANY = "tcp://127.0.0.1:0"
#: The example of the documentation, to the letter.
EXAMPLE = """{"specversion": "1.0", "type": "org.afmtriage.decision.v1", "id": "x", "source": "/afm1",
 "subject": "run7/curve-0042.jpk-force#0", "time": "2026-11-20T12:00:00.123Z", "stream": "s", "seq": 42,
 "data": {"folder": "/mnt/afm", "path": "run7/curve-0042.jpk-force", "curve": 0, "acquired": "2026-11-20T11:59:58Z",
          "sha256": null, "verdict": "keep", "score": 0.9731, "thresholds": {"discard": 0.04, "keep": 0.62},
          "cut": {"origin": "shipped", "events": 9949}, "reasons": ["score"], "model": "m", "pipeline": "p",
          "score_basis": "simulation", "prevalence": 0.02, "force_unit": "N", "engine": "torch-cpu-bf16",
          "certificate": null, "latency_s": {"read": 0.002, "raster": 0.001, "infer": 0.012, "total": 0.018}}}"""


def validator(kind: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((SCHEMAS / f"{kind}.v1.json").read_text()))


def strict(body: bytes) -> dict[str, Any]:
    """JSON as other languages read it: NaN and Infinity are errors."""

    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    found: dict[str, Any] = json.loads(body, parse_constant=refuse)
    return found


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.sqlite", "afm1")
    yield ledger
    ledger.close()


def test_there_is_one_schema_a_kind_and_each_is_what_its_types_say() -> None:
    assert {path.name for path in SCHEMAS.iterdir()} == {f"{kind}.v1.json" for kind in KINDS}
    for kind in KINDS:
        shipped = json.loads((SCHEMAS / f"{kind}.v1.json").read_text())
        assert shipped == events.schema(kind), "a field of an event has changed: make schema"
        Draft202012Validator.check_schema(shipped)


def test_every_decision_the_ledger_holds_fits(ledger: Ledger) -> None:
    nan = float("nan")
    promise = Promise(max_miss=0.05, bound=nan, confidence=0.95, events=64, missed=0, data=("titin",))
    certified = replace(JUDGE, certificate=promise, score_basis="labels")
    ledger.record(
        [
            decision(1),
            decision(2, score=nan, reasons=("no_calibration",), latency_s={"read": nan}),
            decision(3, score=None, sha256=None, force_unit=None, reasons=("vanished",), verdict="review"),
            decision(4, judge=certified, preview="AAEC", path="Mappe ü/µ.jpk-force"),
            decision(5, path="caf\udce9.txt", identity="x#0"),
        ]
    )
    with ledger.view() as view:
        found = [strict(body) for _, body in view.bodies_since(0)]
    for event in found:
        validator("decision").validate(event)
    assert found[1]["data"]["score"] is None
    assert found[3]["data"]["certificate"]["bound"] is None
    assert found[3]["subject"] == "Mappe ü/µ.jpk-force#0"
    assert [event["id"] for event in found] == [f"{ledger.stream}:{seq}" for seq in range(1, 6)]


def test_a_decision_has_every_field_of_the_documented_example(ledger: Ledger) -> None:
    example = json.loads(EXAMPLE)
    validator("decision").validate(example)
    ledger.record([decision(1)])
    with ledger.view() as view:
        event = wire.decode(view.bodies_since(0)[0][1])
    assert list(event) == [
        "specversion", "type", "id", "source", "time", "stream", "subject", "seq", "data",
    ]  # fmt: skip
    assert set(event) == set(example)
    assert set(event["data"]) - set(example["data"]) == {"source", "preview", "preview_axes", "steps", "ruptures"}
    assert set(event["data"]["latency_s"]) == set(example["data"]["latency_s"])


@pytest.mark.parametrize(
    ("field", "value"),
    [("verdict", "maybe"), ("score", 1.2), ("curve", -1), ("force_unit", "pN"), ("reasons", []), ("sha256", "abc")],
)
def test_a_wrong_decision_is_found(field: str, value: object) -> None:
    wrong = json.loads(EXAMPLE)
    wrong["data"][field] = value
    assert not validator("decision").is_valid(wrong)


def test_the_other_kinds_fit_as_the_service_sends_them(ledger: Ledger, tmp_path: Path) -> None:
    metrics = Metrics()
    health = Health()
    health.report("disk", "ok", "the ledger can be written")
    config = Config(state=ledger.path.parent)
    vigil = Vigil(config, [], metrics.accounts, health)
    with Labels(tmp_path / "labels.sqlite") as labels:
        Sessions(labels).begin(sample="titin", note="<b>\u202e", origin="person")
    sessions = SessionWatch(tmp_path, ledger.view())
    sessions.step()
    report = StatusReport(config, metrics, health, Serving(None, JUDGE), vigil, ledger, sessions)  # type: ignore[arg-type]
    ledger.record([decision(1)])
    publisher = Publisher(ledger.path, "afm1", publish=ANY, replay=ANY, status=report.data, counts=metrics)
    publisher.start()
    clients = Clients()
    alarm = Condition("contact", "alarm", "20 curves in a row without contact", "2026-11-20T12:00:00.123Z")
    try:
        subscriber = clients.connect(zmq.SUB, publisher.publish_endpoint)
        found = [next_of(subscriber, kind) for kind in ("hello", "heartbeat", "status")]
        publisher.emit(events.Alarm(**asdict(alarm), ok=alarm.is_ok))
        publisher.emit(events.Model(model="shipped", engine="torch-cpu-bf16", state="live"))
        publisher.emit(events.ConfigOutcome(result="rejected", reason="watch: no such folder"))
        changed = {"batch.largest": (32, 64)}
        publisher.emit(events.ConfigOutcome(result="applied", digest="ab", changed=changed, needs_restart=[]))
        found += [next_of(subscriber, kind) for kind in ("alarm", "model", "config", "config")]
    finally:
        clients.close()
        publisher.stop()
    for event in found:
        validator(events.kind_of(event)).validate(event)
        assert event["data"]["last_seq"] == 1
    published = metrics.registry.get_sample_value("afm_triage_events_published_total", {"type": "config"})
    assert published == 2


def test_the_states_are_the_same_everywhere() -> None:
    schema = json.loads((SCHEMAS / "status.v1.json").read_text())
    assert schema["properties"]["data"]["properties"]["state"]["enum"] == sorted(STATES)


def test_a_kind_that_has_no_schema_cannot_be_sent() -> None:
    with pytest.raises(ValueError, match="no such kind"):
        events.notice(JUDGE, instrument="afm1", stream="s", last_seq=0, wall_s=0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("body", [b"[]", b"12", b"\xff", b""])
def test_what_is_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - several kinds of it
        wire.decode(body)


def test_what_people_have_said_is_told_to_whoever_asks_a_thousand_at_a_time(ledger: Ledger, tmp_path: Path) -> None:
    ledger.record([decision(1)])
    said = [Label("a.ibw", 0, "keep", f"rater {number}", "2026-11-20T12:00:00Z") for number in range(1_200)]
    file = tmp_path / "labels.sqlite"
    publisher = Publisher(ledger.path, "afm1", publish=ANY, replay=ANY, told=answers_of(file))
    publisher.start()
    clients = Clients()
    try:
        client = clients.connect(zmq.DEALER, publisher.replay_endpoint)

        def told(what: str, number: int) -> dict[str, Any]:
            client.send_multipart([what.encode(), b"%d" % number])
            (body,) = client.recv_multipart()
            event = strict(body)
            validator(what).validate(event)
            return dict(event["data"])

        assert told("labels", 0) == {"labels": [], "before": "", "undone": 0, "last_seq": 1}
        assert told("sessions", 0) == {"sessions": [], "last_seq": 1}
        with Labels(file) as labels:
            labels.add(said)
            session = Sessions(labels).begin(sample="titin", tip="OMCL")
            first = told("labels", 0)
            assert [one["number"] for one in first["labels"]] == list(range(1, 1_001))
            rest = told("labels", 1_000)
            assert [one["rater"] for one in rest["labels"]] == [one.rater for one in said[1_000:]]
            assert rest["before"] == name_of(ToldLabel(**first["labels"][-1]))
            assert told("labels", 1_200)["labels"] == []
            (one,) = told("sessions", 0)["sessions"]
            assert (one["tip"], one["first_seq"], one["last_seq"], one["stream"]) == ("OMCL", 2, None, ledger.stream)
            assert told("sessions", session.number)["sessions"] == []
            labels.remove([said[0]], by="ada", reason="", time="2026-11-21T12:00:00Z")
            (removed,) = told("labels", 1_200)["labels"]
            assert (removed["removed_by"], removed["undone"]) == ("ada", None)
            labels.undo_removal(said[0].identity, said[0].rater, time="2026-11-22T12:00:00Z")
            assert told("labels", 1_201)["undone"] == 1
        with closing(sqlite3.connect(file)) as other:
            other.execute("begin exclusive")  # no answer, and the service's other answers go on
            client.send_multipart([b"labels", b"0"])
            client.send_multipart([b"since", b"0"])
            assert strict(client.recv_multipart()[0])["seq"] == 1
    finally:
        clients.close()
        publisher.stop()
