"""Quantising: int8 for one model, from a laboratory's own curves; what `models build --precision int8` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from daemon.errors import BAD_DATA, UNREACHABLE, UserError
from daemon.signals import gather
from deploy.engine_cache import UnsafeCache
from deploy.engines import Wish, named
from deploy.int8 import Int8, keep
from models.bundle import Bundle


def build_int8(bundle: Bundle, folders: Sequence[Path], cache: Path, threads: int | None = None) -> list[str]:
    """Measure and keep it for ``[engine] precision = "int8"``; lines that say what it costs.

    UserError 65 for curves that are too few or a model that does not stand it, 69 without OpenVINO.
    """
    if refusal := named("openvino").refuses(Wish(engine="openvino", precision="int8")):
        raise UserError(UNREACHABLE, f"int8 is computed by OpenVINO: {refusal}")
    if missing := [str(folder) for folder in folders if not folder.exists()]:
        raise UserError(BAD_DATA, f"--curves {', '.join(missing)}: no such file or folder")
    from deploy.quantiser import CannotQuantise, quantise

    curves = gather(folders, 0, 0, bundle.profile)
    try:
        found = quantise(bundle, curves.signals, threads)
        keep(bundle, found, cache)
    except (CannotQuantise, UnsafeCache) as error:
        raise UserError(BAD_DATA, str(error)) from None
    return [*describe(bundle, found), f"kept for the service whose state folder is {cache.parent}"]


def describe(bundle: Bundle, found: Int8) -> list[str]:
    """For a person who decides whether to use it."""
    said, proved = found.evidence, found.evidence["proved_on"]
    return [
        f"{bundle.id} in int8, on {proved['real']} of these curves and {proved['simulated']} simulated ones, none of "
        "which calibrated it:",
        f"  a logit is {said['median_error']:.3f} off (median), {said['error_99']:.3f} (99 %), "
        f"{said['largest_error']:.3f} (largest near a threshold)",
        f"  closer than {found.margin:.3f} to a threshold single precision decides: {said['judged_twice']:.1%} of the "
        "real ones",
        f"  verdicts that are not those of single precision: {said['moved']} ({said['moved_alone']} by int8 alone)",
        'to serve with it: [engine] precision = "int8", then afm-triage reload',
    ]
