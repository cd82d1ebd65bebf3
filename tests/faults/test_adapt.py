"""kill -9 in the middle of `adapt`: the old cut or the new one serves, whole, and the next `adapt` goes on."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from adapthelp import chromosomes

from daemon.judging.registry import Registry
from daemon.labels import Labels
from daemon.learn.adaptation import accept, audit, propose
from models.bundle import read
from models.clock import utc_now

pytestmark = pytest.mark.faults


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kills", [40, pytest.param(200, marks=pytest.mark.long)])
def test_killed_again_and_again_while_the_cut_moves_and_comes_back(tmp_path: Path, kills: int) -> None:
    night, chance = chromosomes(tmp_path / "state"), random.Random(21)
    night.say("keep", range(1, 6))
    (event,) = night.decide([0.0])  # lies between both cuts
    registry = Registry(night.state / "models")
    expected = propose(night.config)
    assert expected.moves

    def move_and_take_back() -> None:
        while True:
            proposal = propose(night.config)
            if proposal.moves:
                accept(night.config, proposal, "child")
            night.say("keep", [event], "ben")
            audit(night.config)
            with Labels(night.state / "labels.sqlite") as labels:
                labels.remove([one for one in labels.current() if one.rater == "ben"], by="ben", reason="",
                              time=utc_now())  # fmt: skip

    seen: set[str | None] = set()
    for _ in range(kills):
        pid = os.fork()
        if pid == 0:
            try:
                move_and_take_back()
            finally:
                os._exit(1)
        time.sleep(chance.uniform(0.0, 0.5))
        os.kill(pid, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1]), "nobody ended by itself"
        serving = registry.serving(night.base.id)
        seen.add(serving and serving.id)
        if serving is not None:
            cut = read(registry.folder_of(serving))
            assert cut.id == serving.id
            assert cut.discard in (expected.new, cut.manifest.thresholds.evidence["band"][1])
            assert cut.manifest.thresholds.events in (5, 6)
        with Labels(night.state / "labels.sqlite") as labels:
            assert sum(one.rater == "ada" for one in labels.current()) == 5
        numbers = [one.number for one in registry.history()]
        assert numbers == list(range(1, len(numbers) + 1))
    assert len(seen) > 1, "both the base and a cut were seen"
    assert sum(one.act == "rollback" for one in registry.history()) > kills / 40
    audit(night.config)
    with Labels(night.state / "labels.sqlite") as labels:
        labels.remove([one for one in labels.current() if one.rater == "ben"], by="ben", reason="", time=utc_now())
    after = propose(night.config)
    if after.moves:
        accept(night.config, after, "test")
    serving = registry.serving(night.base.id)
    assert serving is not None
    assert read(registry.folder_of(serving)).discard == expected.new
    left = [one.name for one in registry.models.iterdir() if one.name.endswith((".new", ".tmp"))]
    assert not left
