"""How a verb that judges files by itself is asked to judge: by its flags, over the configuration that it is given."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from daemon.config import ThresholdsConfig, load
from daemon.formats.text_rule import TextRule


@dataclass(frozen=True, slots=True)
class Asked:
    """What `score` and `explain` need of a configuration, so that their verdicts are the service's."""

    model: str
    models: Path | None  # the folder in which a laboratory's own have names
    thresholds: ThresholdsConfig
    text: tuple[TextRule, ...]
    require_certificate: bool

    @classmethod
    def of(cls, args: argparse.Namespace) -> Asked:
        """Raises ConfigError (78) with everything that is wrong with the configuration."""
        is_required = bool(getattr(args, "require_certificate", False))
        if not args.config:
            return cls(args.model or "shipped", None, ThresholdsConfig(), (), is_required)
        config = load(argparse.Namespace(config=args.config, model=args.model))
        models, is_required = config.state / "models", is_required or config.require_certificate
        return cls(config.model, models, config.thresholds, config.text, is_required)
