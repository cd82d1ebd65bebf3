"""The watch source on real folders: whatever a writer does, every finished file comes once per content."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from pace import allowed
from sourcehelp import QUICK, TEXT_QUIET_S, until, watching


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A folder for thousands of files: in memory where there is such a place."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        yield Path(folder)


def hints_of(watched):
    return watched.source._folders[0]._hearing._hints


def test_a_closed_file_comes_at_once_and_only_once(tmp_path: Path) -> None:
    with watching(tmp_path) as watched:
        (tmp_path / "a.jpk-force").write_bytes(b"curve")
        closed_s = time.monotonic()
        arrival = watched.one()
        assert (arrival.path, arrival.size_bytes, arrival.claimed, arrival.final) == ("a.jpk-force", 5, True, False)
        assert arrival.mtime_ns == (tmp_path / "a.jpk-force").stat().st_mtime_ns
        assert abs(arrival.noticed_s - closed_s) < allowed(0.05)
        arrival.done()
        assert watched.quiet(0.6)  # two listings and a sweep later
        assert watched.seen == 1


def test_what_lay_there_before_comes_oldest_first_without_waiting(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for age, name in enumerate(["young.jpk-force", "deep/middle.txt", "deep/er/old.jpk-force"]):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (time.time() - 100 * age - 10,) * 2)
    with watching(tmp_path) as watched:
        assert until(lambda: watched.source.ready() == 3, 0.5)
        assert watched.decide(3) == ["deep/er/old.jpk-force", "deep/middle.txt", "young.jpk-force"]


@pytest.mark.parametrize("year_s", [-(2**33), 13_569_465_600], ids=["1697", "2400"])
def test_a_time_that_no_clock_has_shown_fits_the_ledger(tmp_path: Path, year_s: int) -> None:
    file = tmp_path / "a.jpk-force"
    file.write_bytes(b"x")
    os.utime(file, (year_s, year_s))
    with watching(tmp_path) as watched:
        arrival = watched.one()
        assert -(2**63) <= arrival.mtime_ns < 2**63
        arrival.done()
        assert watched.quiet(0.6)


def test_a_growing_text_waits_for_its_quiet_time_after_the_last_change(tmp_path: Path) -> None:
    with watching(tmp_path) as watched:
        with open(tmp_path / "grow.txt", "w") as file:
            for _ in range(4):
                file.write("1 2\n")
                file.flush()
                time.sleep(0.2)
        closed_s = time.monotonic()
        arrival = watched.one()
        assert TEXT_QUIET_S - 0.05 <= time.monotonic() - closed_s < TEXT_QUIET_S + allowed(0.3)
        assert arrival.size_bytes == 16


@pytest.mark.parametrize("how", ["rename inside", "rename from outside", "hard link", "replace"])
def test_files_that_are_never_closed_here_are_found(tmp_path: Path, how: str) -> None:
    folder, outside = tmp_path / "watch", tmp_path / "outside.jpk-force"
    folder.mkdir()
    with watching(folder) as watched:
        target = folder / "b.jpk-force"
        outside.write_bytes(b"12345")
        if how == "rename inside":
            (folder / ".b.jpk-force.tmp").write_bytes(b"12345")
            os.rename(folder / ".b.jpk-force.tmp", target)
        elif how == "hard link":
            os.link(outside, target)
        else:
            if how == "replace":
                target.write_bytes(b"first")
                assert watched.decide() == ["b.jpk-force"]
                time.sleep(0.02)
            os.replace(outside, target)
        arrival = watched.one()
        assert (arrival.path, arrival.size_bytes) == ("b.jpk-force", 5)
        arrival.done()
        assert watched.quiet()


def test_a_burst_into_new_deep_folders_comes_whole(memory_path: Path) -> None:
    with watching(memory_path) as watched:
        for number in range(2000):
            folder = memory_path / f"day{number // 400}" / "run" / f"part{number // 100}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:04d}.jpk-force").write_bytes(b"x" * (number % 7 + 1))
        paths = watched.decide(2000, 15.0)
        assert len(paths) == len(set(paths)) == 2000 == watched.seen
        assert watched.quiet()


def test_a_folder_moved_in_and_a_file_renamed_later(tmp_path: Path) -> None:
    folder, outside = tmp_path / "watch", tmp_path / "outside" / "sub"
    folder.mkdir(), outside.mkdir(parents=True)
    for number in range(20):
        (outside / f"{number}.jpk-force").write_bytes(b"x")
    with watching(folder, timing=replace(QUICK, sweep_s=60.0)) as watched:
        os.rename(outside.parent, folder / "moved")
        assert len(watched.decide(20)) == 20
        time.sleep(0.5)  # a rename in the same breath may be seen as one gone, one new: the ledger knows its bytes
        os.rename(folder / "moved" / "sub" / "3.jpk-force", folder / "renamed.jpk-force")
        os.rename(folder / "moved", folder / "again")
        assert watched.quiet(0.6)  # the state goes with the file: decided stays decided
        (folder / "again" / "sub" / "4.jpk-force").write_bytes(b"rewritten")
        assert watched.decide() == ["again/sub/4.jpk-force"]


def test_a_rewritten_file_is_offered_again_even_without_any_event(tmp_path: Path) -> None:
    with watching(tmp_path, mounts="network") as watched:  # no inotify here
        (tmp_path / "a.jpk-force").write_bytes(b"first")
        assert watched.decide() == ["a.jpk-force"]
        os.utime(tmp_path / "a.jpk-force", ns=(0, 10**18))
        assert watched.decide() == ["a.jpk-force"]
        assert watched.seen == 2
        assert "network mount" in watched.health()


def test_unfinished_files_come_back_soon_when_they_grow_and_finally_when_they_do_not(tmp_path: Path) -> None:
    with watching(tmp_path) as watched:
        (tmp_path / "a.jpk-force").write_bytes(b"half")
        first = watched.one()
        first.later("truncated")
        again = watched.one()
        assert not again.final
        assert again.noticed_s == first.noticed_s  # the same bytes: noticed then
        again.later("truncated")
        with open(tmp_path / "a.jpk-force", "ab") as file:
            file.write(b" and the rest")
        whole = next(arrival for arrival in iter(watched.one, None) if _kept(watched, arrival, 17))
        assert whole.noticed_s > again.noticed_s
        whole.done()
        (tmp_path / "never.jpk-force").write_bytes(b"half")
        begun_s, offers = time.monotonic(), 0
        while not (arrival := watched.one()).final:
            offers += 1
            arrival.later("truncated")
        assert QUICK.patience_s - 0.1 < time.monotonic() - begun_s < QUICK.patience_s + allowed(0.5)
        assert offers >= 3
        assert watched.seen == 2  # deferring does not count anew


def _kept(watched, arrival, size_bytes) -> bool:
    if arrival.size_bytes != size_bytes:
        arrival.later("truncated")
    return arrival.size_bytes == size_bytes


@pytest.mark.parametrize(
    ("name", "reason", "patience_s"),
    [("a.jpk-force", "zero_tail", QUICK.patience_zero_tail_s), ("a.jpk-force-map", "truncated", QUICK.patience_map_s)],
)
def test_patience_depends_on_what_is_missing(tmp_path: Path, name: str, reason: str, patience_s: float) -> None:
    with watching(tmp_path) as watched:
        (tmp_path / name).write_bytes(b"half")
        begun_s = time.monotonic()
        while not (arrival := watched.one()).final:
            arrival.later(reason)
        assert patience_s - 0.05 < time.monotonic() - begun_s < patience_s + 0.4


def test_a_pair_is_one_arrival_and_half_a_pair_waits_to_the_end(tmp_path: Path) -> None:
    with watching(tmp_path) as watched:
        (tmp_path / "Line0Point1Defl.ibw").write_bytes(b"defl")
        assert watched.quiet(0.2)
        (tmp_path / "Line0Point1ZSnsr.ibw").write_bytes(b"zsnsr")
        pair = watched.one()
        assert (pair.path, pair.companion) == ("Line0Point1Defl.ibw", tmp_path / "Line0Point1ZSnsr.ibw")
        assert pair.size_bytes == 9
        pair.done()
        (tmp_path / "Line0Point2ZSnsr.ibw").write_bytes(b"never alone")
        (tmp_path / "Line0Point3Defl.ibw").write_bytes(b"widow")
        (tmp_path / "Image0001.ibw").write_bytes(b"both in one")
        assert watched.decide() == ["Image0001.ibw"]
        widow = watched.one()
        assert (widow.path, widow.companion, widow.final) == ("Line0Point3Defl.ibw", None, True)
        widow.done()
        (tmp_path / "Line0Point3ZSnsr.ibw").write_bytes(b"late")
        assert watched.one().companion is not None
        assert watched.ignored["companion"] == 3
        assert watched.quiet()


def test_a_pair_is_one_arrival_in_any_mix_of_case(tmp_path: Path) -> None:
    """A case-sensitive file system, and a program that copied the halves in its own spelling."""
    with watching(tmp_path) as watched:
        for first, second in (("1Defl.ibw", "1ZSNSR.IBW"), ("2DEFL.IBW", "2ZSnsr.ibw"), ("3defl.ibw", "3zsNSR.ibw")):
            for order in ((first, second), (second, first)):
                for name in order:
                    (tmp_path / name).write_bytes(name.encode())
                    time.sleep(0.1)
                pair = watched.one()
                assert (pair.path, pair.companion) == (first, tmp_path / second)
                assert pair.size_bytes == len(first) + len(second)
                pair.done()
                for name in order:
                    (tmp_path / name).unlink()
                time.sleep(0.2)
    (tmp_path / "4Defl.ibw").write_bytes(b"there")
    (tmp_path / "4ZSNSR.ibw").write_bytes(b"before the start")
    with watching(tmp_path) as watched:
        assert watched.one().companion == tmp_path / "4ZSNSR.ibw"


def test_a_sentinel_ends_the_waiting_and_names_decide_what_is_ignored(tmp_path: Path) -> None:
    with watching(tmp_path, timing=replace(QUICK, look_s=30.0)) as watched:
        for name in ("picture.pfc", "~half.jpk-force", ".hidden.txt", "x.jpk-force.tmp"):
            (tmp_path / name).write_bytes(b"x")
        os.link(tmp_path / "picture.pfc", tmp_path / "linked.txt")  # no close event: would wait for 30 s
        (tmp_path / "linked.txt.done").touch()
        assert watched.decide() == ["linked.txt"]
        (tmp_path / "unknown.xyz").write_bytes(b"x")
        arrival = watched.one()
        assert (arrival.path, arrival.claimed) == ("unknown.xyz", False)
        arrival.done()
        assert watched.ignored == {"unclaimed": 1, "temporary": 3, "sentinel": 1}
        assert watched.seen == 1  # only files that their name claims; the reader counts the others


def test_after_a_restart_the_decided_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("run/a.jpk-force", "run/b.jpk-force"):
        (tmp_path / name).write_bytes(b"x")
    known = (tmp_path / "run/a.jpk-force").stat()
    finished = {"run/a.jpk-force": (known.st_size, known.st_mtime_ns), "run/b.jpk-force": (known.st_size, 1)}
    with watching(tmp_path, finished=lambda folder, path: finished.get(path)) as watched:
        assert watched.decide() == ["run/b.jpk-force"]  # rewritten while the service was down
        assert watched.quiet()
        (tmp_path / "run/a.jpk-force").write_bytes(b"xy")
        assert watched.decide() == ["run/a.jpk-force"]


def test_the_folder_goes_and_comes_back(tmp_path: Path) -> None:
    root = tmp_path / "share"
    with watching(root) as watched:
        assert until(lambda: "does not exist" in watched.health())
        root.mkdir()
        (root / "a.jpk-force").write_bytes(b"x")
        assert watched.decide() == ["a.jpk-force"]
        shutil.rmtree(root)
        assert until(lambda: watched.health().startswith("not ok: folder is gone since"))
        root.mkdir()
        (root / "b.jpk-force").write_bytes(b"x")
        assert watched.decide() == ["b.jpk-force"]
        assert until(lambda: watched.health().startswith("ok: inotify"))
        (root / "c.jpk-force").write_bytes(b"x")
        assert watched.decide() == ["c.jpk-force"]


def test_an_outage_is_not_the_end_of_a_waiting_file(tmp_path: Path) -> None:
    root, away = tmp_path / "share", tmp_path / "away"
    root.mkdir()
    with watching(root) as watched:
        (root / "a.jpk-force").write_bytes(b"half")
        arrival = watched.one()
        os.rename(root, away)  # as an unmount does
        arrival.later("vanished")
        assert watched.quiet(0.5)
        os.rename(away, root)
        back = watched.one()
        assert (back.path, back.final) == ("a.jpk-force", False)


@pytest.mark.parametrize("victim", ["emitter", "observer", "reader"])
def test_a_dead_watcher_is_noticed_and_replaced(tmp_path: Path, victim: str) -> None:
    with watching(tmp_path) as watched:
        assert until(lambda: hints_of(watched) is not None)
        before = hints_of(watched)
        observer = before._observer
        thread = {"emitter": next(iter(observer.emitters)), "observer": observer, "reader": observer._inotify_fd}[
            victim
        ]
        thread.stop()
        (tmp_path / "meanwhile.jpk-force").write_bytes(b"x")
        assert watched.decide() == ["meanwhile.jpk-force"]
        assert until(lambda: hints_of(watched) not in (None, before))
        assert "restarted at" in watched.health()
        (tmp_path / "after.jpk-force").write_bytes(b"x")
        assert watched.decide(timeout_s=0.3) == ["after.jpk-force"]


def test_an_overflow_is_answered_by_a_listing(tmp_path: Path) -> None:
    from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent

    with watching(tmp_path, timing=replace(QUICK, scan_s=60.0, suspicion_s=0.0)) as watched:
        assert until(lambda: hints_of(watched) is not None)
        observer, real = hints_of(watched)._observer, hints_of(watched)._hear
        hints_of(watched)._hear = lambda kind, *rest: (
            real(kind, *rest) if kind == "overflow" else None
        )  # the kernel dropped them
        (tmp_path / "lost.jpk-force").write_bytes(b"x")
        assert watched.quiet(0.3)
        observer._inotify_fd.handle_event(InotifyEvent(-1, InotifyConstants.IN_Q_OVERFLOW, 0, b""))
        assert watched.decide() == ["lost.jpk-force"]


def test_silent_hints_make_the_listing_frequent(tmp_path: Path) -> None:
    with watching(tmp_path, timing=replace(QUICK, scan_s=1.0)) as watched:
        assert until(lambda: hints_of(watched) is not None)
        hints_of(watched)._hear = lambda *hint: None  # a file system that does not tell
        (tmp_path / "a.jpk-force").write_bytes(b"x")
        assert watched.decide() == ["a.jpk-force"]
        assert until(lambda: "scan every 0.2 s" in watched.health(), 1.0)
        (tmp_path / "b.jpk-force").write_bytes(b"x")
        assert watched.decide(timeout_s=0.6) == ["b.jpk-force"]


def test_without_inotify_watches_it_scans_and_says_how_to_get_more(tmp_path: Path, monkeypatch) -> None:
    from watchdog.observers import inotify_c

    def full(*_: object) -> int:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(inotify_c.InotifyFD, "_create_inotify_fd", classmethod(full))
    with watching(tmp_path) as watched:
        (tmp_path / "a.jpk-force").write_bytes(b"x")
        assert watched.decide() == ["a.jpk-force"]
        assert "max_user_watches" in watched.health()
        assert "scan every 0.2 s" in watched.health()


def test_odd_things_and_odd_names_break_nothing(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    folder = tmp_path / "watch"
    folder.mkdir(), outside.mkdir()
    (outside / "secret.jpk-force").write_bytes(b"x")
    with watching(folder) as watched:
        os.mkfifo(folder / "pipe.jpk-force")
        (folder / "link.jpk-force").symlink_to(outside / "secret.jpk-force")
        (folder / "tree").symlink_to(outside)
        (folder / "loop").symlink_to(folder)
        raw = os.fsencode(folder) + b"/m\xfcller \n.jpk-force"
        with open(raw, "wb") as file:
            file.write(b"x")
        (folder / ("n" * 240 + ".jpk-force")).write_bytes(b"x")
        (folder / "dir.jpk-force").mkdir()
        (folder / "dir.jpk-force" / "in.jpk-force").write_bytes(b"x")
        arrivals = sorted(watched.take(3), key=lambda arrival: arrival.path)
        assert [arrival.path for arrival in arrivals][:2] == ["dir.jpk-force/in.jpk-force", "m�ller \n.jpk-force"]
        assert os.fsencode(arrivals[1].file) == raw
        for arrival in arrivals:
            arrival.done()
        assert until(lambda: watched.ignored == {"not_regular": 1, "link": 3}, 4.0)
        assert watched.quiet()


def test_a_device_node_is_left_alone(tmp_path: Path) -> None:
    try:
        os.mknod(tmp_path / "dev.jpk-force", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("needs root")
    with watching(tmp_path) as watched:
        assert until(lambda: watched.ignored["not_regular"] == 1)
        assert watched.quiet(0.1)


def test_a_file_that_goes_is_offered_once_more_only_if_it_was_offered(tmp_path: Path) -> None:
    with watching(tmp_path) as watched:
        (tmp_path / "gone.txt").write_text("1")
        time.sleep(0.05)
        (tmp_path / "gone.txt").unlink()
        assert watched.quiet(0.5)
        (tmp_path / "late.jpk-force").write_bytes(b"x")
        arrival = watched.one()
        (tmp_path / "late.jpk-force").unlink()
        arrival.later("vanished")
        last = watched.one()
        assert (last.path, last.final) == ("late.jpk-force", True)
        last.done()
        (tmp_path / "late.jpk-force").write_bytes(b"x")
        os.utime(tmp_path / "late.jpk-force", ns=(0, last.mtime_ns))
        assert watched.decide() == ["late.jpk-force"]  # it came back as it was: its bytes have never been read
        assert watched.seen == 2


def test_a_file_renamed_while_the_reader_has_it(tmp_path: Path) -> None:
    with watching(tmp_path) as watched:
        (tmp_path / "a.jpk-force").write_bytes(b"x")
        arrival = watched.one()
        os.rename(tmp_path / "a.jpk-force", tmp_path / "b.jpk-force")
        time.sleep(0.1)
        arrival.later("vanished")
        renamed = watched.one()
        assert (renamed.path, renamed.final) == ("b.jpk-force", False)
        renamed.done()
        assert watched.quiet()
        assert watched.seen == 1


def test_two_folders_are_watched_side_by_side(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    with watching(one, two) as watched:
        assert len(watched.source.health()) == 2
        (one / "same.jpk-force").write_bytes(b"x")
        (two / "same.jpk-force").write_bytes(b"y")
        assert {arrival.file for arrival in watched.take(2)} == {one / "same.jpk-force", two / "same.jpk-force"}


def test_what_is_finished_in_one_folder_is_new_in_another(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "same.jpk-force").write_bytes(b"x")
        os.utime(folder / "same.jpk-force", ns=(10**18, 10**18))
    finished = {(str(one), "same.jpk-force"): (1, 10**18)}
    with watching(one, two, finished=lambda *file: finished.get(file)) as watched:
        assert [arrival.file for arrival in watched.take(1)] == [two / "same.jpk-force"]
        assert watched.quiet()


def test_a_large_folder_is_cheap_and_is_forgotten_when_it_goes(memory_path: Path) -> None:
    from daemon.sources.scan import walk

    crowd = memory_path / "crowd"
    crowd.mkdir()
    for number in range(5_000):
        os.close(os.open(crowd / f"{number:04d}.jpk-force", os.O_CREAT | os.O_WRONLY))
    begun_s = time.perf_counter()
    assert sum(len(listing.files) for listing in walk(str(memory_path))) == 5_000
    assert time.perf_counter() - begun_s < allowed(0.3)
    with watching(memory_path, mounts="network", timing=replace(QUICK, scan_often_s=0.1)) as watched:
        assert len(watched.decide(5_000, 10.0)) == 5_000
        tracker = watched.source._folders[0]._tracker

        def settled() -> list[str] | None:
            with suppress(RuntimeError):  # read here while the watcher's thread notes more
                return tracker.settled.paths()
            return None

        assert until(lambda: len(settled() or ()) == 5_000)
        shutil.rmtree(crowd)
        assert until(lambda: settled() == [] and not tracker._open and not tracker._looks)


def test_the_instruments_files_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "a.jpk-force").write_bytes(b"x")
    os.utime(tmp_path / "a.jpk-force", ns=(1, 1))
    with watching(tmp_path) as watched:
        watched.decide()
        assert watched.quiet(0.4)
        found = [
            os.readlink(f"/proc/self/fd/{fd}")
            for fd in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{fd}")
        ]
        assert not [path for path in found if path.startswith(str(tmp_path))]
    assert (tmp_path / "a.jpk-force").stat().st_atime_ns == 1
    assert os.listdir(tmp_path) == ["a.jpk-force"]


def test_stopping_is_quick_and_leaves_no_thread(tmp_path: Path) -> None:
    import threading

    before = set(threading.enumerate())
    with watching(tmp_path) as watched:
        assert until(lambda: hints_of(watched) is not None)
        begun_s = time.monotonic()
        watched.source.stop()
        assert time.monotonic() - begun_s < allowed(1.0)
    assert until(lambda: set(threading.enumerate()) <= before, 1.0)
