"""The bundle: a model as a folder of three files, nothing of which is ever executed.

``weights.safetensors`` (half precision), ``card.md`` for people, and ``manifest.json`` with the raster profile, the
network, the calibration, the thresholds with the evidence behind them and the SHA-256 of the other two. The
model's id ends in the first digits of the manifest's own SHA-256, so it covers every byte of the folder.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from models.anatomy import shapes
from models.certificate import Certificate
from models.files import replace_folder, write_synced
from models.raster import RasterProfile

SHIPPED = Path(__file__).parent / "shipped"
FORMAT = 1
MAX_MANIFEST_BYTES = 16 << 20  # it notes every labelled curve that taught, 13 bytes each
MAX_HEADER_BYTES = 1 << 20
MAX_WEIGHT_BYTES = 256 << 20

#: What a manifest that somebody edited can raise when it is taken apart.
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, OverflowError)

Weights = dict[str, NDArray[np.floating[Any]]]


class BadBundle(Exception):
    """This folder is no usable model; the message is one line and says why and what to do."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """score = 1 / (1 + exp(-(logit / temperature + bias))), at ``prevalence`` (Platt 1999; temperature and bias)."""

    temperature: float
    bias: float
    prevalence: float

    def score(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """(B,) -> (B,), float64."""
        z = np.clip(logits / self.temperature + self.bias, -700.0, 700.0)
        return 1.0 / (1.0 + np.exp(-z))

    def logit(self, score: float) -> float:
        """The inverse of :meth:`score`; infinite at 0 and 1."""
        if not 0.0 < score < 1.0:
            return -math.inf if score <= 0.0 else math.inf
        return (math.log(score / (1.0 - score)) - self.bias) * self.temperature

    def at(self, prevalence: float) -> Calibration:
        """For a stream in which events are rarer or more common: the log odds move by those of the prevalences.

        Exact where the curves of each kind stay the same and only their shares change (Saerens et al. 2002).
        """
        moved = math.log(prevalence / (1 - prevalence)) - math.log(self.prevalence / (1 - self.prevalence))
        return replace(self, bias=self.bias + moved, prevalence=prevalence)


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a model folder holds. ``manifest`` is the whole of manifest.json, the rest is read from it."""

    id: str
    folder: Path
    manifest: Mapping[str, Any]
    profile: RasterProfile
    width: int
    calibration: Calibration
    discard: float  # thresholds on the score
    keep: float
    weights: Weights

    @property
    def limits(self) -> NDArray[np.float64]:
        """(2,): the logits at which the verdict changes, the lower one first."""
        return np.array([self.calibration.logit(score) for score in (self.discard, self.keep)])

    @property
    def score_basis(self) -> str:
        return str(self.manifest["score_basis"])

    @property
    def certificate(self) -> Certificate | None:
        return _certificate(self.manifest)

    @property
    def pipeline(self) -> str:
        """The chain of stages that a verdict depends on, as events carry it."""
        calibration = json.dumps(self.manifest["calibration"], sort_keys=True)
        stages = (
            f"raster:{self.profile.id}",
            f"weights:{self.manifest['sha256']['weights.safetensors'][:8]}",
            f"calibration:{hashlib.sha256(calibration.encode()).hexdigest()[:8]}",
            f"thresholds:{self.discard:.6g}-{self.keep:.6g}",
        )
        return "|".join(stages)


def write(folder: Path, weights: Weights, manifest: Mapping[str, Any], card: str) -> Bundle:
    """Write a model folder as one act: it is there whole, or not at all. Returns what :func:`read` makes of it.

    ``manifest`` needs everything but ``format`` and ``sha256``. An existing model of that name is replaced.
    """
    half = {name: np.ascontiguousarray(tensor.astype(np.float16)) for name, tensor in weights.items()}
    files = {"weights.safetensors": save_tensors(half), "card.md": card.encode()}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    whole = {**manifest, "format": FORMAT, "sha256": digests}
    files["manifest.json"] = (json.dumps(whole, indent=1, sort_keys=True) + "\n").encode()
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        for name, data in files.items():
            write_synced(fresh / name, data)
        bundle = read(fresh)
        replace_folder(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return replace(bundle, folder=folder)


def read(folder: Path) -> Bundle:
    """Read and check a model folder; BadBundle for anything that is not exactly as its manifest says."""
    manifest, digest = _manifest(folder)
    try:
        for name, expected in manifest["sha256"].items():
            _check_digest(folder, str(name), expected)
        bundle = _from_manifest(folder, manifest, digest)
    except _DAMAGE as error:
        raise BadBundle(f"model {folder}: manifest.json is damaged ({error!r}); copy the folder again") from None
    return replace(bundle, weights=_weights(folder, bundle.width))


def _manifest(folder: Path) -> tuple[dict[str, Any], str]:
    path = folder / "manifest.json"
    if not path.is_file():
        raise BadBundle(f"model {folder}: there is no manifest.json; name a model folder, or 'shipped'")
    with path.open("rb") as file:
        data = file.read(MAX_MANIFEST_BYTES + 1)
    try:
        manifest = json.loads(data) if len(data) <= MAX_MANIFEST_BYTES else None
    except (ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict):
        raise BadBundle(f"model {folder}: manifest.json is not readable JSON; copy the folder again")
    if manifest.get("format") != FORMAT:
        raise BadBundle(f"model {folder}: format {manifest.get('format')!r} needs another version of afm-triage")
    return manifest, hashlib.sha256(data).hexdigest()


def _check_digest(folder: Path, name: str, expected: object) -> None:
    if name not in ("weights.safetensors", "card.md"):
        raise BadBundle(f"model {folder}: manifest.json names a file that is no part of a model: {name!r}")
    path = folder / name
    if not path.is_file() or path.stat().st_size > MAX_WEIGHT_BYTES:
        raise BadBundle(f"model {folder}: {name} is missing or too large; copy the folder again")
    if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise BadBundle(f"model {folder}: {name} differs from its SHA-256 in manifest.json; copy the folder again")


def _from_manifest(folder: Path, manifest: dict[str, Any], digest: str) -> Bundle:
    if set(manifest["sha256"]) != {"weights.safetensors", "card.md"}:
        raise ValueError("sha256 must name weights.safetensors and card.md")
    if manifest["score_basis"] not in ("simulation", "labels"):
        raise ValueError(f"score_basis {manifest['score_basis']!r}")
    if manifest["network"]["architecture"] != "resnet18" or not 1 <= int(manifest["network"]["width"]) <= 256:
        raise ValueError(f"network {manifest['network']!r}")
    training = manifest["training"]
    if not (isinstance(training.get("labelled") or {}, dict) and isinstance(training.get("curves") or "", str)):
        raise ValueError("training must say what was labelled as an object, and its curves as a text")
    values = manifest["calibration"]
    calibration = Calibration(float(values["temperature"]), float(values["bias"]), float(values["prevalence"]))
    discard, keep = float(manifest["thresholds"]["discard"]), float(manifest["thresholds"]["keep"])
    if not (0.0 <= discard < keep <= 1.0):
        raise ValueError(f"thresholds must be 0 <= discard < keep <= 1, not {discard} and {keep}")
    if not (calibration.temperature > 0 and math.isfinite(calibration.temperature + calibration.bias)):
        raise ValueError("temperature must be above zero and finite, bias finite")
    if not 0.0 < calibration.prevalence < 1.0:
        raise ValueError("prevalence must lie between 0 and 1")
    if (certificate := _certificate(manifest)) is not None:
        _check_certificate(certificate, manifest, discard, calibration)
    return Bundle(
        id=_id(manifest["name"], digest),
        folder=folder,
        manifest=manifest,
        profile=RasterProfile.from_mapping(manifest["profile"]),
        width=int(manifest["network"]["width"]),
        calibration=calibration,
        discard=discard,
        keep=keep,
        weights={},
    )


def _certificate(manifest: Mapping[str, Any]) -> Certificate | None:
    values = manifest["certificate"]
    return None if values is None else Certificate.from_mapping(values)


def _check_certificate(
    certificate: Certificate, manifest: Mapping[str, Any], discard: float, calibration: Calibration
) -> None:
    """ValueError for a promise that was made of another network, or of a threshold further down."""
    if certificate.weights_sha256 != manifest["sha256"]["weights.safetensors"]:
        raise ValueError("the certificate is that of other weights")
    if not discard < float(calibration.score(np.array([certificate.limit_logit]))[0]):
        raise ValueError("the discard threshold lies above what the certificate allows")
    if manifest["score_basis"] != "labels":
        raise ValueError("a certificate rests on labels, and score_basis says otherwise")


def id_in(folder: Path) -> str:
    """The id of the model that a folder holds, from its manifest alone. BadBundle where there is no manifest."""
    manifest, digest = _manifest(folder)
    return _id(manifest.get("name"), digest)


def _id(name: object, digest: str) -> str:
    return f"{name}-{digest[:12]}"


def certificate_in(folder: Path) -> Certificate | None:
    """The certificate of a model folder, from its manifest alone: weights are neither read nor checked.

    Raises BadBundle as :func:`read` does.
    """
    manifest, digest = _manifest(folder)
    try:
        return _from_manifest(folder, manifest, digest).certificate
    except _DAMAGE as error:
        raise BadBundle(f"model {folder}: manifest.json is damaged ({error!r}); copy the folder again") from None


def _weights(folder: Path, width: int) -> Weights:
    data = (folder / "weights.safetensors").read_bytes()
    header_bytes = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 1 << 63
    if header_bytes > min(MAX_HEADER_BYTES, len(data)):
        raise BadBundle(f"model {folder}: weights.safetensors is no safetensors file; nothing of it was loaded")
    try:
        weights = cast(Weights, load_tensors(data))
    except (SafetensorError, ValueError, KeyError) as error:
        raise BadBundle(f"model {folder}: weights.safetensors cannot be read: {error}") from None
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found != shapes(width):
        wrong = sorted(set(found.items()) ^ set(shapes(width).items()))[0][0]
        raise BadBundle(f"model {folder}: weights do not fit a ResNet18 of width {width}, first difference: {wrong}")
    for name, tensor in weights.items():
        if tensor.dtype not in (np.float16, np.float32) or not np.isfinite(tensor).all():
            raise BadBundle(f"model {folder}: tensor {name} is not finite float16 or float32")
    return weights


@dataclass(frozen=True, slots=True)
class Entry:
    """One model that was found; ``problem`` says why it cannot be used."""

    name: str
    folder: Path
    bundle: Bundle | None
    problem: str | None = None


def resolve(name: str | Path, models: Path | None = None) -> Path:
    """The folder that a name or a path means; BadBundle when there is none.

    ``models`` is the folder of the lab's own models; a plain name is looked for there first, then as a path.
    """
    if str(name) == "shipped":
        return SHIPPED
    if models is not None and Path(name).name == str(name) and (models / name / "manifest.json").is_file():
        return models / name
    folder = Path(name)
    if not folder.is_dir():
        raise BadBundle(f"no model {str(name)!r}: name a model folder, or 'shipped'")
    return folder


def entries(models: Path | None = None) -> Iterator[Entry]:
    """The shipped model, then every folder under ``models`` that has a manifest, by name."""
    yield _entry("shipped", SHIPPED)
    if models is not None and models.is_dir():
        for folder in sorted(models.iterdir()):
            if not folder.name.startswith(".") and (folder / "manifest.json").is_file():
                yield _entry(folder.name, folder)


def _entry(name: str, folder: Path) -> Entry:
    try:
        return Entry(name, folder, read(folder))
    except BadBundle as error:
        return Entry(name, folder, None, str(error))
