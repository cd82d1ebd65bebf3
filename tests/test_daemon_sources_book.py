"""The book of states on a clock that only the test moves: the waiting times themselves."""

from __future__ import annotations

import itertools

import pytest
from sourcehelp import BINARY, TEXT

from daemon.formats.names import Names
from daemon.sources.file_state import FileState, Timing
from daemon.sources.scan import Listing, Stamp
from daemon.sources.tracker import FileTracker, Surroundings


class Desk:
    """A book over stamps that the test writes down."""

    def __init__(self, timing: Timing | None = None, text_quiet_s: float = 2.0) -> None:
        self.now_s = 1000.0
        self.files: dict[str, Stamp] = {}
        self.offers: list[tuple[str, bool, float]] = []
        self.out: list[FileState] = []
        world = Surroundings(
            stamp=self.files.get,
            standing=lambda: True,
            finished=lambda path: None,
            offer=self._offer,
            withdraw=lambda pending: pending in self.out,
            ignored=lambda path, reason, came: None,
            curve=lambda: None,
            monotonic=lambda: self.now_s,
            wall=lambda: self.now_s,
        )
        names = Names((BINARY, TEXT), text_quiet_s=text_quiet_s)
        self.book = FileTracker(names, timing or Timing(), world)

    def _offer(self, pending: FileState, final: bool) -> None:
        self.offers.append((pending.path, final, self.now_s))
        self.out.append(pending)

    def write(self, path: str, size: int) -> None:
        self.files[path] = (size, int(self.now_s * 1e9))

    def run(self, for_s: float, step_s: float = 0.05) -> list[tuple[str, bool, float]]:
        """Let time pass; what was offered in it."""
        before, end_s = len(self.offers), self.now_s + for_s
        self.book.look(100)
        while self.now_s < end_s - 1e-9:
            self.now_s = round(self.now_s + step_s, 6)
            self.book.look(100)
        return self.offers[before:]


def test_without_a_close_two_equal_looks_a_quarter_second_apart() -> None:
    desk = Desk()
    desk.write("a.jpk-force", 1)
    desk.book.touch("a.jpk-force")
    assert desk.run(0.2) == []
    desk.write("a.jpk-force", 2)
    assert desk.run(0.25) == []
    ((_, final, at_s),) = desk.run(0.3)
    assert (final, at_s) == (False, pytest.approx(1000.5, abs=0.06))


def test_on_a_share_the_looks_are_a_second_apart_and_age_is_not_believed() -> None:
    desk = Desk(Timing().on_network())
    desk.write("a.jpk-force", 1)
    desk.now_s += 60.0  # old by our clock, but whose clock is it?
    desk.book.touch("a.jpk-force", fresh=True)
    assert desk.run(0.95) == []
    assert len(desk.run(0.1)) == 1
    desk.write("old.jpk-force", 1)
    desk.now_s += 3600.0
    desk.book.touch("old.jpk-force", fresh=True)
    assert len(desk.run(0.0)) == 1


def test_text_without_a_line_end_rests_twenty_seconds_from_its_last_change_and_is_asked_for_once() -> None:
    desk = Desk()
    desk.write("a.txt", 1)
    desk.book.touch("a.txt", closed_s=desk.now_s)
    ((_, final, at_s),) = desk.run(3.0)
    assert (final, at_s) == (False, pytest.approx(1002.0, abs=0.06))
    desk.book.defer("a.txt", "unended")
    assert desk.run(7.0) == []  # the same bytes would give the same answer
    desk.write("a.txt", 2)  # its writer had only paused
    grown_s = desk.now_s
    ((_, final, at_s),) = desk.run(3.0)
    assert (final, at_s - grown_s) == (False, pytest.approx(2.25, abs=0.3))
    desk.book.defer("a.txt", "unended")
    ((_, final, at_s),) = desk.run(30.0)
    assert final
    assert at_s - grown_s == pytest.approx(20.0, abs=0.3)


def test_text_without_a_line_end_that_is_older_than_the_service_need_not_rest_again() -> None:
    desk = Desk()
    desk.write("old.txt", 1)
    desk.write("young.txt", 1)
    desk.now_s += 15.0
    desk.write("young.txt", 2)
    desk.now_s += 10.0
    for name in ("old.txt", "young.txt"):
        desk.book.touch(name, fresh=True)
    assert [(name, final) for name, final, _ in desk.run(0.1)] == [("old.txt", False), ("young.txt", False)]
    for name in ("old.txt", "young.txt"):
        desk.book.defer(name, "unended")
    assert [(name, final) for name, final, _ in desk.run(1.0)] == [("old.txt", True)]
    ((name, final, at_s),) = desk.run(30.0)
    assert (name, final, at_s) == ("young.txt", True, pytest.approx(1035.0, abs=0.3))


def test_a_half_is_found_by_the_spelling_that_the_folder_has() -> None:
    for first, second in (("aDefl.ibw", "aZSNSR.IBW"), ("aDEFL.IBW", "aZSnsr.ibw"), ("adEfl.ibw", "aZsnsr.Ibw")):
        for order in ((first, second), (second, first)):
            desk = Desk()
            for name in order:
                desk.write(name, 1)
                desk.book.touch(name, closed_s=desk.now_s)
                desk.run(0.1)
            offers = desk.run(1.0) or desk.offers
            assert [(name, final) for name, final, _ in offers] == [(first, False)]
            assert desk.out[0].companion == second
            assert desk.out[0].stamp is not None
            assert desk.out[0].stamp[0] == 2  # of both halves


def test_the_tries_grow_apart_until_patience_ends() -> None:
    desk = Desk()
    desk.write("a.jpk-force", 1)
    desk.book.touch("a.jpk-force", closed_s=desk.now_s)
    times = []
    while not desk.offers or not desk.offers[-1][1]:
        desk.run(0.05)
        if desk.out:
            times.append(desk.offers[-1][2] - 1000.0)
            desk.out.clear()
            desk.book.defer("a.jpk-force", "truncated")
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert gaps[:6] == pytest.approx([0.1, 0.2, 0.5, 1.0, 2.0, 5.0], abs=0.11)
    assert times[-1] == pytest.approx(60.0, abs=0.11)


def test_growth_renews_patience() -> None:
    desk = Desk()
    desk.book.touch("m.jpk-force-map")
    for size in range(1, 30):
        desk.write("m.jpk-force-map", size)
        if size == 1:
            desk.book.touch("m.jpk-force-map")
        for path, final, _ in desk.run(40.0):
            assert not final
            desk.book.defer(path, "truncated")
    while not (offered := desk.run(1.0)) or not offered[-1][1]:
        for path, _, _ in offered:
            desk.book.defer(path, "truncated")
    assert desk.now_s - 1000.0 == pytest.approx(28 * 40.0 + 600.0, abs=2.0)


def test_a_close_heard_while_the_reader_has_the_file_brings_it_back_at_once() -> None:
    desk = Desk()
    desk.write("a.jpk-force", 1)
    desk.book.touch("a.jpk-force", closed_s=desk.now_s)
    assert len(desk.run(0.0)) == 1
    desk.now_s += 0.01
    desk.write("a.jpk-force", 2)
    desk.book.touch("a.jpk-force", closed_s=desk.now_s)
    assert desk.run(0.0) == []
    desk.book.defer("a.jpk-force", "truncated")
    assert len(desk.run(0.0)) == 1
    desk.book.settle("a.jpk-force", desk.files["a.jpk-force"])
    assert desk.run(1.0) == []
    assert desk.book.waiting() == 0


def test_a_rewrite_under_the_readers_hands_is_a_new_life() -> None:
    desk = Desk()
    desk.write("a.jpk-force", 1)
    desk.book.touch("a.jpk-force", closed_s=desk.now_s)
    desk.run(0.0)
    stamp = desk.files["a.jpk-force"]
    desk.now_s += 0.01
    desk.write("a.jpk-force", 1)
    desk.book.settle("a.jpk-force", stamp)  # no event came: the last look sees it
    assert len(desk.run(0.3)) == 1
    assert not desk.out[1].counted  # a life of its own, counted anew


def test_a_rename_onto_another_waiting_file_loses_neither_answer() -> None:
    desk = Desk()
    for name in ("a.jpk-force", "b.jpk-force"):
        desk.write(name, 1)
        desk.book.touch(name, closed_s=desk.now_s)
    assert len(desk.run(0.0)) == 2
    for name in ("a.jpk-force", "b.jpk-force"):
        desk.book.defer(name, "truncated")
    desk.files["b.jpk-force"] = desk.files.pop("a.jpk-force")
    desk.book.moved("a.jpk-force", "b.jpk-force", desk.now_s)
    assert {(path, final) for path, final, _ in desk.run(0.1)} == {("a.jpk-force", True), ("b.jpk-force", False)}


def test_a_rename_takes_back_an_offer_nobody_has_taken() -> None:
    desk = Desk()
    desk.write("a.jpk-force", 1)
    desk.book.touch("a.jpk-force", closed_s=desk.now_s)
    desk.run(0.0)
    desk.out[0].counted = True
    desk.files["b.jpk-force"] = desk.files.pop("a.jpk-force")
    desk.book.moved("a.jpk-force", "b.jpk-force", desk.now_s)
    assert [path for path, _, _ in desk.run(0.0)] == ["b.jpk-force"]
    assert desk.out[1].counted  # one life, under another name


def test_a_listing_finds_forgets_and_is_not_confused_by_what_is_under_way() -> None:
    desk = Desk()
    desk.write("run/a.jpk-force", 1)
    both = Listing("run", frozenset({"a.jpk-force", "b.png"}))
    for _ in range(3):
        desk.book.reconcile(both, fresh=False)
    assert len(desk.run(0.3)) == 1
    assert desk.book.missed == 1  # no hint had told of it
    desk.book.settle("run/a.jpk-force", desk.files["run/a.jpk-force"])
    desk.run(0.1)
    assert desk.book.settled.paths() == ["run/a.jpk-force"]
    desk.book.reconcile(Listing("run", frozenset({"b.png"})), fresh=False)
    assert desk.book.settled.paths() == []
    desk.book.reconcile(both, fresh=False)
    assert len(desk.run(0.3)) == 1  # it left and came back: new
