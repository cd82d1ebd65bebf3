"""The page: one HTML file that needs no other, runs no code, and reads well on a screen, dark or light, and on paper.

Everything given is text and is escaped here, but for pictures, which are SVG of :mod:`daemon.charts`. A picture is
enlarged by a click: a link to itself, as a style sheet alone can do it. A path is selected whole by a click.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from daemon.common.text import clean

STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --soft: #5b6b7b; --line: #d5dde5; --paper: #ffffff; --band: #f2f6fa;
  --event: #0b7a75; --none: #9a6a00; --mark: #b3261e }
@media (prefers-color-scheme: dark) { :root { --ink: #e4eaf0; --soft: #9fb0c0; --line: #33414f; --paper: #12181f;
  --band: #1b242e; --event: #4fc3b8; --none: #e0b050; --mark: #ff8a80 } }
@page { size: A4 landscape; margin: 12mm }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; color: var(--ink);
  background: var(--paper) }
h1 { font-size: 1.6rem; line-height: 1.25; margin-bottom: .2rem } h2 { font-size: 1.2rem; margin-top: 2.2rem }
h1, p, li { overflow-wrap: anywhere }
p, ul { max-width: 60rem } small, .soft { color: var(--soft); font-weight: 400 }
.lead { font-size: 1.1rem }
.warning { border-left: 4px solid var(--mark); background: var(--band); padding: .6rem 1rem }
.well { border-left: 4px solid var(--event); background: var(--band); padding: .6rem 1rem }
code { font: .85em/1.4 ui-monospace, monospace; overflow-wrap: anywhere; user-select: all; -webkit-user-select: all;
  background: var(--band); border-radius: .2rem; padding: 0 .2rem }
nav { display: flex; flex-wrap: wrap; gap: .4rem .8rem; margin: 1rem 0 } nav a { color: var(--event) }
.wide { overflow-x: auto }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; font-size: .84rem }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top }
th:first-child, td:first-child { text-align: left; overflow-wrap: break-word; min-width: 7rem; max-width: 30rem }
th { vertical-align: bottom; color: var(--soft); line-height: 1.25 }
th.group { text-align: center } td.words, th.words { text-align: left; overflow-wrap: break-word }
td small { display: block; font-size: .78rem }
tr.strong { font-weight: 600; background: var(--band) } td.bad { color: var(--mark); font-weight: 600 }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .8rem; margin: 1.2rem 0 }
.tile { background: var(--band); border-radius: .5rem; padding: .6rem 1rem }
.tile b { display: block; font-size: 1.5rem; line-height: 1.2 } .tile small { display: block; line-height: 1.35 }
.diagrams { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: 1.5rem }
.two { grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 34rem)) }
.thumbnails { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); gap: 1rem }
.thumbnails figure { border: 1px solid var(--line); border-radius: .5rem; padding: .5rem }
figure { margin: 0; min-width: 0 } figcaption { font-size: .8rem; color: var(--soft); overflow-wrap: anywhere }
figcaption b { color: var(--ink) } figure a { display: block; color: inherit; text-decoration: none; cursor: zoom-in }
figure a.back { display: none }
figure:target { position: fixed; inset: 0; z-index: 1; overflow: auto; margin: 0; padding: 1rem 4vw; border: 0;
  border-radius: 0; background: var(--paper) }
figure:target svg { max-height: 82vh } figure:target figcaption { font-size: 1rem }
figure:target > a { cursor: default } figure:target a.back { display: block; float: right; padding: .2rem .8rem;
  background: var(--band); border: 1px solid var(--line); border-radius: .3rem; cursor: zoom-out }
.keep { color: var(--event); font-weight: 600 } .review { color: var(--none); font-weight: 600 }
.discard { color: var(--mark); font-weight: 600 }
svg { width: 100%; height: auto; display: block } svg text { font: 11px system-ui, sans-serif; fill: var(--soft) }
svg text.axis { fill: var(--ink) } svg .grid { stroke: var(--line); fill: none; stroke-width: 1 }
svg .rule { stroke: var(--soft); fill: none; stroke-dasharray: 3 3 }
svg .curve { stroke: var(--event); fill: none; stroke-width: 2 }
svg .whisker { stroke: var(--event); fill: none; opacity: .5 }
svg .point { fill: var(--event) } svg .rest { fill: var(--line) }
svg .event { fill: var(--event) } svg .none { fill: var(--none) } svg .mark { fill: var(--mark) }
svg .threshold { stroke: var(--mark); fill: none; stroke-width: 1.5 } svg .trace { fill: var(--ink) }
@media (max-width: 56rem) { table.cards, .cards tbody, .cards tr, .cards td { display: block } .cards thead { display:
  none } .cards tr { border: 1px solid var(--line); border-radius: .5rem; padding: .3rem .6rem; margin: .6rem 0 }
  .cards td { border: 0; padding: .1rem 0; text-align: right; overflow: hidden } .cards td:first-child { font-weight:
  600; text-align: left }
  .cards td:not(:first-child)::before { content: attr(data-head); float: left; color: var(--soft); font-weight: 400;
  margin-right: 1rem } .cards td.words { text-align: right } .cards td.empty { display: none } }
@media print { nav { display: none } }
@media print { :root { --ink: #000; --soft: #444; --line: #bbb; --paper: #fff; --band: #eee; --event: #0b7a75;
  --none: #9a6a00; --mark: #b3261e } body { margin: 0; font-size: 10pt } figure, tr { break-inside: avoid }
  h2 { break-after: avoid } table { font-size: 7.5pt } figure:target { position: static; padding: .5rem }
  figure:target a.back { display: none } .thumbnails { grid-template-columns: repeat(4, 1fr) }
  .diagrams { grid-template-columns: repeat(2, 1fr) } .wide { overflow: visible } }
"""


#: So many columns fit on a telephone.
_FEW = 5


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page; ``parts`` are made by the functions here."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
    body = "\n".join([f"<h1>{_text(title)}</h1>", *parts])
    head += f"<title>{_text(title)}</title>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def heading(text: str, mark: str = "") -> str:
    """``mark``: what a link of this page may lead to."""
    at = f' id="{_text(mark)}"' if mark else ""
    return f"<h2{at}>{_text(text)}</h2>"


def places(some: Iterable[tuple[str, str]]) -> str:
    """(words, mark of a heading): links to places of this page."""
    told = (f'<a href="#{_text(mark)}">{_text(words)}</a>' for words, mark in some)
    return f"<nav>{''.join(told)}</nav>"


def paragraph(text: str, kind: str = "") -> str:
    """``kind``: lead, soft, warning or well. What stands between `backticks` is a command to copy."""
    return f'<p class="{kind}">{_with_code(text)}</p>' if kind else f"<p>{_with_code(text)}</p>"


def listed(lines: Iterable[str], kind: str = "") -> str:
    """Lines with a dot before each, as paragraphs are."""
    return f'<ul class="{kind}">{"".join(f"<li>{_with_code(line)}</li>" for line in lines)}</ul>'


def copied(text: str) -> str:
    """A path or command that a click selects whole."""
    return f"<p><code>{_text(text)}</code></p>"


@dataclass(frozen=True, slots=True)
class Tile:
    """A number before its evidence."""

    name: str
    value: str
    says: str


def tiles(some: Iterable[Tile]) -> str:
    told = (
        f'<div class="tile">{_text(one.name)}<b>{_text(one.value)}</b><small>{_text(one.says)}</small></div>'
        for one in some
    )
    return f'<div class="tiles">{"".join(told)}</div>'


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table; ``kind``: bad, words for one that begins at its left edge, path for one to copy."""

    text: str
    small: str = ""
    kind: str = ""


def table(heads: Sequence[str | tuple[str, str]], rows: Sequence[Sequence[str | Cell]], strong: int = 0) -> str:
    """Rows under a head, the first ``strong`` of them emphasised; on a narrow screen each row of many is a card.

    A head of two texts is a group of columns and the one's name in it; neighbours of one group share its head.
    """
    names = [("", one) if isinstance(one, str) else one for one in heads]
    body = []
    for number, row in enumerate(rows):
        cells = [one if isinstance(one, Cell) else Cell(one) for one in row]
        filled = "".join(_cell(cell, name) for cell, name in zip(cells, names, strict=True))
        body.append(f'<tr class="strong">{filled}</tr>' if number < strong else f"<tr>{filled}</tr>")
    is_text = [bool(rows) and isinstance(one, Cell) and one.kind == "words" for one in (rows[0] if rows else names)]
    lines, kind = "\n".join(body), ' class="cards"' if len(names) > _FEW else ""
    return (
        f'<div class="wide"><table{kind}><thead>{_head(names, is_text)}</thead><tbody>\n{lines}\n</tbody></table></div>'
    )


def _head(names: Sequence[tuple[str, str]], is_text: Sequence[bool]) -> str:
    groups = [group for group, _ in names]
    kinds = [' class="words"' if one else "" for one in is_text]
    second = "".join(f"<th{kind}>{_text(name)}</th>" for kind, (_, name) in zip(kinds, names, strict=True))
    if not any(groups):
        return f"<tr>{second}</tr>"
    first, place = [], 0
    while place < len(groups):
        wide = 1
        while groups[place] and place + wide < len(groups) and groups[place + wide] == groups[place]:
            wide += 1
        first.append(f'<th class="group" colspan="{wide}">{_text(groups[place])}</th>')
        place += wide
    return f"<tr>{''.join(first)}</tr><tr>{second}</tr>"


def _cell(cell: Cell, name: tuple[str, str]) -> str:
    kinds = " ".join(filter(None, [cell.kind, "" if cell.text else "empty"]))
    kind = f' class="{kinds}"' if kinds else ""
    small = f"<small>{_text(cell.small)}</small>" if cell.small else ""
    told = ", ".join(filter(None, name))
    text = f"<code>{_text(cell.text)}</code>" if cell.kind == "path" else _text(cell.text)
    return f'<td{kind} data-head="{_text(told)}">{text}{small}</td>'


@dataclass(frozen=True, slots=True)
class Picture:
    """An SVG and what is told below it: a name, a word with the class of its verdict, and more lines."""

    svg: str
    caption: str = ""
    name: str = ""
    verdict: str = ""
    beside: str = ""  # behind the verdict
    path: str = ""  # to copy


def pictures(some: Iterable[Picture], kind: str, prefix: str) -> str:
    """``kind``: diagrams, "diagrams two" for two columns, or thumbnails. ``prefix``: of their marks, each once."""
    figures = (_figure(one, f"{prefix}{number}") for number, one in enumerate(some))
    return f'<div class="{kind}">{"".join(figures)}</div>'


def _figure(one: Picture, mark: str) -> str:
    lines = []
    if one.name:
        lines.append(f"<b>{_text(one.name)}</b>")
    if one.verdict:
        lines.append(f'<span class="{_text(one.verdict)}">{_text(one.verdict)}</span> {_text(one.beside)}')
    if one.caption:
        lines.append(_text(one.caption))
    if one.path:
        lines.append(f"<code>{_text(one.path)}</code>")
    return (
        f'<div id="{mark}-at"><figure id="{mark}"><a class="back" href="#{mark}-at">close</a>'
        f'<a href="#{mark}">{one.svg}</a><figcaption>{"<br>".join(lines)}</figcaption></figure></div>'
    )


def _with_code(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(text))


def _text(text: str) -> str:
    return escape(clean(text))
