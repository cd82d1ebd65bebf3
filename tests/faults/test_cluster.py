"""Many computers: nodes that die, hang, differ or see other folders, and what becomes of the curves.

The nodes are hosts of their own (``hosts``), and share one cluster in this module: starting one takes long.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import plenty
from tests.faults.cluster import Compared, compare, count_rows, lines_of, rows_of
from tests.faults.hosts import ROOT, Cluster, Host, Switch, core_of, end_of, need_hosts, need_ray
from tests.faults.lab import mounted, until
from tests.faults.plenty import Plenty

pytestmark = pytest.mark.timeout(180)

HASTY = ("--patience", "5")


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Plenty:
    """More files than one block has."""
    need_hosts()
    need_ray()
    return plenty.make(tmp_path_factory.mktemp("plenty"), 500, in_maps=0.1)


@pytest.fixture(scope="module")
def lines(there: Plenty, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one computer says of the files."""
    out = tmp_path_factory.mktemp("lines") / "lines.jsonl"
    command = [sys.executable, "-m", "daemon", "score", "--out", str(out), *map(str, there.folders)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return out


@pytest.fixture(scope="module")
def running() -> Iterator[Cluster]:
    with Cluster(2) as cluster:
        yield cluster


@pytest.fixture
def cluster(running: Cluster) -> Iterator[Cluster]:
    """With two nodes as they should be, before and after."""
    yield running
    for node in running.nodes:
        if node.is_touched:
            node.plug_in()
            node.kill()
            running.switch_on(node)


def score(cluster: Cluster, out: Path, *paths: Path, limit_s: float = 90.0) -> subprocess.CompletedProcess[str]:
    return cluster.run("score", "--cluster", cluster.address, "--out", out, *paths, limit_s=limit_s)


def is_judging(host: Host) -> bool:
    """Whether a reader of ours runs there."""
    return any(b"daemon.reading.worker" in one for one in host.commands())


def judged(lines: Path, rows: Path) -> Compared:
    return compare(lines_of(lines), rows_of(rows))


def hears(asker: Host, other: Host) -> bool:
    """Whether the web server of ``other`` answers within a second."""
    ask = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=1).read()"
    asking = asker.start(sys.executable, "-c", ask, f"http://{other.address}:8000/")
    asking.communicate(timeout=20)
    return asking.returncode == 0


@pytest.mark.smoke
def test_hosts_are_computers_of_their_own(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    with Switch() as switch:
        one, other = switch.add("one"), switch.add("other", core=core_of(1))
        answer = other.start("sh", "-c", 'cat "$0"; taskset -p $$', ours / "name", sees={ours: theirs})
        said = answer.communicate(timeout=10)[0]
        assert said.startswith("theirs")
        assert said.endswith(f"mask: {1 << core_of(1):x}\n")
        assert (ours / "name").read_text() == "ours"
        server = other.start(sys.executable, "-m", "http.server", "8000", cwd=ours)
        until(lambda: hears(one, other), 20)
        other.hang()
        assert not hears(one, other)
        other.wake()
        assert hears(one, other)
        other.pull_cable()
        assert not hears(one, other)
        other.plug_in()
        until(lambda: hears(one, other), 20)
        other.kill()
        assert other.pids() == []
        server.communicate(timeout=10)
    spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, timeout=10, check=True).stdout
    assert one.space not in spaces


@pytest.mark.smoke
def test_the_judge_of_rows_finds_what_is_missing_strange_doubled_and_unlike(lines: Path) -> None:
    told = list(lines_of(lines))
    assert compare(iter(told), reversed(told)).words() == []
    key, line = told[0]
    wrong = [(key, {**line, "score": 0.5}), *told[2:], told[2], ((None, "strange", 0, None), line)]
    found = compare(iter(told), iter(wrong))
    assert (found.missing, found.strange, found.doubled) == (
        [told[1][0]],
        [(None, "strange", 0, None)],
        [told[2][0]],
    )
    assert found.differing == {"score": 1}
    assert len(found.words()) == 5


@pytest.mark.smoke
def test_a_node_is_killed_and_the_other_hangs_and_every_curve_has_its_row(
    cluster: Cluster, there: Plenty, lines: Path, tmp_path: Path
) -> None:
    one, other = cluster.nodes
    out = tmp_path / "rows"
    process = cluster.start("score", "--cluster", cluster.address, "--out", out, *there.folders, "--patience", "15")
    until(lambda: is_judging(one) and is_judging(other), 60)
    one.kill()
    other.hang()
    cluster.switch_on(one)
    done = end_of(process, 90)
    assert done.returncode == 0, done.stderr
    assert judged(lines, out).words() == []
    other.wake()
    again = score(cluster, out, *there.folders)
    assert again.returncode == 0
    assert "nothing new" in again.stderr
    assert judged(lines, out).words() == []


def test_nodes_that_differ_or_see_other_folders_are_told_before_anything_is_judged(
    cluster: Cluster, there: Plenty, tmp_path: Path
) -> None:
    other = cluster.nodes[1]
    out, empty = tmp_path / "rows", tmp_path / "empty"
    (empty / "sample000").mkdir(parents=True)
    for sees, words in (
        ({there.files: empty}, str(there.files)),
        ({ROOT / "daemon": another_version(tmp_path)}, "0.0.1"),
    ):
        other.kill()
        cluster.switch_on(other, sees=sees)
        done = score(cluster, out, *there.folders)
        assert (done.returncode, len(done.stderr.splitlines())) == (69, 1), done.stderr
        assert words in done.stderr
        assert other.address in done.stderr
        assert not list(out.glob("**/*.parquet"))


def another_version(folder: Path) -> Path:
    """A program like this one, but of version 0.0.1."""
    copy = folder / "another"
    shutil.copytree(ROOT / "daemon", copy, ignore=shutil.ignore_patterns("__pycache__", "pictures"))
    init = copy / "__init__.py"
    init.write_text(init.read_text().replace("__version__ = ", '__version__ = "0.0.1"  # '))
    return copy


@pytest.mark.long
def test_a_node_is_killed_and_the_other_hangs_and_the_archive_is_the_one_of_a_single_computer(
    cluster: Cluster, there: Plenty, tmp_path: Path
) -> None:
    one, other = cluster.nodes
    alone, together = tmp_path / "alone.h5", tmp_path / "together.h5"
    command = [sys.executable, "-m", "daemon", "pack", "--out", str(alone), *map(str, there.folders)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    process = cluster.start("pack", "--cluster", cluster.address, "--out", together, *there.folders, *HASTY)
    until(lambda: is_judging(one) and is_judging(other), 60)
    one.kill()
    other.hang()
    cluster.switch_on(one)
    done = end_of(process, 90)
    assert done.returncode == 0, done.stderr
    assert f"node {other.address} says nothing" in done.stderr
    assert together.read_bytes() == alone.read_bytes()


@pytest.mark.long
def test_an_archive_twice_and_a_copied_folder_double_nothing(cluster: Cluster, there: Plenty, tmp_path: Path) -> None:
    twin, out = tmp_path / "twin.h5", tmp_path / "rows"
    shutil.copyfile(there.archive, twin)
    done = score(cluster, out, there.archive, twin)
    assert done.returncode == 0, done.stderr
    keys = Counter((key[3], key[2]) for key, _ in rows_of(out))
    assert len(keys) == keys.total() == there.in_archive
    assert str(there.in_archive) in done.stderr


@pytest.mark.long
def test_an_archive_that_is_cut_off_is_refused(cluster: Cluster, there: Plenty, tmp_path: Path) -> None:
    cut, out = tmp_path / "cut.h5", tmp_path / "rows"
    content = there.archive.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    done = score(cluster, out, cut)
    assert (done.returncode, len(done.stderr.splitlines())) == (65, 1), done.stderr
    assert str(cut) in done.stderr


@pytest.mark.long
def test_no_cluster_at_an_address_is_one_line(there: Plenty, tmp_path: Path) -> None:
    need_hosts()
    with Switch() as switch:
        host = switch.add("alone")
        words = ["score", "--cluster", f"{host.address}:6379", "--out", tmp_path / "rows", *there.folders]
        done = end_of(host.start(sys.executable, "-m", "daemon", *words), 90)
    assert (done.returncode, len(done.stderr.splitlines())) == (69, 1), done.stderr
    assert f"{host.address}:6379" in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("fate", ["its cable is pulled", "another joins for it"])
def test_another_node_takes_over(cluster: Cluster, there: Plenty, lines: Path, tmp_path: Path, fate: str) -> None:
    one, other = cluster.nodes
    joins = fate == "another joins for it"
    if joins:
        other.kill()
    out = tmp_path / "rows"
    process = cluster.start("score", "--cluster", cluster.address, "--out", out, *there.folders, *HASTY)
    until(lambda: is_judging(one) and (joins or is_judging(other)), 60)
    if joins:
        one.hang()
        cluster.switch_on(other)
        until(lambda: is_judging(other), 60)
    else:
        one.pull_cable()
    done = end_of(process, 120)
    assert done.returncode == 0, done.stderr
    assert one.address in done.stderr
    assert judged(lines, out).words() == []


@pytest.mark.long
def test_a_node_of_another_version_that_joins_later_is_told_of_once_and_not_used(
    cluster: Cluster, there: Plenty, lines: Path, tmp_path: Path
) -> None:
    one, other = cluster.nodes
    other.kill()
    out, said = tmp_path / "rows", tmp_path / "said"
    with said.open("wb") as log:
        process = cluster.start("score", "--cluster", cluster.address, "--out", out, *there.folders, log=log)
    until(lambda: is_judging(one), 60)
    one.hang()  # else all is judged before the other one is there
    cluster.switch_on(other, sees={ROOT / "daemon": another_version(tmp_path)})

    def is_told() -> bool:
        one.wake()  # or Ray gives it up
        time.sleep(0.1)
        one.hang()
        return "0.0.1" in said.read_text()

    until(is_told, 60)
    one.wake()
    assert process.wait(90) == 0, said.read_text()
    assert not is_judging(other)
    assert said.read_text().count("0.0.1") == 1
    assert judged(lines, out).words() == []


@pytest.mark.long
def test_a_driver_is_killed_three_times_and_goes_on(
    cluster: Cluster, there: Plenty, lines: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rows"
    amid = 0
    for rows in (1, 100, 250):
        process = cluster.start("score", "--cluster", cluster.address, "--out", out, *there.folders)
        until(lambda rows=rows, process=process: count_rows(out) >= rows or process.poll() is not None, 60)
        if process.poll() is None:
            amid += 1
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=10)
    assert amid
    done = score(cluster, out, *there.folders)
    assert done.returncode == 0, done.stderr
    assert judged(lines, out).words() == []


def under(process: int) -> list[int]:
    """All that it has started, and what these have."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = stat.read_text().rpartition(")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(stat.parent.name))
    found = [process]
    for one in found:
        found += children.get(one, [])
    return found[1:]


def folder_of(process: int) -> Path:
    """What the Ray that it has started calls its own."""
    for one in under(process):
        words = Path(f"/proc/{one}/cmdline").read_bytes().decode().split("\0")
        if "--temp-dir" in words:
            return Path(words[words.index("--temp-dir") + 1])
    raise AssertionError("no Ray")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_local_cluster_that_is_killed_ends_and_the_next_removes_what_it_left_and_nothing_of_another(
    there: Plenty, lines: Path, tmp_path: Path
) -> None:
    def local(out: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "daemon", "score", "--cluster", "local", "--out", str(out)]
        return subprocess.Popen([*command, *map(str, there.folders)], cwd=ROOT)

    def begun(out: Path) -> subprocess.Popen[bytes]:
        """It judges, and stands still."""
        run = local(out)
        until((out / "_notes").exists, 90)
        run.send_signal(signal.SIGSTOP)
        return run

    outs = [tmp_path / "killed", tmp_path / "beside"]
    killed, beside = runs = list(map(begun, outs))
    try:
        left, other = folder_of(killed.pid), folder_of(beside.pid)
        theirs = under(killed.pid)
        killed.kill()
        until(lambda: not any(Path(f"/proc/{one}").exists() for one in theirs), 30)
        assert left.is_dir()
        runs.append(local(outs[0]))
        assert runs[-1].wait(120) == 0
        assert not left.exists()
        assert other.is_dir()
        beside.send_signal(signal.SIGCONT)
        assert beside.wait(120) == 0
        assert not other.exists()
    finally:
        for run in runs:
            run.kill()
            run.wait(10)
    assert [judged(lines, out).words() for out in outs] == [[], []]


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_node_that_was_cut_off_for_two_minutes_judges_again_by_itself(
    there: Plenty, lines: Path, tmp_path: Path
) -> None:
    """With what the page on clusters has Ray told, and not without: it gives a node up after 65 s."""
    page = (ROOT / "deploy" / "docs" / "scale.md").read_text(encoding="utf-8")
    settings = dict(re.findall(r"\b(RAY_health\w+)=(\d+)", page))
    assert settings
    out = tmp_path / "rows"
    with Cluster(1, settings=settings) as cluster:
        (node,) = cluster.nodes
        words = ("score", "--cluster", cluster.address, "--out", out, *there.folders, "--patience", "300")
        process = cluster.start(*words)
        until(lambda: is_judging(node), 60)
        node.pull_cable()
        time.sleep(120)
        assert process.poll() is None
        node.plug_in()
        done = end_of(process, 150)
    assert done.returncode == 0, done.stderr
    assert judged(lines, out).words() == []


#: Puts what it is given into the object store of its host until there is no room left, and keeps it.
_HOG = """
import sys, time, numpy, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
kept = []
try:
    while True:
        kept.append(ray.put(numpy.zeros(1 << 20, numpy.uint8)))
except ray.exceptions.RayError:
    print("full", flush=True)
time.sleep(600)
"""


@pytest.mark.long
def test_a_full_object_store_stops_nothing(there: Plenty, lines: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows"
    with (
        mounted(tmp_path / "spill", "-t", "tmpfs", "-o", "size=1m", "tmpfs"),
        Cluster(1, store_mb=80, spill=tmp_path / "spill") as cluster,
    ):
        hog = cluster.head.start(sys.executable, "-c", _HOG, cluster.address)
        try:
            assert hog.stdout is not None
            assert any(line.strip() == "full" for line in hog.stdout)
            done = score(cluster, out, *there.folders, limit_s=150)
        finally:
            os.killpg(hog.pid, signal.SIGKILL)
            hog.communicate(timeout=10)
    assert done.returncode == 0, done.stderr
    assert judged(lines, out).words() == []
