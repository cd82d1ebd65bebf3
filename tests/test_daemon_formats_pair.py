"""Asylum pairs by their names, in every mix of case: told apart, and found beside each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.formats import NAMES
from daemon.reading.ahead import find


def test_names_of_halves() -> None:
    for name in ("Line0000Point0001Defl.ibw", "aDEFL.IBW", "adefl.ibw", "adEfL.iBw"):
        assert (NAMES.is_first_half(name), NAMES.is_second_half(name)) == (True, False)
    for name in ("Line0000Point0001ZSnsr.ibw", "aZSNSR.IBW", "azsnsr.ibw"):
        assert (NAMES.is_first_half(name), NAMES.is_second_half(name)) == (False, True)
    assert not NAMES.is_first_half("Image0001.ibw")
    assert not NAMES.is_second_half("Image0001.ibw")
    assert list(NAMES.other_names("Image0001.ibw")) == []


@pytest.mark.parametrize(
    ("name", "usual", "spellings"),
    [
        ("aDefl.ibw", "aZSnsr.ibw", 256),
        ("aDEFL.IBW", "aZSNSR.IBW", 256),
        ("adefl.ibw", "azsnsr.ibw", 256),
        ("aZSnsr.ibw", "aDefl.ibw", 128),
    ],
)
def test_every_spelling_of_the_other_half_the_usual_one_first(name: str, usual: str, spellings: int) -> None:
    names = list(NAMES.other_names(name))
    assert names[0] == usual
    assert len(names) == len(set(names)) == spellings
    assert {one.lower() for one in names} == {usual.lower()}


def test_what_stands_before_must_be_the_same() -> None:
    assert NAMES.pick_other("aDefl.ibw", {"bZSnsr.ibw", "AZSnsr.ibw"}) is None
    assert NAMES.pick_other("aDefl.ibw", {"aZSNSR.ibw", "aZSnsr.ibw"}) == "aZSnsr.ibw"


@pytest.mark.parametrize("second", ["Line0ZSnsr.ibw", "Line0ZSNSR.IBW", "Line0zSnsr.Ibw"])
@pytest.mark.parametrize("first", ["Line0Defl.ibw", "Line0DEFL.IBW"])
def test_the_other_half_is_found_however_it_is_spelled(tmp_path: Path, first: str, second: str) -> None:
    assert NAMES.find_other(tmp_path / first) is None
    for name in (first, second, "Line1Defl.ibw"):
        (tmp_path / name).touch()
    assert NAMES.find_other(tmp_path / first) == tmp_path / second
    assert NAMES.find_other(tmp_path / second) == tmp_path / first
    assert NAMES.find_other(tmp_path / "Line1Defl.ibw") is None
    for asked in (tmp_path, tmp_path / first):  # by its folder, and by its name
        arrivals = [arrival for arrival in find([asked]) if arrival.file.name == first]
        assert [arrival.companion for arrival in arrivals] == [tmp_path / second]
