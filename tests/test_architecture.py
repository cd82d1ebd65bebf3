"""The shape of the program is a rule, so it is a test (deploy/decisions/0001)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYER = {"models": 0, "deploy": 1, "daemon": 2}
MODULES = sorted(path for layer in LAYER for path in (ROOT / layer).rglob("*.py"))
LONGEST_LINES = 450
#: Module -> why it is longer.
LONG_FOR_A_REASON: dict[str, str] = {}
#: Names that turn data into code, or run a shell.
FORBIDDEN = {"pickle", "cPickle", "marshal", "shelve", "dill", "joblib", "yaml"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "torch.load",
    "torch.jit.load",
    "torch.export.load",
    "os.system",
    "os.popen",
}


def imports_of(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down_and_nothing_turns_data_into_code(path: Path) -> None:
    tree = ast.parse(path.read_text())
    layer = LAYER[path.relative_to(ROOT).parts[0]]
    imports = imports_of(tree)
    upward = {name for name in imports if LAYER.get(name.split(".")[0], -1) > layer}
    assert not upward, f"{path.name} imports upward: {upward}"
    assert not {name.split(".")[0] for name in imports} & FORBIDDEN
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            assert call not in FORBIDDEN_CALLS, f"{path.name}:{node.lineno}"
            if call in ("np.load", "np.save"):  # both pickle what is no plain array, unless told not to
                assert "allow_pickle" in {word.arg for word in node.keywords}, f"{path.name}:{node.lineno}"
            for word in node.keywords:
                value = word.value.value if isinstance(word.value, ast.Constant) else None
                assert not (word.arg in ("shell", "allow_pickle") and value is True), f"{path.name}:{node.lineno}"


def test_nobody_imports_tensorrt_at_module_level() -> None:
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            assert not any(
                name.startswith("torch_tensorrt")
                for name in imports_of(node)
                if node.__class__.__name__.startswith("Import")
            )


def test_a_module_is_as_long_as_its_noun() -> None:
    """A noun cut into pieces for a line count is as hard to read as two nouns in one module."""
    sizes = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in MODULES}
    too_long = {name: size for name, size in sizes.items() if size > LONGEST_LINES and name not in LONG_FOR_A_REASON}
    assert not too_long, f"more than {LONGEST_LINES} lines: two nouns, or a reason to be named here: {too_long}"


@pytest.mark.parametrize(
    "module",
    ["daemon.reading.worker", "daemon.verbs.console", "daemon.verbs.events", "daemon.sources.watch", "daemon.ledger"],
)
def test_what_must_stay_light_does_not_import_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


#: Where handlers of signals are set (daemon/common/ending.py says why nowhere else), and where the one context is made.
ONLY_IN = {
    "signal.signal": {
        "daemon/common/ending.py",
        "daemon/cli.py",
        "daemon/__main__.py",
        "daemon/processes/child.py",
        "daemon/engine/worker.py",
    },
    "zmq.Context": {"daemon/common/sockets.py"},
}
WAITING = ("wait", "join", "communicate", "term", "destroy")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_waits_without_a_limit_and_no_handler_or_context_is_made_elsewhere(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        call = ast.unparse(node.func)
        assert name in ONLY_IN.get(call, {name}), f"{name}:{node.lineno}: {call}"
        if isinstance(node.func, ast.Attribute) and node.func.attr in (
            "wait",
            "join",
            "communicate",
            "term",
            "destroy",
        ):
            assert node.args or node.keywords, f"{name}:{node.lineno}: {call} without a limit"
        if call == "subprocess.run":
            assert "timeout" in {word.arg for word in node.keywords}, f"{name}:{node.lineno}: {call} without a limit"
