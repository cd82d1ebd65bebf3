"""Signals at random moments; `python -m tests.faults.signals` prints what became of the processes."""

from __future__ import annotations

import argparse
import os
import pty
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.ledgerhelp import ledger_with

ROOT = Path(__file__).resolve().parents[2]
NOWHERE = ("--publish", "tcp://127.0.0.1:9", "--replay", "tcp://127.0.0.1:9")
VERBS = {
    "console in a terminal": ("console",),
    "console": ("console",),
    "events": ("events", "--since", "0", "--follow"),
}
#: What is documented: the console leaves in peace, everything else is ended by the signal, as a shell tells it.
ENDS = {signal.SIGINT: {130, -signal.SIGINT}, signal.SIGTERM: {143, -signal.SIGTERM}}
LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a process ended; ``code`` is None when it did not."""

    verb: str
    number: signal.Signals
    code: int | None
    said: str
    took_s: float

    @property
    def is_fine(self) -> bool:
        """A SIGINT may come before a line of ours has run: Python then ends, or goes on, in its own way and words."""
        said = self.said.replace("/daemon/__main__.py", "")  # its first lines, which see to it
        if "/daemon/" in said:
            return False
        if "KeyboardInterrupt" in said:  # nothing of ours raises it
            return True
        return self.code in ENDS[self.number] | ({0} if self.verb.startswith("console") else set())

    def __str__(self) -> str:
        traceback = ", traceback" if "Traceback" in self.said else ""
        code = "HUNG" if self.code is None else f"exit {self.code}"
        return f"{self.verb}, {self.number.name}: {code}{traceback}"


def strike(verb: str, number: signal.Signals, after_s: float, state: Path) -> Outcome:
    """Start a verb where no service answers, send it a signal ``after_s`` later, see how it ends."""
    command = [sys.executable, "-m", "daemon", *VERBS[verb], "--state", str(state), *NOWHERE]
    ours, theirs = pty.openpty() if verb.endswith("terminal") else os.pipe()
    quiet = subprocess.DEVNULL
    seen = {"stdin": theirs, "stdout": theirs} if verb.endswith("terminal") else {"stdin": quiet, "stdout": quiet}
    variables = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(command, cwd=ROOT, env=variables, stderr=theirs, start_new_session=True, **seen) as process:
        os.close(theirs)
        os.set_blocking(ours, False)
        said = _read(ours, process, after_s)
        process.send_signal(number)
        begun_s = time.monotonic()
        said += _read(ours, process, LIMIT_S)
        took_s = time.monotonic() - begun_s
        code = process.poll()
        said += _drain(ours)
        process.kill()
    os.close(ours)
    return Outcome(verb, number, code, said.decode("utf-8", "replace"), took_s)


def _read(descriptor: int, process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """What it says, so that no terminal fills up, until it ends or the time is over."""
    said, until_s = b"", time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until_s:
        said += _drain(descriptor)
        time.sleep(0.002)
    return said


def _drain(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # nothing there, or nobody any more
        return b""


def run(times: int, seed: int, folder: Path) -> list[Outcome]:
    """``times`` processes, each struck once within its first second."""
    ledger_with(folder / "ledger.sqlite", 12).close()
    rng = random.Random(seed)
    plan = [(list(VERBS)[n % 3], list(ENDS)[n // 3 % 2], rng.uniform(0.0, 1.0)) for n in range(times)]
    return [strike(verb, number, after_s, folder) for verb, number, after_s in plan]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = run(args.times, args.seed, Path(folder))
    for text, count in sorted(Counter(map(str, outcomes)).items()):
        print(f"{count:>4}  {text}")
    wrong = [one for one in outcomes if not one.is_fine]
    slowest_s = max(one.took_s for one in outcomes)
    print(f"{len(outcomes)} processes, {len(wrong)} not as documented, the slowest ended after {slowest_s:.2f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
