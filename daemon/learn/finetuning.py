"""The fine-tuning of one night: labels teach the network, the gate looks at it, and it serves or is refused.

Everything of a run lies in ``STATE/finetune``. Whatever is killed goes on with the same command: a candidate is called
after what it is made of, and so is found again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from daemon.common.errors import USAGE, UserError
from daemon.config import Config

#: In the state: the work of a night, its candidates and the gate's log of looks.
FOLDER = "finetune"
#: Simulated curves that are replayed, so that nothing is forgotten.
REPLAYED = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """What a person, or a timer, asks for."""

    by: str
    is_unattended: bool = False  # by a timer: what a person took back stays taken back
    dry_run: bool = False  # all but the promotion, and no look is spent
    device: str = "auto"
    events: int | None = None  # confirmed ones that it takes; None: as the configuration says
    simulate: int = REPLAYED
    epochs: int | None = None  # None: as the recipe says
    candidate: Path | None = None  # nothing is learned: the gate looks at this model


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a night ended.

    ``waits``: nothing to learn yet; ``refused`` by the gate; ``held``: it passed, and was not promoted (a dry run, or a
    timer after a person took a promotion back); ``promoted``: it serves.
    """

    kind: Literal["waits", "refused", "held", "promoted"]
    sentences: tuple[str, ...]  # the first says how it ended
    model: str | None = None  # the candidate's id
    folder: Path | None = None  # where it lies


def finetune(config: Config, night: Night) -> Outcome:
    """Teach, calibrate, have the gate look, promote.

    Raises UserError: 65 for labels that contradict each other, or a candidate that is no model; 69 without a ledger; 73
    while another one works; 74 where ledger or labels cannot be read. OSError where the state takes no file.
    """
    raise UserError(USAGE, "finetune is not in this version yet")
