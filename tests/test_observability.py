"""What Prometheus and Grafana are given: rules that fire and are silent, and names that a real service has."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from daemon.cli import Parser
from daemon.client.service_file import TemporaryService, free_port
from daemon.common.options import add_options
from daemon.metrics import CONDITIONS, STATES
from tests.faults.harness import Producer

FILES = Path(__file__).resolve().parents[1] / "deploy" / "observability"
ALERTS = (FILES / "alerts.yml").read_text()
#: What comes to these where one Prometheus looks after many instruments (tests/test_facility.py).
FACILITY = FILES.parent / "facility" / "facility.yml"

#: Where prometheus.yml says that the token lies.
TOKEN = "/etc/prometheus/afm-triage-token"

needs_prometheus = pytest.mark.skipif(
    shutil.which("promtool") is None or shutil.which("prometheus") is None, reason="prometheus is not installed"
)

#: Panels that show something only when something is wrong.
EMPTY_WHEN_WELL = ("Alerts", "What is not well", "Disk full in")
QUIET_WHEN_WELL = ("unreadable", "ignored")


def promtool(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *words], input=given, capture_output=True, text=True, timeout=50, check=False)


def rule_expressions(rules: str = ALERTS) -> list[str]:
    """Of every rule, as promtool prints nothing of them: a block scalar is folded into one line."""
    found = re.findall(r"^ {8}expr: (?:>-\n((?: {10}.*\n)+)|(.*)\n)", rules, re.M)
    return [" ".join((folded or plain).split()) for folded, plain in found]


def targets(file: Path = FILES / "dashboard.json") -> list[tuple[str, str, str]]:
    """(title of the panel, legend, expression) of everything that a dashboard asks for."""
    dashboard = json.loads(file.read_text())
    asked = [
        (panel["title"], target["legendFormat"], target["expr"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]
    return asked + [(one["name"], "", one["expr"]) for one in dashboard["annotations"]["list"]]


@needs_prometheus
@pytest.mark.parametrize(
    "words",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")],
    ids=lambda words: " ".join(words[:2]),
)
def test_promtool_finds_nothing_wrong(words: tuple[str, str, str]) -> None:
    said = promtool(*words[:2], str(FILES / words[2]))
    assert said.returncode == 0, said.stdout + said.stderr


def test_every_alert_has_a_case_in_which_it_fires_and_says_what_to_do() -> None:
    names = re.findall(r"- alert: (\w+)", ALERTS)
    cases = (FILES / "alerts_test.yml").read_text()
    assert len(names) >= 11
    assert {f"labels: '{{alertname=\"{name}\"}}'" for name in names} <= set(re.findall(r"labels: '\{[^']*\}'", cases))
    assert ALERTS.count("summary:") == ALERTS.count("action:") == len(names) == len(rule_expressions())


def test_every_command_that_an_alert_advises_can_be_typed() -> None:
    actions = " ".join(re.sub(r"{{.*?}}", "afm1", ALERTS + FACILITY.read_text()).split())
    commands = re.findall(r"`afm-triage ([^`]+)`", actions)
    assert len(commands) > 10
    for words in map(str.split, commands):
        parser = Parser()
        add_options(parser, importlib.import_module(f"daemon.verbs.{words[0]}").Options)
        parser.parse_args(words[1:])  # a UserError for what no verb takes


def test_alerts_and_dashboard_name_only_conditions_and_states_that_there_are() -> None:
    boards = [*targets(), *targets(FACILITY.parent / "dashboard.json")]
    rules = [*rule_expressions(), *rule_expressions(FACILITY.read_text())]
    asked = " ".join([*rules, *(expression for *_, expression in boards)])
    kinds = {kind for words in re.findall(r'kind!?=~?"([^"]+)"', asked) for kind in words.split("|")}
    assert kinds <= set(CONDITIONS)
    assert set(re.findall(r'\bstate=~?"([^"]+)"', asked)) <= set(STATES)


@pytest.mark.parametrize("folder", [FILES, FACILITY.parent], ids=lambda folder: folder.name)
def test_a_dashboard_is_bound_to_no_server(folder: Path) -> None:
    dashboard = json.loads((folder / "dashboard.json").read_text())
    assert "id" not in dashboard
    for panel in dashboard["panels"]:
        assert "id" not in panel
        for one in [panel, *panel.get("targets", [])]:
            assert one.get("datasource", {"uid": "${datasource}"})["uid"] == "${datasource}"
        assert panel["type"] == "row" or panel["description"].endswith(".")


def config_of(port: int, token: Path, instrument: str = "afm1") -> str:
    """prometheus.yml with the token, another port and another pace."""
    config = (FILES / "prometheus.yml").read_text().replace("instrument: afm1", f"instrument: {instrument}")
    config = config.replace("127.0.0.1:9795", f"127.0.0.1:{port}")
    config = config.replace("# authorization:", "authorization:").replace(TOKEN, str(token))
    assert str(token) in config
    return config.replace(": 15s", ": 250ms")


class Prometheus:
    """Debian's, with our files; ``rules`` are copied to where ``config`` looks for them."""

    def __init__(self, folder: Path, config: str, *rules: Path) -> None:
        folder.mkdir()
        (folder / "prometheus.yml").write_text(config)
        for file in rules:
            shutil.copy(file, folder)
        self.target = f"127.0.0.1:{free_port()}"
        self._address = f"http://{self.target}"
        words = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen([*words, f"--web.listen-address={self.target}"], stdout=log, stderr=log)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    def ask(self, path: str, **words: str) -> Any:
        """``data`` of an answer of its API."""
        with urlopen(f"{self._address}/api/v1/{path}?{urlencode(words)}", timeout=5) as answer:
            said = json.load(answer)
        assert said["status"] == "success", said
        return said["data"]

    def query(self, expression: str) -> list[Mapping[str, Any]]:
        return list(self.ask("query", query=expression)["result"])

    def until(self, expression: str, timeout_s: float = 20.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            with suppress(URLError, ConnectionError):
                if self.query(expression):
                    return
            time.sleep(0.1)
        pytest.fail(f"not within {timeout_s} s: {expression}")


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.touch(mode=0o600)
    file.write_text("a-word-that-nobody-guesses\n")
    return file


@pytest.fixture
def trial(tmp_path: Path, token: Path) -> Iterator[TemporaryService]:
    settings = tmp_path / "afm1.toml"
    settings.write_text(f'[guard]\ncanary_s = 0.2\ncanary_rest_s = 0.2\n[metrics]\ntoken_file = "{token}"\n')
    with TemporaryService(tmp_path / "trial", options=("--config", str(settings))) as running:
        yield running


@pytest.fixture
def prometheus(tmp_path: Path, trial: TemporaryService, token: Path) -> Iterator[Prometheus]:
    running = Prometheus(tmp_path / "prometheus", config_of(trial.metrics_port, token), FILES / "alerts.yml")
    yield running
    running.end()


@needs_prometheus
@pytest.mark.faults
def test_a_real_prometheus_understands_every_expression_and_finds_data_where_data_is_due(
    trial: TemporaryService, prometheus: Prometheus, token: Path
) -> None:
    prometheus.until('up{job="afm-triage"} == 1')  # a rate is of what comes between two scrapes
    producer = Producer(trial.watch)
    for _ in range(8):
        producer.write()
    prometheus.until("sum(increase(afm_triage_decisions_total[1m])) > 4")
    prometheus.until("sum(increase(afm_triage_canary_total[1m])) > 0")
    for title, legend, expression in targets():
        asked = expression.replace("$__rate_interval", "1m").replace("$instrument", ".*")
        found = prometheus.query(asked)
        if title not in EMPTY_WHEN_WELL and not any(word in legend for word in QUIET_WHEN_WELL) and legend:
            assert found, f"{title}: no data for {asked}"
    (group,) = prometheus.ask("rules")["groups"]
    assert len(group["rules"]) == len(rule_expressions())
    assert [rule["name"] for rule in group["rules"] if rule["health"] != "ok" or rule["state"] == "firing"] == []
    exported = set(prometheus.ask("label/__name__/values"))
    named = {word for one in rule_expressions() for word in re.findall(r"\b(?:afm_triage|process)_\w+", one)}
    assert named <= exported, "an alert on a metric that is not there never fires"
    names = ("curves_seen_total", "decisions_total", "curves_duplicate_total", "backlog_curves")
    seen, *places = (f"sum(afm_triage_{name})" for name in names)
    assert prometheus.query(f"{seen} - {' - '.join(places)} == 0"), "every curve is somewhere"
    shown = {"Authorization": f"Bearer {token.read_text().strip()}"}
    with urlopen(Request(f"http://127.0.0.1:{trial.metrics_port}/metrics", headers=shown), timeout=5) as answer:
        checked = promtool("check", "metrics", given=answer.read().decode())
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    trial.stop()
    prometheus.until('ALERTS{alertname="AfmTriageTargetDown", alertstate="pending"}')
