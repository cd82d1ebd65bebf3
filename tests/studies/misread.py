"""`make study TOPIC=misread`: what goes wrong in a run, and which number of the guard tells it, how soon.

One laboratory, simulated: one instrument, one sample, a curve a second, two in a hundred with an event. Its files go
through the real line (reader processes, shipped model, judge, ledger), with canaries beside them as the clock of the
service would send them. In the middle of the run something goes wrong that nobody says. The clock is simulated, as a
night is long; nothing else is.
"""

from __future__ import annotations

import json
import math
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from daemon.common.errors import USAGE, UserError
from daemon.common.options import Option
from daemon.common.text import align
from daemon.sources import Arrival, SourceHealth
from models.clock import Clock
from models.curve import Curve, Samples
from models.files import write_whole

if TYPE_CHECKING:
    from daemon.judging import Judge
    from deploy.serving import Model, Scored
    from models.curve import Prepared

PREVALENCE = 0.02
CURVE_S, CANARY_S = 1.0, 5.0  # one comes so often
LOOK = 25  # curves between two looks at what is told


# The laboratory.


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with the curves, as factors; with the judge it is named by ``judge``."""

    sign: float = 1.0
    unit: float = 1.0
    wave: float = 1.0
    noise: float = 1.0
    adhesion: float = 1.0
    judge: str = ""  # "blind", "swapped", "high"


#: Name -> what goes wrong.
FAULTS: Mapping[str, Fault] = {
    "nothing": Fault(),
    "signs flipped": Fault(sign=-1.0),
    "unit off by 1,000": Fault(unit=1e-3),
    "interference x 3": Fault(wave=3.0),
    "a blind class": Fault(judge="blind"),
    "thresholds swapped": Fault(judge="swapped"),
    "discards up to keep": Fault(judge="high"),
    "noise x 2, adhesion gone": Fault(noise=2.0, adhesion=0.0),
}

_SAMPLES, _RAMP_NM, _CONTACT_NM, _SPRING = 2000, 500.0, 40.0, 30.0
_NOISE_PN, _WAVE_PN, _PERIOD_NM, _TILT_PN, _ADHESION_PN = 8.0, 12.0, 290.0, 60.0, 250.0


class Laboratory:
    """One instrument on one sample; curve i is the same whatever came before it, but for its fault."""

    def __init__(self, seed: int) -> None:
        from models.simulate.recording import Instrument

        self._seed = seed
        travel = np.linspace(0.0, _RAMP_NM, _SAMPLES)
        self._instrument = Instrument(travel, _CONTACT_NM, _SPRING, 1.0, 1000.0, _NOISE_PN, 1.0)

    def curve(self, number: int, fault: Fault) -> Curve:
        """As its file will tell it, in newton."""
        from models.simulate import EVENTS
        from models.simulate.mechanics import chance, pick
        from models.simulate.recording import lag

        rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence(self._seed, spawn_key=(number,))))
        one = self._instrument
        past = one.travel_nm - one.contact_nm
        peak = _ADHESION_PN * float(rng.lognormal(0.0, 0.4)) * fault.adhesion
        force = np.where(past < peak / _SPRING, _SPRING * past, 0.0)
        if chance(rng, PREVALENCE):
            family = pick(rng, {name: weight for name, (weight, _) in EVENTS.items()})
            force = force + EVENTS[family][1](rng, one, past, max(peak / _SPRING + 8.0, 35.0)).force
        phase = 0.3 * math.sin(number / 40.0) + float(rng.normal(0.0, 0.2))
        wave = fault.wave * _WAVE_PN * np.sin(2 * np.pi * one.travel_nm / _PERIOD_NM + phase)
        tilt = _TILT_PN * float(rng.normal(1.0, 0.1)) * one.travel_nm / _RAMP_NM
        noise = fault.noise * _NOISE_PN * float(rng.lognormal(0.0, 0.1)) * rng.standard_normal(_SAMPLES)
        seen: Samples = lag(force, one.response) + wave + tilt + noise + 300.0
        return Curve(
            force=fault.sign * fault.unit * 1e-12 * seen,
            force_unit="N",
            distance=one.travel_nm * 1e-9,
            distance_kind="piezo",
            spring_constant_n_per_m=_SPRING * 1e-3,
            sensitivity_m_per_v=5e-8,
            duration_s=_RAMP_NM / one.speed,
        )


# The line.


class Files:
    """A source of files that lie there already."""

    name = "watch"

    def __init__(self) -> None:
        self._waiting: list[Arrival] = []

    def add(self, arrival: Arrival) -> None:
        self._waiting.append(arrival)

    def start(self) -> None:
        """There is nothing to begin."""

    def take(self, limit: int, large: int) -> list[Arrival]:
        taken, self._waiting = self._waiting[: max(limit, 0)], self._waiting[max(limit, 0) :]
        return taken

    def ready(self) -> int:
        return len(self._waiting)

    def oldest_pending_s(self) -> float | None:
        return None

    def health(self) -> list[SourceHealth]:
        return []

    def stop(self) -> None:
        """There is nothing to end."""


@dataclass(slots=True)
class Story:
    """What was told, by which number, how many curves after something went wrong: a negative number is before."""

    told: dict[str, tuple[int, str]] = field(default_factory=dict)

    def note(self, at: int, said: Mapping[str, str]) -> None:
        """What every number says now; the first time counts."""
        for name, text in said.items():
            if text:
                self.told.setdefault(name, (at, text))


class Line:
    """A real pipeline and the guard beside it, on a clock that goes on with the curves."""

    def __init__(self, folder: Path, model: Model, judge: Judge, closing: ExitStack, canaries: bool) -> None:
        from daemon.config import GuardConfig
        from daemon.guard import Guard
        from daemon.guard.canaries import CanarySource, PathWatch
        from daemon.judging.judge import Serving
        from daemon.judging.sentinel import Dispute, Sentinel
        from daemon.ledger import Ledger
        from daemon.metrics import Metrics
        from daemon.pipeline import Backlog, Pace, Pipeline
        from daemon.publish import Publisher
        from daemon.reading.pool import ReaderPool
        from daemon.service.health import ContactWatch

        self._folder, self._sent, self._begun_s = folder, 0, time.time() - 12 * 3600.0
        self._bell, self._source, self._pace = threading.Event(), Files(), Pace(64, 0.005)
        self._sentinel, self._dispute, self._contact = Sentinel(), Dispute(), ContactWatch(50)
        self._is_lost = False
        ledger = Ledger(folder / "ledger.sqlite", "afm1")
        closing.callback(ledger.close)
        reader = closing.enter_context(ReaderPool(2, wake=self._bell.set))
        publisher = Publisher(ledger.path, "afm1", publish="tcp://127.0.0.1:0", replay="tcp://127.0.0.1:0")
        closing.callback(publisher.stop)
        self._serving, metrics = Serving(model, judge), Metrics()
        clock = Clock(steady_s=lambda: self._sent * CURVE_S)
        source = CanarySource(folder / "canaries", GuardConfig(canaries, CANARY_S), self._bell.set, clock)
        self._path = PathWatch(source, metrics, folder, clock)
        self._guard = Guard(folder, ledger.view(), self._serving, self._dispute, now=clock.steady_s, path=self._path)
        closing.callback(self._guard.stop)
        self._pipeline = Pipeline(
            Backlog([self._source, source]),
            reader,
            self._serving,
            ledger,
            publisher,
            metrics,
            bell=self._bell,
            pace=self._pace,
            sentinel=self._sentinel,
            dispute=self._dispute,
            observe=self._guard.observe,
        )
        self._guard.step()  # as at a start
        self.verdicts: Counter[str] = Counter()

    def swap(self, model: Model, judge: Judge) -> None:
        self._pipeline.swap(model, judge, self._pace)
        self._guard.step()

    def send(self, curves: Sequence[Curve]) -> None:
        """As many files of the laboratory, with the canaries of that time among them, judged to the end."""
        from daemon.instrument import pack

        files: list[Path] = []
        for curve in curves:
            self._sent += 1
            file = self._folder / f"curve-{self._sent:05d}.jpk-force"
            file.write_bytes(pack(curve))
            mtime_ns = int((self._begun_s + self._sent * CURVE_S) * 1e9)
            size, noticed_s = file.stat().st_size, (self._sent + len(curves)) * CURVE_S  # none has to wait
            self._source.add(Arrival("watch", file.name, file, size_bytes=size, mtime_ns=mtime_ns, noticed_s=noticed_s))
            files.append(file)
            self._path.source.step()
        while not self._pipeline.idle():
            for decision in self._pipeline.turn(0.05):
                self.verdicts[decision.verdict] += 1
                self._is_lost = self._contact.observe([decision.reasons])
        self._guard.step()
        for file in files:
            file.unlink()

    def said(self) -> dict[str, str]:
        """What is told now, by the name under which the service tells it."""
        found = {one.name: one.text for one in self._guard.findings() if one.level != "ok"}
        found |= {f"orientation {name}": text for name, is_well, text in self._sentinel.findings() if not is_well}
        return found | ({"contact": self._contact.text} if self._is_lost else {})


# The judge.


def blinded(model: Model) -> Model:
    """The same model, but whatever shows three ruptures or more gets a score of nearly nothing."""
    from deploy.serving import Model as Whole
    from models.steps import falls

    class Blind(Whole):
        def judge_prepared(
            self, prepared: Sequence[Prepared], thresholds: Sequence[float] | None = None, *, drawn: bool = True
        ) -> list[Scored]:
            scored = super().judge_prepared(prepared, thresholds, drawn=drawn)
            return [
                replace(one, score=1e-4, logit=-9.0)
                if item.signal is not None and len(falls(item.signal.astype(np.float64))) >= 3
                else one
                for item, one in zip(prepared, scored, strict=True)
            ]

    return Blind(model.bundle, model.classifier, model.reference, model.passed_over)


def swapped(judge: Judge) -> Judge:
    """Each threshold where the other one was, and said so; no configuration and no model can say it."""
    cuts = judge.thresholds
    thresholds = replace(cuts, discard=cuts.keep, keep=cuts.discard)
    return replace(judge, thresholds=thresholds, pipeline=f"{judge.pipeline}|swapped")


def high(judge: Judge) -> Judge:
    """Discards all that it does not keep, and says nothing of it."""
    cuts = judge.thresholds
    return replace(judge, thresholds=replace(cuts, discard=math.nextafter(cuts.keep, 0.0)))


# The study.


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one run."""

    fault: str
    curves_before: int
    curves_after: int
    #: number -> (curves after something went wrong, what it said); of the unchanged run since it began
    told: dict[str, tuple[int, str]]
    false: dict[str, tuple[int, str]]  # and what was told before
    verdicts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Quiet:
    """A real set in which nothing went wrong, played in file order, again and again."""

    name: str
    files_curves: int
    played: int
    told: dict[str, tuple[int, str]]  # kind of advice -> after so many curves, what it said


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The defaults take some minutes on one core."""

    folders: Annotated[
        tuple[Path, ...], Option("real sets: is anything told of them as they are", "DIR", is_positional=True)
    ] = ()
    played: Annotated[int, Option("curves that each set is played for; at least once", "N")] = 3000
    before: Annotated[int, Option("curves of each run before something goes wrong", "N")] = 600
    after: Annotated[int, Option("and after", "N")] = 600
    faults: Annotated[tuple[str, ...], Option("only these, as the table names them", "NAME")] = tuple(FAULTS)
    seed: Annotated[int, Option("of the laboratory", "N")] = 12
    out: Annotated[Path | None, Option("the table as JSON", "FILE.json")] = None


def run(options: Options) -> int:
    """Exit 0 with the table; 64 for options that make no sense."""
    unknown = [name for name in options.faults if name not in FAULTS]
    if unknown or min(options.before, options.after, options.seed, options.played) < 0:
        raise UserError(
            USAGE, f"--faults are among {', '.join(FAULTS)}; --before, --after, --seed and --played are 0 or more"
        )
    from deploy.serving import Model

    model = Model.load()
    if options.folders:
        sets = [real(folder, model, options.played) for folder in options.folders]
        if options.out:
            write_whole(options.out, json.dumps([asdict(one) for one in sets], indent=1).encode() + b"\n")
        print("\n".join(table_of_sets(sets)))
        return 0
    rows = [trial(name, model, options.before, options.after, options.seed) for name in options.faults]
    if options.out:
        write_whole(options.out, json.dumps([asdict(row) for row in rows], indent=1).encode() + b"\n")
    print("\n".join(table(rows)))
    return 0


def trial(name: str, model: Model, before: int, after: int, seed: int, *, canaries: bool = True) -> Row:
    """One run in which something goes wrong after ``before`` curves."""
    from daemon.config import ThresholdsConfig
    from daemon.judging.judge import judge_of

    fault, judge, story = FAULTS[name], judge_of(model, ThresholdsConfig()), Story()
    false = Story()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as closing:
        line, laboratory = Line(Path(folder), model, judge, closing, canaries), Laboratory(seed)
        for at in range(0, before + after, LOOK):
            if at == before and fault.judge:
                others = {
                    "blind": (blinded(model), judge),
                    "swapped": (model, swapped(judge)),
                    "high": (model, high(judge)),
                }
                line.swap(*others[fault.judge])
            now = fault if at >= before else FAULTS["nothing"]
            line.send([laboratory.curve(number, now) for number in range(at, min(at + LOOK, before + after))])
            (story if at >= before else false).note(at + LOOK - before, line.said())
        return Row(name, before, after, story.told, false.told, dict(line.verdicts))


def real(folder: Path, model: Model, played: int) -> Quiet:
    """What the watches over tip and run tell of a set in which nothing went wrong."""
    from daemon.config import ThresholdsConfig
    from daemon.guard.tip import RunWatch, TipWatch
    from daemon.judging import classify, decide
    from daemon.judging.judge import judge_of
    from daemon.reading.ahead import Job, Piece, find, read_ahead

    judge, story, number = judge_of(model, ThresholdsConfig()), Story(), 0
    pieces = read_ahead(map(Job, find([folder])), 2, model.bundle.profile)
    readings = [item.reading for item in pieces if isinstance(item, Piece)]
    batches = [readings[at : at + 64] for at in range(0, len(readings), 64)]
    decisions = [one for some in batches for one in decide(some, classify(some, model, judge.thresholds), judge)]
    tip, run_watch = TipWatch(), RunWatch()
    while decisions and (not number or number + len(decisions) <= played):
        for reading, decision in zip(readings, decisions, strict=True):
            number += 1
            tip.observe(reading, decision, number)
            run_watch.observe(decision)
            story.note(number, {one.kind: one.text for one in (*tip.advice, *run_watch.advice)})
    return Quiet(folder.name, len(readings), number, story.told)


def table_of_sets(sets: Sequence[Quiet]) -> list[str]:
    """One line a set."""
    cells = [["set", "curves", "played", "told"]]
    for one in sets:
        told = "; ".join(f"{text} ({at})" for at, text in one.told.values()) or "nothing"
        cells.append([one.name, str(one.files_curves), str(one.played), told])
    return align(cells)


def table(rows: Sequence[Row]) -> list[str]:
    """One line a fault: which number told it after how many curves, the soonest first; then what each said."""
    cells = [["planted", "told by (after so many curves)", "before", "keep / review / discard"]]
    for row in rows:
        told = sorted(row.told.items(), key=lambda one: one[1][0])
        counts = " / ".join(str(row.verdicts.get(verdict, 0)) for verdict in ("keep", "review", "discard"))
        words = ", ".join(f"{name} ({at})" for name, (at, _) in told) or "nothing"
        cells.append([row.fault, words, ", ".join(row.false) or "nothing", counts])
    false = [f"{row.fault}, before: {name} ({at}): {text}" for row in rows for name, (at, text) in row.false.items()]
    said = [f"{row.fault}: {name}: {text}" for row in rows for name, (_, text) in row.told.items()]
    return [*align(cells), "", *false, *said]
