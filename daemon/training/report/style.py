"""The look of the page: one sheet for screen, dark screen and paper."""

from __future__ import annotations

SHEET = """
:root { color-scheme: light dark; --ink: #1c2733; --soft: #5b6b7b; --line: #d5dde5; --paper: #ffffff; --band: #f2f6fa;
  --event: #0b7a75; --none: #9a6a00; --mark: #b3261e }
@media (prefers-color-scheme: dark) { :root { --ink: #e4eaf0; --soft: #9fb0c0; --line: #33414f; --paper: #12181f;
  --band: #1b242e; --event: #4fc3b8; --none: #e0b050; --mark: #ff8a80 } }
@page { size: A4 landscape; margin: 12mm }
@media print { :root { --ink: #000; --soft: #444; --line: #bbb; --paper: #fff; --band: #eee; --event: #0b7a75;
  --none: #9a6a00; --mark: #b3261e } body { margin: 0; font-size: 10pt } figure, tr { break-inside: avoid }
  h2 { break-after: avoid } table { font-size: 7.5pt } }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; color: var(--ink);
  background: var(--paper) }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.2rem; margin-top: 2.2rem }
p { max-width: 60rem } small, .soft { color: var(--soft); font-weight: 400 }
.warning { border-left: 4px solid var(--mark); background: var(--band); padding: .6rem 1rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; font-size: .88rem }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap;
  vertical-align: top }
th:first-child, td:first-child { text-align: left } th { vertical-align: bottom; color: var(--soft) }
td small { display: block; font-size: .75rem }
tr.pooled { font-weight: 600; background: var(--band) } td.bad { color: var(--mark); font-weight: 600 }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0 }
.tile { background: var(--band); border-radius: .5rem; padding: .6rem 1rem; min-width: 9rem }
.tile b { display: block; font-size: 1.5rem; line-height: 1.2 }
.tile small { display: block }
.diagrams { display: flex; flex-wrap: wrap; gap: 1.5rem } .diagrams figure { flex: 0 1 24rem }
.diagrams figure:first-child { flex-basis: 34rem }
.thumbnails { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem }
.thumbnails figure { border: 1px solid var(--line); border-radius: .5rem; padding: .5rem }
figure { margin: 0 } figcaption { font-size: .8rem; color: var(--soft); overflow-wrap: anywhere }
figcaption b { color: var(--ink) }
.keep { color: var(--event); font-weight: 600 } .review { color: var(--none); font-weight: 600 }
.discard { color: var(--mark); font-weight: 600 }
svg { width: 100%; height: auto; display: block } svg text { font: 11px system-ui, sans-serif; fill: var(--soft) }
svg text.axis { fill: var(--ink) } svg .grid { stroke: var(--line); fill: none; stroke-width: 1 }
svg .rule { stroke: var(--soft); fill: none; stroke-dasharray: 3 3 }
svg .curve { stroke: var(--event); fill: none; stroke-width: 2 }
svg .whisker { stroke: var(--event); fill: none; opacity: .5 }
svg .point { fill: var(--event) }
svg .event { fill: var(--event) } svg .none { fill: var(--none) } svg .mark { fill: var(--mark) }
svg .threshold { stroke: var(--mark); fill: none; stroke-width: 1.5 } svg .trace { fill: var(--ink) }
"""
