"""README and deploy/docs: short enough to be read, and every link leads to where it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from daemon.cli import SHELVES, VERBS, main

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "deploy" / "docs").glob("*.md"))
PAGES = [README, *DOCS]
LINKED = [*PAGES, ROOT / "CHANGELOG.md", *sorted((ROOT / "deploy").glob("*/*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def without_blocks(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The names that GitHub and most others give to headings."""
    return {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in HEADING.findall(without_blocks(page))}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(without_blocks(page)):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), f"{page.name}: {link} is not there"
        assert not anchor or anchor in anchors(there), f"{page.name}: {there.name} has no heading {anchor}"


def test_every_page_is_found_from_readme_and_leads_back() -> None:
    assert len(README.read_text().splitlines()) <= 130
    named = {link.partition("#")[0] for link in LINK.findall(README.read_text())}
    for page in DOCS:
        assert str(page.relative_to(ROOT)) in named, f"README names no {page.name}"
        assert "](../../README.md)" in page.read_text(), f"{page.name} leads nowhere"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_heading_is_empty(page: Path) -> None:
    text = without_blocks(page)
    assert text.startswith("# ")
    assert not re.search(r"^(#+) .*\n\s*(?:\1 .*|\Z)", text, re.MULTILINE), "a heading with nothing below it"
    names = HEADING.findall(text)
    assert len(names) == len(set(names)), f"two headings of one name: {names}"


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_names_the_page_that_tells_it(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    (page,) = [
        line.removeprefix("more: ") for line in capsys.readouterr().out.splitlines() if line.startswith("more: ")
    ]
    assert re.search(rf"\b{verb}\b", Path(page).read_text()), f"{Path(page).name} does not tell {verb}"
    assert sum(verb in verbs for verbs in SHELVES.values()) == 1, "in --help it stands where it is looked for"
