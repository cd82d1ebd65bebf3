"""The start: the weights that a training run begins from, as ``--init`` names them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from daemon.errors import BAD_DATA, UserError
from deploy.registry import resolve
from models.bundle import BadBundle, Bundle, read
from models.network import ResNet18, load
from models.transfer import WIDTH, BadWeights, read_imagenet

PUBLISHED = "imagenet:"


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """``scratch`` when neither is given."""

    parent: Bundle | None = None
    published: Path | None = None  # a file with torchvision's ResNet18

    @property
    def width(self) -> int | None:
        """Channels of the first layer, where the weights settle it."""
        if self.parent is not None:
            return self.parent.width
        return WIDTH if self.published is not None else None

    @property
    def note(self) -> dict[str, str]:
        """What stands in the manifest: the parent stands there anyway."""
        if self.published is None:
            return {}
        return {"init": f"imagenet {hashlib.sha256(self.published.read_bytes()).hexdigest()[:12]}"}

    def network(self) -> ResNet18 | None:
        """A network with these weights, None from scratch; UserError (65) when the file is none."""
        if self.published is not None:
            try:
                return read_imagenet(self.published)
            except BadWeights as error:
                raise UserError(BAD_DATA, f"--init {PUBLISHED}{error}") from None
        if self.parent is None:
            return None
        weights = {name: torch.from_numpy(tensor) for name, tensor in self.parent.weights.items()}
        return load(self.parent.width, weights)


def start_of(name: str) -> Start:
    """What ``--init`` names: ``scratch``, ``imagenet:FILE`` or a model; UserError (65) when it is none of these."""
    if name == "scratch":
        return Start()
    if name.startswith(PUBLISHED):
        return Start(published=Path(name.removeprefix(PUBLISHED)))
    return Start(parent=parent_of(name))


def parent_of(name: str) -> Bundle:
    """The model that ``--init`` names; UserError when it is none."""
    try:
        return read(resolve(name))
    except BadBundle as error:
        raise UserError(BAD_DATA, f"--init {error}") from None
