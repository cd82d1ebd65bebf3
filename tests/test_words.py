"""Texts point to what exists, inside the repository, in words that the glossary explains."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from daemon.cli import GONE, LATER, VERBS
from tests.studies.__main__ import TOPICS

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = sorted(path for folder in ("daemon", "deploy", "models") for path in (ROOT / folder).rglob("*.py"))
PYTHON = [*PRODUCT, *sorted((ROOT / "tests").rglob("*.py"))]
PAGES = [ROOT / "README.md", ROOT / "Makefile", *sorted((ROOT / "deploy").glob("**/*.md"))]
MEASURED = ROOT / "deploy/measurements"  # what was printed on a day stays as it was printed
TEXTS = [path for path in (*PYTHON, *PAGES, *sorted((ROOT / "systemd").iterdir())) if path.parent != MEASURED]
GLOSSARY = ROOT / "deploy/glossary.md"
WRITTEN_BY_US = {"card.md", "build/soak.md", "build/gpu.md"}  # pages that programs write: of a model, a soak, a GPU

#: Papers that stand in no repository, and the ways in which comments used to point to them.
OUTSIDE = re.compile(r"\bcontract (?:§|section)|\b(?:of|in|by) the contract\b|\(contract\)|§ ?\d", re.IGNORECASE)
PAGE = re.compile(r"(?<![\w/.-])((?:[\w-]+/)*[\w-]+\.md)\b")
PATH = re.compile(r"(?<![\w./-])((?:daemon|deploy|models|tests|systemd)/[\w./*@-]*[\w*])")
MODULE = re.compile(r"(?<![\w/.-])((?:daemon|deploy|models|tests)(?:\.[A-Za-z_]\w*)+)")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def lines_with(pattern: re.Pattern[str], path: Path) -> list[tuple[str, str]]:
    """(place, what was found), match by match."""
    text = path.read_text()
    return [
        (f"{relative(path)}:{text.count(chr(10), 0, found.start()) + 1}", found[found.re.groups])
        for found in pattern.finditer(text)
    ]


def test_texts_point_to_nothing_outside_the_repository() -> None:
    read = [path for path in TEXTS if path != Path(__file__)]
    outside = [f"{place}: {found}" for path in read for place, found in lines_with(OUTSIDE, path)]
    assert not outside, f"say the fact itself, or point to a page under deploy/: {outside}"


def test_pages_that_texts_name_exist() -> None:
    gone = []
    for path in TEXTS:
        if ROOT / "tests" in path.parents:
            continue  # tests make up pages
        for place, page in lines_with(PAGE, path):
            there = (folder / page for folder in (ROOT, path.parent, ROOT / "deploy", ROOT / "deploy" / "docs"))
            if page not in WRITTEN_BY_US and not any(one.exists() for one in there):
                gone.append(f"{place}: there is no {page}")
    assert not gone


@cache
def exists(name: str) -> bool:
    """A path as texts write it: with or without .py, with stars, a decision by its number alone."""
    if re.fullmatch(r"deploy/decisions/\d{4}", name):
        name += "-*.md"
    return any(any(ROOT.glob(name + suffix)) for suffix in ("", ".py", "*.service"))


def test_paths_that_texts_name_exist() -> None:
    read = [path for path in TEXTS if path.suffix != ".py" or ROOT / "tests" not in path.parents]  # tests make up paths
    gone = [f"{place}: {name}" for path in read for place, name in lines_with(PATH, path) if not exists(name)]
    assert not gone, f"no such file or folder; it was moved or never came: {gone}"


@cache
def is_module(name: str) -> bool:
    """A module or package of ours, or a name that stands in one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:count])
        if base.with_suffix(".py").is_file() or base.is_dir():
            file = base.with_suffix(".py") if base.with_suffix(".py").is_file() else base / "__init__.py"
            return count == len(parts) or (
                file.is_file() and re.search(rf"\b{parts[count]}\b", file.read_text()) is not None
            )
    return False


def test_modules_that_comments_and_docstrings_name_exist() -> None:
    gone = []
    for path in PRODUCT:
        text = path.read_text()
        nodes = (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef))
        said = [*(ast.get_docstring(node) or "" for node in nodes), *re.findall(r"#.*", text)]
        found = (name[1] for line in said for name in MODULE.finditer(line))
        gone += [f"{relative(path)}: {name}" for name in found if not is_module(name)]
    assert not gone, f"these name what is not there: {gone}"


def test_commands_that_texts_name_exist() -> None:
    verbs = {*VERBS, *LATER, *GONE, "check"}
    for path in TEXTS:
        if ROOT / "tests" in path.parents:
            continue
        for place, verb in lines_with(re.compile(r"bin/afm-triage ([a-z]+)"), path):
            assert verb in verbs, f"{place}: there is no verb {verb}"
        for place, topic in lines_with(re.compile(r"TOPIC=([a-z][a-z-]*)"), path):
            assert topic in TOPICS, f"{place}: there is no study {topic}"


def test_what_is_switched_off_says_why() -> None:
    silent = []
    for path in (one for one in PYTHON if "tests" not in one.parts or "studies" in one.parts):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if off := re.search(r"# (?:noqa|type: ignore)(.*)", line):
                why = re.fullmatch(r"(?:: [A-Z0-9, ]+ - |\[[a-z, -]+\]  # )\S.*", off[1])
                silent += [] if why else [f"{relative(path)}:{number}"]
    assert not silent, f"say why: `# noqa: CODE - why` or `# type: ignore[code]  # why`: {silent}"


def entries() -> list[tuple[str, str]]:
    """(words, meaning), line by line."""
    lines = GLOSSARY.read_text().split("\n\n", 2)[2].splitlines()
    found = [re.fullmatch(r"\* \*\*([a-z, ]+)\*\*: (\S.*[^.:,;])\.", line) for line in lines]
    odd = [line for line, entry in zip(lines, found, strict=True) if entry is None]
    assert not odd, f"one line a word, `* **word**: meaning.`: {odd}"
    return [(entry[1], entry[2]) for entry in found if entry]


def test_the_glossary_is_short_and_in_order() -> None:
    words = [word for word, _ in entries()]
    assert words == sorted(words)
    assert 30 <= len(words) <= 40, "thirty words are read, a hundred are not"
    assert all(len(word) + len(meaning) < 130 for word, meaning in entries())
    assert "deploy/glossary.md" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("word", [word for words, _ in entries() for word in words.split(", ")])
def test_the_code_uses_the_words_of_the_glossary(word: str) -> None:
    pattern = re.compile(rf"(?<![a-z]){word.replace(' ', '[ _]')}", re.IGNORECASE)
    assert any(pattern.search(path.read_text()) for path in PRODUCT), f"nothing is called {word}: take it out"


def test_settle_and_archive_mean_one_thing_each() -> None:
    """The words that had three meanings: functions, classes and attributes of that name stand in one room each."""
    rooms = {
        "settle": ("daemon/sources/", "daemon/pipeline.py"),
        "archive": ("daemon/archive/", "daemon/verbs/", "daemon/collect/", "daemon/blocks/"),
    }
    for path in PRODUCT:
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.name if isinstance(node, ast.ClassDef | ast.FunctionDef) else ""
            name = node.attr if isinstance(node, ast.Attribute) else name
            parts = re.findall(r"[a-z]+", re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()) if name else ()
            for word, places in rooms.items():
                if word in parts or f"{word}d" in parts:
                    assert relative(path).startswith(places), f"{relative(path)}:{node.lineno}: {name}"


def test_a_rule_that_is_switched_off_says_why() -> None:
    """Ruff's and mypy's settings: a comment beside each line of ignored rules, or above what is left out."""
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    start = lines.index("ignore = [")
    ignored = lines[start + 1 : lines.index("]", start)]
    assert ignored
    for line in ignored:
        assert "  # " in line, f"pyproject.toml: say why this is ignored: {line.strip()}"
    for number, line in enumerate(lines):
        if line.startswith(('"tests/**" = ', "exclude = ", "[[tool.mypy.overrides]]")):
            assert "  # " in line or lines[number - 1].startswith("# "), f"pyproject.toml: say why: {line}"
