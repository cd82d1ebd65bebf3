"""`make study TOPIC=explain`: does the heat of an explanation lie where something truly broke?

Simulated curves say where their ruptures are. Of those with an event that the model keeps, the warmest place is held
against them, beside two places that cost nothing: one at random, and the highest point of the curve.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from daemon.common.errors import BAD_DATA, USAGE, UserError
from daemon.common.options import Option
from daemon.common.stdio import progress
from daemon.common.text import align
from daemon.config import ThresholdsConfig
from daemon.explain import network_of
from daemon.judging import Judge, verdict_of
from daemon.judging.judge import judge_of, load_model
from deploy.classifier import EngineRequest
from deploy.serving import Model
from models.frontend import prepare
from models.network import place_of
from models.raster import coverage, envelope
from models.simulate import Simulated, simulate
from tests.studies.workplace import percent, share

if TYPE_CHECKING:
    from models.network import Lens, ResNet18


# The table of `make study TOPIC=explain`: how often the warmest place is a rupture, a family a line.


def write_text(found: Mapping[str, Any]) -> str:
    """Lines for a terminal."""
    head = ["family", "kept", "warmest place", "at random", "highest point"]
    groups = {**found["families"], "all": found["all"]}
    rows = [head, *(_cells(name, row) for name, row in groups.items())]
    parts = [
        f"{found['model']} by {found['engine']}: {found['all']['kept']} of {found['curves']} simulated events kept,"
        f" seed {found['seed']}",
        "share within 5 % of the ramp of a true rupture, with the exact 95 % interval:",
        "",
        *align(rows),
    ]
    if len(found["lenses"]) > 1:
        lenses = [[name, percent(one)] for name, one in found["lenses"].items()]
        parts += ["", *align([["how the heat is made", "all kept"], *lenses])]
    return "\n".join(parts)


def _cells(name: str, row: Mapping[str, Any]) -> list[str]:
    return [name, str(row["kept"]), percent(row["heat"]), f"{100 * row['chance']:.1f} %", percent(row["highest"])]


NEAR = 0.05  # of the ramp
CHUNK = 64
SHIPPED_LENS = "layers 3 x 4, Grad-CAM, on ink (used)"


@dataclass(frozen=True, slots=True)
class Kept:
    """One kept curve with an event: which of the places lie within ``NEAR`` of the ramp of a true rupture."""

    family: str
    chance: float  # of a place drawn evenly from the ramp
    highest: bool  # the highest point of the picture
    heat: Mapping[str, bool]  # the warmest place, by lens


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The default takes about a minute on one core."""

    model: Annotated[str, Option("whose heat", "NAME-or-DIR")] = "shipped"
    device: Annotated[Literal["auto", "cpu", "cuda"], Option("where it runs")] = "auto"
    curves: Annotated[int, Option("simulated, all with an event", "N")] = 2000
    seed: Annotated[int, Option("1 was used to choose the lens", "N")] = 2
    compare: Annotated[bool, Option("also other layers and rules, as the lens was chosen")] = False
    out: Annotated[Path | None, Option("also as JSON", "FILE.json")] = None


def run(options: Options) -> int:
    """Exit 0 with the table."""
    if options.curves < 1 or options.seed < 0:
        raise UserError(USAGE, "--curves is 1 or more, --seed 0 or more")
    model = load_model(options.model, EngineRequest(options.device))
    judge, network = judge_of(model, ThresholdsConfig()), network_of(model)
    lenses = _lenses(options.compare)
    kept: list[Kept] = []
    chunk: list[Simulated] = []
    for number, one in enumerate(
        progress(simulate(options.curves, options.seed, 1.0), "looking", options.curves), start=1
    ):
        chunk.append(one)
        if len(chunk) == CHUNK or number == options.curves:
            kept += _look(chunk, model, judge, network, lenses)
            chunk = []
    if not kept:
        raise UserError(
            BAD_DATA, f"model {options.model} keeps none of {options.curves} simulated events: nothing to look at"
        )
    found = {
        "model": model.id,
        "engine": str(model.engine),
        "seed": options.seed,
        "curves": options.curves,
        **report(kept),
    }
    print(write_text(found))
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def _lenses(compare: bool) -> dict[str, Lens]:
    from models.network import Lens

    used = {SHIPPED_LENS: Lens()}
    if not compare:
        return used
    others = {
        "layers 3 x 4, Grad-CAM": Lens(inked=False),
        "layers 3 x 4, Layer-CAM, on ink": Lens(rule="layercam"),
        "layers 2 x 3, Layer-CAM, on ink": Lens(("layer2", "layer3"), "layercam"),
        "layers 2 x 3 x 4, Grad-CAM, on ink": Lens(("layer2", "layer3", "layer4")),
        **{f"layer {number}, Grad-CAM": Lens((f"layer{number}",), inked=False) for number in (4, 3, 2, 1)},
        "layer 3, Grad-CAM, on ink": Lens(("layer3",)),
        "layer 2, HiResCAM": Lens(("layer2",), "hirescam", inked=False),
        "layer 2, Layer-CAM": Lens(("layer2",), "layercam", inked=False),
    }
    return {**used, **others}


def _look(
    chunk: Sequence[Simulated], model: Model, judge: Judge, network: ResNet18, lenses: Mapping[str, Lens]
) -> list[Kept]:
    """The kept curves of a chunk, with what each place has hit."""
    from models.network import look

    profile = model.bundle.profile
    scored = model.judge([one.curve for one in chunk])
    verdicts = [verdict_of(one.score, one.reasons, judge.thresholds) for one in scored]
    chosen = [one for one, verdict in zip(chunk, verdicts, strict=True) if verdict == "keep"]
    prepared = prepare([one.curve for one in chosen], profile)
    edges = envelope([item.signal for item in prepared if item.signal is not None], profile)
    pictures = coverage(edges, profile)
    peaks = {name: look(network, pictures, lens).peaks for name, lens in lenses.items()}
    places = [place_of(one.curve, item, profile) for one, item in zip(chosen, prepared, strict=True)]
    return [
        Kept(
            family=one.family,
            chance=chance_of(one),
            highest=is_near(one, place.sample_of(int(edges[number, 1].argmax()))),
            heat={
                name: bool(at[number] >= 0) and is_near(one, place.sample_of(at[number])) for name, at in peaks.items()
            },
        )
        for number, (one, place) in enumerate(zip(chosen, places, strict=True))
    ]


def is_near(one: Simulated, sample: float | NDArray[np.float64]) -> bool:
    """Whether a place lies within ``NEAR`` of the ramp of a rupture of this curve."""
    reach = NEAR * len(one.curve)
    return any(abs(float(sample) - rupture.index) <= reach for rupture in one.ruptures)


def chance_of(one: Simulated) -> float:
    """The share of the ramp that lies so near a rupture: what a place at random would hit."""
    n = len(one.curve)
    samples = np.arange(n)
    near = np.zeros(n, np.bool_)
    for rupture in one.ruptures:
        near |= np.abs(samples - rupture.index) <= NEAR * n
    return float(near.mean())


def report(kept: Sequence[Kept]) -> dict[str, Any]:
    """``{"families": {name: {…}}, "all": {…}, "lenses": {name: {…}}}``; shares with exact intervals."""
    families = sorted({one.family for one in kept})
    return {
        "families": {name: _row([one for one in kept if one.family == name]) for name in families},
        "all": _row(kept),
        "lenses": {name: _hits([one.heat[name] for one in kept]) for name in kept[0].heat},
    }


def _row(kept: Sequence[Kept]) -> dict[str, Any]:
    return {
        "kept": len(kept),
        "heat": _hits([one.heat[SHIPPED_LENS] for one in kept]),
        "chance": float(np.mean([one.chance for one in kept])),
        "highest": _hits([one.highest for one in kept]),
    }


def _hits(found: Sequence[bool]) -> dict[str, Any]:
    return share(sum(found), len(found))
