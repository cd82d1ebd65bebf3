"""The poisoned candidates that need no tuning: none of them gets as far as a look."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from daemon.learn.gate import examine
from models.bundle import SHIPPED, Cut, read, write
from tests.studies.poison import POISONS, Kitchen, row

pytestmark = pytest.mark.study
#: Made from the files of a candidate alone.
OF_FILES = list(POISONS)[: list(POISONS).index("slow: a wider network")]


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory) -> Kitchen:
    """One without a laboratory: a candidate is there already."""
    made, parent = Kitchen.__new__(Kitchen), read(SHIPPED)
    made.folder, made.taught, made.ground = tmp_path_factory.mktemp("kitchen"), None, SimpleNamespace(network=parent)
    weights = {name: one.copy() for name, one in parent.weights.items()}
    weights["layer4.0.conv1.weight"].reshape(-1)[0] += np.float16(1e-3)
    told = Cut(parent.discard, parent.keep, {"basis": "simulation, held out", "events": 4_000})
    training = {**parent.manifest.training, "curves": "ffffffffffff", "labelled": {"labels": "0" * 64}}
    manifest = msgspec.structs.replace(parent.manifest, parent=parent.id, thresholds=told, training=training)
    write(made.folder / "candidates" / "good", weights, manifest, "# good")
    return made


def test_the_candidate_that_they_are_made_from_may_be_looked_at(kitchen):
    model, findings = examine(kitchen.good.folder, kitchen.parent, None)
    assert model is not None
    assert [one.text for one in findings if not one.passed] == []


def test_none_of_them_is_looked_at(kitchen):
    assert len(POISONS) >= 50
    assert len(OF_FILES) >= 25
    through = []
    for number, name in enumerate(OF_FILES):
        if name.startswith("uncalibrated"):  # the folder is sound: the statistics tell
            continue
        _, findings = examine(POISONS[name](kitchen, f"bad-{number}"), kitchen.parent, None)
        if all(one.passed for one in findings):
            through.append(name)
    assert through == []


def test_a_row_says_what_refused_it():
    assert "refused: cut, pile" in row({"name": "x", "passed": False, "failed": ["cut", "pile"]})
    assert "PROMOTED" in row({"name": "x", "passed": True, "failed": []})
