"""Agreement: each engine's logits and verdicts beside those of torch in single precision, curve by curve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.bench.harness import compare
from daemon.common.progress import progress
from daemon.common.text import first_line
from daemon.learn.int8 import Curves
from deploy.classifier import Classifier, Seen
from deploy.engines import ENGINES, Wish, named
from deploy.serving import Model
from models.bundle import Bundle

PART = 512  # curves between two signs of life


def cpu_wishes(cache: Path, with_int8: bool) -> Iterator[Wish]:
    """Every precision of every engine that computes here, on a processor; torch in single precision first."""
    yield Wish("cpu", "torch", "fp32", 1, cache)
    for engine in ENGINES:
        for precision in engine.precisions if engine.device == "cpu" and engine.missing() is None else ():
            if (engine.name, precision) != ("torch", "fp32") and (precision != "int8" or with_int8):
                yield Wish("cpu", engine.name, precision, 1, cache)


def teach_int8(bundle: Bundle, curves: Curves, cache: Path, fewest: int) -> dict[str, Any] | str:
    """Calibrate int8 on every other real curve and keep it in ``cache``; what was found, or why not."""
    if why := named("openvino").missing():
        return why
    if curves.real < fewest:
        return f"int8 is calibrated on real curves, and {curves.real} are too few ({fewest})"
    from deploy.int8 import keep
    from deploy.quantiser import CannotQuantise, quantise

    try:
        found = quantise(bundle, curves.signals[: curves.real : 2], 1)
    except CannotQuantise as error:
        return str(error)
    keep(bundle, found, cache)
    return asdict(found)


def agree(bundle: Bundle, curves: Curves, cache: Path, with_int8: bool) -> list[dict[str, Any]]:
    """One entry an engine: errors, margin, verdicts alone and as served; or why it does not run here."""
    wishes = list(cpu_wishes(cache, with_int8))
    wanted = _seen(named("torch").build(bundle, wishes[0]), curves, "torch-cpu-fp32").logits
    found = []
    for wish in wishes[1:]:
        try:
            found.append(_compare(bundle, curves, wish, wanted))
        except Exception as error:  # a library's own, on a processor that it does not know: the others are asked
            found.append({"engine": f"{wish.engine}-cpu-{wish.precision}", "failed": first_line(error)})
    return found


def _compare(bundle: Bundle, curves: Curves, wish: Wish, wanted: NDArray[np.float64]) -> dict[str, Any]:
    if wish.precision == "int8":
        places = [*range(1, curves.real, 2), *range(curves.real, len(curves.names))]
        curves, wanted = _only(curves, places), wanted[places]
    engine = named(wish.engine)
    classifier = engine.build(bundle, wish)
    alone = _seen(classifier, curves, classifier.engine)
    model = Model.of(bundle, wish)
    served = _seen(model, curves, f"{classifier.engine}, as served").logits
    errors = np.abs(alone.logits - wanted)
    margin = model.margin_of(alone)
    near = np.abs(alone.logits[:, None] - bundle.limits).min(axis=1) < margin
    return {
        "engine": classifier.engine,
        "real": curves.real,
        "curves": len(curves.names),
        "errors": {name: float(np.quantile(errors, at)) for name, at in (("median", 0.5), ("99 %", 0.99), ("max", 1))},
        "margin": margin,
        "judged_twice": {
            "real": float(near[: curves.real].mean()) if curves.real else None,
            "simulated": float(near[curves.real :].mean()) if curves.real < len(near) else None,
        },
        "alone": compare(curves, bundle, wanted.tolist(), alone.logits.tolist()),
        "as_served": compare(curves, bundle, wanted.tolist(), served.tolist()),
    }


def _seen(classifier: Classifier | Model, curves: Curves, what: str) -> Seen:
    """All logits, and of the first part the margin."""
    starts = range(0, len(curves.signals), PART)
    parts = [classifier.classify(curves.signals[start : start + PART]) for start in progress(starts, what, len(starts))]
    logits, edges = (np.concatenate([getattr(part, name) for part in parts]) for name in ("logits", "edges"))
    return Seen(logits, edges, margin=parts[0].margin)


def _only(curves: Curves, places: Sequence[int]) -> Curves:
    return Curves(
        names=tuple(curves.names[place] for place in places),
        signals=tuple(curves.signals[place] for place in places),
        reasons=tuple(curves.reasons[place] for place in places),
        real=sum(place < curves.real for place in places),
    )
