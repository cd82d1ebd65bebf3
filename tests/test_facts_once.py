"""What the program knows once: where each thing is done, and what to use in every other place."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(path for layer in ("models", "deploy", "daemon") for path in (ROOT / layer).rglob("*.py"))


@dataclass(frozen=True, slots=True)
class Fact:
    """``is_told(node)``: whether a piece of source does the thing itself; ``apart``: module -> why it may."""

    name: str
    home: str  # the one module that does it
    use: str  # what everybody else uses
    is_told: Callable[[ast.AST], bool]
    copy: str  # a line of source that would be a second place
    apart: dict[str, str] = field(default_factory=dict)


@cache
def nodes_of(source: str) -> tuple[ast.AST, ...]:
    """Once for all facts."""
    return tuple(ast.walk(ast.parse(source)))


@cache
@cache
def call_of(node: ast.AST) -> str:
    """``os.rename``, ``socket.bind``, ``open``: what a piece of source calls; "" where it calls nothing."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def calls(*names: str) -> Callable[[ast.AST], bool]:
    return lambda node: call_of(node) in names


def method(node: ast.AST) -> str:
    return node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""


def says(node: ast.AST, text: str) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and text in node.value


def puts_in_place(node: ast.AST) -> bool:
    """``fresh.replace(path)`` and ``fresh.rename(path)``; a text's ``replace`` takes two."""
    is_path = method(node) in ("replace", "rename") and isinstance(node, ast.Call) and len(node.args) == 1
    is_path = is_path and call_of(node) != "msgspec.structs.replace"
    return is_path or call_of(node) in ("os.rename", "os.replace", "shutil.move")


def writes_a_time(node: ast.AST) -> bool:
    """``isoformat``, ``strftime``, and a format of a time in an f-string; numpy and ``fromisoformat`` are others."""
    is_text = isinstance(node, ast.FormattedValue) and node.format_spec is not None and "%H" in ast.unparse(node)
    return is_text or method(node) in ("isoformat", "strftime") or call_of(node) in ("datetime.now", "datetime.utcnow")


def lists(*words: str) -> Callable[[ast.AST], bool]:
    """A tuple, list, set or Literal with all of these among its elements."""

    def tells(node: ast.AST) -> bool:
        parts = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else []
        return set(words) <= {part.value for part in parts if isinstance(part, ast.Constant)}

    return tells


FACTS = (
    Fact(
        "a file put in place whole",
        "models/files.py",
        "write_whole(path, content), or `with unfinished(path) as fresh:`, of models.files",
        puts_in_place,
        "fresh.replace(path)",
        {
            "daemon/archive/writer.py": "its unfinished file is locked, so that two runs do not write one archive",
            "daemon/instrument/__init__.py": "plays an instrument, which writes as it likes",
            "daemon/bench/line.py": "moves a folder of test files in as an instrument does",
        },
    ),
    Fact(
        "content that outlives a power failure",
        "models/files.py",
        "write_whole(path, content, is_synced=True), write_synced or sync_folder of models.files",
        calls("os.fsync", "os.fdatasync"),
        "os.fsync(file.fileno())",
        {
            "daemon/archive/writer.py": "HDF5 has written the file; its first bytes are written last",
            "daemon/batch/output.py": "a file that grows line by line is synced at its end",
            "deploy/engine_cache.py": "the maker of an engine has written the files",
        },
    ),
    Fact(
        "a lock between processes",
        "daemon/common/locks.py",
        "lock or lock_where_possible of daemon.common.locks",
        lambda node: isinstance(node, ast.Import) and any(one.name == "fcntl" for one in node.names),
        "import fcntl",
    ),
    Fact(
        "nothing is written into a watched folder",
        "daemon/client/folders.py",
        "refuse_watched({option: target}, config) of daemon.client.folders",
        lambda node: says(node, " lies in the watched folder "),
        'raise UserError(64, f"{target} lies in the watched folder {folder}")',
    ),
    Fact(
        "what the file of the ledger is called",
        "daemon/config/origin.py",
        "ledger_file of the configuration, or LEDGER_FILE of daemon.config.origin in another folder",
        lambda node: says(node, "ledger.sqlite"),
        'state / "ledger.sqlite"',
    ),
    Fact(
        "how a time is written",
        "models/clock.py",
        "utc_now, rfc3339, time_of_day or today of models.clock",
        writes_a_time,
        'time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())',
    ),
    Fact(
        "the seconds of a time that we wrote",
        "models/clock.py",
        "since_1970 of models.clock",
        lambda node: method(node) == "timestamp" and "fromisoformat" in ast.unparse(node),
        "datetime.fromisoformat(written).timestamp()",
        {"daemon/ledger/span.py": "a time that a person typed"},
    ),
    Fact(
        "that OpenMP's threads do not spin",
        "daemon/cli.py",
        "nothing: daemon/cli.py sets it before any verb is imported, and child processes inherit it",
        lambda node: says(node, "GOMP_SPINCOUNT"),
        'os.environ.setdefault("GOMP_SPINCOUNT", "0")',
        {"daemon/blocks/node.py": "is no child of a verb: Ray has started it"},
    ),
    Fact(
        "the devices",
        "deploy/classifier.py",
        "Device of deploy.classifier, DEVICES of deploy.engines",
        lists("cpu", "cuda"),
        'parser.add_argument("--device", choices=("auto", "cpu", "cuda"))',
    ),
    Fact(
        "the precisions",
        "deploy/classifier.py",
        "Precision of deploy.classifier, PRECISIONS of deploy.engines",
        lists("fp32", "fp16"),
        'PRECISIONS = ("auto", "fp32", "bf16", "fp16")',
    ),
    Fact(
        "how a ZeroMQ socket is bound",
        "daemon/common/sockets.py",
        "bind of daemon.common.sockets",
        lambda node: method(node) == "bind",
        "self._socket.bind(endpoint)",
        {
            "daemon/client/service_file.py": "looks for a free port",
            "daemon/common/allowed.py": "where ZeroMQ asks who may come: within the process, reached by nobody else",
        },
    ),
    Fact(
        "who is logged in",
        "daemon/common/options.py",
        "this_user of daemon.common.options",
        calls("getpass.getuser", "os.getlogin"),
        "by = getpass.getuser()",
    ),
    Fact(
        "how tables of people's programs are read",
        "daemon/labels/table.py",
        "read_csv of daemon.labels.table",
        calls("csv.reader", "csv.DictReader"),
        "rows = csv.reader(file)",
        {"daemon/formats/text_layout.py": "a line of a text of numbers, whose quotes hold its separator"},
    ),
)


def told_in(source: str, fact: Fact) -> Iterator[int]:
    """The lines that do the thing themselves."""
    return (getattr(node, "lineno", 0) for node in nodes_of(source) if fact.is_told(node))


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.name)
def test_a_fact_is_told_in_one_place(fact: Fact) -> None:
    names = {str(path.relative_to(ROOT)): path for path in MODULES}
    told = {name: list(told_in(path.read_text(), fact)) for name, path in names.items()}
    others = {name: lines for name, lines in told.items() if lines and name not in (fact.home, *fact.apart)}
    assert not others, f"{fact.name} stands in {fact.home}. Use {fact.use}, in place of what stands in {others}"
    idle = [name for name in (fact.home, *fact.apart) if not told.get(name)]
    assert not idle, f"{fact.name}: {idle} have nothing of it any more; correct the table in this test"


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.name)
def test_a_second_place_is_seen(fact: Fact) -> None:
    assert list(told_in(fact.copy, fact))


def test_nobody_else_takes_an_envelope_apart() -> None:
    """``recv_multipart`` of a ROUTER is followed by ``open_envelope``: who answers, answers through it."""
    for path in MODULES:
        source = path.read_text()
        is_router = "zmq.ROUTER" in source
        assert not is_router or "open_envelope(" in source, f"{path.name}: use open_envelope of daemon.common.sockets"
