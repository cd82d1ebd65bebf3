"""The metrics over real HTTP: the identity at every scrape, the names users rely on, and nothing that hurts."""

from __future__ import annotations

import math
import random
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from pace import allowed
from prometheus_client.parser import text_string_to_metric_families

from daemon.client.service_file import free_port
from daemon.common.errors import UserError
from daemon.config import MetricsConfig
from daemon.metrics import STATES, Accounts, Metrics
from daemon.sources import Source, SourceHealth
from deploy.classifier import EngineId
from models.clock import Clock
from tests.ledgerhelp import JUDGE, decision

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def served() -> Iterator[tuple[Metrics, int]]:
    metrics, port = Metrics(), free_port()
    server = metrics.serve(port)
    assert server is not None
    yield metrics, port
    threading.Thread(target=lambda: (server.shutdown(), server.server_close())).start()  # takes half a second


def scrape(port: int) -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def total(samples: Samples, name: str) -> float:
    return sum(value for (found, _), value in samples.items() if found == f"afm_triage_{name}")


def test_every_metric_is_there_from_the_start(served: tuple[Metrics, int]) -> None:
    metrics, port = served
    metrics.serving(JUDGE)
    metrics.recorded([decision(1)])
    names = {(name, tuple(label for label, _ in labels if label != "le")) for name, labels in scrape(port)}
    for wanted in [
        ("curves_seen_total", ("source",)),
        ("curves_unreadable_total", ("reason",)),
        ("curves_duplicate_total", ()),
        ("decisions_total", ("verdict",)),
        ("backlog_curves", ()),
        ("stage_duration_seconds_bucket", ("stage",)),
        ("decision_latency_seconds_bucket", ()),
        ("batch_size_curves_bucket", ()),
        ("last_decision_timestamp_seconds", ()),
        ("review_queue_curves", ()),
        ("model_info", ("engine", "model", "pipeline")),
        ("build_info", ("python", "sqlite", "version")),
        ("classifier_device", ("device",)),
    ]:
        assert (f"afm_triage_{wanted[0]}", wanted[1]) in names
    assert not [name for name, _ in names if name.endswith("_created")]


def test_every_metric_has_a_sentence_and_few_label_values(served: tuple[Metrics, int]) -> None:
    metrics, _ = served
    metrics.recorded([decision(number, path=f"/secret/{number}") for number in range(50)])
    for family in metrics.registry.collect():
        if family.name.startswith("afm_triage_"):
            assert len(family.documentation) > 10
            values = {value for s in family.samples for label, value in s.labels.items() if label != "le"}
            assert len(values) <= 32
            assert not any("/" in value for value in values)


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads change every 20 µs instead of every 5 ms, so that a half-done transition would be caught."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)
    yield
    sys.setswitchinterval(before_s)


@pytest.mark.usefixtures("restless")
def test_the_identity_holds_in_a_thousand_scrapes_under_load() -> None:
    """Four threads move curves about and count for themselves; not one scrape catches them half way."""
    accounts = Accounts()
    truth = [dict.fromkeys(("seen", "decided", "duplicate"), 0) for _ in range(4)]
    ending = threading.Event()

    def work(mine: dict[str, int], seed: int) -> None:
        rng = random.Random(seed)
        while not ending.is_set():
            count = rng.randint(1, 40)
            accounts.seen(rng.choice(("watch", "ingest")), count)
            mine["seen"] += count
            for _ in range(rng.randint(0, min(count, mine["seen"] - mine["decided"] - mine["duplicate"]))):
                if rng.random() < 0.8:
                    accounts.decided(rng.choice(("keep", "review", "discard")))
                    mine["decided"] += 1
                else:
                    accounts.duplicate()
                    mine["duplicate"] += 1
            if rng.random() < 0.1:  # lets the scraper in
                time.sleep(0.0001)

    threads = [threading.Thread(target=work, args=(mine, seed)) for seed, mine in enumerate(truth)]
    for thread in threads:
        thread.start()
    moving = set()
    try:
        for _ in range(1000):
            families = {family.name: family for family in accounts.collect()}
            value = {name: sum(s.value for s in family.samples) for name, family in families.items()}
            seen, decided = value["afm_triage_curves_seen"], value["afm_triage_decisions"]
            assert seen == decided + value["afm_triage_curves_duplicate"] + value["afm_triage_backlog_curves"]
            moving.add(seen)
            time.sleep(0.0002)
    finally:
        ending.set()
        for thread in threads:
            thread.join()
    counted = {key: sum(mine[key] for mine in truth) for key in truth[0]}
    snapshot = accounts.snapshot()
    assert {key: snapshot[key] for key in counted} == counted
    assert snapshot["backlog"] == counted["seen"] - counted["decided"] - counted["duplicate"]
    assert len(moving) > 20, "nothing moved between the scrapes"


def test_a_batch_shows_in_every_metric_it_touches() -> None:
    clock = Clock(wall_s=lambda: 1.8e9, steady_s=lambda: 100.0)
    metrics = Metrics(clock)
    metrics.accounts.seen("watch", 3)
    odd = decision(2, reasons=("zero_tail",), score=None, noticed_s=99.7)
    metrics.recorded([decision(1, noticed_s=99.99), odd, decision(3, noticed_s=100.5)], commit_s=0.004)
    value = metrics.registry.get_sample_value
    assert value("afm_triage_decisions_total", {"verdict": "review"}) == 1
    assert value("afm_triage_curves_unreadable_total", {"reason": "zero_tail"}) == 1
    assert value("afm_triage_decision_latency_seconds_count") == 3
    assert value("afm_triage_decision_latency_seconds_sum") == pytest.approx(0.31)
    assert value("afm_triage_stage_duration_seconds_count", {"stage": "infer"}) == 3
    assert value("afm_triage_batch_size_curves_sum") == 3
    assert value("afm_triage_last_decision_timestamp_seconds") == 1.8e9
    assert value("afm_triage_ledger_commit_seconds_count") == 1
    assert metrics.accounts.snapshot()["backlog"] == 0
    metrics.recorded([])
    assert value("afm_triage_batch_size_curves_count") == 1


def test_model_and_device_change_without_leftovers() -> None:
    metrics = Metrics()
    metrics.serving(JUDGE.on(EngineId("torch", "cuda", "fp16")))
    metrics.serving(JUDGE)
    families = {family.name: family for family in metrics.registry.collect()}
    devices = {s.labels["device"]: s.value for s in families["afm_triage_classifier_device"].samples}
    assert devices == {"cpu": 1, "cuda": 0}
    assert len(families["afm_triage_model"].samples) == 1


def test_the_service_is_in_one_state_at_a_time() -> None:
    metrics = Metrics()
    for state in STATES:
        metrics.entered(state)
        families = {family.name: family for family in metrics.registry.collect()}
        assert [s.labels["state"] for s in families["afm_triage_state"].samples if s.value] == [state]


def test_looked_up_values_are_kept_a_moment_and_cannot_break_a_scrape(
    served: tuple[Metrics, int], tmp_path: Path
) -> None:
    metrics, port = served
    asked = []

    def count() -> float:
        asked.append(1)
        if len(asked) > 1:
            raise OSError("the folder is gone")
        return 7

    metrics.ask(metrics.review_queue, count, keep_s=0.05)
    (tmp_path / "a").write_bytes(b"12345")
    metrics.watch_files({"ledger": tmp_path / "a", "wal": tmp_path / "absent"})
    samples = scrape(port)
    assert total(samples, "review_queue_curves") == 7
    assert samples["afm_triage_ledger_bytes", (("file", "ledger"),)] == 5
    assert samples["afm_triage_ledger_bytes", (("file", "wal"),)] == 0
    time.sleep(0.06)
    assert total(scrape(port), "review_queue_curves") == 7
    assert len(asked) == 2


def test_a_disk_that_does_not_answer_holds_no_scrape_up(served: tuple[Metrics, int]) -> None:
    metrics, port = served
    free = threading.Event()
    metrics.ask(metrics.review_queue, lambda: float(free.wait(30)), keep_s=0.01)
    begun_s = time.monotonic()
    assert math.isnan(total(scrape(port), "review_queue_curves"))
    assert math.isnan(total(scrape(port), "review_queue_curves"))
    assert time.monotonic() - begun_s < allowed(3)
    free.set()
    time.sleep(0.1)
    assert total(scrape(port), "review_queue_curves") == 1


class _Folders:
    """Two folders, of which one was seen lately, and a socket."""

    def health(self) -> list[SourceHealth]:
        now_s = time.time()
        lately = SourceHealth("/data/a", True, "", 0, folder=0, last_seen_s=now_s - 3)
        once = SourceHealth("/mnt/b", True, "", 0, folder=1, last_seen_s=now_s - 40)
        never = SourceHealth("/mnt/c", True, "", 0, folder=2)
        return [lately, once, never, SourceHealth("tcp://127.0.0.1:5797", True, "", 0)]

    def oldest_pending_s(self) -> float | None:
        return 71.5


def test_a_folder_that_hangs_shows_at_the_scrape_itself(served: tuple[Metrics, int]) -> None:
    metrics, port = served
    metrics.watch_sources([cast(Source, _Folders())])
    samples = scrape(port)
    up = [samples["afm_triage_folder_up", (("folder", str(number)),)] for number in range(3)]
    assert up == [1, 0, 0]
    seen = "afm_triage_folder_last_seen_timestamp_seconds"
    assert samples[seen, (("folder", "1"),)] == pytest.approx(time.time() - 40, abs=2)
    assert samples[seen, (("folder", "2"),)] == 0
    assert total(samples, "oldest_pending_seconds") == 71.5
    assert len([name for name, _ in samples if name == seen]) == 3


def test_what_lies_in_the_spool_counts(served: tuple[Metrics, int], tmp_path: Path) -> None:
    metrics, port = served
    (tmp_path / "a.json").write_bytes(b"123")
    (tmp_path / "b.bin").write_bytes(b"4567")
    metrics.watch_files({"spool": tmp_path})
    assert scrape(port)["afm_triage_ledger_bytes", (("file", "spool"),)] == 7


def test_a_scraper_that_never_reads_holds_nobody_up(served: tuple[Metrics, int]) -> None:
    _, port = served
    with socket.create_connection(("127.0.0.1", port)) as silent:
        silent.sendall(b"GET /metr")
        assert total(scrape(port), "backlog_curves") == 0


def test_other_machines_show_the_token_of_the_metrics(tmp_path: Path) -> None:
    token, port = tmp_path / "token", free_port()
    token.write_text("a-long-line\n")
    token.chmod(0o600)
    server = Metrics().serve(port, MetricsConfig(bind="0.0.0.0", token_file=token))
    assert server is not None

    def status(shown: str | None) -> int:
        headers = {} if shown is None else {"Authorization": shown}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code if b"afm_triage" not in error.read() else 0

    shown = [None, "Bearer a-long-lin", "Bearer a-long-line-", "Basic a-long-line", "Bearer \xe9", "Bearer a-long-line"]
    try:
        assert [status(one) for one in shown] == [401, 401, 401, 401, 401, 200]
        token.write_text("another-long-line\n")  # the first became known: no restart is needed
        assert [status(f"Bearer {one}-long-line") for one in ("a", "another")] == [401, 200]
    finally:
        threading.Thread(target=lambda: (server.shutdown(), server.server_close())).start()
    token.chmod(0o644)
    with pytest.raises(UserError, match="can be read by others") as refusal:
        Metrics().serve(port, MetricsConfig(token_file=token))
    assert refusal.value.exit_code == 78


def test_a_taken_port_is_named_and_0_is_off(served: tuple[Metrics, int]) -> None:
    _, port = served
    with pytest.raises(UserError, match=f"--metrics-port {port} is taken") as refusal:
        Metrics().serve(port)
    assert refusal.value.exit_code == 69
    assert Metrics().serve(0) is None
