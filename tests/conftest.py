"""What several test modules start from."""

from __future__ import annotations

import numpy as np
import pytest
from modelhelp import SMALL, make_model, some_examples
from numpy.typing import NDArray

from models.bundle import Bundle
from models.raster import coverage


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model of width 4, as an engine is given it."""
    return make_model(tmp_path_factory.mktemp("engine") / "small")


@pytest.fixture(scope="session")
def images() -> NDArray[np.float32]:
    """(B, 1, H, W), of its size."""
    return coverage(some_examples().edges, SMALL)
