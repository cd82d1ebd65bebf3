"""Three plain top-level names are ours alone: a package like python-daemon would silently replace ours."""

from __future__ import annotations

import re
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import daemon
import deploy
import models

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("package", [daemon, deploy, models], ids=lambda package: package.__name__)
def test_nobody_else_owns_our_names(package: object) -> None:
    owners = set(packages_distributions().get(package.__name__, ()))  # type: ignore[attr-defined]
    assert owners <= {"afm-triage"}, f"uninstall {owners - {'afm-triage'}}: it replaces our package {package}"
    assert Path(package.__file__).is_relative_to(ROOT)  # type: ignore[attr-defined]


def test_every_verb_of_the_table_has_a_module() -> None:
    from daemon.cli import VERBS

    modules = {path.stem for path in (ROOT / "daemon" / "verbs").glob("[a-z]*.py")}
    assert set(VERBS) == modules


def test_every_package_that_is_needed_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    lines = [line for line in text.splitlines() if re.match(r'  "[\w-]+[><=]', line)]
    assert len(lines) > 20
    bare = [line for line in lines if not re.search(r'",\s+# \w', line)]
    assert not bare, f"say beside it what it is for: {bare}"
    block = text[text.index("\ndependencies = [") : text.index("[project.optional-dependencies]")]
    needed = {name.lower() for name in re.findall(r'^  "([\w-]+)', block, re.M)}
    page = (ROOT / "deploy" / "docs" / "developers.md").read_text()
    table = page[page.index("## What it stands on") : page.index("## The shipped model again")]
    assert not {name for name in needed if not re.search(rf"\b{name}\b", table)}, "the page has the same list"
