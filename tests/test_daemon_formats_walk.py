"""Curve files in folders: order, pairs, and what could not be looked into."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.reading.ahead import find
from tests.makers import make_jpk


def test_files_come_in_order_and_what_is_no_curve_is_counted(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/1.jpk-force", "a.jpk-force", "c.jpk-force", "picture.png", "x.jpk-force.tmp"):
        (tmp_path / name).write_bytes(make_jpk())
    found = find([tmp_path])
    assert [arrival.path for arrival in found] == ["a.jpk-force", "b/1.jpk-force", "c.jpk-force"]
    assert (found.ignored.kinds, found.unlisted) == ({"image": 1, "temporary": 1}, [])


def test_links_to_folders_are_told_and_those_to_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.jpk-force").write_bytes(make_jpk())
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "file.jpk-force").symlink_to(tmp_path / "outside" / "a.jpk-force")
    (inside / "folder").symlink_to(tmp_path / "outside")
    (inside / "loop").symlink_to(inside)
    os.mkfifo(inside / "pipe.jpk-force")
    found = find([inside])
    assert [arrival.path for arrival in found] == ["file.jpk-force"]  # what `collect --link` makes can be scored
    assert (found.ignored.kinds, found.link) == ({"link": 2, "not_regular": 1}, inside / "folder")


def test_a_folder_that_cannot_be_listed_is_named_and_the_others_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shut").mkdir()
    (tmp_path / "z.jpk-force").write_bytes(make_jpk())
    listed = os.scandir

    def refuse(folder: Path) -> object:  # permission does not bind root, who runs these tests in CI
        if Path(folder).name == "shut":
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find([tmp_path])
    assert [arrival.path for arrival in found] == ["z.jpk-force"]
    assert found.unlisted == [tmp_path / "shut"]
