"""Every reason of a verdict stands once, in models/reasons.py; here every place that makes one is held against it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.reasons import BLOCKING, DOUBTS, INFORMING, LIFTING, NOTED, REASONS, UNREADABLE

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(path for layer in ("models", "deploy", "daemon") for path in (ROOT / layer).rglob("*.py"))
LIST = ROOT / "models" / "reasons.py"
#: What has columns of reasons, and notes on commits: it hands reasons on, and makes none.
TABLES = ROOT / "daemon" / "tables"

#: Notes of a reader that tell where a curve comes from, or how, and are no reasons of a verdict.
ONLY_NOTES = {"simulated", "averaged", "unit_assumed"}
#: What a file is instead of a curve: it ends without an event.
NO_VERDICT = {"image", "table", "unclaimed"}

_WORD = re.compile(r"[a-z]+(_[a-z0-9]+)*")
_HOLDS = re.compile(r"_?(reasons?|notes?|why)")  # a name that holds words
_TELLS = re.compile(r".*(reason|note)s?_?.*|_why")  # a function that returns them
#: A class -> the place of its words.
_TAKES = {
    "Unreadable": 0,
    "Unfinished": 0,
    "NotACurve": 0,
    "Prepared": 1,
    "Scored": 1,
}
_MISSING = """{path}:{line} makes "{word}", which no list has. For a verdict, give it a line in models/reasons.py with
its text and its effect. For a note that is no reason of a verdict: ONLY_NOTES here; for a word that ends without an
event: NO_VERDICT here."""


def words_in(value: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, word) that an expression may come to: not what it is compared with, looked up by or formatted from."""
    parts: list[ast.expr] = []
    if isinstance(value, ast.Constant) and isinstance(value.value, str) and _WORD.fullmatch(value.value):
        yield value.lineno, value.value
    elif isinstance(value, ast.Starred):
        parts = [value.value]
    elif isinstance(value, ast.IfExp):
        parts = [value.body, value.orelse]
    elif isinstance(value, ast.Dict):  # a note -> whether it holds
        parts = [key for key in value.keys if key is not None]
    elif isinstance(value, ast.BoolOp):
        parts = value.values
    elif isinstance(value, ast.Tuple | ast.List | ast.Set):
        parts = value.elts
    elif isinstance(value, ast.BinOp):
        parts = [value.left, value.right]
    for part in parts:
        yield from words_in(part)


def made_in(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, word) of every reason and every note that a module makes."""
    takes = _TAKES | places_of_reason(tree)
    for node in ast.walk(tree):
        values: list[ast.expr | None] = []
        if isinstance(node, ast.Call):
            place = takes.get(name_of(node.func))
            if name_of(node.func) == "append" and isinstance(node.func, ast.Attribute) and holds(node.func.value):
                place = 0
            values = [word.value for word in node.keywords if _HOLDS.fullmatch(word.arg or "")]
            values += node.args[place : place + 1] if place is not None else []
        elif isinstance(node, ast.Assign):
            values = [node.value] if any(map(holds, node.targets)) else []
        elif isinstance(node, ast.AnnAssign | ast.AugAssign):
            values = [node.value] if holds(node.target) else []
        elif isinstance(node, ast.FunctionDef) and _TELLS.fullmatch(node.name):
            values = [
                inner.value
                for inner in ast.walk(node)
                if isinstance(inner, ast.Return) and not isinstance(inner.value, ast.Dict)
            ]
        elif isinstance(node, ast.Tuple | ast.List):
            values = [node] if any(isinstance(part, ast.Starred) and holds(part.value) for part in node.elts) else []
        elif isinstance(node, ast.Dict):  # a header of a frame
            values = [value for key, value in zip(node.keys, node.values, strict=True) if key and says_reason(key)]
        for value in values:
            if value is not None:
                yield from words_in(value)


def name_of(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def holds(target: ast.AST) -> bool:
    return bool(_HOLDS.fullmatch(name_of(target)))


def says_reason(key: ast.AST) -> bool:
    return isinstance(key, ast.Constant) and key.value in ("reason", "reasons", "notes")


def places_of_reason(tree: ast.Module) -> dict[str, int]:
    """Functions of a module -> which argument of theirs is a reason."""
    found: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            names = [one.arg for one in node.args.args if one.arg != "self"]
            found |= {node.name: names.index("reason")} if "reason" in names else {}
    return found


@pytest.fixture(scope="module")
def made() -> dict[str, tuple[str, int]]:
    """word -> a place that makes it."""
    return {
        word: (str(path.relative_to(ROOT)), line)
        for path in MODULES
        for line, word in made_in(ast.parse(path.read_text()))
        if path != LIST and not path.is_relative_to(TABLES)
    }


def test_every_reason_that_is_made_stands_in_the_list(made: dict[str, tuple[str, int]]) -> None:
    unknown = set(made) - set(REASONS) - ONLY_NOTES - NO_VERDICT
    told = [_MISSING.format(path=made[word][0], line=made[word][1], word=word) for word in sorted(unknown)]
    assert not told, "\n".join(told)


def test_every_reason_of_the_list_is_made_somewhere(made: dict[str, tuple[str, int]]) -> None:
    idle = sorted(set(REASONS) - set(made))
    assert not idle, f"{idle} stand in models/reasons.py and nothing makes them: delete the lines, or find them"
    assert set(made) >= ONLY_NOTES | NO_VERDICT, "delete from this test what nothing makes any more"


def test_the_list_tells_every_reason_in_words_and_each_has_one_effect() -> None:
    for word, reason in REASONS.items():
        assert _WORD.fullmatch(word), f"{word}: a reason is a short snake_case word"
        assert len(reason.text.split()) > 3, f"{word}: say in a sentence what was found, for whoever measured the curve"
    assert len({reason.text for reason in REASONS.values()}) == len(REASONS)
    assert set(REASONS) == BLOCKING | LIFTING | INFORMING
    assert not BLOCKING & LIFTING
    assert not DOUBTS & INFORMING
    assert UNREADABLE < BLOCKING
    assert not UNREADABLE & NOTED


def test_the_table_of_files_md_says_what_each_reason_does() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| (yes|no) \|$", (ROOT / "deploy/docs/files.md").read_text(), re.MULTILINE)
    assert {word for word, _ in rows} >= NOTED, "a reason that a reader notes has its row in files.md"
    for word, may_be_discarded in rows:
        assert (may_be_discarded == "yes") == (word in INFORMING), f"files.md tells {word} otherwise than its effect"


@pytest.mark.parametrize(
    "code",
    [
        'raise Unreadable("new_word")',
        'raise Unfinished("truncated" if short else "new_word")',
        'return Prepared(None, ("new_word",))',
        'FAILED = Scored(None, ("new_word",))',
        'reasons.append("new_word")',
        'reasons += ["new_word"] if odd else []',
        'reasons = [] if contact else ["new_word"]',
        'verdict, told = "review", (*reasons, "new_word")',
        'Curve(force, notes=("new_word",))',
        'notes = {"new_word": odd}',
        'header = {"reason": "new_word"}',
        'def _reasons_of_shape(curve):\n    return ["new_word"] if odd else []',
        'def _lose(task, reason):\n    pass\n_lose(task, "new_word")',
    ],
)
def test_a_place_that_makes_a_reason_is_seen(code: str) -> None:
    assert "new_word" in {word for _, word in made_in(ast.parse(code))}
