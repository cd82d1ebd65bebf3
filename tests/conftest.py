"""What several test modules start from."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from modelhelp import SMALL, make_model, some_examples
from numpy.typing import NDArray

from models.bundle import Bundle
from models.raster import coverage

STUDIES, FAULTS = Path(__file__).parent / "studies", Path(__file__).parent / "faults"


def pytest_configure() -> None:
    """A shell's background job ignores Ctrl-C, and so would every program that a test starts and ends by it."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """What lies in studies/ is a study test, in faults/ one of faults. Elsewhere its first case is smoke.

    The tests in faults/ wait for real time to pass: of them only those that say so are in make test. They come in the
    order of their own limits, the longest first: so no worker is left alone with a long one at the end.
    """
    seen: set[str] = set()
    for item in items:
        if item.path.is_relative_to(STUDIES):
            item.add_marker("study")
        function = item.nodeid.partition("[")[0]
        if item.path.is_relative_to(FAULTS):
            item.add_marker("faults")
        elif item.get_closest_marker("faults") and "[" in item.nodeid and function not in seen:
            item.add_marker("smoke")
        seen.add(function)
    yield  # to what takes out those that were not asked for
    if all(item.get_closest_marker("faults") for item in items):
        items.sort(key=lambda item: -limit_s(item))


def limit_s(item: pytest.Item) -> float:
    """That a test gives itself; 0 where it takes the one of pyproject.toml."""
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark is not None and mark.args else 0.0


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model of width 4, as an engine is given it."""
    return make_model(tmp_path_factory.mktemp("engine") / "small")


@pytest.fixture(scope="session")
def images() -> NDArray[np.float32]:
    """(B, 1, H, W), of its size."""
    return coverage(some_examples().edges, SMALL)
