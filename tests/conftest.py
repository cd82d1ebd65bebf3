"""What several test modules start from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from modelhelp import SMALL, make_model, some_examples
from numpy.typing import NDArray

from models.bundle import Bundle
from models.raster import coverage

STUDIES, FAULTS = Path(__file__).parent / "studies", Path(__file__).parent / "faults"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What lies in studies/ is a study test, in faults/ one of faults. Elsewhere its first case is smoke.

    The tests in faults/ wait for real time to pass: of them only those that say so are in make test.
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


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model of width 4, as an engine is given it."""
    return make_model(tmp_path_factory.mktemp("engine") / "small")


@pytest.fixture(scope="session")
def images() -> NDArray[np.float32]:
    """(B, 1, H, W), of its size."""
    return coverage(some_examples().edges, SMALL)
