"""`adapt`: moves the discard cut from confirmed events, with forecast and evidence, or says what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from daemon.common.errors import INPUT_OUTPUT, UserError
from daemon.common.options import Option, this_user
from daemon.common.text import clean
from daemon.config import Config, Flags, Keys, load
from daemon.labels.curve_name import name_of

if TYPE_CHECKING:
    from daemon.judging.registry import Promotion
    from daemon.learn.adaptation import Certified, Proposal, TakenBack


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    service: Annotated[Flags, Keys("state", "instrument")]
    miss: Annotated[
        Literal["0.01", "0.02"], Option("chance that the next event like the confirmed ones lies below the new cut")
    ] = "0.01"
    unattended: Annotated[
        bool, Option("for a timer: move only when the curves to look at first have been looked at")
    ] = False
    dry_run: Annotated[bool, Option("say what would be done, and do nothing")] = False
    json: Annotated[bool, Option("the same as one JSON object")] = False


def run(options: Options) -> int:
    """Exit 0, also where the cut stays; 69 without a ledger, 65 for a model that cannot be read, 74 for labels."""
    from daemon.judging.registry import Registry
    from daemon.learn.adaptation import accept, audit, certify, propose
    from daemon.learn.ground import taken_back

    config = load(options.service)
    taken = None if options.dry_run else audit(config)
    proposal = propose(config, float(options.miss), is_watched=options.unattended, counts=True)
    back = taken_back(Registry(config.state / "models"), proposal.group) if options.unattended else None
    is_held = options.unattended and (back is not None or bool(proposal.look_first))
    moved: Promotion | None = None
    try:
        if proposal.moves and not options.dry_run and not is_held:
            moved = accept(config, proposal, _by(options))
        certified = None if options.dry_run else certify(config, _by(options))
    except OSError as error:
        why = f"{config.state} takes no model: {error.strerror}; see to that, and adapt again"
        raise UserError(INPUT_OUTPUT, why) from None
    if options.json:
        print(json.dumps(_as_json(proposal, moved, taken, certified)))
    else:
        print("\n".join(clean(line) for line in _lines(options, config, proposal, moved, taken)))
        if certified is not None:
            print(clean(certified.text))
        if back is not None and proposal.moves:
            print(clean(f"a timer moves nothing after that: {back}; `adapt` of a person does"))
    return 0


def _by(options: Options) -> str:
    return "adapt, by its timer" if options.unattended else this_user() or "somebody"


def _as_json(
    proposal: Proposal, moved: Promotion | None, taken: TakenBack | None, certified: Certified | None
) -> Mapping[str, Any]:
    back = None if taken is None else {"model": taken.id, "seqs": taken.seqs, "text": taken.text}
    model = moved.id if moved else None
    sheet = None if certified is None else asdict(certified)
    return {**asdict(proposal), "moved": moved is not None, "model": model, "taken_back": back, "certificate": sheet}


def _lines(
    options: Options, config: Config, proposal: Proposal, moved: Promotion | None, taken: TakenBack | None
) -> Iterator[str]:
    if taken is not None:
        yield f"{taken.text}; {taken.holds.id if taken.holds else 'the configured model'} serves"
    yield from proposal.sentences
    if moved is not None:
        when = "from now on" if _is_turn_of(config, moved.group) else f'when a session of "{moved.group}" begins'
        yield f"{moved.id} serves {when}: it discards up to {proposal.new:.4g}; back with: models rollback"
    elif proposal.moves:
        waits = "the curves below have not been looked at" if proposal.look_first else "it was taken back"
        why = "--dry-run" if options.dry_run else waits
        yield f"nothing was moved: {why}"
    if proposal.look_first and (proposal.moves or proposal.new == proposal.old):
        yield "look at these first; they are at the head of the review queue:"
        yield from (f"  {name}" for name in _names(config, proposal))


def _is_turn_of(config: Config, group: str) -> bool:
    from daemon.judging.registry import Registry

    return Registry(config.state / "models").group() == group


def _names(config: Config, proposal: Proposal) -> list[str]:
    from daemon.ledger.view import LedgerView

    with LedgerView(config.ledger_file) as view:
        found = view.decisions(proposal.look_first)
    return [
        f"{name_of(found[seq]['data']['path'], found[seq]['data']['curve'])}  score {found[seq]['data']['score']:.4g}"
        for seq in proposal.look_first
        if seq in found
    ]
