"""What judges in this run: a model, and a ``Judge`` made of it with the laboratory's thresholds, if any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from daemon.common.ending import Closing
from daemon.common.errors import BAD_CONFIG, BAD_DATA, INTERNAL, UNREACHABLE, UserError
from daemon.common.options import Option
from daemon.config import NOWHERE, Config, Flags, ThresholdsConfig, load
from daemon.engine import PATIENT, EngineTimeouts, builder
from daemon.formats.text_rule import TextRule, digest_of
from daemon.judging import CutOrigin, Judge, Thresholds
from daemon.judging.audit import Band
from daemon.judging.registry import Promotion, Registry, Stamp
from deploy.classifier import ANY, EngineId, EngineRequest, NoEngine
from deploy.serving import Model, SelfTestFailed
from models.bundle import BadBundle, Bundle, id_in, read, resolve


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

    The one that is named, whatever serves. An engine on a GPU is guarded: close it with :func:`release`. Raises
    UserError for everything that can be wrong.
    """
    try:
        folder = resolve(name) if models is None else Registry(models).find(name)
    except BadBundle as error:
        raise UserError(BAD_DATA, f"model {name}: {error}") from error
    return _load(name, folder, wish, patience)


def _load(
    name: str, found: Path | Bundle, wish: EngineRequest, patience: EngineTimeouts, like: Model | None = None
) -> Model:
    try:
        bundle = read(found) if isinstance(found, Path) else found
        if like is not None and like.is_network_of(bundle):
            return like if like.id == bundle.id else like.with_bundle(bundle)
        return Model.of(bundle, wish, builder(patience))
    except BadBundle as error:
        raise UserError(BAD_DATA, f"model {name}: {error}") from error
    except SelfTestFailed as error:
        raise UserError(
            INTERNAL, f"model {name}: {error}; nothing is judged by an engine that computes wrongly"
        ) from error
    except NoEngine as error:
        raise UserError(UNREACHABLE, f"no engine for this: {error}") from error


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """What is to judge for a state: the configured model, the base, or what was promoted in its place."""

    name: str
    id: str
    folder: Path
    base_id: str
    promotion: Promotion | None = None  # None: the base
    passed_over: str | None = None  # why a promotion that there is does not hold
    is_broken: bool = False  # it should hold, and cannot
    stamp: Stamp = None  # of the registry when it was asked
    bundle: Bundle | None = None  # where it was read already


def base_name(config: Config) -> str:
    """The configured model as the service has it, for a verb that may not have been told."""
    return config.model if "model" in config.origins else Registry(config.state / "models").base_name() or config.model


def choose(name: str, models: Path, override: ThresholdsConfig, group: str | None = None) -> Chosen:
    """What serves where ``name`` is configured, by the registry of ``models``. BadBundle where there is no base.

    ``group``: a session group, by default the one whose promotions are in force.
    What is promoted and cannot serve is passed over: the base discards less than any cut that was made from it.
    """
    registry = Registry(models)
    stamp, folder = registry.stamp(), registry.find(name)
    base = Chosen(name, base_id := id_in(folder), folder, base_id, stamp=stamp)
    try:
        group = registry.group() if group is None else group
        if (promotion := registry.for_group(group, base_id)) is None:
            other = registry.for_group(group)
            return base if other is None else replace(base, passed_over=_is_of_another(other, base_id))
        promoted = read(registry.folder_of(promotion))
        if promoted.id != promotion.id:
            raise BadBundle(f"{promoted.folder} holds {promoted.id}")
    except BadBundle as error:
        return replace(base, passed_over=f"what was promoted cannot serve, {base_id} judges: {error}", is_broken=True)
    discard, keep = _thresholds_of(promoted, override)
    if not discard < keep:
        why = f"its discard threshold ({discard:g}) does not lie below the configured keep ({keep:g})"
        return replace(base, passed_over=f"{promotion.id} was promoted and is passed over, {base_id} judges: {why}")
    return Chosen(promotion.name, promoted.id, promoted.folder, base_id, promotion, stamp=stamp, bundle=promoted)


@dataclass(frozen=True, slots=True)
class InForce:
    """What the next curve meets: the chain that scores it, its thresholds, and the band of a raised cut."""

    pipeline: str
    thresholds: Thresholds
    band: Band | None


def in_force(config: Config) -> InForce:
    """What serves for a configuration now, by the registry and its own thresholds. BadBundle: no model can be read."""
    chosen = choose(base_name(config), config.state / "models", config.thresholds)
    bundle = chosen.bundle or read(chosen.folder)
    discard, keep = _thresholds_of(bundle, config.thresholds)
    return InForce(bundle.pipeline, Thresholds(discard=discard, keep=keep), _band_of(bundle, discard))


def _is_of_another(promotion: Promotion, base_id: str) -> str:
    made_from = f"{promotion.id} was promoted in the place of {promotion.base_id}"
    return f"{made_from}; the configured model is {base_id}, which judges"


def load_chosen(
    config: Config, wish: EngineRequest, patience: EngineTimeouts = PATIENT, like: Model | None = None
) -> tuple[Model, Chosen]:
    """What serves for a configuration, on an engine of ``wish``, or on that of ``like`` where the network is the same.

    Raises UserError where the base cannot judge either.
    """
    try:
        chosen = choose(config.model, config.state / "models", config.thresholds)
    except BadBundle as error:
        raise UserError(BAD_DATA, f"model {config.model}: {error}") from error
    try:
        return _load(chosen.name, chosen.bundle or chosen.folder, wish, patience, like), chosen
    except UserError as error:
        if chosen.promotion is None:
            raise
        base = Registry(config.state / "models").find(config.model)
        passed_over = f"{chosen.id} was promoted and cannot serve, {chosen.base_id} judges: {error}"
        told = replace(chosen, name=config.model, id=chosen.base_id, folder=base, promotion=None, bundle=None)
        told = replace(told, passed_over=passed_over, is_broken=True)
        return _load(told.name, base, wish, patience, like), told


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOptions:
    """How a verb that judges files by itself is asked to judge as a service would."""

    config: Annotated[str | None, Option("judge as the service of this configuration does", "TOML")] = None
    state: Annotated[str | None, Option("judge with what serves there; its ledger knows names", "DIR")] = None
    instrument: Annotated[str | None, Option("whose state it is", "NAME")] = None
    model: Annotated[
        str | None, Option("model that judges, or the id of one that did", "NAME-or-DIR", unless="what serves, shipped")
    ] = None

    def service(self, *, needs_state: bool = False) -> Config:
        """The configuration of the service whose curves are meant. Raises ConfigError (78)."""
        given = {"state": self.state, "instrument": self.instrument}
        flags = Flags(self.config, {key: value for key, value in given.items() if value is not None})
        return load(flags, needs_state=needs_state)


@dataclass(frozen=True, slots=True)
class Asked:
    """What `score` and `explain` need of a configuration, so that their verdicts are the service's."""

    model: str | None  # None: what serves for the configuration
    config: Config  # an empty one unless a service was named

    @classmethod
    def of(cls, options: JudgeOptions, *, require_certificate: bool = False) -> Asked:
        """Raises ConfigError (78) with everything that is wrong with the configuration."""
        if options.config is None and options.state is None:
            state = options.service().state if options.model is not None else NOWHERE  # whose models have names
            return cls(options.model or "shipped", Config(state, require_certificate=require_certificate))
        config = options.service(needs_state=True)
        is_required = require_certificate or config.require_certificate
        return cls(options.model, replace(config, require_certificate=is_required))

    @property
    def text(self) -> tuple[TextRule, ...]:
        return self.config.text


def load_asked(asked: Asked, wish: EngineRequest) -> tuple[Model, Judge, str | None]:
    """What a verb judges with: the model that was named, else what serves; and why something promoted does not.

    Raises UserError for everything that can be wrong.
    """
    config, chosen = asked.config, None
    if asked.model is None:
        model, chosen = load_chosen(replace(config, model=base_name(config)), wish)
    else:
        model = load_model(asked.model, wish, config.state / "models")
    certified = config.require_certificate
    judge = judge_of(model, config.thresholds, require_certificate=certified, text=config.text)
    return model, judge, None if chosen is None else chosen.passed_over


def find_asked(asked: Asked) -> tuple[Path, str | None]:
    """The folder of what :func:`load_asked` loads, for whoever has others judge with it; and why not what was promoted.

    Raises UserError for a model that is not there, or not whole.
    """
    config, models = asked.config, asked.config.state / "models"
    name = asked.model or base_name(config)
    try:
        chosen = choose(name, models, config.thresholds) if asked.model is None else None
        folder = chosen.folder if chosen else Registry(models).find(name)
        read(folder)
    except BadBundle as error:
        raise UserError(BAD_DATA, f"model {name}: {error}") from error
    return folder, chosen.passed_over if chosen else None


def release(model: Model) -> None:
    """End what judges for it outside this process, if anything does."""
    if isinstance(model.classifier, Closing):
        model.classifier.close()


def judge_of(
    model: Model, override: ThresholdsConfig, *, require_certificate: bool = False, text: Sequence[TextRule] = ()
) -> Judge:
    """What every event of this model says about who judged.

    A bolder threshold than its own has no certificate, nor has a model whose verdicts are not those of single
    precision, in which the evidence was counted.
    """
    bundle = model.bundle
    discard, keep = _thresholds_of(bundle, override)
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
        band=_band_of(bundle, discard),
    )


def _band_of(bundle: Bundle, discard: float) -> Band | None:
    """That of a raised cut, where it is the cut in force."""
    return bundle.manifest.thresholds.band if discard == bundle.discard else None


def _thresholds_of(bundle: Bundle, override: ThresholdsConfig) -> tuple[float, float]:
    discard = bundle.discard if override.discard is None else override.discard
    return discard, bundle.keep if override.keep is None else override.keep


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
