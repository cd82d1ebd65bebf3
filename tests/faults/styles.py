"""Every file of a folder through the running service in each writer style, compared with `score`.

`python -m tests.faults.styles ../shared/data` prints the figures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.client.service_file import TemporaryService
from tests.faults.harness import history, identity_holds, scrape

SAME = ("verdict", "score", "reasons", "sha256", "model", "pipeline", "engine", "force_unit")


@dataclass(frozen=True)
class Outcome:
    style: str
    decided: int
    missing: int  # curves that `score` finds and the service did not decide
    different: int  # curves whose live verdict, score or reasons are not those of `score`
    duplicate: int  # curves whose bytes had been decided under another name


def run(folder: Path, style: str, rate: float) -> Outcome:
    """Play ``folder`` into a watched folder; wait until nothing waits; score the same folder afterwards."""
    with tempfile.TemporaryDirectory() as place, TemporaryService(Path(place)) as trial:
        command = [sys.executable, "-m", "daemon", "replay", str(folder), "--into", str(trial.watch)]
        subprocess.run([*command, "--writer", style, "--rate", str(rate)], check=True, stdout=subprocess.DEVNULL)
        expected = _score(trial.watch)
        live = _settled(trial, {row["path"] for row in expected.values()})
        numbers = scrape(trial)
        assert identity_holds(numbers)
        known = {row["sha256"] for row in live.values()}
        missing = [row for key, row in expected.items() if key not in live and row["sha256"] not in known]
        different = [key for key, row in live.items() if any(row[name] != expected[key][name] for name in SAME)]
        return Outcome(
            style, len(live), len(missing), len(different), int(numbers["afm_triage_curves_duplicate_total"])
        )


def _score(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    command = [sys.executable, "-m", "daemon", "score", "--json", str(folder)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {(row["path"], row["curve"]): row for row in map(json.loads, out.splitlines())}


def _settled(
    trial: TemporaryService, paths: set[str], timeout_s: float = 120.0
) -> dict[tuple[str, int], dict[str, Any]]:
    """The decisions once the books are closed: nothing in the backlog, and no news for three seconds."""
    deadline_s, decided, quiet_since_s = time.monotonic() + timeout_s, -1, time.monotonic()
    while time.monotonic() < deadline_s:
        events = history(trial)
        if len(events) != decided:
            decided, quiet_since_s = len(events), time.monotonic()
        elif time.monotonic() - quiet_since_s > 3.0 and not scrape(trial)["afm_triage_backlog_curves"]:
            break
        time.sleep(0.5)
    return {(event["data"]["path"], event["data"]["curve"]): event["data"] for event in history(trial)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rate", type=float, default=30.0)
    args = parser.parse_args()
    outcomes = [run(args.folder, style, args.rate) for style in ("rename", "grow", "burst")]
    for found in outcomes:
        print(
            f"{found.style:<7} {found.decided} curves decided, {found.missing} missing, "
            f"{found.different} other than score, {found.duplicate} duplicates"
        )
    return 1 if any(found.missing or found.different for found in outcomes) else 0


if __name__ == "__main__":
    raise SystemExit(main())
