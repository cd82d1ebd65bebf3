"""Int8: what was measured on a laboratory's own curves so that a network may compute in eight bits on this machine.

The weights stay where they are; kept are the ranges of the values between the layers, and how far off its logits were.
Whoever has the ranges writes the network anew (``deploy.openvino_engine``), so there is nothing here that could be run.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.engine_cache import EngineCache, UnsafeCache
from deploy.engines import NoEngine
from deploy.openvino_runtime import core, openvino
from models.bundle import SHIPPED, Bundle

FILE = "int8.json"


@dataclass(frozen=True, slots=True)
class Int8:
    """Ranges of one model's values, and what that costs."""

    ranges: Mapping[str, float]  # point of the graph -> largest value
    margin: float  # a logit closer to a threshold is computed again in single precision
    evidence: Mapping[str, Any]  # curves, and errors against single precision


def find(bundle: Bundle, cache: Path | None) -> Int8:
    """What was measured for these weights on this machine. Raises NoEngine where nothing was, or others could write."""
    try:
        folder = None if cache is None or not cache.is_dir() else EngineCache(cache).get(_key(bundle))
    except UnsafeCache as error:
        raise NoEngine(str(error)) from None
    if folder is None:
        where = f" for this service (state folder {cache.parent})" if cache else ""
        model = "shipped" if bundle.folder == SHIPPED else str(bundle.folder)
        raise NoEngine(f"int8 was not built{where}: {how(model, cache)}")
    return Int8(**json.loads((folder / FILE).read_text(encoding="utf-8")))


def how(model: str, cache: Path | None) -> str:
    """The command that builds it for the service that has this ``cache``."""
    words = ["afm-triage", "models", "build", *([] if model == "shipped" else [model])]
    words += ["--precision", "int8", "--curves", "DIR", *(["--state", str(cache.parent)] if cache else [])]
    return shlex.join(words)


def keep(bundle: Bundle, found: Int8, cache: Path) -> None:
    """For :func:`find`, on this machine and for these weights alone. Raises OSError and UnsafeCache."""
    text = json.dumps(asdict(found), indent=1)
    EngineCache(cache).put(_key(bundle), lambda folder: _write(folder / FILE, text))


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def _key(bundle: Bundle) -> dict[str, str]:
    """Whatever the margin depends on: without VNNI, say, sums of eight bits saturate."""
    processor = core()
    return {
        "engine": "openvino-cpu-int8",
        "weights": bundle.manifest["sha256"]["weights.safetensors"],
        "raster": bundle.profile.id,
        "openvino": openvino().get_version(),
        "processor": processor.get_property("CPU", "FULL_DEVICE_NAME"),
        "capabilities": " ".join(sorted(processor.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))),
    }
