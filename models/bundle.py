"""The bundle: a model as a folder of three files, nothing of which is ever executed.

``weights.safetensors`` (half precision), ``card.md`` for people, and ``manifest.json`` with the raster profile, the
network, the calibration, the thresholds with the evidence behind them and the SHA-256 of the other two: read once,
into a :class:`Manifest`. The model's id ends in the first digits of the manifest's own SHA-256, so it covers every
byte of the folder.
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
from typing import Annotated, Any, Literal, cast

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from models.anatomy import shapes
from models.certificate import Certificate
from models.files import link_or_copy, replace_folder, write_synced
from models.raster import RasterProfile

SHIPPED = Path(__file__).parent / "shipped"
WEIGHTS, CARD, MANIFEST = "weights.safetensors", "card.md", "manifest.json"
FORMAT: Literal[1] = 1
CONFIRMED = "labels: confirmed events"  # the basis of a cut that was moved by events which people confirmed
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
    basis: str = ""  # the curves that it was found on

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
class Cut:
    """Both thresholds on the score, and what they were chosen on."""

    discard: float
    keep: float
    evidence: Mapping[str, Any]

    @property
    def is_of_labels(self) -> bool:
        """Whether people's labels moved it; else it stands on simulated curves, or on nothing."""
        return str(self.evidence.get("basis", "")).startswith("labels")

    @property
    def events(self) -> int:
        """How many events it was chosen on; 0 where nothing is noted."""
        count = self.evidence.get("events")
        return count if type(count) is int and count > 0 else 0

    @property
    def band(self) -> tuple[float, float] | None:
        """The scores between the threshold that it was raised from and this one; None where it was not raised."""
        try:
            low, high = map(float, self.evidence["band"])
        except (KeyError, TypeError, ValueError):
            return None
        return (low, high) if 0.0 <= low < high <= 1.0 else None


class Network(Struct, frozen=True):
    """Which network the weights belong to."""

    width: Annotated[int, Meta(ge=1, le=256)]
    architecture: Literal["resnet18"] = "resnet18"
    channels: int = 1


class SelfTest(Struct, frozen=True):
    """What the known curves of :mod:`deploy.serving` must give."""

    version: int
    logits: list[float]


class Digests(Struct, frozen=True, forbid_unknown_fields=True, rename={"weights": WEIGHTS, "card": CARD}):
    """SHA-256 of the other two files of a model folder."""

    weights: str
    card: str


class Manifest(Struct, frozen=True, kw_only=True):
    """manifest.json: what a model is and what it rests on."""

    name: str
    created: str = ""  # UTC, RFC 3339
    parent: str | None = None
    code_version: str = ""
    profile: RasterProfile
    network: Network
    calibration: Calibration
    thresholds: Cut
    score_basis: Literal["simulation", "labels"]
    certificate: Certificate | None
    training: Mapping[str, Any]
    selftest: SelfTest
    format: Literal[1] = FORMAT
    sha256: Digests = Digests("", "")  # writing fills it in

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Manifest:
        """Read and checked; unknown keys of newer versions are passed over. ValueError, KeyError or TypeError."""
        certificate = values["certificate"]
        parts = {
            "profile": RasterProfile.from_mapping(values["profile"]),
            "certificate": None if certificate is None else Certificate.from_mapping(certificate),
        }
        manifest = msgspec.convert({**values, **parts}, cls)
        manifest.check()
        return manifest

    def to_mapping(self) -> dict[str, Any]:
        """The inverse, ready for JSON."""
        values: dict[str, Any] = msgspec.to_builtins(self, enc_hook=_plain)
        return values | {"certificate": self.certificate.to_mapping() if self.certificate else None}

    def check(self) -> None:
        """ValueError for numbers that make no sense, or for a promise that this model cannot keep."""
        calibration, cut, certificate = self.calibration, self.thresholds, self.certificate
        labelled, curves = self.training.get("labelled") or {}, self.training.get("curves") or ""
        if not (isinstance(labelled, dict) and isinstance(curves, str)):
            raise ValueError("training must say what was labelled as an object, and its curves as a text")
        if not (0.0 <= cut.discard < cut.keep <= 1.0):
            raise ValueError(f"thresholds must be 0 <= discard < keep <= 1, not {cut.discard} and {cut.keep}")
        if not (calibration.temperature > 0 and math.isfinite(calibration.temperature + calibration.bias)):
            raise ValueError("temperature must be above zero and finite, bias finite")
        if not 0.0 < calibration.prevalence < 1.0:
            raise ValueError("prevalence must lie between 0 and 1")
        if certificate is None:
            return
        if certificate.weights_sha256 != self.sha256.weights:
            raise ValueError("the certificate is that of other weights")
        if not cut.discard < float(calibration.score(np.array([certificate.limit_logit]))[0]):
            raise ValueError("the discard threshold lies above what the certificate allows")
        if self.score_basis != "labels" and cut.evidence.get("basis") != CONFIRMED:
            raise ValueError("a certificate rests on labels, and neither score_basis nor the thresholds do")


def _plain(number: object) -> float:
    if isinstance(number, float):  # numpy's: one of its kind, and strange to msgspec
        return float(number)
    raise TypeError(f"{type(number).__name__} has no place in a manifest")


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a model folder holds."""

    id: str
    folder: Path
    manifest: Manifest
    stored: Mapping[str, Any]  # manifest.json as it is, with keys that only other versions know
    weights: Weights

    @property
    def profile(self) -> RasterProfile:
        return self.manifest.profile

    @property
    def width(self) -> int:
        return self.manifest.network.width

    @property
    def calibration(self) -> Calibration:
        return self.manifest.calibration

    @property
    def discard(self) -> float:
        return self.manifest.thresholds.discard

    @property
    def keep(self) -> float:
        return self.manifest.thresholds.keep

    @property
    def certificate(self) -> Certificate | None:
        return self.manifest.certificate

    @property
    def weights_sha256(self) -> str:
        """Of their file: the same network has the same, however it was calibrated."""
        return self.manifest.sha256.weights

    @property
    def limits(self) -> NDArray[np.float64]:
        """(2,): the logits at which the verdict changes, the lower one first."""
        return np.array([self.calibration.logit(score) for score in (self.discard, self.keep)])

    @property
    def pipeline(self) -> str:
        """The chain of stages that a verdict depends on, as events carry it."""
        calibration = json.dumps(self.stored["calibration"], sort_keys=True)
        stages = (
            f"raster:{self.profile.id}",
            f"weights:{self.weights_sha256[:8]}",
            f"calibration:{hashlib.sha256(calibration.encode()).hexdigest()[:8]}",
            f"thresholds:{self.discard:.6g}-{self.keep:.6g}",
        )
        return "|".join(stages)


def objection(folder: Path, *, replaces: bool) -> str | None:
    """Why no model may be written there, for whoever asks before the work begins; None where one may."""
    if not os.path.lexists(folder):
        return None
    if not (folder / MANIFEST).is_file():
        return "exists and is no model; name another folder"
    return None if replaces else "holds a model; name another folder, or give --replace and the new one takes its place"


def write(
    folder: Path,
    weights: Weights | Path,
    manifest: Manifest,
    card: str,
    parent: Bundle | None = None,
    *,
    replaces: bool = False,
) -> Bundle:
    """Write a model folder as one act: it is there whole, or not at all. Returns what :func:`read` makes of it.

    It is made beside its place and renamed: whoever has loaded what stood there keeps it. BadBundle where there is
    something already, unless it ``replaces`` it.

    The digests of ``manifest`` are filled in here. What it has in common with that of ``parent`` is written as it
    stands there, with what only another version knows. ``weights`` may be the file of another model, which becomes that
    of this one as it is.
    """
    files = {CARD: card.encode()}
    if not isinstance(weights, Path):
        half = {name: np.ascontiguousarray(tensor.astype(np.float16)) for name, tensor in weights.items()}
        files[WEIGHTS] = save_tensors(half)
    held = weights.read_bytes() if isinstance(weights, Path) else files[WEIGHTS]
    digests = Digests(*(hashlib.sha256(data).hexdigest() for data in (held, files[CARD])))
    whole = msgspec.structs.replace(manifest, sha256=digests).to_mapping()
    if parent is not None:
        before = parent.manifest.to_mapping()
        whole |= {name: value for name, value in parent.stored.items() if whole.get(name) == before.get(name)}
    files[MANIFEST] = (json.dumps(whole, indent=1, sort_keys=True) + "\n").encode()
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        for name, data in files.items():
            write_synced(fresh / name, data)
        if isinstance(weights, Path):
            link_or_copy(weights, fresh / WEIGHTS)
        bundle = read(fresh)
        if why := objection(folder, replaces=replaces):
            raise BadBundle(f"{folder} {why}")
        replace_folder(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return replace(bundle, folder=folder)


def read(folder: Path, known: dict[str, Weights] | None = None) -> Bundle:
    """Read and check a model folder; BadBundle for anything that is not exactly as its manifest says.

    ``known``: weights by the SHA-256 of their file, for whoever reads many models that share theirs; it is added to.
    """
    stored, digest = _stored(folder)
    digests = stored.get("sha256")
    if not isinstance(digests, dict) or not digests:
        raise BadBundle(f"model {folder}: manifest.json names no SHA-256 of its files; copy the folder again")
    for name, expected in digests.items():  # first: a damaged file has no parts worth a closer look
        _check_digest(folder, str(name), expected)
    manifest = _manifest(folder, stored)
    seen, sha256 = {} if known is None else known, manifest.sha256.weights
    weights = seen[sha256] if sha256 in seen else _weights(folder, sha256)
    _check_shapes(folder, weights, manifest.network.width)
    seen[sha256] = weights
    return Bundle(id=_id(manifest.name, digest), folder=folder, manifest=manifest, stored=stored, weights=weights)


def _manifest(folder: Path, stored: Mapping[str, Any]) -> Manifest:
    try:
        return Manifest.from_mapping(stored)
    except _DAMAGE as error:
        raise BadBundle(f"model {folder}: manifest.json is damaged ({error!r}); copy the folder again") from None


def _stored(folder: Path) -> tuple[dict[str, Any], str]:
    """What manifest.json says, and its SHA-256."""
    path = folder / MANIFEST
    if not path.is_file():
        raise BadBundle(f"model {folder}: there is no manifest.json; name a model folder, or 'shipped'")
    with path.open("rb") as file:
        data = file.read(MAX_MANIFEST_BYTES + 1)
    try:
        stored = json.loads(data) if len(data) <= MAX_MANIFEST_BYTES else None
    except (ValueError, RecursionError):
        stored = None
    if not isinstance(stored, dict):
        raise BadBundle(f"model {folder}: manifest.json is not readable JSON; copy the folder again")
    if stored.get("format") != FORMAT:
        raise BadBundle(f"model {folder}: format {stored.get('format')!r} needs another version of afm-triage")
    return stored, hashlib.sha256(data).hexdigest()


def _check_digest(folder: Path, name: str, expected: object) -> None:
    if name not in (WEIGHTS, CARD):
        raise BadBundle(f"model {folder}: manifest.json names a file that is no part of a model: {name!r}")
    path = folder / name
    if not path.is_file() or path.stat().st_size > MAX_WEIGHT_BYTES:
        raise BadBundle(f"model {folder}: {name} is missing or too large; copy the folder again")
    if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise BadBundle(f"model {folder}: {name} differs from its SHA-256 in manifest.json; copy the folder again")


def id_in(folder: Path) -> str:
    """The id of the model that a folder holds, from its manifest alone. BadBundle where there is no manifest."""
    stored, digest = _stored(folder)
    return _id(stored.get("name"), digest)


def _id(name: object, digest: str) -> str:
    return f"{name}-{digest[:12]}"


def certificate_in(folder: Path) -> Certificate | None:
    """The certificate of a model folder, from its manifest alone: weights are neither read nor checked.

    Raises BadBundle as :func:`read` does.
    """
    return _manifest(folder, _stored(folder)[0]).certificate


def _weights(folder: Path, sha256: str) -> Weights:
    data = (folder / WEIGHTS).read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:  # another file by now than the one that was checked
        raise BadBundle(f"model {folder}: {WEIGHTS} changes while it is read; try again when nobody writes there")
    header_bytes = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 1 << 63
    if header_bytes > min(MAX_HEADER_BYTES, len(data)):
        raise BadBundle(f"model {folder}: weights.safetensors is no safetensors file; nothing of it was loaded")
    try:
        weights = cast(Weights, load_tensors(data))
    except (SafetensorError, ValueError, KeyError) as error:
        raise BadBundle(f"model {folder}: weights.safetensors cannot be read: {error}") from None
    for name, tensor in weights.items():
        if tensor.dtype not in (np.float16, np.float32) or not np.isfinite(tensor).all():
            raise BadBundle(f"model {folder}: tensor {name} is not finite float16 or float32")
    return weights


def _check_shapes(folder: Path, weights: Weights, width: int) -> None:
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found != shapes(width):
        wrong = sorted(set(found.items()) ^ set(shapes(width).items()))[0][0]
        raise BadBundle(f"model {folder}: weights do not fit a ResNet18 of width {width}, first difference: {wrong}")


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
    if models is not None and Path(name).name == str(name) and (models / name / MANIFEST).is_file():
        return models / name
    folder = Path(name)
    if not folder.is_dir():
        raise BadBundle(f"no model {str(name)!r}: name a model folder, or 'shipped'")
    return folder


def entries(models: Path | None = None) -> Iterator[Entry]:
    """The shipped model, then every folder under ``models`` that has a manifest, by name."""
    known: dict[str, Weights] = {}
    yield _entry("shipped", SHIPPED, known)
    if models is not None and models.is_dir():
        for folder in sorted(models.iterdir()):
            if not folder.name.startswith(".") and (folder / MANIFEST).is_file():
                yield _entry(folder.name, folder, known)


def _entry(name: str, folder: Path, known: dict[str, Weights]) -> Entry:
    try:
        return Entry(name, folder, read(folder, known))
    except BadBundle as error:
        return Entry(name, folder, None, str(error))
