"""A folder into which files come and none is read: when it is told, and when it is nobody's mistake."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from sourcehelp import Watched, until, watching

from daemon.config import AlarmConfig
from daemon.formats import NAMES
from daemon.service.health import alarm_of
from daemon.sources import Unread, UnreadCount
from daemon.sources.watch import WatchSource

ALARM = AlarmConfig()


def unread(watched: Watched) -> Unread:
    (found,) = watched.source.unread()
    return found


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(name.encode())


def told(watched: Watched, files: int) -> bool:
    return until(lambda: unread(watched).files == files)


def names(count: int, pattern: str) -> list[str]:
    return [pattern.format(number) for number in range(count)]


def test_twenty_files_that_come_and_are_not_read_are_told_until_a_curve_comes(tmp_path: Path) -> None:
    with watching(tmp_path) as watched:
        write(tmp_path, *names(19, "{}.pfc"), "~half.pfc", "x.done")
        assert told(watched, 19)
        assert alarm_of(unread(watched), ALARM, 0.0) is None
        write(tmp_path, "last.pfc")
        assert told(watched, 20)
        text = alarm_of(unread(watched), ALARM, 0.0) or ""
        assert text.startswith("20 files came and none is a kind that is read: 20 .pfc; watch the folder")
        assert text.endswith("(see doctor)")
        write(tmp_path, "a.jpk-force")
        assert watched.decide() == ["a.jpk-force"]
        assert told(watched, 0)
        assert alarm_of(unread(watched), ALARM, 1e9) is None


def test_what_a_reader_looks_into_counts_once_however_often_it_grows(tmp_path: Path) -> None:
    with watching(tmp_path) as watched:
        for number in range(3):
            with open(tmp_path / "room.dat", "a") as file:
                file.write(f"{number} degrees\n")
            watched.one().done("table")
        assert told(watched, 1)
        assert watched.ignored == {"table": 1}
        assert unread(watched).kinds == {"table": 1}


def test_what_was_there_when_the_folder_appeared_has_not_come(tmp_path: Path) -> None:
    """A folder of last year's photographs: they are counted, and nobody is called for them."""
    write(tmp_path, *names(50, "photo{}.pfc"), *names(50, "note{}.xyz"))
    time.sleep(0.1)
    with watching(tmp_path) as watched:
        for arrival in watched.take(50):
            arrival.done("unclaimed")
        assert until(lambda: watched.ignored == {"unclaimed": 100})
        assert unread(watched) == Unread(str(tmp_path))
        assert alarm_of(unread(watched), ALARM, 1e9) is None


def test_what_came_while_the_folder_was_away_has_come(tmp_path: Path) -> None:
    root, away = tmp_path / "share", tmp_path / "away"
    root.mkdir()
    write(root, *names(3, "{}.pfc"))
    time.sleep(0.1)
    with watching(root) as watched:
        assert until(lambda: watched.ignored == {"unclaimed": 3})
        root.rename(away)
        assert until(lambda: "gone" in watched.health())
        write(away, *names(20, "new{}.pfc"))
        away.rename(root)
        assert told(watched, 20)


@pytest.mark.parametrize("is_decided_before", [True, False])
def test_images_beside_curves_are_no_sign_and_another_kind_is(tmp_path: Path, is_decided_before: bool) -> None:
    """Who has measured curves goes on with images in the same folder; a switch to a kind that nobody reads is told."""
    write(tmp_path, "a.jpk-force")
    stamp = (tmp_path / "a.jpk-force").stat()
    finished = {"a.jpk-force": (stamp.st_size, stamp.st_mtime_ns)} if is_decided_before else {}
    with watching(tmp_path, finished=lambda folder, path: finished.get(path), names=NAMES) as watched:
        assert is_decided_before or watched.decide() == ["a.jpk-force"]
        write(tmp_path, *names(30, "{}.png"), *names(20, "{}.pfc"))
        assert told(watched, 20)
        assert unread(watched).kinds == {"unclaimed .pfc": 20}
        assert "20 .pfc" in (alarm_of(unread(watched), ALARM, 0.0) or "")


def test_a_few_files_are_told_after_five_minutes_and_a_note_with_a_thumbnail_never() -> None:
    def after(files: int, waited_s: float, alarm: AlarmConfig = ALARM) -> str | None:
        return alarm_of(Unread("/data", {"unclaimed .pfc": files}, since_s=1000.0), alarm, 1000.0 + waited_s)

    assert after(2, 1e6) is None
    assert after(3, 299.0) is None
    assert "3 files came" in (after(3, 300.0) or "")
    assert "3 files came" in (after(3, 0.0, replace(ALARM, unread_files=3)) or "")
    assert after(1000, 1e6, replace(ALARM, unread_files=0)) is None
    assert alarm_of(Unread("/data", {"image": 50}, 0.0, is_reading=True), ALARM, 1e6) is None


def test_a_curve_on_its_way_puts_the_alarm_off(tmp_path: Path) -> None:
    """A map may take minutes to be judged: nobody shall read meanwhile that nothing is read."""
    with watching(tmp_path) as watched:
        write(tmp_path, "big.jpk-force-map", *names(20, "{}.pfc"))
        arrival = watched.one()
        assert told(watched, 20)
        assert until(lambda: unread(watched).is_reading)
        arrival.done()
        assert until(lambda: unread(watched) == Unread(str(tmp_path)))


def test_two_folders_are_counted_apart(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    with watching(one, two) as watched:
        write(one, *names(4, "{}.pfc"))
        write(two, "a.jpk-force")
        watched.decide()
        source: WatchSource = watched.source
        assert until(lambda: [found.files for found in source.unread()] == [4, 0])


def test_the_clock_begins_with_the_first_and_anew_after_a_curve() -> None:
    now_s = 10.0
    arrivals = UnreadCount("/data", lambda: now_s)
    arrivals.passed_over("unclaimed", "a.pfc")
    now_s = 50.0
    arrivals.passed_over("unclaimed", "b.pfc")
    assert arrivals.unread() == Unread("/data", {"unclaimed .pfc": 2}, 10.0)
    arrivals.curve()
    arrivals.passed_over("unclaimed", "c.pfc")
    assert arrivals.unread() == Unread("/data", {"unclaimed .pfc": 1}, 50.0)
