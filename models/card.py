"""The card: what a person should know of a model before trusting it, written from its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.bundle import Cut, Manifest
from models.certificate import Certificate

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

| threshold | score | chosen so that | {basis_of_counts} |
|---|---|---|---|
| discard | {discard:.3g} | {discard_rule} | {events_discarded} of {events} events below |
| keep | {keep:.3g} | {keep_rule} | {event_free_kept} of {event_free} others above |

Of the {event_free} curves without an event {event_free_discarded} were discarded. AUC {auc:.4f}, calibration
error {ece}.

## What it promises

{certificate}

## What it is not for

Molecules and modes whose pictures differ from what it has seen; deciding what a rupture was. Watch the share of
discards that an audit overturns, and calibrate on your own labels.
"""

_NO_PROMISE = """It has **no certificate**: nothing is promised about the share of events that it discards. Labels
of your own curves earn one (`afm-triage calibrate`)."""

_PROMISE = """**{sentence}** (exact, one-sided; counted with {engine}).

It holds for curves like those of the experiments named here, judged by these weights with this discard threshold or a
lower one. Of another molecule, tip or buffer it says nothing.

| experiment | events | missed |
|---|---|---|
{rows}

Simulated curves and curves that the network was trained on did not count."""


def describe(manifest: Manifest) -> str:
    """The text of card.md."""
    profile, calibration = manifest.profile, manifest.calibration
    training = "\n".join(
        f"* {key.replace('_', ' ')}: {_plain(value)}"
        for key, value in manifest.training.items()
        if key not in ("curves", "unlabelled_curves")
    )
    is_of_labels = manifest.score_basis == "labels"
    return _TEXT.format(
        name=manifest.name,
        width=manifest.network.width,
        columns=profile.columns,
        rows=profile.rows,
        scale=profile.scale,
        profile=f"{profile.name} v{profile.version}",
        created=manifest.created,
        code_version=manifest.code_version,
        parent=manifest.parent or "none",
        training=training,
        seen_real="seen" if manifest.training.get("labelled") or is_of_labels else "not seen",
        basis="labels of real curves" if is_of_labels else "simulation alone",
        prevalence=calibration.prevalence,
        temperature=calibration.temperature,
        bias=calibration.bias,
        certificate=_promise(manifest.certificate),
        **_cut(manifest.thresholds),
    )


def _cut(thresholds: Cut) -> dict[str, Any]:
    """What the table of thresholds says; the rules of a calibration on labels are words already."""
    evidence = thresholds.evidence
    counts = ("events", "events_discarded", "event_free", "event_free_discarded", "event_free_kept", "auc")
    return {
        **{name: evidence[name] for name in counts},
        "discard": thresholds.discard,
        "keep": thresholds.keep,
        "basis_of_counts": "counted" if "keep_rule" in evidence else "held out",
        "discard_rule": evidence.get("discard_rule") or f"missing at most {evidence['most_missed']:.1%}",
        "keep_rule": evidence.get("keep_rule") or f"taking at most {evidence['most_kept']:.1%}",
        "ece": "not known" if evidence["ece"] is None else f"{evidence['ece']:.4f}",
    }


def _promise(certificate: Certificate | None) -> str:
    if certificate is None:
        return _NO_PROMISE
    parts = sorted(certificate.experiments.items())
    rows = "\n".join(f"| {_plain(name)} | {part.events} | {part.missed} |" for name, part in parts)
    return _PROMISE.format(sentence=certificate.sentence(), engine=certificate.engine, rows=rows)


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "none"
    return str(value)
