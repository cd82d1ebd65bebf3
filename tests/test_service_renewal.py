"""The renewal: one change at a time, whatever is ready first."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from daemon.config import Config, Flags, load
from daemon.judging.judge import choose, load_model
from daemon.service.reload import Loaded, ModelLoading, ModelReload, with_judge


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
