"""Doctor and check: each problem is found, and each comes with what to do about it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from daemon.client.service_file import free_port
from daemon.config import AlarmConfig, BatchConfig, Config, EngineConfig, SourceConfig, ThresholdsConfig
from daemon.config.rule import FolderSettings
from daemon.verbs import doctor
from daemon.verbs.check import describe
from daemon.verbs.doctor import Finding, engines, is_well, line
from tests.speaker import Speaker

ROOT = Path(__file__).resolve().parents[1]
NOT_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")


def afm_triage(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "daemon", *words]
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


def config_of(tmp_path: Path, **values: object) -> Config:
    free = {"publish": f"tcp://127.0.0.1:{free_port()}", "replay": f"tcp://127.0.0.1:{free_port()}", "metrics_port": 0}
    return Config(**{"state": tmp_path / "state", **free, **values})  # type: ignore[arg-type]


# doctor


def test_the_doctor_looks_at_everything_and_says_so_in_json(tmp_path: Path) -> None:
    watch = tmp_path / "data"
    watch.mkdir()
    file = tmp_path / "afm1.toml"
    file.write_text(
        f'watch = "data"\nstate = "state"\nmetrics_port = 0\n'
        f'publish = "tcp://127.0.0.1:{free_port()}"\nreplay = "tcp://127.0.0.1:{free_port()}"\n'
    )
    done = afm_triage("doctor", "--json", "--config", str(file))
    told = json.loads(done.stdout)
    by_topic = {one["topic"]: one for one in told["findings"]}
    assert by_topic.keys() >= {
        "afm-triage",
        "python",
        "packages",
        "sqlite",
        "names",
        "inotify",
        "watch",
        "state",
        "ports",
    }
    assert by_topic.keys() >= {"gpu", "model", "engine"}
    assert "torch" in by_topic["packages"]["text"]
    assert str(watch) in by_topic["watch"]["text"]
    assert "-cpu-" in by_topic["engine"]["text"]
    problems = [one for one in told["findings"] if one["level"] == "problem"]
    assert (done.returncode == 0, told["ok"]) == (not problems, not problems)
    assert [one for one in problems if not one["advice"]] == []


def test_a_port_of_another_program_is_a_problem(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        found = list(doctor.ports(config_of(tmp_path, publish=f"tcp://127.0.0.1:{port}")))
    assert [(one.level, f"port {port} of publish is taken" in one.text) for one in found] == [("problem", True)]
    assert "--publish" in found[0].advice


def test_our_own_running_service_is_none(tmp_path: Path) -> None:
    with Speaker(tmp_path / "state") as speaker:
        found = list(doctor.ports(config_of(tmp_path, publish=speaker.publish, replay=speaker.replay)))
    assert [(one.level, f"running as process {os.getpid()}" in one.text) for one in found] == [("ok", True)]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    (found,) = doctor.watched_folders(config_of(tmp_path, watch=(tmp_path / "gone",)))
    assert (found.level, "is not there" in found.text, bool(found.advice)) == ("problem", True, True)


def test_a_folder_that_is_configured_as_a_share_and_is_none(tmp_path: Path) -> None:
    share = FolderSettings(tmp_path, "network", 600.0)
    config = config_of(tmp_path, watch=(tmp_path, tmp_path / "b"), folder=(share,))
    (finding, *_) = doctor.watched_folders(config)
    assert finding.level == "problem"
    assert "is configured as a share, and nothing is mounted there" in finding.text
    assert "which is configured as a share, and nothing is mounted there" in "\n".join(describe(config))


def test_a_watched_path_that_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.touch()
    (finding,) = doctor.watched_folders(config_of(tmp_path, watch=(file,)))
    assert (finding.level, finding.text) == ("problem", f"{file} is a file")


def test_alarms_of_silence_are_said(tmp_path: Path) -> None:
    config = config_of(tmp_path, watch=(tmp_path,), folder=(FolderSettings(tmp_path, "local", 600.0),))
    said = "\n".join(describe(config))
    assert "; an alarm when no curve came into it for 10 min" in said
    assert "raises an alarm when no curve comes, for each folder as said above" in said
    one, other = tmp_path / "a", tmp_path / "b"
    both = config_of(tmp_path, watch=(one, other), folder=(FolderSettings(one, None, 60.0),))
    assert "raises no alarm while no curve comes into the other folders;" in "\n".join(describe(both))
    assert "raises no alarm while no curve comes;" in "\n".join(describe(config_of(tmp_path, watch=(tmp_path,))))
    loud = config_of(tmp_path, watch=(tmp_path,), alarm=AlarmConfig(silence_s=7200))
    assert "raises an alarm when no curve came for 2 h" in "\n".join(describe(loud))


def test_what_lies_in_a_watched_folder_is_told_and_asked_about_when_nothing_of_it_is_read(tmp_path: Path) -> None:
    watch = tmp_path / "data"
    (watch / "run").mkdir(parents=True)
    for name in ("a.pfc", "run/b.PFC", "run/camera.png", "run/aZSNSR.ibw"):
        (watch / name).touch()
    (watch / "tree").symlink_to(tmp_path)
    _, found = doctor.watched_folders(config_of(tmp_path, watch=(watch,)))
    told = f"{watch}: 0 files that may be curves; ignored: 2 unclaimed .pfc, 1 image, 1 link; 1 companion"
    assert (found.topic, found.level, found.text.startswith(told)) == ("files", "note", True)
    assert "deploy/docs/files.md names the kinds" in found.advice
    (watch / "run" / "a.jpk-force").touch()
    _, found = doctor.watched_folders(config_of(tmp_path, watch=(watch,)))
    assert "1 file that may be a curve; ignored: 2" in found.text
    (watch / "run" / "b.txt").touch()
    _, found = doctor.watched_folders(config_of(tmp_path, watch=(watch,)))
    assert (found.level, "2 files that may be curves; ignored: 2" in found.text) == ("ok", True)


def test_a_first_look_into_a_watched_folder_is_a_short_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MANY_FILES", 10)
    for number in range(30):
        (tmp_path / f"{number}.jpk-force").touch()
    _, found = doctor.watched_folders(config_of(tmp_path, watch=(tmp_path,)))
    assert "10 files that may be curves in the part that was looked at" in found.text


@NOT_ROOT
def test_folders_without_permission(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "state").mkdir(mode=0o500)
    (watch,) = doctor.watched_folders(config_of(tmp_path, watch=(tmp_path / "closed",)))
    (state,) = doctor.state_folder(config_of(tmp_path))
    assert ("may not be read" in watch.text, "setfacl" in watch.advice) == (True, True)
    assert ("may not be written" in state.text, "chown" in state.advice) == (True, True)


def test_a_state_folder_with_room_and_one_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = doctor.state_folder(config_of(tmp_path))
    assert "free)" in found.text
    monkeypatch.setattr(doctor, "LITTLE_SPACE_BYTES", 1 << 80)
    (found,) = doctor.state_folder(config_of(tmp_path))
    assert (found.level, "nearly full" in found.text) == ("problem", True)


def test_another_owner_of_our_names_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A real distribution on the path that claims `daemon`, as python-daemon does.
    info = tmp_path / "python_daemon-3.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: python-daemon\nVersion: 3.0\n")
    (info / "top_level.txt").write_text("daemon\n")
    assert [one.level for one in doctor.package_owners()] == ["ok"]
    monkeypatch.syspath_prepend(str(tmp_path))
    (found,) = doctor.package_owners()
    assert (found.level, "python-daemon" in found.text) == ("problem", True)
    assert "pip uninstall python-daemon" in found.advice


def test_too_few_inotify_watches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "a/b", "c"):
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
    config = config_of(tmp_path, watch=(tmp_path / "data",))
    limits = {"max_user_watches": 4, "max_user_instances": 128, "max_queued_events": 16384}
    monkeypatch.setattr(doctor, "_limit", limits.get)
    (found,) = doctor.inotify(config)
    assert (found.level, "need 4 watches" in found.text) == ("problem", True)
    assert found.advice.startswith("sudo sysctl fs.inotify.max_user_watches=")
    limits["max_user_watches"] = 8192
    assert [one.level for one in doctor.inotify(config)] == ["ok"]


@pytest.mark.parametrize(
    ("number", "level"),
    [((3, 40, 1), "note"), ((3, 44, 6), "ok"), ((3, 50, 6), "note"), ((3, 51, 3), "ok"), ((3, 53, 0), "ok")],
)
def test_the_sqlite_note(number: tuple[int, int, int], level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sqlite3, "sqlite_version_info", number)
    assert next(one for one in doctor.versions() if one.topic == "sqlite").level == level


def test_a_model_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    found = list(engines(config_of(tmp_path, model=str(tmp_path / "model"))))
    assert (found[-1].topic, found[-1].level, bool(found[-1].advice)) == ("model", "problem", True)


@pytest.mark.parametrize(
    ("asked", "says", "advice"),
    [
        ({"device": "cuda"}, "there is no NVIDIA GPU here", "leave device out, and the best engine"),
        (
            {"device": "cuda", "engine": EngineConfig(name="cuda")},
            "there is no NVIDIA GPU here",
            "leave device and [engine] name out",
        ),
        ({"engine": EngineConfig(precision="fp16")}, "fp16 runs on a GPU only", "leave [engine] precision out"),
    ],
)
def test_an_engine_that_is_not_here_is_no_fault_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, object], says: str, advice: str
) -> None:
    monkeypatch.setattr("deploy.engines._NVIDIA", ())
    config = config_of(tmp_path, **asked)
    found = list(engines(config))[-1]
    assert (found.topic, found.level, says in found.text) == ("engine", "problem", True)
    assert found.advice.startswith(advice)
    (judging,) = [one for one in describe(config) if "judges with the model" in one]
    assert judging.startswith("▲ ")
    assert "which this machine does not have: run will refuse" in judging
    assert says in judging


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_int8_that_was_never_built_comes_with_its_command(tmp_path: Path) -> None:
    config = config_of(tmp_path, engine=EngineConfig(precision="int8"))
    found = list(engines(config))[-1]
    command = f"afm-triage models build --precision int8 --curves DIR --state {config.state}"
    assert (found.topic, found.advice.startswith(command)) == ("engine", True)
    (judging,) = [one for one in describe(config) if "judges with the model" in one]
    assert judging.startswith("▲ ")
    assert command in judging


@pytest.mark.parametrize("engine", [EngineConfig(name="torch"), EngineConfig(precision="fp32")])
def test_a_deadline_of_a_gpu_is_said_only_where_one_may_judge(tmp_path: Path, engine: EngineConfig) -> None:
    assert not [one for one in describe(config_of(tmp_path, engine=engine)) if "a GPU" in one or "▲ judges" in one]
    assert [one for one in describe(config_of(tmp_path)) if "what a GPU does not answer" in one]


def test_a_problem_is_a_line_with_what_to_do() -> None:
    problem = Finding("state", "problem", "/state is nearly full", "free some space")
    assert line(problem).plain == "✗ state     /state is nearly full\n            → free some space"
    assert is_well([Finding("a", "ok", ""), Finding("b", "note", "")])
    assert not is_well([Finding("a", "ok", ""), problem])


# check


def test_check_says_what_it_will_do_and_every_value(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "afm1.toml"
    file.write_text('watch = ["data"]\nstate = "state"\n[alarm]\nno_contact_run = 7\n')
    done = afm_triage("check", str(file), AFM_TRIAGE_BATCH__LARGEST="16")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"watches {tmp_path}/data (" in done.stdout
    assert "after 7 curves in a row" in done.stdout
    assert "alarm.no_contact_run = 7  # file" in done.stdout
    assert "batch.largest = 16  # environment" in done.stdout
    assert "metrics_port = 9795  # default" in done.stdout


def test_check_names_every_error_and_exits_78(tmp_path: Path) -> None:
    file = tmp_path / "afm1.toml"
    file.write_text('wach = ["data"]\nmetrics_port = 70000\npublish = "tcp://0.0.0.0:5795"\n')
    done = afm_triage("check", str(file))
    assert done.returncode == 78
    found = [text.strip(" ✗") for text in done.stderr.splitlines() if "✗" in text]
    assert [one.split(":")[0] for one in found] == ["wach", "metrics_port", "publish", "watch"]
    assert 'did you mean "watch"?' in found[0]


@pytest.mark.parametrize("content", [None, b"watch = [", b"\xff"])
def test_check_of_what_is_no_configuration_is_one_line(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "afm1.toml"
    if content is not None:
        file.write_bytes(content)
    done = afm_triage("check", str(file))
    assert (done.returncode, done.stderr.count("\n"), str(file) in done.stderr) == (78, 1, True)


def test_the_description_in_words(tmp_path: Path) -> None:
    config = Config(
        state=tmp_path / "state",
        watch=(tmp_path, tmp_path / "gone"),
        ingest="tcp://127.0.0.1:5797",
        metrics_port=0,
        source=SourceConfig(mounts="network", rescan_network_s=5),
        thresholds=ThresholdsConfig(keep=0.9),
        alarm=AlarmConfig(30),
        batch=BatchConfig(0.002, 8),
    )
    text = "\n".join(describe(config))
    for said in (
        f"watches {tmp_path} (",
        "a scan every 5 s",
        f"▲ watches {tmp_path}/gone (",
        "which is not there now",
        "takes curves over ZeroMQ at tcp://127.0.0.1:5797",
        "▲ takes thresholds of yours: discard at the model's own and below, keep at 0.9",
        "up to 8 curves a batch; a lone one waits 2.0 ms",
        "metrics are off",
        "(made at the first start)",
        "after 30 curves in a row",
    ):
        assert said in text
