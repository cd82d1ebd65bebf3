"""`finetune`: teaches the network what people have said, and lets it serve if it passes the gate."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from daemon.common.errors import INPUT_OUTPUT, USAGE, UserError
from daemon.common.options import Option, this_user
from daemon.common.stdio import telling, working
from daemon.common.text import clean
from daemon.config import Config, Flags, Keys, load
from deploy.engines import DEVICES

if TYPE_CHECKING:
    from daemon.learn.finetuning import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    service: Annotated[Flags, Keys("state", "instrument")]
    device: Annotated[str, Option("where it learns", choices=DEVICES)] = "auto"
    dry_run: Annotated[
        bool, Option("all but the promotion; as often as you like: no look is spent, and its figures are for the eye")
    ] = False
    events: Annotated[
        int | None, Option("confirmed events that it takes", "N", unless="[finetune] events, else 100")
    ] = None
    simulate: Annotated[int, Option("simulated curves that are replayed, so that nothing is forgotten", "N")] = 4_000
    held_out: Annotated[int, Option("simulated curves that thresholds stand on", "N")] = 8_000
    epochs: Annotated[int | None, Option("times through the labels", "N", unless="8")] = None
    candidate: Annotated[
        Path | None, Option("learn nothing: the gate looks at this model, which may then serve", "DIR")
    ] = None
    unattended: Annotated[bool, Option("for a timer: never again after a person took a promotion back")] = False
    json: Annotated[
        bool, Option("the same as one JSON object: whether it waits, is refused, held or promoted; all exit with 0")
    ] = False


def run(options: Options) -> int:
    """Exit 0, also where there is nothing to learn yet or the gate refuses; else as :func:`_learn` says."""
    if wrong := _mistake(options):
        raise UserError(USAGE, wrong)
    config = load(options.service)
    with telling():
        outcome = _learn(config, options)
    if options.json:
        print(json.dumps(_as_json(outcome)))
    else:
        print("\n".join(clean(line) for line in outcome.sentences))
    return 0


def _learn(config: Config, options: Options) -> Outcome:
    """UserError 65 for labels or a candidate, 69 without a ledger, 73 while another one works, 74 for a full disk."""
    with working("loading what learns"):
        from daemon.learn.finetuning import Night, finetune
    usual = Night(by="").recipe
    night = Night(
        by="finetune, by its timer" if options.unattended else this_user() or "somebody",
        is_unattended=options.unattended,
        stands_back=True,
        dry_run=options.dry_run,
        device=options.device,
        events=options.events,
        simulate=options.simulate,
        held_out=options.held_out,
        recipe=usual if options.epochs is None else replace(usual, epochs=options.epochs),
        candidate=options.candidate,
    )
    try:
        return finetune(config, night)
    except OSError as error:
        remedy = "make room, then go on with the same command"
        why = error.strerror or "not all of one could be written"  # numpy names no reason where a disk fills up
        raise UserError(INPUT_OUTPUT, f"{config.state} takes no file: {why}; {remedy}") from None


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "outcome": outcome.kind,
        "model": outcome.model,
        "folder": None if outcome.folder is None else str(outcome.folder),
        "sentences": list(outcome.sentences),
    }


def _mistake(options: Options) -> str | None:
    """What is wrong with the options, in words, or None."""
    mistakes = {
        "--events is 20 or more": options.events is not None and options.events < 20,
        "--simulate and --held-out are 100 or more": min(options.simulate, options.held_out) < 100,
        "--epochs is 1 or more": options.epochs is not None and options.epochs < 1,
        "--candidate learns nothing; leave out --events, --simulate and --epochs": options.candidate is not None
        and (options.events is not None or options.epochs is not None),
    }
    return next((text for text, is_so in mistakes.items() if is_so), None)
