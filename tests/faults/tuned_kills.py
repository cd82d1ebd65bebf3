"""kill -9 while a network is taught, looked at and promoted, and a service follows; `--kills 200` prints the figures.

Teaching, checkpoints, the candidate's folder, the gate's examination of it, its log and the promotion are the real
ones, on few curves. Only the gate's statistics are left out: what passes them is no question of kills, and they take
longer than all the rest. After each promotion it is taken back, and the next night learns otherwise.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import torch

from daemon.config import Config
from daemon.judging.registry import Registry
from daemon.learn import finetuning
from daemon.learn.finetuning import FOLDER, Night, finetune
from daemon.learn.gate import examine
from deploy.classifier import EngineRequest
from deploy.serving import Model
from models.bundle import SHIPPED, BadBundle, Bundle, read, write
from models.files import append_line
from models.finetune import TuningRecipe
from models.gate import Finding, Report, log_of
from tests.faults.harness import Producer, history, judge
from tests.faults.lab import Lab
from tests.studies.laboratories import Laboratory
from tests.studies.nights import Nights

_LOOKS = "the-gate-looks"  # a file that says so
_TEACHING_S = 4.0
TOML = 'model = "{}"\ndevice = "cpu"\n[engine]\nname = "torch"\nprecision = "fp32"\n'


@dataclass
class Found:
    """What many kills left; everything that must be empty is."""

    kills: int = 0
    moments: Counter[str] = field(default_factory=Counter)
    promoted: int = 0
    served: int = 0  # models that decided
    decided: int = 0
    wrong: list[str] = field(default_factory=list)

    def sentence(self) -> str:
        when = ", ".join(f"{count} {moment}" for moment, count in sorted(self.moments.items()))
        return (
            f"{self.kills} kills ({when}), {self.promoted} promotions, {self.served} models decided {self.decided}"
            f" curves: {len(self.wrong)} wrong{': ' if self.wrong else ''}{'; '.join(self.wrong[:5])}"
        )


def night_of(number: int) -> Night:
    recipe = TuningRecipe(epochs=2, rate=1e-3, threads=1, seed=number)
    return Night(by="child", events=20, simulate=100, held_out=200, recipe=recipe)


def look(config: Config, candidate: Bundle, parent: Bundle, cut: float, *_: object, **__: object) -> Report:
    """The gate without its statistics."""
    (config.state / FOLDER / _LOOKS).touch()
    _, findings = examine(candidate.folder, parent, None)
    assert all(one.passed for one in findings), [one.text for one in findings]
    found = (Finding("pile", True, "pile: not asked"),)
    report = Report(candidate=candidate.id, parent=parent.id, network=parent.weights_sha256, cut=cut,
                    night="2026-11-20", time="2026-11-20T03:00:00Z", look=1, alpha=0.025, passed=True,
                    findings=found)  # fmt: skip
    append_line(log_of(config.state), msgspec.json.encode(report))
    return report


def prepare(folder: Path) -> None:
    """A state with labels, and the model that it is configured with."""
    base = write(folder / "base", read(SHIPPED).weights, read(SHIPPED).manifest, "# base\n")
    nights = Nights(folder / "lab" / "state")
    nights.config = replace(nights.config, model=str(base.folder))
    seqs: list[int] = []
    for day, seed in (("2026-11-20", 1), ("2026-11-21", 2)):
        seqs += nights.record(((one.curve, one.is_event) for one in Laboratory(1).curves(40, 0.7, seed)), day=day)
    shown = nights.may_be_looked_at(seqs)
    nights.label([seq for seq in shown if nights.truth[seq]][:30] + [seq for seq in shown if not nights.truth[seq]])


def taught(config: Config, number: int) -> int:
    """The number of a process that works through a night."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if finetune(config, night_of(number)).kind in ("promoted", "waits") else 2
        finally:
            os._exit(code)
    return pid


def wait_for(file: Path, pid: int, limit_s: float = 60.0) -> bool:
    """Whether the file came before the process ended."""
    deadline_s = time.monotonic() + limit_s
    while not file.exists():
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) or time.monotonic() > deadline_s:
            return file.exists()
        time.sleep(0.002)
    return True


def kill_once(config: Config, number: int, chance: random.Random, found: Found) -> None:
    """At a random moment of teaching, of the gate's look, or of the promotion."""
    work = config.state / FOLDER
    (work / _LOOKS).unlink(missing_ok=True)
    pid = taught(config, number)
    moment = chance.choice(("teaching", "gate", "promotion"))
    if moment == "teaching":
        time.sleep(chance.uniform(0.0, _TEACHING_S))
    elif moment == "gate":
        wait_for(work / _LOOKS, pid)
        time.sleep(chance.uniform(0.0, 0.3))
    else:
        wait_for(log_of(config.state), pid)
        time.sleep(chance.uniform(0.0, 0.12))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        found.kills += 1
        found.moments[moment] += 1
    elif os.WEXITSTATUS(status):
        found.wrong.append(f"a night ended with {os.WEXITSTATUS(status)}")


def check(config: Config, registry: Registry, found: Found) -> bool:
    """What is in force and what lies about is whole; whether a candidate serves."""
    try:
        for folder in (config.state / FOLDER).glob("tuned-*"):
            read(folder)
        serving = registry.serving()
        if serving is not None and read(registry.folder_of(serving)).id != serving.id:
            found.wrong.append(f"{serving.id} is not what lies there")
    except BadBundle as error:
        found.wrong.append(str(error))
        return False
    numbers = [one.number for one in registry.history()]
    if numbers != list(range(1, len(numbers) + 1)):
        found.wrong.append("a change is missing from the history, or told twice")
    return serving is not None


@contextmanager
def writing(producer: Producer) -> Iterator[None]:
    """Curves come meanwhile, ten a second."""
    is_over = threading.Event()

    def write_curves() -> None:
        while not is_over.wait(0.1):
            producer.write()

    thread = threading.Thread(target=write_curves)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(10)


def run(folder: Path, kills: int, seed: int) -> Found:
    """Kill so often, then let a night come to its end."""
    subprocess.run([sys.executable, "-m", __spec__.name, "--prepare", str(folder)], check=True, timeout=120)
    base, found, chance, number = read(folder / "base"), Found(), random.Random(seed), 1
    lab = Lab(folder / "lab", toml=TOML.format(base.folder))
    config = Config(state=lab.state, model=str(base.folder), origins={"model": "file"})
    registry, producer = Registry(lab.state / "models"), Producer(lab.watch)
    finetuning.look = look  # type: ignore[assignment]  # of this process and those that it forks
    torch.set_num_threads(1)  # a pool of threads does not outlive a fork
    with lab:
        lab.wait_ready()
        with writing(producer):
            for _ in range(10 * kills):  # a night may have come to its end before it is killed
                if found.kills >= kills:
                    break
                kill_once(config, number, chance, found)
                if check(config, registry, found):
                    time.sleep(chance.uniform(0.0, 0.6))
                    found.promoted += 1
                    registry.rollback("test", "the next night")
                    log_of(lab.state).unlink(missing_ok=True)
                    number += 1
            _, status = os.waitpid(taught(config, number), 0)
            if status or not check(config, registry, found):
                found.wrong.append("the last night did not come to its end")
            deadline_s = time.monotonic() + 60
            while not decided_by(lab, registry) and time.monotonic() < deadline_s:
                time.sleep(0.2)
        deadline_s = time.monotonic() + 60
        while len(lab.history()) < len(producer.written) + 80 and time.monotonic() < deadline_s:
            time.sleep(0.1)
        told = [one for one in history(lab) if one["data"]["path"] in set(producer.written)]
    _judge(folder, registry, producer.written, told, found)
    left = [one for one in (lab.state / FOLDER).iterdir() if one.name.startswith(".") or one.name == "checkpoint"]
    found.wrong += [f"left behind: {one.name}" for one in left]
    return found


def decided_by(lab: Lab, registry: Registry) -> bool:
    """Whether what serves has decided the last curve."""
    serving, told = registry.serving(), lab.history()
    return serving is not None and told[-1]["data"]["model"] == serving.id


def _judge(folder: Path, registry: Registry, written: Sequence[str], told: Sequence[dict], found: Found) -> None:  # type: ignore[type-arg]
    """Each curve decided once, by one model that there is, with its thresholds and its score."""
    found.decided = len(told)
    plain = judge(list(written), [{**one, "seq": place} for place, one in enumerate(told, 1)])
    found.wrong += [f"lost or doubled: {one}" for one in (*plain.lost, *plain.doubled)]
    models: dict[str, tuple[Bundle, float | None]] = {}
    curve = _curve(folder / "lab" / "watch" / written[0])
    for one in told:
        data = one["data"]
        if data["model"] not in models:
            bundle = read(registry.find(data["model"]))
            scored = Model.of(bundle, EngineRequest("cpu", precision="fp32")).judge([curve])[0]
            models[bundle.id] = bundle, scored.score
        bundle, score = models[data["model"]]
        its = (bundle.pipeline, {"discard": bundle.discard, "keep": bundle.keep})
        if (data["pipeline"], data["thresholds"]) != its:
            found.wrong.append(f"seq {one['seq']} names {bundle.id}, and has another pipeline or thresholds")
        elif score is None or abs(data["score"] - score) > 1e-4:
            found.wrong.append(f"seq {one['seq']} names {bundle.id}, whose score is {score}, not {data['score']}")
    found.served = len(models)
    if found.served < 2:
        found.wrong.append("what was promoted did not decide")
    scores = {round(score or 0.0, 4) for _, score in models.values()}
    if len(models) > 1 and len(scores) == 1:
        found.wrong.append("the models cannot be told apart by their scores")


def _curve(file: Path):  # type: ignore[no-untyped-def]  # models.curve.Curve
    from daemon.reading.ahead import find, read_curves

    (reading,) = read_curves(find([file]))
    assert reading.curve is not None
    return reading.curve


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prepare", type=Path)
    args = parser.parse_args()
    if args.prepare:
        prepare(args.prepare)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), args.kills, args.seed)
    print(found.sentence())
    return 1 if found.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
