"""A state folder that belongs to a group, as systemd's does: the service and people write into it side by side."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.common.errors import INPUT_OUTPUT

ROOT = Path(__file__).resolve().parents[1]
#: Numbers that no user of this computer has: the service, the group, a person of the group, and a stranger.
SERVICE, GROUP, ANNA, STRANGER = 42_041, 42_042, 42_043, 42_044

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other users can reach, with the state folder as the unit makes it."""
    with tempfile.TemporaryDirectory(prefix="afm-group-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        state = folder / "afm1"
        state.mkdir()
        os.chown(state, SERVICE, GROUP)
        state.chmod(0o2770)
        yield folder


#: Loaded before root's rights are given up: this Python may lie where no other user can read.
BEFORE = """
import os, sys
import daemon.verbs.events, daemon.verbs.labels, daemon.labels.sheets, daemon.labels.curve_name, daemon.client.feed
import daemon.client.status, daemon.client.service_file, zmq.utils.monitor
import msgspec.json, sqlite3, zmq, encodings.idna, difflib, tomllib, csv
from pathlib import Path
from daemon.cli import main
from daemon.labels import Labels
from daemon.ledger import Ledger
from tests.ledgerhelp import decisions
state = Path(sys.argv[1])
os.umask({umask})
os.setgroups({groups})
os.setresgid({group}, {group}, {group})
os.setresuid({user}, {user}, {user})
"""


def begin(user: int, work: str, place: str) -> subprocess.Popen[str]:
    """The work as this user, who is of the group unless a stranger."""
    its = GROUP if user == SERVICE else user
    groups = [] if user == STRANGER else [GROUP]
    before = BEFORE.format(umask=0o007 if user == SERVICE else 0o022, groups=groups, group=its, user=user)
    return subprocess.Popen(
        [sys.executable, "-c", before + work, place],
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "AFM_TRIAGE_DEBUG": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


#: What a person does beside the service; a verb that fails ends it.
LABELS = """
name = "run7/curve-0003.jpk-force"
for words in (["labels", "add", name, "keep", "--rater", "anna"], ["labels", "export"]):
    if code := main([*words, "--state", str(state)]):
        sys.exit(code)
"""
READS = "sys.exit(main(['events', '--since', '0', '--state', str(state)]))"


def run(user: int, work: str, state: Path) -> tuple[int, str, str]:
    """Exit code, output and complaint."""
    process = begin(user, work, str(state))
    out, complaint = process.communicate(timeout=50)
    return process.returncode, out, complaint


#: The service records, and while its ledger is open a person of the group labels and reads beside it.
SERVES = """
ledger = Ledger(state / "ledger.sqlite", "afm1")
start = ledger.last_seq + 1
ledger.record(decisions(start, start + 5))
print("open", flush=True)
sys.stdin.readline()
ledger.record(decisions(start + 5, start + 10))
Labels(state / "labels.sqlite").close()
ledger.close()
"""


@pytest.mark.faults
@needs_root
def test_the_service_and_a_person_of_its_group_write_side_by_side_and_nobody_else(place: Path) -> None:
    state = place / "afm1"
    for _ in range(2):  # a second start, on what the person has left
        served = begin(SERVICE, SERVES, str(state))
        assert served.stdout is not None
        assert served.stdout.readline() == "open\n"
        code, out, complaint = run(ANNA, LABELS, state)
        assert (code, "anna" in out, complaint) == (0, True, "")
        _, complaint = served.communicate("\n", timeout=30)
        assert (served.returncode, complaint) == (0, "")
    assert served.poll() == 0
    code, out, complaint = run(ANNA, READS, state)  # nobody else has it open
    assert (code, len(out.splitlines()), complaint) == (0, 20, "")
    for name in ("ledger.sqlite", "labels.sqlite"):
        assert stat.S_IMODE((state / name).stat().st_mode) & 0o070 == 0o060
    code, out, complaint = run(STRANGER, READS, state)
    assert (code, out, len(complaint.splitlines())) == (INPUT_OUTPUT, "", 1)
    assert f"is for the group {GROUP} alone: sudo usermod -aG {GROUP} " in complaint
