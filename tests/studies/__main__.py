"""`make study TOPIC=…`: repeat an experiment behind the shipped model; one topic a module of this folder."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from daemon.cli import Parser, execute
from daemon.common.errors import INPUT_OUTPUT, UserError
from daemon.common.options import add_options, take_options

#: topic -> one line of help; the module has its name, with _ for -.
TOPICS: dict[str, str] = {
    "alike": "are curves that look alike of one label, so that a sheet of them is answered at a glance",
    "archive": "how fast curves are judged from files and from an archive, and what bounds it beside a GPU",
    "baselines": "the model beside a step detector and the plain published recipe",
    "calibration": "are probabilities that were fitted once right on other streams, at other prevalences",
    "engines": "does every engine on a CPU give the verdicts of single precision, and what does each cost",
    "enough": "does the promise about what is unseen in a pile hold, and how much is looked at for it",
    "explain": "does the heat of an explanation lie where something truly broke",
    "facility": "two hundred instruments at once into one collector: what it costs, and is every decision there once",
    "few-labels": "what a few dozen labels of one's own curves add, and by which way",
    "find": "how long a search over a million curves takes, and does it find what a plain loop finds",
    "flip": "is a curve upside down ever taken for an event, and what does looking cost",
    "goal": "does the interval for the time to the goal hold, over nights whose yield changes",
    "golden": "make the golden events that ship, from a collection of public data",
    "gpu": "the model on this GPU: bits, speed, verdicts, new weights, real faults",
    "guard": "how soon and how falsely the guard rings, and do its bounds hold",
    "ladder": "what confirmed events do to the discard cut, live, labelled through the page",
    "learn": "what a night of fine-tuning does to events and pile, and whether the gate judges it right",
    "left-out": "do labels of other systems help on one that the model has never seen",
    "losses": "every loss on an equal budget, over several seeds, against cross entropy",
    "misread": "what goes wrong in a run, and which number of the guard tells it, how soon",
    "order": "of the events in a pile how many are found, against the share of it that was looked at",
    "poison": "which test of the gate refuses which poisoned candidate",
    "ruptures": "how far force and place of a rupture are off, and how many are found, where the truth is known",
    "sampling": "does a curve keep its verdict when the instrument stores fewer points of it",
    "steps": "of the events that the network misses, how many does the second opinion see",
    "stress": "from which strength on does a nuisance turn an event into a discard",
    "streams": "a model on streams in which events are rare, simulated and real",
    "unseen": "what an audit of discards says of the events among them, and what its draw costs",
}


def _parse(words: list[str]) -> Callable[[], int]:
    """One sub-command a topic; only the module of what is asked for is imported."""
    parser = Parser(prog="python -m tests.studies", description="The experiments behind the shipped model.")
    topics = parser.add_subparsers(dest="topic", metavar="TOPIC", required=True)
    parsers = {topic: topics.add_parser(topic, help=line, description=line) for topic, line in TOPICS.items()}
    topic = words[0]
    if topic not in TOPICS:
        parser.parse_args(words)  # --help, or a mistake
    study = importlib.import_module(f"tests.studies.{topic.replace('-', '_')}")
    add_options(parsers[topic], study.Options)
    options = take_options(study.Options, parser.parse_args(words))
    out: Path | None = options.out
    if out is not None and (out.is_dir() or not os.access(out.parent, os.W_OK)):  # said now: some take hours
        raise UserError(INPUT_OUTPUT, f"--out {out}: name a file in a folder that exists and can be written")
    return partial(study.run, options)


def main(words: list[str]) -> int:
    """Whatever the study returns: 0 done, 65 for labels that make no sense, 74 where --out cannot be written."""
    return execute(words or ["--help"], _parse)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
