"""Real events under shuffled, renamed and re-encoded columns: none may be discarded in silence.

``PYTHONPATH=.:tests python tests/faults/textual.py [MUTANTS] [SEED]`` takes the kept curves of the labelled
collections where they are there, else those that come with the program; 2,000 take about five minutes of one core. It
prints how many were kept, left to a person, or refused with a reason, and every one that was lost.
"""

from __future__ import annotations

import csv
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from textmutants import Mutant, mutant

from daemon.config import ThresholdsConfig
from daemon.formats import open_file
from daemon.formats.base import NotACurve, Unfinished, Unreadable
from daemon.judging import classify, decide
from daemon.judging.judge import judge_of, load_model
from daemon.reading import Reading
from daemon.sources import Arrival
from deploy.serving import Model
from models.curve import Curve

ROOT = Path(__file__).resolve().parents[2]
LABELLED, BUNDLED = ROOT.parent / "shared" / "data", ROOT / "daemon" / "curves"


@dataclass(frozen=True)
class Outcome:
    """What became of the event in one file."""

    mutant: Mutant
    source: str
    word: str  # "keep", "review", "discard", or why nobody could read it
    is_lost: bool


class Trial:
    """Judges files as the service does, in this process."""

    def __init__(self, model: Model) -> None:
        self.model, self.judge = model, judge_of(model, ThresholdsConfig())
        self.events = [(name, curve) for name, curve in _events() if self._verdict([curve]) == {"keep"}]

    def outcomes(self, count: int, seed: int = 0) -> Iterator[Outcome]:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(count):
                rng = random.Random(seed * 1_000_003 + number)
                source, curve = rng.choice(self.events)
                made = mutant(curve, number, rng)
                file = Path(folder) / made.name
                file.write_bytes(made.content)
                word = self._word(file)
                file.unlink()
                yield Outcome(made, source, word, word in ("discard", "image", "table", "unclaimed"))

    def _word(self, file: Path) -> str:
        """The best verdict on any curve of the file: the event is in one of them."""
        try:
            verdicts = self._verdict(open_file(file))
        except (Unreadable, Unfinished) as error:
            if isinstance(error.__cause__, NotACurve):
                return error.__cause__.reason
            return "unclaimed" if error.__cause__ is None and error.reason == "unreadable" else error.reason
        return next(verdict for verdict in ("keep", "review", "discard") if verdict in verdicts)

    def _verdict(self, curves: list[Curve]) -> set[str]:
        arrival = Arrival("score", "x", Path("x"))
        readings = [Reading(arrival, index, "0", curve) for index, curve in enumerate(curves)]
        scored = classify(readings, self.model, self.judge.thresholds)
        return {decision.verdict for decision in decide(readings, scored, self.judge)}


def _events() -> Iterator[tuple[str, Curve]]:
    """Curves with a labelled event, of formats that state all there is to know."""
    if (LABELLED / "labels.csv").exists():
        with open(LABELLED / "labels.csv", newline="") as table:
            labelled = [
                (LABELLED / row["path"], int(row["curve_index"]))
                for row in csv.DictReader(table)
                if row["label"] == "keep"
            ]
    else:
        labelled = [(path, 0) for path in sorted(BUNDLED.glob("force-save-*.jpk-force"))]
    for path, index in labelled:
        if path.suffix in (".txt", ".csv"):
            continue
        try:
            curve = open_file(path)[index]
        except (Unreadable, Unfinished):
            continue
        if curve.distance is not None and curve.force_unit == "N" and len(curve) >= 300 and not curve.notes:
            yield path.name, curve


def main() -> int:
    count, seed = (int(word) for word in (*sys.argv[1:], *("2000", "0")[len(sys.argv) - 1 :]))
    trial, words = Trial(load_model("shipped")), Counter[str]()
    lost = 0
    for outcome in trial.outcomes(count, seed):
        words[outcome.word] += 1
        lost += outcome.is_lost
        if outcome.is_lost:
            print(f"lost: {outcome.source}: {outcome.mutant.name}: {outcome.mutant.recipe}: {outcome.word}")
    print(f"{count} mutants of {len(trial.events)} curves, seed {seed}: {dict(words.most_common())}; {lost} lost")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
