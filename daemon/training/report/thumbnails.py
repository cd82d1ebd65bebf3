"""The worst curves, drawn: a person sees at a glance whether the model or the label is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from daemon.clean import clean
from daemon.training.evaluation import Judged
from daemon.training.report.svg import outline
from daemon.training.trace import Trace

MOST = 12
WIDTH, HEIGHT = 220, 110
HEAD = 0.16  # share of the height that the words above the curve have to themselves
_UNITS = {"N": (1e12, "pN"), "m": (1e9, "nm deflection"), "V": (1.0, "V"), None: (1.0, "as stored")}


def worst(judged: Sequence[Judged]) -> tuple[list[Judged], list[Judged]]:
    """Events with the lowest scores, and event-free curves with the highest; those without a score are no one's."""
    events = [one for one in judged if one.label == "keep" and one.score is not None]
    free = [one for one in judged if one.label == "discard" and one.score is not None]
    return sorted(events, key=_score)[:MOST], sorted(free, key=_score, reverse=True)[:MOST]


def _score(one: Judged) -> float:
    return -1.0 if one.score is None else one.score


def draw_thumbnail(one: Judged) -> str:
    """A figure: the force curve, its name, and what was said of it."""
    score = "no score" if one.score is None else f"{one.score:.4f}"
    reasons = ", ".join(reason for reason in one.reasons if reason != "score")
    label = {"keep": "event", "discard": "no event"}.get(one.label, one.label)
    facts = f"labelled {label}; {one.system}" + (f"; {reasons}" if reasons else "")
    return (
        f"<figure>{_curve(one.trace)}<figcaption><b>{escape(clean(one.name))}</b><br>"
        f'<span class="{one.verdict}">{one.verdict}</span> {score}<br>{escape(clean(facts))}</figcaption></figure>'
    )


def _curve(trace: Trace | None) -> str:
    """The retract, pulling up, surface at the left; of the push only as much as leaves the pull its room."""
    if trace is None:
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}"><text x="10" y="20">cannot be drawn</text></svg>'
    lower, upper = trace.edges.astype(float)
    far = slice(2 * lower.size // 3, None)
    base = float(np.median((lower[far] + upper[far]) / 2))
    top = float(upper.max())
    rise = max(top - base, 4 * float(np.median(upper[far] - lower[far])), 1e-30)
    bottom = max(float(lower.min()), base - 0.5 * rise) - 0.05 * rise
    top = bottom + (max(top, base + rise) - bottom) / (1 - HEAD)
    shares = [
        np.clip((edge - bottom) / (top - bottom), 0.0, 1.0).tolist() for edge in _thick(lower, upper, top - bottom)
    ]
    scale, unit = _UNITS.get(trace.unit, _UNITS[None])
    size = f"{rise * scale:.3g} {unit}" + ("" if trace.travel_nm is None else f" over {trace.travel_nm:.0f} nm")
    level = (1 - (base - bottom) / (top - bottom)) * HEIGHT
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="force curve, {escape(size)}">'
        f'<path class="grid" d="M0 {level:.1f}H{WIDTH}"/>'
        f'<path class="trace" d="{outline(shares[0], shares[1], WIDTH, HEIGHT)}"/>'
        f'<text x="{WIDTH - 4}" y="12" text-anchor="end">{escape(size)}</text></svg>'
    )


def _thick(
    lower: np.ndarray[tuple[int], np.dtype[np.float64]],
    upper: np.ndarray[tuple[int], np.dtype[np.float64]],
    span: float,
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Joined to the neighbour, and at least about a pixel high."""
    joined = np.minimum(lower, np.append(upper[0], upper[:-1])), np.maximum(upper, np.append(lower[0], lower[:-1]))
    thin = 0.006 * span
    return joined[0] - thin, joined[1] + thin
