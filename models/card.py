"""The card: what a person should know of a model before trusting it, written from its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEXT = """# {name}

ResNet18 of width {width} on {columns} x {rows} pictures of force curves ({scale} scale, profile `{profile}`).
Made {created} by afm-triage {code_version}. Parent: {parent}.

## What it is for

Sorting force curves of single-molecule force spectroscopy, as the instrument writes them, into keep, review and
discard. An *event* is at least one discrete rupture, unfolding peak or plateau step on the retract beyond the first
snap-off at the surface. It is no proof of a specific bond: that is the lab's judgement, and its labels teach it.

## What it has seen

{training}

It has {seen_real} curves of a real instrument in training or calibration; its scores stand on **{basis}**.

## What its score means

The probability of an event where {prevalence:.1%} of curves hold one (temperature {temperature:.4f}, bias {bias:.4f}).

| threshold | score | chosen so that | held out |
|---|---|---|---|
| discard | {discard:.3g} | missing at most {most_missed:.1%} | {events_discarded} of {events} events below |
| keep | {keep:.3g} | taking at most {most_kept:.1%} | {event_free_kept} of {event_free} others above |

Of the {event_free} curves without an event {event_free_discarded} were discarded. AUC {auc:.4f}, calibration
error {ece:.4f}.

## What it is not for

Molecules and modes whose pictures differ from what it has seen; deciding what a rupture was. It carries
{certificate}: watch the share of discards that an audit overturns, and calibrate on your own labels.
"""


def describe(manifest: Mapping[str, Any]) -> str:
    """The text of card.md."""
    evidence, calibration, profile = manifest["thresholds"]["evidence"], manifest["calibration"], manifest["profile"]
    training = "\n".join(f"* {key.replace('_', ' ')}: {_plain(value)}" for key, value in manifest["training"].items())
    seen_real = bool(manifest["training"].get("labelled")) or manifest["score_basis"] == "labels"
    return _TEXT.format(
        name=manifest["name"],
        width=manifest["network"]["width"],
        columns=profile["columns"],
        rows=profile["rows"],
        scale=profile["scale"],
        profile=f"{profile['name']} v{profile['version']}",
        created=manifest["created"],
        code_version=manifest["code_version"],
        parent=manifest["parent"] or "none",
        training=training,
        seen_real="seen" if seen_real else "not seen",
        basis="simulation alone" if manifest["score_basis"] == "simulation" else "labels of real curves",
        prevalence=calibration["prevalence"],
        temperature=calibration["temperature"],
        bias=calibration["bias"],
        discard=manifest["thresholds"]["discard"],
        keep=manifest["thresholds"]["keep"],
        certificate="no certificate" if manifest["certificate"] is None else "a certificate (see manifest.json)",
        **{key: value for key, value in evidence.items() if key not in ("basis",)},
    )


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "none"
    return str(value)
