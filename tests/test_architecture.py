"""The shape of the program is a rule, so it is a test (deploy/decisions/0001)."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: The rooms of the program, lowest first. A room imports from those below it; rooms of one line are siblings and never
#: import each other.
LAYERS = (
    "models",
    "deploy",
    "common",
    "formats processes charts",
    "config engine instrument",
    "sources",
    "reading",
    "judging",
    "ledger metrics",
    "publish labels",
    "client",
    "pipeline batch learn explain guard notify tables",
    "archive",
    "service screens bench review collect report blocks",
    "verbs",
    "cli",
    "__main__",
)
HEIGHT = {room: height for height, rooms in enumerate(LAYERS) for room in rooms.split()}
#: What stands in deploy/examples is a user's, and not of the program: it imports nothing of ours.
MODULES = sorted(
    path
    for top in ("models", "deploy", "daemon")
    for path in (ROOT / top).rglob("*.py")
    if not path.is_relative_to(ROOT / "deploy" / "examples")
)
#: 180 are the house; its wings (review, guard, collect and what they rest on) may bring it to 240.
MOST_MODULES = 240
LONGEST_LINES = 450
#: Module -> why it is longer.
LONG_FOR_A_REASON: dict[str, str] = {}
#: A module shorter than this, which only one sibling imports, is a part of that sibling.
SHORTEST_LINES = 60
#: Module -> why it is not.
SHORT_FOR_A_REASON: dict[str, str] = {}
#: The seams of the program, and every other Protocol with its reason.
PROTOCOLS = {
    "daemon/sources/__init__.py:Source": "seam: where files come from",
    "daemon/formats/base.py:Reader": "seam: what understands a format",
    "deploy/classifier.py:Classifier": "seam: what runs the network",
    "daemon/formats/base.py:CurveFile": "what a Reader opens: its other half",
    "models/loss.py:Loss": "a frozen value that is called; seven of them, chosen by name",
    "models/heads.py:Features": "what a head looks at: linear features become a model, the others only rank",
}
#: What turns data into code, or runs a shell; weights are read from safetensors, and nothing else is unpacked.
FORBIDDEN = {
    "pickle",
    "cPickle",
    "_pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "yaml",
    "code",
    "pty",
}
FORBIDDEN_CALLS = {
    *("eval", "exec", "compile"),
    *(
        "torch.load",
        "torch.save",
        "torch.jit.load",
        "torch.export.load",
        "torch.hub.load",
        "torch.package.PackageImporter",
    ),
    *("pd.read_pickle", "pandas.read_pickle", "h5py.h5pl.append"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell"),
}
#: What is held to the same, and is no part of the program: experiments, and what a user copies.
APART = sorted([*(ROOT / "tests" / "studies").rglob("*.py"), *(ROOT / "deploy" / "examples").rglob("*.py")])


def imports_of(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def dotted(path: Path) -> str:
    """``daemon/sources/__init__.py`` -> ``daemon.sources``."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def room_of(module: str) -> str:
    """``daemon.sources.scan`` -> ``sources``; ``models.curve`` -> ``models``."""
    top, _, rest = module.partition(".")
    return rest.partition(".")[0] if top == "daemon" and rest else top


TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
NAMES = {dotted(path): path for path in MODULES}


def arrows_of(name: str) -> set[str]:
    """Modules of ours that a module imports, or takes names from, at its top or inside a function."""
    arrows: set[str] = set()
    for node in ast.walk(TREES[NAMES[name]]):
        if isinstance(node, ast.Import):
            arrows |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            arrows |= parts & NAMES.keys() or {node.module}
            if not parts <= NAMES.keys():
                arrows.add(node.module)  # a name of the package itself, beside one of its modules
    return (arrows & NAMES.keys()) - {name}


ARROWS = {name: arrows_of(name) for name in NAMES}


def test_a_room_imports_only_from_rooms_below_it() -> None:
    wrong = []
    for name in NAMES.keys() - {"daemon"}:
        room = room_of(name)
        assert room in HEIGHT, f"{name}: give the room {room} a place in LAYERS"
        for imported in ARROWS[name] - {"daemon"}:
            other = room_of(imported)
            if other != room and HEIGHT[other] >= HEIGHT[room]:
                wrong.append(f"{name} imports {imported}: {other} lies not below {room}")
    assert not wrong


def test_no_module_imports_itself_in_a_circle() -> None:
    """Not even through an import inside a function: whoever reads one of them has to read all."""
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle: {' -> '.join((*path[path.index(name) :], name))}"
        if name not in done:
            for imported in sorted(ARROWS[name]):
                visit(imported, (*path, name))
            done.add(name)

    for name in NAMES:
        visit(name, ())


def test_there_are_no_more_modules_than_a_newcomer_can_learn() -> None:
    assert len(MODULES) <= MOST_MODULES, "put what you add into the module of its noun, or merge two that are one"


def test_no_module_is_a_mere_part_of_its_one_importer() -> None:
    for name, path in NAMES.items():
        importers = {other for other, imported in ARROWS.items() if name in imported}
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines >= SHORTEST_LINES or len(importers) != 1 or path.name == "__init__.py" or name in SHORT_FOR_A_REASON:
            continue
        (importer,) = importers
        is_sibling = NAMES[importer].parent == path.parent
        assert not is_sibling, f"{name}: {lines} lines that {importer} alone uses; fold it in, or give a reason here"


def test_a_module_is_no_heap_of_former_modules() -> None:
    """A banner across a module is the docstring of another noun: fold it in, or give that noun a module."""
    banners = [str(path.relative_to(ROOT)) for path in MODULES if re.search(r"^# -{3,}", path.read_text("utf-8"), re.M)]
    assert not banners


def test_protocols_stand_at_the_seams() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{node.name}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "Protocol" for base in node.bases)
    }
    assert found == PROTOCOLS.keys(), "a Protocol is a seam: use the class itself, or name the seam and its reason"


@pytest.mark.parametrize("path", [*MODULES, *APART], ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_turns_data_into_code(path: Path) -> None:
    tree = TREES[path] if path in TREES else ast.parse(path.read_text(encoding="utf-8"))
    assert not {name.split(".")[0] for name in imports_of(tree)} & FORBIDDEN
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            assert call not in FORBIDDEN_CALLS, f"{path.name}:{node.lineno}"
            if call in ("np.load", "np.save"):  # both pickle what is no plain array, unless told not to
                assert "allow_pickle" in {word.arg for word in node.keywords}, f"{path.name}:{node.lineno}"
            for word in node.keywords:
                value = word.value.value if isinstance(word.value, ast.Constant) else None
                assert not (word.arg in ("shell", "allow_pickle") and value is not False), f"{path.name}:{node.lineno}"


def test_nothing_is_imported_that_pyproject_does_not_name() -> None:
    named = {
        one.lower() for one in re.findall(r'^(?:  |.*\[)"([\w-]+)[><=]', (ROOT / "pyproject.toml").read_text(), re.M)
    }
    known = named | {"pillow", "torch-tensorrt", "daemon", "models", "deploy"}  # pillow comes with matplotlib
    owners = packages_distributions()
    for path, tree in TREES.items():
        for name in {one.partition(".")[0] for one in imports_of(tree)} - sys.stdlib_module_names:
            bringing = {one.lower().replace("_", "-") for one in [*owners.get(name, []), name]}
            assert bringing & known, f"{path.relative_to(ROOT)} imports {name}, which no line of pyproject names"


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
    [
        *("daemon.reading.worker", "daemon.verbs.console", "daemon.verbs.events", "daemon.sources.watch"),
        *("daemon.ledger", "daemon.explain"),
    ],
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


def test_nothing_waits_without_a_limit_and_no_handler_or_context_is_made_elsewhere() -> None:
    wrong = []
    for path, tree in TREES.items():
        name = str(path.relative_to(ROOT))
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            call, place = ast.unparse(node.func), f"{name}:{node.lineno}"
            if name not in ONLY_IN.get(call, {name}):
                wrong.append(f"{place}: {call} stands elsewhere")
            is_waiting = isinstance(node.func, ast.Attribute) and node.func.attr in WAITING
            if is_waiting and not (node.args or node.keywords):
                wrong.append(f"{place}: {call} without a limit")
            if call == "subprocess.run" and "timeout" not in {word.arg for word in node.keywords}:
                wrong.append(f"{place}: {call} without a limit")
    assert not wrong
