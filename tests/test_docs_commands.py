"""Every block of README and deploy/docs that can run is run, as a reader would: one page after the other, line by line.

Before a block of commands a comment, which no reader sees, may say what is different:

    <!-- not run: REASON -->        it needs root, another computer, a GPU
    <!-- read only: REASON -->      its words are read by the verb's own parser: it would take minutes
    <!-- exit 65: afm-triage … -->  how the line that begins with these words ends, if not with 0

``/data`` and ``/mnt`` are a folder of the test, the ports are free ones, the home is empty. The service is the one that
README starts, and it runs through all pages.
"""

from __future__ import annotations

import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path

import pytest

from daemon import cli
from daemon.client.service_file import free_port, read_places
from daemon.common import keys
from daemon.judging.registry import Registry
from models.bundle import SHIPPED, read
from tests.test_daemon_models_verb import a_cut

ROOT = Path(__file__).resolve().parents[1]
CURVES = ROOT / "daemon" / "curves"
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "deploy" / "docs").glob("*.md"))]
BLOCK = re.compile(r"((?:^<!-- [^\n]* -->\n)*)^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"^<!-- (not run|read only|exit (\d+)): (.+) -->$", re.MULTILINE)
INLINE = re.compile(r"`(afm-triage [a-z]+[^`]*)`")
HARMLESS = ("afm-triage ", ". .venv/bin/activate", "python deploy/examples/")
#: These go on until somebody ends them: in a terminal of their own, until this was seen.
STAYING = {"console": "afm1", "review": "http://"}


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    kind: str
    text: str
    how: str  # "run", "not run", "read only"
    reason: str
    exits: tuple[tuple[str, int], ...]

    @property
    def lines(self) -> list[str]:
        return [bare for line in self.text.splitlines() if (bare := re.sub(r"(^|\s+)#.*", "", line))]

    def ends(self, line: str) -> int:
        return next((code for start, code in self.exits if line.startswith(start)), 0)


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in BLOCK.finditer(text):
        marks = MARK.findall(found[1])
        how, reason = next(((mark, why) for mark, _, why in marks if not mark.startswith("exit")), ("run", ""))
        exits = tuple((start, int(code)) for mark, code, start in marks if mark.startswith("exit"))
        yield Block(page, text.count("\n", 0, found.start()) + 1, found[2], found[3], how, reason, exits)


ALL = [block for page in PAGES for block in blocks(page)]


def words_of(line: str) -> list[str]:
    """What stands behind ``afm-triage``."""
    program, *words = shlex.split(line)
    assert program == "afm-triage", f"only afm-triage is run here: {line}"
    return words


@pytest.mark.parametrize("block", ALL, ids=lambda block: f"{block.page.name}:{block.line}")
def test_a_block_says_what_it_is_and_its_commands_can_be_read(block: Block) -> None:
    assert block.kind in {"sh", "toml", "python", "text"}, "a block has its kind behind the ```"
    assert block.how == "run" or len(block.reason.split()) > 2, "say why it is not run"
    assert all(any(line.startswith(start) for line in block.lines) for start, _ in block.exits)
    if block.kind == "sh":
        for line in block.lines:
            if line.startswith("afm-triage "):
                cli._parse(words_of(line))
            assert block.how != "run" or line.startswith(HARMLESS), f"a test shall not run this: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_inside_sentences_can_be_read(page: Path) -> None:
    for command in INLINE.findall(BLOCK.sub("", page.read_text())):
        if "…" not in command:
            cli._parse(words_of(command))


class Reader:
    """Who follows the pages: a folder, an empty home, an instrument that has written some curves, a service."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.here = folder, folder / "afm-triage"
        self.here.mkdir()
        (self.here / ".venv").symlink_to(sys.prefix)
        self.watch = folder / "data" / "afm1"
        (self.watch / "run7").mkdir(parents=True)
        (folder / "home").mkdir()
        self.state = folder / "home" / ".local" / "state" / "afm-triage" / "afm1"
        for place in ("data/afm2", "data/yesterday", "data/2026", "data/local", "mnt/afm"):
            (folder / place).mkdir(parents=True)
            shutil.copy(CURVES / "fsas_mica_fz.000", folder / place)
        for number, name in enumerate(("0441", "0446", "0578", "0612", "0891")):
            shutil.copy(
                CURVES / f"force-save-{name}.jpk-force", self.watch / "run7" / f"curve-{42 + number:04}.jpk-force"
            )
        ports = {"publish": 5795, "replay": 5796, "ingest": 5797}
        self.ports = {str(port): str(free_port()) for port in ports.values()}
        own = {f"AFM_TRIAGE_{key.upper()}": f"tcp://127.0.0.1:{self.ports[str(port)]}" for key, port in ports.items()}
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("AFM_TRIAGE_", "XDG_"))},
            **own,
            "AFM_TRIAGE_METRICS_PORT": str(free_port()),
            "HOME": str(folder / "home"),
            "PYTHONPATH": str(ROOT),
            "LINES": "40",
            "COLUMNS": "120",
            "TERM": "xterm",
            "OMP_NUM_THREADS": "1",
        }
        self.seen: set[str] = set()

    def stand_in(self, text: str) -> str:
        """The text with folders and ports of this test in the place of the page's."""
        text = re.sub(r"(?<![\w./])/(data|mnt)\b", rf"{self.folder}/\1", text)
        return re.sub("|".join(self.ports), lambda found: self.ports[found[0]], text)

    def start(self, *words: str, **more: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen(words, cwd=self.here, env=self.environment, **more)  # type: ignore[call-overload]

    def attend(self, words: list[str], sign: str) -> int:
        """What stays open, in a terminal, until it shows the sign; then Ctrl-C."""
        ours, theirs = pty.openpty()
        process = self.start(sys.executable, "-m", "daemon", *words, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown = b""
        try:
            with suppress(OSError):  # it has ended, and its exit code says why
                while sign.encode() not in shown:
                    shown += os.read(ours, 65536)
            process.send_signal(signal.SIGINT)
            while process.poll() is None:
                try:
                    os.read(ours, 65536)
                except OSError:  # the other end is closed
                    break
            code = process.wait(20)
            return 0 if code in (130, -signal.SIGINT) and sign.encode() in shown else code
        finally:
            process.kill()
            os.close(ours)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """With the service and session of README, when it has judged what was there, and a word on each of its curves."""
    reader = Reader(tmp_path_factory.mktemp("reader"))
    line = next(line for block in blocks(README) for line in block.lines if line.startswith("afm-triage run "))
    reader.seen.add(line)
    with (reader.folder / "log").open("wb") as log:
        process = reader.start(sys.executable, "-m", "daemon", *words_of(reader.stand_in(line)), stderr=log)
    try:
        names = sorted(path.name for path in (reader.watch / "run7").iterdir())
        with pytest.MonkeyPatch.context() as patch:
            follow(reader, patch)
            for number in count():
                assert process.poll() is None, (reader.folder / "log").read_text()
                done = subprocess.run(
                    [sys.executable, "-m", "daemon", "events", "--since", "0"], cwd=reader.here, env=reader.environment,
                    capture_output=True, text=True, check=False,
                )  # fmt: skip
                if done.stdout.count("\n") == len(names):
                    break
                assert number < 100, done.stderr
                time.sleep(0.2)
            for name in names:
                assert cli.main(["labels", "add", f"run7/{name}", "keep", "--rater", "anna"]) == 0
            assert cli.main(["labels", "export", "--curves", "labelled"]) == 0
            a_cut(Registry(reader.state / "models"), read(SHIPPED), "my-cut")
            session = next(line for block in blocks(README) for line in block.lines if "triage session begin" in line)
            assert run_line(reader, session) == 0  # of which other pages speak too
        yield reader
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130), (reader.folder / "log").read_text()


def follow(reader: Reader, patch: pytest.MonkeyPatch) -> None:
    """From here on this process is the reader's: folder, home, ports."""
    patch.chdir(reader.here)
    for key in os.environ.keys() - reader.environment.keys():
        patch.delenv(key)
    for key, value in reader.environment.items():
        patch.setenv(key, value)


#: What a reader has by now, where a page does not make it itself.
STAND_INS = {"my-model": SHIPPED, "model-2": SHIPPED, "mine": Path("labelled"), "others": Path("labelled")}


def make_up(line: str) -> None:
    for before, word in pairwise(shlex.split(line)):
        if word in STAND_INS and before in {"--out", "--curves"}:
            shutil.rmtree(word, ignore_errors=True)  # of an earlier page
        elif word in STAND_INS and not Path(word).exists():
            shutil.copytree(STAND_INS[word], word)


def run_line(reader: Reader, line: str) -> int:
    """The exit code; a line of an earlier page is not run again."""
    if line in reader.seen:
        return 0
    reader.seen.add(line)
    make_up(line)
    verb = line.split()[1] if line.startswith("afm-triage ") else ""
    if verb in STAYING:
        free = ["--port", "0"] if verb == "review" else []  # other tests, and people, have pages too
        return reader.attend([*words_of(reader.stand_in(line)), *free], STAYING[verb])
    if verb:
        return cli.main(words_of(reader.stand_in(line)))
    return subprocess.run(["bash", "-ec", reader.stand_in(line)], cwd=reader.here, check=False).returncode


@pytest.mark.timeout(240)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_can_be_followed(
    page: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    follow(reader, monkeypatch)
    for block in blocks(page):
        if block.kind == "sh" and block.how == "run":
            for line in block.lines:
                code = run_line(reader, line)
                told = capsys.readouterr()
                assert code == block.ends(line), f"{page.name}:{block.line}: {line}: {code}\n{told.out}{told.err}"


@pytest.mark.parametrize(
    "block", [block for block in ALL if block.kind == "toml"], ids=lambda block: f"{block.page.name}:{block.line}"
)
def test_a_configuration_that_is_shown_can_be_read(block: Block, tmp_path: Path) -> None:
    text = re.sub(r"(?<=\")/(?=data|mnt)", f"{tmp_path}/", block.text)
    for folder in re.findall(rf'"({tmp_path}/[^"]*)"', text):
        Path(folder).mkdir(parents=True, exist_ok=True)
    file = tmp_path / "my-afm.toml"
    if re.search(r"^\[\w+\]\npublish = ", text, re.MULTILINE):  # the instruments of a collector
        file.write_text(text)
        for name in re.findall(r'^key = "(.+)"', text, re.MULTILINE):
            keys.write(tmp_path / name, keys.Key.new("collector", keys.Key.new("service").public))
        assert len(read_places(file)) == text.count("publish = ")
        return
    more = "" if "watch =" in text else f'watch = ["{tmp_path}/data"]\n'
    is_open = re.search(r'"tcp://(?!127\.0\.0\.1)', text) is not None  # which needs the key of a service
    file.write_text((f'state = "{tmp_path}/state"\n' if is_open else "") + more + text)
    assert not is_open or cli.main(["keys", "new", "--config", str(file)]) == 0
    assert cli.main(["check", str(file)]) == 0


#: A decision, the answer to a curve that was sent, the first bin of a histogram, the frame of a table.
PRINTED = (
    r"1 \w+ \S+ run7/",
    r"\[b'\{\"id\": ?\"run7-0042\", ?\"status\": ?\"accepted\"",
    r"\(-0\.\d+, 25\.0\] +\d+$",
    "┌─",
)


@pytest.mark.parametrize(
    "block", [block for block in ALL if block.kind == "python"], ids=lambda block: f"{block.page.name}:{block.line}"
)
def test_a_program_that_is_shown_prints_what_it_should(
    block: Block, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first line that it prints is asked for: one of them goes on for ever."""
    follow(reader, monkeypatch)
    if "kept.csv" in block.text:
        assert cli.main(["collect", "--since", "0", "--csv", "kept.csv"]) == 0
    if "tables/decisions" in block.text:
        assert cli.main(["events", "--to", "parquet", "--out", "tables"]) == 0
    process = reader.start(sys.executable, "-uc", reader.stand_in(block.text), stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        told = process.stdout.readline().decode()
        assert any(re.match(start, told) for start in PRINTED), told
    finally:
        process.kill()
        process.communicate(timeout=10)
