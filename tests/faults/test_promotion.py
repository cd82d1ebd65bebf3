"""kill -9 while what serves is changed, and while a service follows under load: the old or the new, never a mixture."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from modelhelp import make_model

from daemon.judging.registry import JUDGED, Registry
from models.bundle import CONFIRMED, SHIPPED, BadBundle, Bundle, read, write
from tests.faults.fake_engine import NAME, ORDERS
from tests.faults.harness import Producer, history, judge, scrape
from tests.faults.lab import Lab
from tests.test_service_engine import TrialWithDevice, _judged_on, status, until

pytestmark = [pytest.mark.faults, pytest.mark.slow]
STARTS = 12  # of the service, each ended by a kill


def a_cut(registry: Registry, base: Bundle, name: str, share: float) -> Bundle:
    discard = base.discard + share * (base.keep - base.discard)
    evidence = {"basis": CONFIRMED, "events": 5 + int(100 * share), "band": [base.discard, discard], "group": ""}
    return registry.write_cut(base, name, discard, evidence)


def forked(work: Callable[[], object]) -> int:
    """The number of a process of ours that does ``work`` and ends."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kills", [30, pytest.param(200, marks=pytest.mark.long)])
def test_killed_again_and_again_while_what_serves_is_changed(tmp_path: Path, kills: int) -> None:
    """By promotion, roll-back, another sample and the making of cuts, all of it in one process after another."""
    base = write(tmp_path / "base", read(SHIPPED).weights, read(SHIPPED).manifest, "# base\n")
    registry, chance = Registry(tmp_path / "state" / "models"), random.Random(11)
    known = {cut.id: cut.discard for cut in (a_cut(registry, base, f"cut-{n}", n / 10) for n in range(1, 6))}

    def change() -> None:
        mine = random.Random(os.getpid())
        for number in range(1000):
            what = mine.random()
            if what < 0.5:
                registry.promote(f"cut-{mine.randrange(1, 6)}", base=base, group=None, why="w", by="child")
            elif what < 0.75:
                registry.rollback("child", "w", only=mine.choice([None, *known])) if registry.serving() else None
            elif what < 0.9:
                registry.turn_to(mine.choice(["", "titin"]), by="child")
            else:
                a_cut(registry, base, f"new-{os.getpid()}-{number}", mine.random() * 0.9)

    ended = 0
    for _ in range(kills):
        pid = forked(change)
        time.sleep(chance.uniform(0.0, 0.15))
        os.kill(pid, signal.SIGKILL)
        ended += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        serving = registry.serving()
        if serving is not None:
            assert read(registry.folder_of(serving)).discard == known[serving.id]
        numbers = [one.number for one in registry.history()]
        assert numbers == list(range(1, len(numbers) + 1)), "a change is missing from the history, or told twice"
    assert ended == kills, "nobody ended by itself"
    assert len(registry.history()) > kills / 10, "changes were made too; how many, the load of this machine decides"
    registry.promote("cut-1", base=base, group=None, why="w", by="test")  # nobody holds the lock
    for folder in (*registry.models.glob("new-*"), *(registry.models / JUDGED).iterdir()):
        read(folder)
    assert not list(registry.models.glob(".*.new"))
    assert not list(registry.models.glob(".*.tmp"))


@pytest.mark.timeout(150)
def test_a_cut_goes_live_on_the_engine_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose engine took minutes to build keeps it, and what failed before is not counted again."""
    monkeypatch.setenv(ORDERS, str(tmp_path / "orders"))
    base = make_model(tmp_path / "base", "base")
    with TrialWithDevice(tmp_path / "trial", options=("--model", str(base.folder), "--device", "cuda")) as trial:
        registry, producer = Registry(trial.state / "models"), Producer(trial.watch)
        until(lambda: status(trial)["engine"] == str(NAME), "the device serves")
        (tmp_path / "orders").write_text("illegal access")
        assert _judged_on(trial, producer) != str(NAME)
        until(lambda: status(trial)["state"] == "degraded", "told")
        (tmp_path / "orders").write_text("slow build")
        until(lambda: status(trial)["state"] == "ready", "won back")
        children = Path(f"/proc/{trial.process.pid}/task/{trial.process.pid}/children") if trial.process else Path()
        before = children.read_text()
        for name, share in (("one", 0.2), ("other", 0.4)):
            cut = a_cut(registry, base, name, share)
            registry.promote(name, base=base, group=None, why="w", by="test")
            until(lambda id=cut.id: status(trial)["model"]["id"] == id, "served")
            assert _judged_on(trial, producer) == str(NAME)
            assert history(trial)[-1]["data"]["model"] == cut.id
        registry.rollback("test", "w")
        until(lambda: status(trial)["model"]["id"] != cut.id, "taken back")
        assert _judged_on(trial, producer) == str(NAME)
        assert children.read_text() == before, "the same processes"
        assert scrape(trial)['afm_triage_engine_faults_total{kind="illegal_access"}'] == 1
        (tmp_path / "orders").write_text("illegal access")
        assert _judged_on(trial, producer) != str(NAME)
        until(lambda: status(trial)["state"] == "degraded", "told")
        (tmp_path / "orders").unlink()
        until(lambda: status(trial)["state"] == "ready", "won back also under another model than it was built for")


@pytest.mark.timeout(400)
def test_a_service_is_killed_while_it_follows_under_load(tmp_path: Path) -> None:
    """What a decision says of its model, thresholds and cut is true of one model; no curve is lost or doubled."""
    base = write(tmp_path / "base", read(SHIPPED).weights, read(SHIPPED).manifest, "# base\n")
    lab = Lab(tmp_path / "lab", toml=f'model = "{base.folder}"\ndevice = "cpu"\n')
    registry, chance, is_over = Registry(lab.state / "models"), random.Random(12), threading.Event()
    cuts = [a_cut(registry, base, f"cut-{n}", n / 10) for n in range(1, 6)]
    producer = Producer(lab.watch)

    def write_curves() -> None:
        while not is_over.wait(0.03):
            producer.write()

    def change() -> None:
        while not is_over.wait(chance.uniform(0.1, 0.9)):
            if chance.random() < 0.7 or registry.serving() is None:
                registry.promote(f"cut-{chance.randrange(1, 6)}", base=base, group=None, why="w", by="test")
            else:
                registry.rollback("test", "w")

    threads = [threading.Thread(target=work) for work in (write_curves, change)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(STARTS):
            lab.start()
            lab.wait_ready()
            time.sleep(chance.uniform(0.5, 3.0))
            lab.kill()
    finally:
        is_over.set()
        for thread in threads:
            thread.join(10)
    with lab:
        deadline_s = time.monotonic() + 60
        while len(told := history(lab)) < len(producer.written) and time.monotonic() < deadline_s:
            time.sleep(0.2)
    findings = judge(producer.written, told)
    assert (findings.lost, findings.doubled, findings.gaps) == ([], [], [])
    right = {one.id: (one.discard, one.keep, one.manifest.thresholds.events, one.pipeline) for one in (base, *cuts)}
    found = set()
    for event in told:
        data = event["data"]
        thresholds = data["thresholds"]
        said = (thresholds["discard"], thresholds["keep"], data["cut"]["events"], data["pipeline"])
        assert said == right[data["model"]]
        assert data["cut"]["origin"] == ("shipped" if data["model"] == base.id else "adapted")
        found.add(data["model"])
    assert len(found) >= 4, "what was promoted did serve"
    for id in found:
        assert read(registry.find(id)).id == id
    with pytest.raises(BadBundle):
        registry.find("cut-none")
