"""The renewal: one change at a time, whatever is ready first."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from daemon.config import Config, Flags, load
from daemon.judging.judge import choose, load_model
from daemon.judging.registry import Registry
from daemon.service.reload import Loaded, ModelLoading, ModelReload, with_judge
from models.bundle import CONFIRMED


def until_done(loading: ModelLoading | None) -> None:
    assert loading is not None
    deadline_s = time.monotonic() + 20
    while loading.outcome is None:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_better_engine_waits_for_the_reload_that_is_under_way(tmp_path: Path) -> None:
    flags = Flags(keys={"watch": [str(tmp_path / "watch")], "state": str(tmp_path / "state")})
    config, may_go_on = load(flags, serves=True), threading.Event()

    def reread() -> Config:
        assert may_go_on.wait(20)
        return config

    serving, better = load_model("shipped"), load_model("shipped")
    chosen = choose(config.model, config.state / "models", config.thresholds)
    renewal = ModelReload(config, reread, chosen)
    renewal._better = ModelLoading(lambda: with_judge(config, better, chosen))
    until_done(renewal._better)
    renewal.begin_reload(serving)
    assert renewal.take_better(serving) is None  # else the reload would bring the old model back after it
    may_go_on.set()
    until_done(renewal._reload)
    brought = renewal.take_reload()
    assert isinstance(brought, Loaded)
    assert brought.model is serving
    taken = renewal.take_better(serving)
    assert isinstance(taken, Loaded)
    assert taken.model is better


def test_a_better_engine_takes_the_cut_that_was_moved_while_it_was_built(tmp_path: Path) -> None:
    """Else it would bring the old cut back, or be thrown away after minutes of building."""
    flags = Flags(keys={"watch": [str(tmp_path / "watch")], "state": str(tmp_path / "state")})
    config = load(flags, serves=True)
    chosen = choose(config.model, config.state / "models", config.thresholds)
    serving, better, registry = load_model("shipped"), load_model("shipped"), Registry(config.state / "models")
    base = serving.bundle
    renewal = ModelReload(config, lambda: config, chosen)
    renewal._better = ModelLoading(lambda: with_judge(config, better, chosen))
    until_done(renewal._better)
    cut = registry.write_cut(base, "cut", base.discard * 2, {"basis": CONFIRMED, "events": 5})
    registry.promote("cut", base=base, why="w", by="test")
    renewal.look(serving)
    assert renewal.take_better(serving) is None, "one change at a time"
    until_done(renewal._turn)
    turned = renewal.take_turn()
    assert isinstance(turned, Loaded)
    assert (turned.model.id, turned.model.classifier is serving.classifier) == (cut.id, True)
    renewal.adopt_turn(turned, serving)
    taken = renewal.take_better(turned.model)
    assert isinstance(taken, Loaded)
    assert (taken.model.id, taken.judge.thresholds.discard, taken.chosen) == (cut.id, cut.discard, turned.chosen)
    assert taken.model.classifier is better.classifier
