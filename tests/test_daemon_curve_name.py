"""The name of a curve: what it may mean, which one it is, and when that cannot be told."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.common.errors import UserError
from daemon.formats import event_path
from daemon.labels.curve_name import Ambiguous, CurveFinder, NoSuchCurve, name_of, readings_of
from daemon.ledger import Ledger, LedgerView
from tests.ledgerhelp import decision

Record = Callable[..., CurveFinder]


@pytest.mark.parametrize(
    ("name", "readings"),
    [
        ("run7/a.txt", [("run7/a.txt", None)]),
        ("run7/a.txt#0", [("run7/a.txt", 0), ("run7/a.txt#0", None)]),
        ("a#3", [("a", 3), ("a#3", None)]),
        ("a#3#0", [("a#3", 0), ("a#3#0", None)]),
        ("two words #1.txt#12", [("two words #1.txt", 12), ("two words #1.txt#12", None)]),
        ("a#", [("a#", None)]),
        ("a#1234567890", [("a#1234567890", None)]),
        ("#1", [("#1", None)]),
        ("a#-1", [("a#-1", None)]),
        ("a#٣", [("a#٣", None)]),
    ],
)
def test_a_name_means_a_curve_of_a_file_or_a_file(name: str, readings: list[tuple[str, int | None]]) -> None:
    assert readings_of(name) == readings


def test_a_name_never_steers_a_terminal() -> None:
    assert name_of("a\x1b[31m.txt", 2) == "a�[31m.txt#2"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Record]:
    """What finds curves after these were decided: (path, folder or None, curve, changes)."""
    views: list[LedgerView] = []
    (tmp_path / "here").mkdir()
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()

    def record(*curves: tuple[str, str | None, int], **how: Any) -> CurveFinder:
        ledger = Ledger(tmp_path / "ledger.sqlite", "afm1")
        ledger.record(
            [
                decision(
                    number,
                    path=path,
                    folder=folder and str(tmp_path / folder),
                    curve=curve,
                    identity=f"{number:064x}#{curve}",
                )
                for number, (path, folder, curve) in enumerate(curves, start=1)
            ]
        )
        ledger.close()
        views.append(LedgerView(tmp_path / "ledger.sqlite"))
        watched = [tmp_path / "x", tmp_path / "y"]
        return CurveFinder(views[-1], watched, tmp_path / "here", **how)

    yield record
    for view in views:
        view.close()


def test_every_way_to_write_it_finds_the_same_curve_though_the_file_is_gone(lab: Record, tmp_path: Path) -> None:
    finder = lab(("run7/a.txt", "x", 0), ("b.txt", "y", 0))
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "x")
    names = ("run7/a.txt#0", "run7/a.txt", f"{tmp_path}/x/run7/a.txt#0", f"{tmp_path}/x/run7/a.txt", "../x/run7/a.txt")
    for name in (*names, "run7//./a.txt", f"{link}/run7/a.txt"):
        found = finder.find(name)
        assert (found.name, found.seq, found.sha256) == ("run7/a.txt#0", 1, f"{1:064x}"), name
    assert finder.find("run7/a.txt", 0).seq == 1
    with pytest.raises(NoSuchCurve, match="no curve of that name"):
        finder.find("run7/a.txt", 1)
    with pytest.raises(NoSuchCurve):
        finder.find(f"{tmp_path}/y/run7/a.txt")


def test_two_folders_with_the_same_path_are_refused_with_both_candidates(lab: Record, tmp_path: Path) -> None:
    finder = lab(("a.txt", "x", 0), ("a.txt", "y", 0))
    with pytest.raises(Ambiguous) as refusal:
        finder.find("a.txt#0")
    assert refusal.value.exit_code == 64
    candidates = [f"{tmp_path}/{folder}/a.txt#0" for folder in "xy"]
    assert all(one in str(refusal.value) for one in candidates)
    assert [finder.find(one).seq for one in candidates] == [1, 2]


def test_a_file_seen_with_two_contents_is_its_latest(lab: Record) -> None:
    finder = lab(("a.txt", "x", 0), ("a.txt", "x", 0), ("old.txt", None, 0), ("old.txt", "x", 0))
    assert finder.find("a.txt").seq == 2
    assert finder.find("old.txt").seq == 4  # a decision from before does not say of which folder it is


def test_a_map_needs_its_number_or_means_its_first(lab: Record) -> None:
    curves = [("map.h5", "x", number) for number in range(5)]
    with pytest.raises(Ambiguous, match=r"map.h5#0 or map.h5#1 or map.h5#2 or 2 more: name one"):
        lab(*curves).find("map.h5")
    finder = lab(takes_first=True)
    assert (finder.find("map.h5").curve, finder.find("map.h5#4").curve, finder.find("map.h5", 3).curve) == (0, 4, 3)


def test_a_hash_in_a_file_name_is_part_of_it(lab: Record) -> None:
    finder = lab(("a", "x", 3), ("a#3", "x", 0), ("b #7.txt", "x", 0), ("c#1", "x", 0))
    assert [finder.find(name).seq for name in ("a#3", "a#3#0", "b #7.txt", "b #7.txt#0", "c#1")] == [1, 2, 3, 3, 4]


def test_a_file_here_of_that_name_and_other_content_is_another_curve(lab: Record, tmp_path: Path) -> None:
    finder = lab(("a.txt", "x", 0))
    (tmp_path / "here" / "a.txt").write_bytes(b"another")
    with pytest.raises(Ambiguous) as refusal:
        finder.find("a.txt")
    assert f"{tmp_path}/here/a.txt#0" in str(refusal.value)
    assert finder.find("./a.txt").seq is None
    assert finder.find(f"{tmp_path}/x/a.txt").seq == 1


def test_a_file_that_nobody_judged_is_found_below_the_watched_folders(lab: Record, tmp_path: Path) -> None:
    finder = lab()
    for folder in "xy":
        (tmp_path / folder / "new.txt").write_bytes(b"the same")
    found = finder.find("new.txt")
    assert (found.name, found.seq, found.sha256) == ("new.txt#0", None, hashlib.sha256(b"the same").hexdigest())
    (tmp_path / "y" / "new.txt").write_bytes(b"another")
    with pytest.raises(Ambiguous):
        finder.find("new.txt")


def test_a_copy_elsewhere_is_the_curve_that_was_judged(lab: Record, tmp_path: Path) -> None:
    content = b"some bytes"
    ledger = Ledger(tmp_path / "ledger.sqlite", "afm1")
    sha256 = hashlib.sha256(content).hexdigest()
    ledger.record([decision(1, path="run7/a.txt", sha256=sha256, identity=f"{sha256}#0", folder=str(tmp_path / "x"))])
    ledger.close()
    finder = lab()
    (tmp_path / "here" / "copy.txt").write_bytes(content)
    assert finder.find("copy.txt").name == "run7/a.txt#0"
    with pytest.raises(NoSuchCurve, match="no curve 7"):
        finder.find("copy.txt#7")


def test_bytes_that_are_not_utf8_are_found_as_events_print_them(lab: Record, tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path / "x") + b"/caf\xe9 1.txt"
    Path(os.fsdecode(raw)).write_bytes(b"x")
    printed = event_path("caf\udce9 1.txt")
    assert lab().find(printed).name == "caf� 1.txt#0"
    finder = lab((printed, "x", 0))
    for name in (printed, f"{printed}#0", "caf\udce9 1.txt", os.fsdecode(raw)):
        assert finder.find(name).seq == 1


def test_a_decision_of_another_time_is_found_by_its_folder(lab: Record, tmp_path: Path) -> None:
    """Whichever folders are watched now."""
    lab(("a.txt", "x", 0))
    with LedgerView(tmp_path / "ledger.sqlite") as view:
        finder = CurveFinder(view, [], tmp_path)
        assert finder.find("a.txt").full_name == f"{tmp_path}/x/a.txt#0"
        assert finder.find(f"{tmp_path}/x/a.txt").seq == 1
        assert finder.find("x/a.txt").seq == 1


def test_while_names_are_still_being_noted_a_flagged_curve_is_found(
    lab: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    finder = lab(("kept.txt", "x", 0), ("flagged.txt", "x", 0))  # every third decision of the tests is a review

    def not_yet(*_: object) -> None:
        raise UserError(69, "the names are still being noted: try again in some minutes")

    monkeypatch.setattr(LedgerView, "named", not_yet)
    assert finder.find("flagged.txt#0").seq == 2
    with pytest.raises(UserError, match="try again in some minutes"):
        finder.find("kept.txt#0")


def test_a_file_is_explained_though_the_ledger_cannot_be_read(tmp_path: Path) -> None:
    from daemon.config import Config
    from daemon.explain import look_up

    (tmp_path / "ledger.sqlite").write_bytes(b"no ledger at all, but something else" * 100)
    curve = Path(__file__).parents[1] / "daemon" / "curves" / "force-save-0441.jpk-force"
    subject, _ = look_up(str(curve), None, Config(state=tmp_path))
    assert subject.name == f"{curve}#0"
    with pytest.raises(UserError, match=r"damaged|not a database"):
        look_up("run7/a.txt", None, Config(state=tmp_path))
