"""The script from night to morning, as teach.md shows it: it ends by itself, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy" / "examples" / "night.sh"
SHORT = "--events 20 --simulate 200 --epochs 1"

pytestmark = pytest.mark.faults


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("curves", "learn", "ends"),
    [
        (120, "", "nothing is learned yet: "),
        pytest.param(700, SHORT, "tuned-", marks=pytest.mark.long),  # so few are no forecast: the gate says so
    ],
)
def test_it_goes_from_night_to_morning(tmp_path: Path, curves: int, learn: str, ends: str) -> None:
    own = {"TMPDIR": str(tmp_path), "PYTHON": sys.executable, "CURVES": str(curves), "LEARN": learn}
    done = subprocess.run(
        ["sh", str(SCRIPT)], cwd=ROOT, env={**os.environ, **own}, capture_output=True, text=True, timeout=1100,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    steps = dict(part.split("\n", 1) for part in done.stdout.split("\n$ afm-triage ")[1:])
    told = next(text for verb, text in steps.items() if verb.startswith("finetune"))
    assert told.startswith(ends), told
    nights = [line for line in steps["session show"].splitlines() if line.startswith("session ")]
    assert [f": name {name} night, sample titin; {curves} curves" in line for name, line in
            zip(("first", "second"), nights, strict=True)] == [True, True]  # fmt: skip
    assert "✓ all well" in steps["status"]
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in subprocess.run(
        ["ps", "-eo", "args"], capture_output=True, text=True, timeout=20, check=False
    ).stdout.replace(f"--basetemp={tmp_path.parent}", "")  # fmt: skip


def test_what_the_page_shows_is_what_the_script_does() -> None:
    """Each line of the page's ten is a line of the script, but for where it keeps its night."""
    shown = (
        (ROOT / "deploy/docs/teach.md")
        .read_text()
        .split("deploy/examples/night.sh`", 1)[1]
        .split(
            "\n\n",
        )[1]
        .split("```")[1]
    )
    lines = [line.split("#")[0].strip().removeprefix("afm-triage ") for line in shown.splitlines()[1:]]
    script = SCRIPT.read_text()
    verbs = [line for line in lines if line and not line.startswith("run ")]
    assert len(lines) <= 10
    assert all(f"does {verb.split(' <')[0].split(' labels.csv')[0]}" in script for verb in verbs), verbs
