"""The configuration: what it accepts, what wins, and every error at once."""

from __future__ import annotations

import os
import socket
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

import pytest

from daemon.cli import Parser
from daemon.common.errors import BAD_CONFIG, UNREACHABLE, USAGE, UserError
from daemon.common.options import add_options, take_options
from daemon.config import Config, ConfigError, Flags, changes, load, values
from daemon.config.origin import MOST_INSTRUMENTS, PORTS, PREFIX, default_state, usual_port
from daemon.service.assembly import need_places
from daemon.verbs import run


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))


def load_run(*words: str) -> Config:
    """As `run` does with these words."""
    parser = Parser()
    add_options(parser, run.Options)
    return load(take_options(run.Options, parser.parse_args(words)).configuration, serves=True)


def write(tmp_path: Path, text: str) -> str:
    file = tmp_path / "afm1.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def findings(tmp_path: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_run("--config", write(tmp_path, text))
    assert caught.value.exit_code == BAD_CONFIG
    assert "\n" not in str(caught.value)
    return caught.value.findings


FULL = """
watch = ["spool", "/data/afm1"]
state = "state"
instrument = "jpk-left"
publish = "tcp://127.0.0.1:6001"
replay = "ipc:///run/afm-triage/replay.sock"
ingest = "tcp://[::1]:6003"
metrics_port = 0
model = "./models/a"
device = "cpu"
[source]
mounts = "network"
text_quiet_s = 3
[thresholds]
discard = 0.05
keep = 0.6
[alarm]
no_contact_run = 5
[batch]
wait_s = 0
largest = 8
[log]
level = "debug"
format = "json"
"""


def test_a_full_file(tmp_path: Path) -> None:
    config = load_run("--config", write(tmp_path, FULL))
    assert config.watch == (tmp_path / "spool", Path("/data/afm1"))
    assert config.state == tmp_path / "state"
    assert config.model == str(tmp_path / "models/a")
    assert (config.instrument, config.ingest, config.metrics_port) == ("jpk-left", "tcp://[::1]:6003", 0)
    assert (config.source.mounts, config.source.text_quiet_s, config.source.give_up_s) == ("network", 3.0, 60.0)
    assert (config.thresholds.discard, config.thresholds.keep) == (0.05, 0.6)
    assert (config.alarm.no_contact_run, config.batch.wait_s, config.batch.largest) == (5, 0.0, 8)
    assert (config.log.level, config.log.format) == ("debug", "json")
    assert config.file == tmp_path / "afm1.toml"


def test_flags_alone_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_run("--watch", "a", "--watch", "../b", "--watch", "a")
    assert config.watch == (tmp_path / "a", tmp_path.parent / "b")
    assert config == Config(state=tmp_path / "xdg/afm-triage/afm1", watch=config.watch)


def test_file_below_environment_below_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(
        tmp_path, 'watch = "spool"\ninstrument = "file"\nmodel = "file"\ndevice = "cuda"\n[batch]\nlargest = 1'
    )
    monkeypatch.setenv("AFM_TRIAGE_MODEL", "environment")
    monkeypatch.setenv("AFM_TRIAGE_DEVICE", "auto")
    monkeypatch.setenv("AFM_TRIAGE_BATCH__LARGEST", "16")
    monkeypatch.setenv("AFM_TRIAGE_WATCH", "/data/a:/data/b")
    config = load_run("--config", file, "--device", "cpu")
    assert (config.instrument, config.model, config.device, config.batch.largest) == ("file", "environment", "cpu", 16)
    assert config.watch == (Path("/data/a"), Path("/data/b"))
    assert (config.origins["device"], config.origins["model"], config.origins["instrument"]) == (
        "flag",
        "environment",
        "file",
    )


def test_every_error_at_once_each_with_its_key_and_what_to_do(tmp_path: Path) -> None:
    text = """
watch = ["data", 3]
state = "~nobody.of.that.name/state"
instrumnt = "x"
metrics_port = true
replay = "tcp://127.0.0.1:5795"
mounts = "auto"
[source]
text_quiet = 3
rescan_local_s = nan
device = "cpu"
[thresholds]
keep = 0.2
discard = 0.4
[logs]
level = "x"
[alarm]
no_contact_run = 2.5
"""
    expected = {
        "watch": "must be a text",
        "state": "the home folder of nobody here",
        "instrumnt": 'did you mean "instrument"?',
        "metrics_port": "must be a whole number and is true/false",
        "replay": "already taken by publish",
        "mounts": "the table [source]",
        "source.text_quiet": 'did you mean "text_quiet_s"?',
        "source.rescan_local_s": "nan is out of range: 0.5 to 3600",
        "source.device": "above the first [table] line",
        "thresholds.keep": "must lie above thresholds.discard",
        "logs": 'did you mean "log"?',
        "alarm.no_contact_run": "must be a whole number and is a fraction",
    }
    found = dict(one.split(": ", 1) for one in findings(tmp_path, text))
    assert found.keys() == expected.keys()
    assert [key for key in expected if expected[key] not in found[key]] == []


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ('instrument = "AFM 1"', "short name"),
        ('device = "gpu"', "none of auto, cpu, cuda"),
        ('publish = "127.0.0.1:5795"', "is not an endpoint"),
        ('publish = "tcp://127.0.0.1:70000"', "no port between"),
        ('publish = "tcp://0.0.0.0:5795"', "no CURVE keys"),
        ('replay = "tcp://*:5796"', "no CURVE keys"),
        ('ingest = "tcp://microscope-pc:5797"', "no CURVE keys"),
        ("metrics_port = 5796", "already taken by metrics_port"),
        ('state = ""', "must not be empty"),
        ("source = 3", "write [source]"),
        ("model = 2026-11-20", "is a date or time"),
    ],
)
def test_one_wrong_line(line: str, hint: str, tmp_path: Path) -> None:
    found = findings(tmp_path, f'watch = "/data"\n{line}\n')
    assert len(found) == 1
    assert hint in found[0]


@pytest.mark.parametrize(
    ("watch", "state", "key"),
    [("data", "data/state", "state"), ("data", "data", "state"), ("state/in", "state", "watch")],
)
def test_the_ledger_never_lies_where_the_instrument_writes(watch: str, state: str, key: str, tmp_path: Path) -> None:
    assert findings(tmp_path, f'watch = "{watch}"\nstate = "{state}"')[0].startswith(f"{key}: ")


def test_a_link_does_not_hide_that_the_state_is_inside(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").symlink_to(tmp_path / "data")
    assert "lies inside the watched" in findings(tmp_path, 'watch = "data"\nstate = "elsewhere/state"')[0]


def test_nested_watch_folders_would_see_every_file_twice(tmp_path: Path) -> None:
    assert "remove one" in findings(tmp_path, 'watch = ["/data", "/data/run7"]')[0]
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert "remove one" in findings(tmp_path, 'watch = ["data", "link"]')[0]
    assert "remove one" in findings(tmp_path, 'watch = ["link/run7", "data"]')[0]


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"watch = [\n", "not valid TOML"),
        (b"watch = 1\nwatch = 2\n", "line 2"),
        (b'watch = "\xff"', "not UTF-8 at byte 9"),
        (None, "no such file"),
    ],
)
def test_a_file_that_is_no_configuration(content: bytes | None, hint: str, tmp_path: Path) -> None:
    file = tmp_path / "afm1.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=hint) as caught:
        load_run("--config", str(file))
    assert caught.value.exit_code == BAD_CONFIG


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        load_run("--config", str(tmp_path))


def test_a_misspelt_variable_is_an_error_and_another_program_s_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFM_TRIAGE_DEBUG", "1")
    load_run("--watch", "/data")
    monkeypatch.setenv("AFM_TRIAGE_BATCH__LARGST", "1")
    with pytest.raises(ConfigError, match='did you mean "AFM_TRIAGE_BATCH__LARGEST"'):
        load_run("--watch", "/data")


def test_a_wrong_variable_is_named_as_the_user_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFM_TRIAGE_METRICS_PORT", "many")
    with pytest.raises(ConfigError, match="AFM_TRIAGE_METRICS_PORT: must be a whole number"):
        load_run("--watch", "/data")


def test_nothing_to_watch(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give --watch DIR") as caught:
        load_run()
    assert caught.value.exit_code == USAGE
    assert "nothing to watch" in findings(tmp_path, "")[0]
    assert load_run("--ingest", "tcp://127.0.0.1:5797").watch == ()


def test_a_verb_that_only_connects_may_look_at_another_machine() -> None:
    assert load(Flags(keys={"publish": "tcp://lab-pc:5795"})).publish == "tcp://lab-pc:5795"


def test_the_default_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = Flags(keys={"instrument": "left"})
    assert load(flags).state == tmp_path / "xdg/afm-triage/left"
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/afm-triage/left")
    assert load(flags).state == Path("/var/lib/afm-triage/left")


def test_a_verb_that_only_looks_goes_to_the_service_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    mine, unit = tmp_path / "home/afm-triage/afm1", tmp_path / "units/afm1"

    def looks() -> Path:
        return default_state("afm1", serves=False, units=tmp_path / "units")

    assert looks() == mine
    unit.mkdir(parents=True)
    assert looks() == unit  # the user has none
    mine.mkdir(parents=True)
    (mine / "lock").touch()
    assert looks() == unit  # what a refused start has left holds nothing
    (mine / "ledger.sqlite").touch()
    assert looks() == mine
    (unit / "service.json").write_text(f'{{"pid": {os.getpid()}}}')
    assert looks() == unit  # that one runs
    assert default_state("afm1", serves=True, units=tmp_path / "units") == mine
    (mine / "service.json").write_text(f'{{"pid": {os.getpid()}}}')
    assert looks() == mine
    (mine / "service.json").write_text('{"pid": 4194999}')  # killed long ago
    assert looks() == unit


def test_values_and_changes_and_digest(tmp_path: Path) -> None:
    old = Config(state=tmp_path, watch=(Path("/a"),))
    new = Config(state=tmp_path, watch=(Path("/a"), Path("/b")), instrument="left")
    assert values(old)["watch"] == ["/a"]
    assert values(old)["batch.wait_s"] == 0.005
    assert changes(old, new) == {"watch": (["/a"], ["/a", "/b"]), "instrument": ("afm1", "left")}
    assert old.digest == Config(state=tmp_path, watch=(Path("/a"),)).digest != new.digest


def test_settings_of_one_folder(tmp_path: Path) -> None:
    text = """
watch = ["spool", "/mnt/afm", "/data/b"]
[source]
mounts = "local"
[[folder]]
path = "/mnt/afm"
mounts = "network"
silence_s = 600
[[folder]]
path = "spool"
silence_s = 0
"""
    config = load_run("--config", write(tmp_path, text))
    spool, share, other = config.watch
    assert [config.mounts_of(one) for one in config.watch] == ["local", "network", "local"]
    assert (config.silence_of(spool), config.silence_of(share), config.silence_of(other)) == (0.0, 600.0, 0.0)
    assert values(config)["folder"][0] == {"path": "/mnt/afm", "mounts": "network", "silence_s": 600.0}
    assert config.alarm.silence_s == 0.0  # an instrument that rests is no fault


def test_every_error_of_the_folder_tables_at_once(tmp_path: Path) -> None:
    text = """
watch = ["/mnt/afm"]
[alarm]
silence_s = -1
[[folder]]
path = "/mnt/amf"
mounts = "network"
[[folder]]
mounts = "nfs"
mout = "network"
[[folder]]
path = "/mnt/afm"
[[folder]]
path = 3
silence_s = "1 h"
"""
    told = "\n".join(findings(tmp_path, text))
    for part in (
        'folder: table 2: has no key "mout"; it has path, mounts, silence_s',
        'folder: table 2: mounts "nfs" is none of auto, local, network',
        "folder: table 2: needs a path",
        "folder: table 3: settles nothing; give mounts or silence_s",
        'folder: table 4: path must be a text in quotes, "…", and is an integer',
        "folder: table 4: silence_s must be a number and is a text",
        "alarm.silence_s: -1 is out of range",
    ):
        assert part in told


def test_a_folder_table_is_of_a_watched_folder_and_of_one_alone(tmp_path: Path) -> None:
    table = '[[folder]]\npath = "{}"\nmounts = "network"\n'
    text = 'watch = "/mnt/afm"\n' + table.format("/mnt/amf") + 2 * table.format("/mnt/afm")
    assert findings(tmp_path, text) == (
        "folder: /mnt/amf is not watched; write path as it stands in watch",
        "folder: /mnt/afm has two tables; write its settings into one",
    )
    assert findings(tmp_path, "watch = 3\n" + table.format("/mnt/afm")) == (
        'watch: must be a list of folders, ["/data/afm1"], and is an integer',
    )
    assert findings(tmp_path, 'watch = "/mnt/afm"\n[folder]\npath = "/mnt/afm"\n') == (
        "folder: is a list of tables; write [[folder]] on a line of its own above each",
    )


def test_a_watched_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "curve.txt"
    file.touch()
    told = findings(tmp_path, f'watch = ["{file}", "{tmp_path}/folder"]\n')
    assert told == (f"watch: {file} is a file; name the folder that curves are saved into",)


def test_the_instrument_s_number_gives_every_port_and_what_is_given_wins(tmp_path: Path) -> None:
    second = load_run("--config", write(tmp_path, 'watch = "data"\nnumber = 2\nreplay = "tcp://127.0.0.1:7000"'))
    said = (second.publish, second.replay, second.metrics_port)
    assert said == ("tcp://127.0.0.1:5805", "tcp://127.0.0.1:7000", 9805)
    assert (second.origins["publish"], second.origins["replay"]) == ("number 2", "file")
    assert load_run("--watch", str(tmp_path / "data"), "--number", "3", "--metrics-port", "0").metrics_port == 0
    assert findings(tmp_path, 'watch = "data"\nnumber = 0')[0].startswith("number: 0 is out of range: 1 to 99")
    used = [usual_port(key, number) for number in range(1, MOST_INSTRUMENTS + 1) for key in PORTS]
    assert len(set(used)) == len(used)


def test_all_ports_that_another_program_has_are_told_in_one_line_with_the_number_that_is_free(tmp_path: Path) -> None:
    with ExitStack() as others:
        ports = [others.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(2)]
        file = write(tmp_path, f'watch = "data"\nreplay = "tcp://127.0.0.1:{ports[0]}"\nmetrics_port = {ports[1]}')
        with pytest.raises(UserError) as refusal:
            need_places(load_run("--config", file, "--publish", "tcp://127.0.0.1:0"))
        said = f"replay tcp://127.0.0.1:{ports[0]}, metrics_port {ports[1]}"
        assert str(refusal.value).startswith(f"another program has {said}; stop it, or choose others with --replay")
        others.enter_context(listening_at(usual_port("publish", 98)))
        with pytest.raises(UserError, match="a number of its own: number = ") as refusal:
            need_places(load_run("--watch", str(tmp_path / "data"), "--number", "98"))
        assert refusal.value.exit_code == UNREACHABLE
        free = str(refusal.value).rpartition("= ")[2]
        need_places(
            load_run("--watch", str(tmp_path / "data"), "--number", free)
        )  # it does not advise a number that is taken


def listening_at(port: int) -> AbstractContextManager[object]:
    """Another program on this port, unless a real one is there already."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError:
        return nullcontext()


def test_an_ipc_socket_that_a_service_answers_at_is_not_taken_from_it(tmp_path: Path) -> None:
    place = f"ipc://{tmp_path}/events"
    words = (
        "--watch",
        str(tmp_path / "data"),
        "--publish",
        place,
        "--replay",
        "tcp://127.0.0.1:0",
        "--metrics-port",
        "0",
    )
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{tmp_path}/events")
        other.listen()
        with pytest.raises(UserError, match="another program has publish ipc://"):
            need_places(load_run(*words))
    need_places(load_run(*words))  # the file is still there, and nobody behind it
