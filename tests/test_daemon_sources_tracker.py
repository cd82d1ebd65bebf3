"""The states of files on a clock that only the test moves: the waiting times themselves."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from sourcehelp import BINARY, TEXT

from daemon.formats import Names
from daemon.formats.base import AWAY
from daemon.sources.file_state import FileState, Found, State, Timing
from daemon.sources.scan import Listing, Stamp
from daemon.sources.tracker import FileTracker, Surroundings


class Trial:
    """A tracker over stamps that the test writes down."""

    def __init__(self, timing: Timing | None = None, text_quiet_s: float = 2.0) -> None:
        self.now_s = 1000.0
        self.files: dict[str, Stamp] = {}
        self.offers: list[tuple[str, bool, float]] = []
        self.out: list[FileState] = []
        self.is_taken = True  # every offer at once
        self._inode = 0
        world = Surroundings(
            stamps=self._stamps,
            is_standing=lambda: True,
            is_finished=lambda path, stamp: False,
            offer=self._offer,
            withdraw=self._withdraw,
            ignored=lambda path, reason, came: None,
            curve=lambda: None,
            monotonic=lambda: self.now_s,
            wall=lambda: self.now_s,
        )
        names = Names((BINARY, TEXT), text_quiet_s=text_quiet_s)
        self.tracker = FileTracker(names, timing or Timing(), world)

    def _stamps(self, paths: Sequence[str]) -> list[Stamp | OSError | None]:
        stamps = [self.files.get(path) for path in paths]
        return [stamp and stamp._replace(looked_s=self.now_s) for stamp in stamps]

    def _offer(self, pending: FileState, final: bool) -> None:
        self.offers.append((pending.path, final, self.now_s))
        pending.become(State.OFFERED)
        if self.is_taken:
            pending.become(State.READING)
        self.out.append(pending)

    def _withdraw(self, pending: FileState) -> bool:
        if pending.state is not State.OFFERED:
            return False
        pending.become(State.SEEN)
        return True

    def settle(self, path: str) -> None:
        """Decided, as it was when it was offered."""
        (stamp,) = {pending.stamp for pending in self.out if pending.path == path and pending.state is State.READING}
        self.tracker.settle(path, stamp)

    def write(self, path: str, size: int) -> None:
        time_ns = int(self.now_s * 1e9)
        self._inode += path not in self.files
        self.files[path] = Stamp(size, time_ns, time_ns, self._inode)

    def run(self, for_s: float, step_s: float = 0.05) -> list[tuple[str, bool, float]]:
        """Let time pass; what was offered in it."""
        before, end_s = len(self.offers), self.now_s + for_s
        self.tracker.look(100)
        while self.now_s < end_s - 1e-9:
            self.now_s = round(self.now_s + step_s, 6)
            self.tracker.look(100)
        return self.offers[before:]


def test_without_a_close_two_equal_looks_a_quarter_second_apart() -> None:
    trial = Trial()
    trial.write("a.jpk-force", 1)
    trial.tracker.touch("a.jpk-force")
    assert trial.run(0.2) == []
    trial.write("a.jpk-force", 2)
    assert trial.run(0.25) == []
    ((_, final, at_s),) = trial.run(0.3)
    assert (final, at_s) == (False, pytest.approx(1000.5, abs=0.06))


def test_on_a_share_the_looks_are_a_second_apart_and_age_is_not_believed() -> None:
    trial = Trial(Timing().on_network())
    trial.write("a.jpk-force", 1)
    trial.now_s += 60.0  # old by our clock, but whose clock is it?
    trial.tracker.touch("a.jpk-force", Found.START)
    assert trial.run(0.95) == []
    assert len(trial.run(0.1)) == 1
    trial.write("old.jpk-force", 1)
    trial.now_s += 3600.0
    trial.tracker.touch("old.jpk-force", Found.START)
    assert len(trial.run(0.0)) == 1


def test_text_without_a_line_end_rests_twenty_seconds_from_its_last_change_and_is_asked_for_once() -> None:
    trial = Trial()
    trial.write("a.txt", 1)
    trial.tracker.touch("a.txt", closed_s=trial.now_s, heard_s=trial.now_s)
    ((_, final, at_s),) = trial.run(3.0)
    assert (final, at_s) == (False, pytest.approx(1002.0, abs=0.06))
    trial.tracker.defer("a.txt", "unended")
    assert trial.run(7.0) == []  # the same bytes would give the same answer
    trial.write("a.txt", 2)  # its writer had only paused
    grown_s = trial.now_s
    ((_, final, at_s),) = trial.run(3.0)
    assert (final, at_s - grown_s) == (False, pytest.approx(2.25, abs=0.3))
    trial.tracker.defer("a.txt", "unended")
    ((_, final, at_s),) = trial.run(30.0)
    assert final
    assert at_s - grown_s == pytest.approx(20.0, abs=0.3)


def test_text_without_a_line_end_that_is_older_than_the_service_need_not_rest_again() -> None:
    trial = Trial()
    trial.write("old.txt", 1)
    trial.write("young.txt", 1)
    trial.now_s += 15.0
    trial.write("young.txt", 2)
    trial.now_s += 10.0
    for name in ("old.txt", "young.txt"):
        trial.tracker.touch(name, Found.START)
    assert [(name, final) for name, final, _ in trial.run(0.1)] == [("old.txt", False), ("young.txt", False)]
    for name in ("old.txt", "young.txt"):
        trial.tracker.defer(name, "unended")
    assert [(name, final) for name, final, _ in trial.run(1.0)] == [("old.txt", True)]
    ((name, final, at_s),) = trial.run(30.0)
    assert (name, final, at_s) == ("young.txt", True, pytest.approx(1035.0, abs=0.3))


def test_a_half_is_found_by_the_spelling_that_the_folder_has() -> None:
    for first, second in (("aDefl.ibw", "aZSNSR.IBW"), ("aDEFL.IBW", "aZSnsr.ibw"), ("adEfl.ibw", "aZsnsr.Ibw")):
        for order in ((first, second), (second, first)):
            trial = Trial()
            for name in order:
                trial.write(name, 1)
                trial.tracker.touch(name, closed_s=trial.now_s, heard_s=trial.now_s)
                trial.run(0.1)
            offers = trial.run(1.0) or trial.offers
            assert [(name, final) for name, final, _ in offers] == [(first, False)]
            assert trial.out[0].companion == second
            assert trial.out[0].stamp is not None
            assert trial.out[0].stamp[0] == 2  # of both halves


def test_the_tries_grow_apart_until_patience_ends() -> None:
    trial = Trial()
    trial.write("a.jpk-force", 1)
    trial.tracker.touch("a.jpk-force", closed_s=trial.now_s, heard_s=trial.now_s)
    times = []
    while not trial.offers or not trial.offers[-1][1]:
        trial.run(0.05)
        if trial.out:
            times.append(trial.offers[-1][2] - 1000.0)
            trial.out.clear()
            trial.tracker.defer("a.jpk-force", "truncated")
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert gaps[:6] == pytest.approx([0.1, 0.2, 0.5, 1.0, 2.0, 5.0], abs=0.11)
    assert times[-1] == pytest.approx(60.0, abs=0.11)


def test_growth_renews_patience() -> None:
    trial = Trial()
    trial.tracker.touch("m.jpk-force-map")
    for size in range(1, 30):
        trial.write("m.jpk-force-map", size)
        if size == 1:
            trial.tracker.touch("m.jpk-force-map")
        for path, final, _ in trial.run(40.0):
            assert not final
            trial.tracker.defer(path, "truncated")
    while not (offered := trial.run(1.0)) or not offered[-1][1]:
        for path, _, _ in offered:
            trial.tracker.defer(path, "truncated")
    assert trial.now_s - 1000.0 == pytest.approx(28 * 40.0 + 600.0, abs=2.0)


def test_a_share_that_is_away_costs_a_file_no_patience() -> None:
    trial = Trial()
    trial.write("a.jpk-force", 1)
    trial.tracker.touch("a.jpk-force", closed_s=trial.now_s, heard_s=trial.now_s)
    assert len(trial.run(0.0)) == 1
    trial.now_s += 300.0
    trial.tracker.defer("a.jpk-force", AWAY)
    ((_, is_final, again_s),) = trial.run(5.0)
    assert not is_final
    trial.tracker.defer("a.jpk-force", "truncated")
    while not trial.run(1.0)[-1:] or not trial.offers[-1][1]:
        if trial.out[-1].state is State.READING:
            trial.tracker.defer("a.jpk-force", "truncated")
    assert trial.offers[-1][2] - again_s == pytest.approx(60.0, abs=6.0)


def test_a_close_heard_while_the_reader_has_the_file_brings_it_back_at_once() -> None:
    trial = Trial()
    trial.write("a.jpk-force", 1)
    trial.tracker.touch("a.jpk-force", closed_s=trial.now_s, heard_s=trial.now_s)
    assert len(trial.run(0.0)) == 1
    trial.now_s += 0.01
    trial.write("a.jpk-force", 2)
    trial.tracker.touch("a.jpk-force", closed_s=trial.now_s, heard_s=trial.now_s)
    assert trial.run(0.0) == []
    trial.tracker.defer("a.jpk-force", "truncated")
    assert len(trial.run(0.0)) == 1
    trial.settle("a.jpk-force")
    assert trial.run(1.0) == []
    assert trial.tracker.waiting() == 0


def test_a_rewrite_under_the_readers_hands_is_a_new_life() -> None:
    trial = Trial()
    trial.write("a.jpk-force", 1)
    trial.tracker.touch("a.jpk-force", closed_s=trial.now_s, heard_s=trial.now_s)
    trial.run(0.0)
    stamp = trial.files["a.jpk-force"]
    trial.now_s += 0.01
    trial.write("a.jpk-force", 1)
    trial.tracker.settle("a.jpk-force", stamp)  # no event came: the last look sees it
    assert len(trial.run(0.3)) == 1
    assert not trial.out[1].counted  # a life of its own, counted anew


def test_a_rename_onto_another_waiting_file_loses_neither_answer() -> None:
    trial = Trial()
    for name in ("a.jpk-force", "b.jpk-force"):
        trial.write(name, 1)
        trial.tracker.touch(name, closed_s=trial.now_s, heard_s=trial.now_s)
    assert len(trial.run(0.0)) == 2
    for name in ("a.jpk-force", "b.jpk-force"):
        trial.tracker.defer(name, "truncated")
    trial.files["b.jpk-force"] = trial.files.pop("a.jpk-force")
    trial.tracker.moved("a.jpk-force", "b.jpk-force", trial.now_s)
    assert {(path, final) for path, final, _ in trial.run(2.5)} == {("a.jpk-force", True), ("b.jpk-force", False)}


def test_a_file_renamed_twice_in_the_readers_hands_is_one_file() -> None:
    trial = Trial()
    trial.write("a.jpk-force", 1)
    trial.tracker.touch("a.jpk-force", closed_s=trial.now_s, heard_s=trial.now_s)
    assert len(trial.run(0.0)) == 1
    for before, after in (("a", "b"), ("b", "c")):
        trial.files[f"{after}.jpk-force"] = trial.files.pop(f"{before}.jpk-force")
        trial.tracker.moved(f"{before}.jpk-force", f"{after}.jpk-force", trial.now_s)
    trial.tracker.defer("a.jpk-force", "vanished")
    assert [(path, final) for path, final, _ in trial.run(5.0)] == [("c.jpk-force", False)]


def test_a_rename_of_which_word_comes_late_is_no_loss() -> None:
    trial = Trial()
    trial.write("a.jpk-force", 1)
    trial.tracker.touch("a.jpk-force", closed_s=trial.now_s, heard_s=trial.now_s)
    assert len(trial.run(0.0)) == 1
    trial.files["b.jpk-force"] = trial.files.pop("a.jpk-force")
    trial.tracker.defer("a.jpk-force", "vanished")
    assert trial.run(0.5) == []
    trial.tracker.moved("a.jpk-force", "b.jpk-force", trial.now_s)
    assert [(path, final) for path, final, _ in trial.run(5.0)] == [("b.jpk-force", False)]


def test_a_rename_takes_back_an_offer_nobody_has_taken() -> None:
    trial = Trial()
    trial.is_taken = False
    trial.write("a.jpk-force", 1)
    trial.tracker.touch("a.jpk-force", closed_s=trial.now_s, heard_s=trial.now_s)
    trial.run(0.0)
    trial.out[0].counted = True
    trial.files["b.jpk-force"] = trial.files.pop("a.jpk-force")
    trial.tracker.moved("a.jpk-force", "b.jpk-force", trial.now_s)
    assert [path for path, _, _ in trial.run(0.0)] == ["b.jpk-force"]
    assert trial.out[1].counted  # one life, under another name


def test_a_listing_finds_forgets_and_is_not_confused_by_what_is_under_way() -> None:
    trial = Trial()
    trial.write("run/a.jpk-force", 1)
    both = Listing("run", frozenset({"a.jpk-force", "b.png"}))
    for _ in range(3):
        trial.tracker.reconcile(both, Found.SCAN)
    assert len(trial.run(0.3)) == 1
    assert trial.tracker.missed == 1  # no hint had told of it
    trial.settle("run/a.jpk-force")
    trial.run(0.1)
    assert trial.tracker.settled.paths() == ["run/a.jpk-force"]
    trial.tracker.reconcile(Listing("run", frozenset({"b.png"})), Found.SCAN)
    assert trial.tracker.settled.paths() == []
    trial.tracker.reconcile(both, Found.SCAN)
    assert len(trial.run(0.3)) == 1  # it left and came back: new
