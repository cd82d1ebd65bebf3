"""The losses as tables for a terminal, and in one sentence each what the tables say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from daemon.common.text import align

#: figure -> what its column is called
_NAMES = {
    "ap": "AP",
    "recall": "recall",
    "cut": "event-free discarded",
    "review": "left to a person",
    "keep": "kept",
}
_BETTER = {"ap": 1, "recall": 1, "cut": 1}  # more of these is better; the others have no better side of their own


def write_text(report: Mapping[str, Any]) -> str:
    """The whole study; ``report`` is what ``--out`` writes."""
    budget = report["budget"]
    size = f"{budget['profile']['columns']}x{budget['profile']['rows']}"
    lines = [
        f"each loss: {budget['curves']} simulated curves, {budget['epochs']} epochs, width {budget['width']}, {size}, "
        f"{len(report['seeds'])} seeds; thresholds of each training from {budget['held_out']} held-out curves",
    ]
    for name, found in report["sets"].items():
        lines += ["", *_set(name, found, report["losses"])]
    return "\n".join(lines)


def _set(name: str, found: Mapping[str, Any], losses: Sequence[str]) -> list[str]:
    mix = ", weighted to 13 events among 970; counts are of one such stream" if found["share"] else ""
    title = f"{name}: {found['events']} events, {found['event_free']} event-free curves{mix}; means over seeds"
    head = ("loss", *_NAMES.values(), "events kept/review/discarded", "event-free kept/review/discarded")
    figures = [
        (loss, *(f"{one[key]['mean']:.4f}" for key in _NAMES), *_triage(one["table"], bool(found["share"])))
        for loss, one in found["losses"].items()
    ]
    differences = [("less " + losses[0], *(f"{_NAMES[key]} [95 %]" for key in _NAMES))]
    differences += [
        (loss, *(_difference(one[key]) for key in _NAMES)) for loss, one in list(found["losses"].items())[1:]
    ]
    return [title, *align([head, *figures]), "", *align(differences), *_sentences(found, losses)]


def _triage(table: Sequence[Sequence[float]], rare: bool) -> tuple[str, str]:
    event, none = ([row[side] for row in table] for side in (0, 1))
    return "/".join(f"{n:.2f}" if rare else f"{n:.1f}" for n in event), "/".join(f"{n:.1f}" for n in none)


def _difference(one: Mapping[str, Any]) -> str:
    """A star where the interval excludes 0, two where the one that all comparisons together keep does too."""
    stars: int = sum(low > 0 or high < 0 for low, high in (one["interval"], one["strict"]))
    low, high = one["interval"]
    return f"{one['difference']:+.4f} [{low:+.4f}, {high:+.4f}]" + "*" * stars


def _sentences(found: Mapping[str, Any], losses: Sequence[str]) -> list[str]:
    told = []
    for key, sign in _BETTER.items():
        sides: dict[str, list[str]] = {"better": [], "worse": []}
        for loss in losses[1:]:
            low, high = found["losses"][loss][key]["strict"]
            if low > 0 or high < 0:
                sides["better" if sign * low > 0 else "worse"].append(loss)
        text = "; ".join(f"{side} than {losses[0]}: {', '.join(who)}" for side, who in sides.items() if who)
        told.append(f"{_NAMES[key]}: {text or f'no loss differs from {losses[0]}'}")
    return ["** at 95 % for all comparisons together (Bonferroni), * for this one alone. By **:", *told]
