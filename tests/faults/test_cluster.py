"""Many computers: nodes that die, hang, differ or see other folders, and what becomes of the curves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.hosts import Host, Switch, core_of
from tests.faults.lab import until


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
