"""Study archive: how fast curves are judged from files and from an archive, and what that leaves a GPU machine with.

Wall clock is what somebody else's work disturbs; so the processor time of a curve is counted too, in the main process
and in the workers. "no network" is the same run with a network that costs nothing: what remains beside a fast GPU.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from daemon.common.errors import USAGE, UserError
from daemon.common.options import Option
from daemon.common.text import align
from models.files import write_whole

if TYPE_CHECKING:
    from daemon.archive import PreparedPortion
    from daemon.judging import Judge
    from deploy.serving import Model


Found = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Both kinds of curves are made here: files by playing the bundled ones, an archive by simulation."""

    model: Annotated[str, Option("the model that judges")] = "shipped"
    curves: Annotated[int, Option("simulated into the archive", "N")] = 10_000
    files: Annotated[int, Option("files that are played", "N")] = 10_000
    seed: Annotated[int, Option("of the simulated curves", "N")] = 1
    out: Annotated[Path | None, Option("what the table was made from", "FILE.json")] = None


def run(options: Options) -> int:
    """Exit 0 with the table, 64 for numbers that make no sense."""
    if min(options.curves, options.files) < 1 or options.seed < 0:
        raise UserError(USAGE, "--curves and --files are 1 or more, --seed 0 or more")
    from daemon.config import ThresholdsConfig
    from daemon.judging.judge import judge_of, load_model, release

    model = load_model(options.model)
    try:
        judge = judge_of(model, ThresholdsConfig())
        with tempfile.TemporaryDirectory(prefix="afm-triage-") as folder:
            found = _measure(options, Path(folder), model, judge)
    finally:
        release(model)
    if options.out is not None:
        write_whole(options.out, json.dumps(found, indent=1).encode() + b"\n")
    print("\n".join(write_text(found)))
    return 0


def _measure(options: Options, folder: Path, model: Model, judge: Judge) -> Found:
    from daemon.bench import CURVES
    from daemon.instrument import play, recordings
    from deploy.classifier import usable_cores

    files = folder / "files"
    for _ in play(recordings([CURVES]), files, rate=1e9, writer="rename", count=options.files):
        pass
    simulated, packed = folder / "simulated.h5", folder / "files.h5"
    idle = _idle(model)
    rows = [
        _timed("pack --simulate", lambda: _pack(simulated, count=options.curves, seed=options.seed)),
        _timed("pack, files", lambda: _pack(packed, files=files)),
        _timed("score, files", lambda: _score_files(files, model, judge)),
        _timed("score, archive", lambda: _score(packed, model, judge)),
        _timed("score, simulated", lambda: _score(simulated, model, judge)),
        _timed("score --summary, simulated", lambda: _count(simulated, model, judge)),
        _timed("no network: score, files", lambda: _score_files(files, idle, judge)),
        _timed("no network: score, simulated", lambda: _score(simulated, idle, judge)),
        _timed("no network: score --summary, simulated", lambda: _count(simulated, idle, judge)),
    ]
    return {
        "model": model.id,
        "engine": str(model.engine),
        "cores": usable_cores(),
        "bytes_a_curve": round(simulated.stat().st_size / options.curves),
        "rows": rows,
        "near_threshold": _near(simulated, model),
    }


def _timed(what: str, work: Callable[[], int]) -> Found:
    """Curves, seconds, and microseconds of processor time a curve: here, and in processes that have ended since."""
    before, begun_s = [_cpu_s(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)], time.perf_counter()
    curves = work()
    wall_s = time.perf_counter() - begun_s
    after = [_cpu_s(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    main_us, workers_us = ((new - old) / curves * 1e6 for new, old in zip(after, before, strict=True))
    return {"what": what, "curves": curves, "wall_s": wall_s, "main_us": main_us, "workers_us": workers_us}


def _cpu_s(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def _pack(path: Path, *, files: Path | None = None, count: int = 0, seed: int = 0) -> int:
    from daemon.archive.writer import ArchiveWriter, pack_files, pack_simulated
    from daemon.reading.ahead import find

    with ArchiveWriter(path) as writer:
        rows = pack_files(find([files]), writer) if files else pack_simulated(count, seed, 0.05, writer)
        packed = sum(1 for _ in rows)
        writer.finish()
    return packed


def _score_files(folder: Path, model: Model, judge: Judge) -> int:
    from daemon.batch import score
    from daemon.batch.output import write_line
    from daemon.reading.ahead import find

    return sum(1 for decision in score(find([folder]), model, judge) if write_line(decision))


def _score(path: Path, model: Model, judge: Judge) -> int:
    from daemon.archive import score_portions
    from daemon.batch.output import write_line

    with _portions(path, model) as prepared:
        judged = (item for portion in score_portions(prepared, model, judge) for item in portion)
        return sum(1 for item in judged if write_line(item.decision, item.file))


def _count(path: Path, model: Model, judge: Judge) -> int:
    from daemon.archive import count_portions

    with _portions(path, model) as prepared:
        return sum(counts.total() for counts in count_portions(prepared, model, judge))


@contextmanager
def _portions(path: Path, model: Model) -> Iterator[Iterator[PreparedPortion]]:
    from daemon.archive import Archive, portions, prepare_portions, start_workers

    with start_workers() as workers:
        yield prepare_portions(portions([Archive.open(path, workers)]), model.bundle.profile, workers)


def _near(path: Path, model: Model) -> dict[str, float]:
    """Precision -> share of the curves so near a threshold that single precision has to judge them again."""
    import numpy as np

    from deploy.serving import TOLERANCE

    with _portions(path, model) as prepared:
        signals = ([item.signal for item in one.prepared if item and item.signal is not None] for one in prepared)
        logits = np.concatenate([model.classifier.classify(some).logits for some in signals if some])
    bundle = model.bundle
    edges = bundle.limits
    distance = np.abs(logits[:, None] - edges).min(axis=1)
    return {precision: float((distance < margin).mean()) for precision, margin in TOLERANCE.items()}


def _idle(model: Model) -> Model:
    """The same model with an engine that has an answer to everything at once."""
    import numpy as np

    from deploy.classifier import Seen, Signals
    from deploy.serving import Model as Serving

    class Idle:
        engine, model_id = model.engine, model.id

        def classify(self, signals: Signals) -> Seen:
            edges = np.zeros((len(signals), 2, model.bundle.profile.columns), np.float32)
            return Seen(np.full(len(signals), -50.0), edges)

    return Serving(model.bundle, Idle())


# As text.

_CORES, _MILLION = 16, 1_000_000


def write_text(found: dict[str, Any]) -> list[str]:
    """A line a run, and what follows for a million curves on sixteen cores."""
    rows = [("", "curves", "seconds", "curves/s", "main us", "workers us")]
    rows += [
        (
            row["what"],
            str(row["curves"]),
            f"{row['wall_s']:.1f}",
            f"{row['curves'] / row['wall_s']:.0f}",
            f"{row['main_us']:.1f}",
            f"{row['workers_us']:.0f}",
        )
        for row in found["rows"]
    ]
    summary = found["rows"][-1]
    workers_s = summary["workers_us"] * _MILLION / 1e6 / (_CORES - 1)
    main_s = summary["main_us"] * _MILLION / 1e6
    near = ", ".join(f"{precision} {share:.2%}" for precision, share in found["near_threshold"].items())
    return [
        f"{found['cores']} cores; model {found['model']} on {found['engine']}; simulated curves take "
        f"{found['bytes_a_curve'] / 1000:.0f} kB each; us: microseconds of processor time a curve",
        "",
        *align(rows),
        "",
        f"so near a threshold that single precision judges again: {near}",
        f"a million curves, {_CORES} cores, --summary, beside the network: {workers_s:.0f} s of {_CORES - 1} workers, "
        f"{main_s:.0f} s of the main process",
    ]
