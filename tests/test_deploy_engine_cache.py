import json
import os
import stat
import subprocess
import sys
import time

import pytest

from deploy.engine_cache import ENTRY, KEPT, EngineCache, UnsafeCache

KEY = {"weights": "abc", "gpu": "none", "driver": "1"}
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


def write_plan(folder, data=b"plan"):
    (folder / "engine.plan").write_bytes(data)


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "state" / "engines")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "state" / "engines"


def test_what_was_put_is_found_again_and_is_private(cache, folder):
    assert cache.get(KEY) is None
    put = cache.put(KEY, write_plan)
    assert cache.get(KEY) == put
    assert EngineCache(folder).get(dict(reversed(KEY.items()))) == put
    assert (put / "engine.plan").read_bytes() == b"plan"
    assert json.loads((put / ENTRY).read_text())["key"] == KEY
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(put.stat().st_mode) == 0o700
    assert stat.S_IMODE((put / "engine.plan").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", KEY)
def test_another_key_is_another_engine(cache, name):
    cache.put(KEY, write_plan)
    other = {**KEY, name: "other"}
    assert cache.get(other) is None
    cache.put(other, lambda folder: write_plan(folder, b"other"))
    assert (cache.get(KEY) / "engine.plan").read_bytes() == b"plan"
    assert (cache.get(other) / "engine.plan").read_bytes() == b"other"
    assert cache.get({**KEY, "torch": "2.13"}) is None


def test_the_same_key_again_replaces(cache):
    cache.put(KEY, lambda folder: (write_plan(folder), (folder / "more.bin").write_bytes(b"2"))[0])
    again = cache.put(KEY, lambda folder: write_plan(folder, b"new"))
    assert {path.name for path in cache.get(KEY).iterdir()} == {"engine.plan", ENTRY}
    assert (again / "engine.plan").read_bytes() == b"new"


def cut(entry):
    (entry / "engine.plan").write_bytes(b"pla")


def change_key(entry):
    found = json.loads((entry / ENTRY).read_text())
    (entry / ENTRY).write_text(json.dumps({**found, "key": {**found["key"], "driver": "2"}}))


def add(entry):
    (entry / "libextra.so").write_bytes(b"code")


def link(entry):
    (entry / "engine.plan").rename(entry.parent.parent / "engine.plan")
    (entry / "engine.plan").symlink_to(entry.parent.parent / "engine.plan")


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        change_key,
        add,
        link,
        lambda entry: (entry / ENTRY).unlink(),
        lambda entry: (entry / ENTRY).write_text("[" * 100_000),
        lambda entry: (entry / ENTRY).write_text("[]"),
        lambda entry: (entry / "engine.plan").unlink(),
        lambda entry: (entry / "engine.plan").chmod(0o666),
        lambda entry: entry.chmod(0o777),
    ],
    ids=["cut", "other key", "one more file", "link", "no entry", "deep", "no object", "gone", "open file", "open"],
)
def test_a_damaged_entry_is_not_used_but_removed(cache, damage):
    put = cache.put(KEY, write_plan)
    damage(put)
    assert cache.get(KEY) is None
    assert not put.exists()
    assert cache.put(KEY, write_plan) == cache.get(KEY)


def test_a_link_in_place_of_an_entry_is_not_followed(cache, tmp_path):
    put = cache.put(KEY, write_plan)
    elsewhere = tmp_path / "elsewhere"
    put.rename(elsewhere)
    put.symlink_to(elsewhere)
    assert cache.get(KEY) is None
    assert (elsewhere / "engine.plan").exists()


def test_a_folder_that_others_may_write_is_refused(folder):
    folder.mkdir(parents=True)
    folder.chmod(0o770)
    with pytest.raises(UnsafeCache, match="chmod 700"):
        EngineCache(folder)
    folder.chmod(0o755)  # to be read is no danger, and is put right
    EngineCache(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_link_or_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "engines").symlink_to(tmp_path / "real")
    with pytest.raises(UnsafeCache, match="no folder"):
        EngineCache(tmp_path / "engines")


@root_only
def test_what_belongs_to_another_user_is_refused(cache, folder):
    put = cache.put(KEY, write_plan)
    os.chown(put / "engine.plan", 12345, -1)
    assert cache.get(KEY) is None
    put = cache.put(KEY, write_plan)
    os.chown(put, 12345, -1)
    with pytest.raises(UnsafeCache, match="another user"):
        cache.get(KEY)
    os.chown(folder, 12345, -1)
    with pytest.raises(UnsafeCache, match="another user"):
        EngineCache(folder)


def test_a_writer_that_fails_leaves_nothing(cache, folder):
    cache.put(KEY, write_plan)

    def fail(fresh):
        write_plan(fresh, b"half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        cache.put(KEY, fail)
    assert (cache.get(KEY) / "engine.plan").read_bytes() == b"plan"
    assert len(list(folder.iterdir())) == 1


def test_a_process_killed_while_writing_leaves_nothing_that_is_used(cache, folder):
    code = (
        "import os, sys; from pathlib import Path; from deploy.engine_cache import EngineCache\n"
        "def writer(fresh):\n (fresh / 'engine.plan').write_bytes(b'half'); os._exit(9)\n"
        f"EngineCache(Path({str(folder)!r})).put({KEY!r}, writer)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert cache.get(KEY) is None
    (left,) = folder.iterdir()
    os.utime(left, (time.time() - 4000,) * 2)
    cache.put(KEY, write_plan)
    assert not left.exists()
    assert cache.get(KEY)


def test_the_last_used_are_kept(cache, folder):
    keys = [{**KEY, "weights": str(number)} for number in range(KEPT + 3)]
    for age, key in enumerate(keys):
        put = cache.put(key, write_plan)
        os.utime(put, (time.time() - 1000 + age,) * 2)
        if age >= 1:
            cache.get(keys[0])  # in use all the while
    assert [key["weights"] for key in keys if cache.get(key)] == ["0", *(str(n) for n in range(4, KEPT + 3))]
    assert len(list(folder.iterdir())) == KEPT
