"""What the name of a file says about it."""

from __future__ import annotations

from daemon.formats import NAMES, event_path, sentinel_target


def test_names_tell_halves_sentinels_and_temporaries() -> None:
    assert sentinel_target("a.txt.done") == "a.txt"
    assert sentinel_target(".done") is None
    assert NAMES.why_ignored("~$a.txt") == "temporary"
    assert NAMES.why_ignored("a.jpk-force.FILEPART") == "temporary"
    assert NAMES.why_ignored("a.jpk-force") is None
    assert event_path("gr\udcfcn/a") == "gr�n/a"
