"""The gate: a candidate network is promoted only where every test lets it through, and each refusal says which did not.

First the folder: it is a model, a child of the parent, and differs from it only where the tuning may. That costs
nothing and may be asked at any time. Then the statistics (models.gate), on golden events, fixed simulated curves and
the curves of the stream: a *look*, one a night, each with half the error of the one before. The log of looks is
``STATE/finetune/gate.jsonl``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from daemon.common.errors import USAGE, UserError
from daemon.config import Config
from models.bundle import Bundle
from models.gate import Finding

#: In the state folder.
LOG = Path("finetune") / "gate.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the gate says of one candidate."""

    candidate: str  # its id; its folder where that holds no model
    parent: str  # id of the network that it would replace
    network: str  # SHA-256 of the parent's weights: looks are counted by it
    cut: float  # in force when it was looked at, a score
    night: str  # local date, YYYY-MM-DD
    time: str  # UTC, RFC 3339
    look: int  # its number, from 1; 0: none was spent
    alpha: float  # what the look spent, or would have
    passed: bool
    findings: tuple[Finding, ...]
    is_noted: bool = False  # it was looked at before, this very night: this is what was found then

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the tests that refused it."""
        return tuple(one.test for one in self.findings if not one.passed)

    def sentences(self) -> Iterator[str]:
        """All of it in words; what refused it comes first."""
        yield from (one.text for one in self.findings if not one.passed)
        yield from (one.text for one in self.findings if one.passed)

    def to_mapping(self) -> dict[str, Any]:
        """Ready for JSON; :meth:`from_mapping` reads it again."""
        return dict(msgspec.to_builtins(self))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Report:
        """Raises msgspec.ValidationError for anything else."""
        return msgspec.convert(values, cls)


def look(
    config: Config,
    candidate: Bundle | Path,
    parent: Bundle,
    cut: float,
    taught: object | None,
    *,
    cross_fitted: Sequence[float] = (),
    spend: bool = True,
) -> Report:
    """Every test on one candidate; moves nothing.

    ``parent``: the network that serves the present session group, ``cut`` its discard threshold in force, a score.
    ``cross_fitted``: logits of the confirmed events that it does not discard, each by a network tuned without its
    experiment and day. ``spend``: note the look, as one that may end in a promotion does.

    The same candidate asked about again in the same night is answered from the log. Raises UserError 65 where another
    candidate of this parent was looked at this night, 69 without a ledger, 74 where ledger or labels cannot be read;
    OSError where the state takes no line of the log.
    """
    raise UserError(USAGE, "the gate is not in this version yet, so no network is promoted")


def looks(state: Path) -> list[Report]:
    """The looks that were spent, oldest first; lines that a crash cut are passed over."""
    found = []
    try:
        lines = (state / LOG).read_bytes().splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            found.append(msgspec.json.decode(line, type=Report))
        except msgspec.DecodeError:
            continue
    return found
