"""What judges in this run: a model, and a ``Judge`` made of it with the laboratory's thresholds, if any."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from daemon.common.ending import Closing
from daemon.common.errors import BAD_CONFIG, BAD_DATA, INTERNAL, UNREACHABLE, UserError
from daemon.config import Config, ThresholdsConfig
from daemon.engine import PATIENT, EngineTimeouts, builder
from daemon.formats.text_rule import TextRule, digest_of
from daemon.judging import CutOrigin, Judge, Thresholds
from deploy.classifier import ANY, EngineId, EngineRequest, NoEngine
from deploy.serving import Model, SelfTestFailed
from models.bundle import BadBundle, Bundle, id_in, resolve
from models.clock import utc_now

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Serving:
    """What judges now: the one place that knows. Set by the loop between two batches, read by any thread."""

    model: Model
    judge: Judge
    engine: EngineId = field(init=False)  # that computes now; another than the judge's while that one fails
    engine_reasons: tuple[str, ...] = ()  # why it is not a better one

    def __post_init__(self) -> None:
        self.engine = self.judge.engine


def wish_of(config: Config) -> EngineRequest:
    """What a configuration asks of the engine."""
    engine = config.engine
    return EngineRequest(config.device, engine.name, engine.precision, engine.threads or None, config.state / "engines")


def load_model(
    name: str, wish: EngineRequest = ANY, models: Path | None = None, patience: EngineTimeouts = PATIENT
) -> Model:
    """A model that has proved itself on known curves; ``models`` is the folder in which a lab's own have names.

    An engine on a GPU is guarded: close it with :func:`release`. Raises UserError for everything that can be wrong.
    """
    try:
        return Model.load(name, wish, models, builder(patience))
    except BadBundle as error:
        raise UserError(BAD_DATA, f"model {name}: {error}") from error
    except SelfTestFailed as error:
        raise UserError(
            INTERNAL, f"model {name}: {error}; nothing is judged by an engine that computes wrongly"
        ) from error
    except NoEngine as error:
        raise UserError(UNREACHABLE, f"no engine for this: {error}") from error


def release(model: Model) -> None:
    """End what judges for it outside this process, if anything does."""
    if isinstance(model.classifier, Closing):
        model.classifier.close()


def is_outdated(model: Model, name: str, models: Path | None = None) -> bool:
    """Whether the folder that ``name`` means holds another model by now than the one that was loaded from it."""
    try:
        return id_in(resolve(name, models)) != model.id
    except BadBundle:
        return False  # nothing is there to take its place


def judge_of(
    model: Model, override: ThresholdsConfig, *, require_certificate: bool = False, text: Sequence[TextRule] = ()
) -> Judge:
    """What every event of this model says about who judged.

    A bolder threshold than its own has no certificate, nor has a model whose verdicts are not those of single
    precision, in which the evidence was counted.
    """
    bundle = model.bundle
    discard = bundle.discard if override.discard is None else override.discard
    keep = bundle.keep if override.keep is None else override.keep
    if not discard < keep:
        raise UserError(BAD_CONFIG, f"thresholds: discard ({discard:g}) must lie below keep ({keep:g})")
    is_own = (discard, keep) == (bundle.discard, bundle.keep)
    certificate = bundle.certificate if discard <= bundle.discard else None
    if certificate is not None and not (_was_exact(certificate.engine) and model.is_exact):
        certificate = None
    rules = [] if is_own else [f"configured:{discard:.6g}-{keep:.6g}"]
    rules += ["certificate:required"] if require_certificate else []
    rules += [f"text:{digest_of(text)}"] if text else []
    return Judge(
        model=model.id,
        pipeline="|".join([model.pipeline, *rules]),
        engine=model.engine,
        thresholds=Thresholds(discard=discard, keep=keep),
        score_basis=bundle.manifest.score_basis,
        prevalence=bundle.calibration.prevalence,
        certificate=certificate.promise if certificate else None,
        require_certificate=require_certificate,
        cut=_cut_of(bundle, override),
        band=bundle.manifest.thresholds.band if discard == bundle.discard else None,
    )


def _cut_of(bundle: Bundle, override: ThresholdsConfig) -> CutOrigin:
    """Where the discard threshold in force comes from."""
    if override.discard is not None:
        return CutOrigin("configured", 0)
    if bundle.certificate is not None:
        return CutOrigin("adapted", bundle.certificate.events)
    cut = bundle.manifest.thresholds
    return CutOrigin("adapted" if cut.is_of_labels else "shipped", cut.events)


def _was_exact(engine: str) -> bool:
    """Whether evidence was counted in single precision; ``engine`` as a certificate names it."""
    try:
        return EngineId.parse(engine).precision == "fp32"
    except ValueError:
        return False


_NOTE = "served-models.jsonl"  # in the state folder: a line each time another model begins to judge
_MOST_NOTE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Served:
    """A model that has judged for a state; ``since`` is when it first did, RFC 3339; ``folder`` is where it lay."""

    id: str
    name: str
    folder: Path
    since: str


def note_served(state: Path, name: str, model: Model) -> None:
    """Note that ``model`` judges from now on, before its first verdict; once for each time it takes over."""
    path, folder = state / _NOTE, str(model.bundle.folder.absolute())
    line = json.dumps({"id": model.id, "name": name, "folder": folder, "since": utc_now("seconds")})
    try:
        before = _noted(state)
        if not before or (before[-1].id, str(before[-1].folder)) != (model.id, folder):
            with path.open("a", encoding="utf-8") as file:
                file.write(f"\n{line}\n" if file.tell() and not path.read_bytes().endswith(b"\n") else f"{line}\n")
    except OSError as error:  # it judges all the same: events name it
        log.warning("%s: %s; `models list` will not know %s", path, error.strerror, model.id)


def served_by(state: Path) -> list[Served]:
    """Every model that has judged for a state, the first one first."""
    found = {one.id: one for one in reversed(_noted(state))}
    return sorted(found.values(), key=lambda one: one.since)


def _noted(state: Path) -> list[Served]:
    """The lines of the note that can be read."""
    path, found = state / _NOTE, []
    if not path.is_file() or path.stat().st_size > _MOST_NOTE_BYTES:
        return []
    for line in path.read_bytes().splitlines():
        try:
            said = json.loads(line)
            found.append(Served(str(said["id"]), str(said["name"]), Path(said["folder"]), str(said["since"])))
        except (ValueError, KeyError, TypeError):  # cut by a crash
            continue
    return found
