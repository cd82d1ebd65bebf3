"""What a facility's Prometheus and Grafana are given: two real ones beside real services, and one that asks both."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.client.service_file import TemporaryService
from tests.faults.harness import Producer
from tests.test_observability import (
    ALERTS,
    FACILITY,
    FILES,
    Prometheus,
    config_of,
    needs_prometheus,
    promtool,
    rule_expressions,
    targets,
)

HERE = FACILITY.parent
BOARD = HERE / "dashboard.json"
RULES = FACILITY.read_text()
INSTRUMENTS = ("afm1", "afm2")
#: What a row of the table says of an instrument.
COLUMNS = ("up", "worst", "last verdict", "curves", "yield", "waits", "simulated events", "tip", "engine", "version")


@needs_prometheus
def test_promtool_finds_nothing_wrong(tmp_path: Path) -> None:
    for file in (*HERE.glob("*.yml"), FILES / "alerts.yml"):  # as they lie in /etc/prometheus
        shutil.copy(file, tmp_path)
    for words in ("check config prometheus.yml", "check rules facility.yml", "test rules facility_test.yml"):
        *command, name = words.split()
        said = promtool(*command, str(tmp_path / name))
        assert said.returncode == 0, said.stdout + said.stderr


def test_every_alert_has_a_case_in_which_it_fires_names_whom_it_is_about_and_says_what_to_do() -> None:
    names = re.findall(r"- alert: (\w+)", RULES)
    cases = (HERE / "facility_test.yml").read_text()
    assert len(names) == 4
    assert set(names) <= set(re.findall(r"labels: '\{alertname=\"(\w+)\"", cases))
    assert RULES.count("summary:") == RULES.count("action:") == len(names)
    assert not set(names) & set(re.findall(r"- alert: (\w+)", ALERTS)), "one alert a name"
    for summary in re.findall(r"^ *summary: (?:>-\s+)?(.*)", ALERTS + RULES, re.M):
        whom = re.search(r"\$labels\.(instrument|federated_from)\b", summary)
        assert whom or summary.startswith('"Prometheus asks no afm-triage'), f"of which instrument: {summary}"


def test_which_conditions_are_the_tip_is_one_list() -> None:
    lists = set(re.findall(r'kind=~"(contact[^"]+)"', ALERTS + RULES))
    assert len(lists) == 1, f"alerts.yml and facility.yml call other things the tip: {lists}"


def test_the_table_has_a_column_for_each_question() -> None:
    (table,) = (panel for panel in json.loads(BOARD.read_text())["panels"] if panel["title"] == "Instruments")
    legends = [target["legendFormat"] for target in table["targets"]]
    assert all(legend.startswith(column) for legend, column in zip(legends, COLUMNS, strict=True))
    (organize,) = (one["options"] for one in table["transformations"] if one["id"] == "organize")
    shown = set(organize["renameByName"].values()) | {"engine", "version"}
    assert shown == set(legends)
    styled = {one["matcher"]["options"] for one in table["fieldConfig"]["overrides"]}
    assert styled <= shown | {"instrument"}, "a column that is not there"


@pytest.fixture
def services(tmp_path: Path) -> Iterator[list[TemporaryService]]:
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("a-word-that-nobody-guesses\n")
    settings = tmp_path / "afm.toml"
    settings.write_text(f'[guard]\ncanary_s = 0.2\ncanary_rest_s = 0.2\n[metrics]\ntoken_file = "{token}"\n')
    options = ("--config", str(settings))
    running = [TemporaryService(tmp_path / name, options=options, instrument=name) for name in INSTRUMENTS]
    try:
        for one in running:
            one.start()
        for one in running:
            one.wait_ready()
        yield running
    finally:
        for one in running:
            one.close()


@pytest.fixture
def homes(tmp_path: Path, services: list[TemporaryService]) -> Iterator[list[Prometheus]]:
    """The Prometheus beside each, all of whose services have one address as it sees it, as at home."""
    running: list[Prometheus] = []
    try:
        for one in services:
            config = config_of(one.metrics_port, tmp_path / "token", one.instrument)
            running.append(Prometheus(tmp_path / f"prometheus-{one.instrument}", config, FILES / "alerts.yml"))
        yield running
    finally:
        for one_running in running:
            one_running.end()


@pytest.fixture
def facility(tmp_path: Path, homes: list[Prometheus]) -> Iterator[Prometheus]:
    config = (HERE / "prometheus.yml").read_text().replace(": 15s", ": 250ms")
    addresses = ", ".join(f'"{home.target}"' for home in homes)
    config = config.replace('["afm-pc-1:9090"]', f"[{addresses}]")
    assert addresses in config
    running = Prometheus(tmp_path / "prometheus", config, FACILITY, FILES / "alerts.yml")
    yield running
    running.end()


def told(facility: Prometheus, expression: str) -> set[str]:
    """The instruments of which an expression says something."""
    return {one["metric"].get("instrument", "") for one in facility.query(expression)}


def soon_told(facility: Prometheus, expression: str, wanted: set[str]) -> set[str]:
    """The same, as soon as it is ``wanted``: on a busy computer a scrape of a quarter of a second may fail."""
    deadline_s = time.monotonic() + 20.0
    while (found := told(facility, expression)) != wanted and time.monotonic() < deadline_s:
        time.sleep(0.1)
    return found


@needs_prometheus
@pytest.mark.faults
def test_a_real_prometheus_that_asks_two_others_answers_every_expression_for_each_instrument(
    services: list[TemporaryService], homes: list[Prometheus], facility: Prometheus
) -> None:
    facility.until('count(up{job="afm-triage"} == 1) == 2', 30.0)
    for service in services:
        producer = Producer(service.watch)
        for _ in range(6):
            producer.write()
    facility.until("count(sum by (instrument) (increase(afm_triage_decisions_total[1m])) > 3) == 2", 30.0)
    facility.until("count(instrument:afm_triage_yield:ratio6h) == 2")
    rates = "rate(afm_triage_decision_latency_seconds_count[1m])"
    facility.until(f"count({rates} > 0) == 2")
    for title, legend, expression in targets(BOARD):
        asked = expression.replace("$__rate_interval", "1m").replace("$instrument", ".*")
        wanted = set(INSTRUMENTS)
        if title == "Alerts" or legend == "half of all instruments":
            wanted = told(facility, asked)  # understood, and no more is due
        assert soon_told(facility, asked, wanted) == wanted, f"{title}, {legend}: {asked}"
    groups = facility.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(rule_expressions()) + len(rule_expressions(RULES))
    assert [rule["name"] for rule in rules if rule["health"] != "ok" or rule.get("state") == "firing"] == []
    exported = set(facility.ask("label/__name__/values"))
    asked = [*rule_expressions(), *rule_expressions(RULES), *(expression for *_, expression in targets(BOARD))]
    named = {word for one in asked for word in re.findall(r"\b(?:instrument:)?(?:afm_triage|process)_[\w:]+", one)}
    assert named <= exported, "what is not there is never told"
    assert not facility.query('ALERTS{federated_from!="", job="afm-triage"} unless ALERTS{alertstate=~".+"}')

    homes[0].end()  # as when the computer is switched off, with its service
    facility.until(f'ALERTS{{alertname="AfmTriagePrometheusAway", federated_from="{homes[0].target}"}}')
    for gone in ("instrument:afm_triage_up:max == 0", 'ALERTS{alertname="AfmTriageInstrumentSilent"}'):
        assert soon_told(facility, gone, {"afm1"}) == {"afm1"}
    row = "instrument:afm_triage_silence_seconds:min"
    assert soon_told(facility, row, set(INSTRUMENTS)) == set(INSTRUMENTS), "its row stays"
