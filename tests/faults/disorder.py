"""A folder in disorder: files made, grown, renamed, replaced, copied, moved and deleted at random while readers and the
service are killed; every whole curve that is left must have been decided exactly once.

`python -m tests.faults.disorder --seed 1 --seconds 25` prints the figures.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from daemon.client.service_file import TemporaryService
from tests.faults.harness import CURVES, fresh, history, identity_holds, scrape
from tests.faults.memory import processes_of
from tests.makers import a_retract, make_ibw_pair, make_jpk_map

RAW = (CURVES / "fmt-jpk-fd_spot3-0192.jpk-force").read_bytes()
MAP_CURVES = 40
MAP = make_jpk_map(MAP_CURVES)


class Disorder:
    """One random act after another in a watched folder; the same seed gives the same acts."""

    def __init__(self, trial: TemporaryService, seed: int) -> None:
        self._trial, self._rng, self._made = trial, random.Random(seed), 0
        self._folders = [trial.watch]
        often: list[Callable[[], object]] = [self._create] * 6 + [self._grow] * 3 + [self._hide] * 3
        rare: list[Callable[[], object]] = [self._rename, self._rename_over, self._move, self._delete, self._copy]
        rare += [self._replace, self._rewrite, self._touch, self._link, self._map, self._pair]
        rare += [self._new_folder, self._remove_folder, self._kill_reader, self._pause, self._kill_service]
        self._acts = often + rare

    def act(self) -> None:
        """What cannot be done at this moment (the file has just gone) is left undone, as on a real disk."""
        with suppress(OSError):
            self._rng.choice(self._acts)()
        time.sleep(self._rng.choice([0, 0, 0.01, 0.05]))

    def _content(self, raw: bytes = RAW) -> bytes:
        self._made += 1
        return fresh(raw, self._made)

    def _place(self, suffix: str = ".jpk-force") -> Path:
        folder = self._rng.choice([folder for folder in self._folders if folder.exists()] or [self._trial.watch])
        return folder / f"f{self._made}-{self._rng.randrange(10**6)}{suffix}"

    def _any(self, suffix: str = "") -> Path:
        files = [path for path in files_of(self._trial.watch) if path.name.endswith(suffix)]
        if not files:
            raise OSError("nothing there yet")
        return self._rng.choice(files)

    def _create(self) -> None:
        self._place().write_bytes(self._content())

    def _grow(self) -> None:
        content = self._content()
        cut = self._rng.randrange(1, len(content))
        with self._place().open("wb") as file:
            file.write(content[:cut])
            file.flush()
            time.sleep(self._rng.choice([0, 0.05, 0.4]))
            file.write(content[cut:])

    def _hide(self) -> None:
        place = self._place()
        hidden = place.with_name(f".{place.name}.tmp")
        hidden.write_bytes(self._content())
        hidden.rename(place)

    def _rename(self) -> None:
        file = self._any(".jpk-force")
        file.rename(file.with_name(f"r{self._rng.randrange(10**6)}.jpk-force"))

    def _rename_over(self) -> None:
        self._any(".jpk-force").rename(self._any(".jpk-force"))

    def _move(self) -> None:
        file = self._any(".jpk-force")
        file.rename(self._place().parent / file.name)

    def _delete(self) -> None:
        self._any().unlink()

    def _copy(self) -> None:
        shutil.copy2(self._any(".jpk-force"), self._place())

    def _replace(self) -> None:
        outside = self._trial.folder / "outside"
        outside.write_bytes(self._content())
        outside.rename(self._any(".jpk-force"))

    def _rewrite(self) -> None:
        self._any(".jpk-force").write_bytes(self._content())

    def _touch(self) -> None:
        os.utime(self._any())

    def _link(self) -> None:
        self._place().symlink_to(self._any())

    def _map(self) -> None:
        self._place(".jpk-force-map").write_bytes(self._content(MAP))

    def _pair(self) -> None:
        self._made += 1
        halves = list(zip(("Defl", "ZSnsr"), make_ibw_pair(*a_retract(seed=self._made)), strict=True))
        self._rng.shuffle(halves)
        folder = self._place().parent
        for half, content in halves:
            (folder / f"P{self._made}{half}.ibw").write_bytes(content)
            time.sleep(self._rng.choice([0, 0.1]))

    def _new_folder(self) -> None:
        folder = self._place().parent / f"d{self._rng.randrange(1000)}"
        folder.mkdir(exist_ok=True)
        self._folders.append(folder)

    def _remove_folder(self) -> None:
        if (folder := self._place().parent) != self._trial.watch:
            shutil.rmtree(folder)

    def _kill_reader(self) -> None:
        assert self._trial.process is not None
        if children := processes_of(self._trial.process.pid)[1:]:
            os.kill(children[0], signal.SIGKILL)

    def _pause(self) -> None:
        assert self._trial.process is not None
        self._trial.process.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        self._trial.process.send_signal(signal.SIGCONT)

    def _kill_service(self) -> None:
        if self._rng.random() < 0.3:
            self._trial.kill()
            self._trial.start()
            self._trial.wait_ready()


def files_of(folder: Path) -> list[Path]:
    """The regular files below ``folder``, as far as it can be listed at this moment."""
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def curves_of(folder: Path) -> set[tuple[str, int]]:
    """(sha256, index) of every whole curve that lies there."""
    found: set[tuple[str, int]] = set()
    for path in files_of(folder):
        companion = path.with_name(path.name.replace("Defl.ibw", "ZSnsr.ibw"))
        if path.name.startswith(".") or path.name.endswith("ZSnsr.ibw") or not companion.exists():
            continue
        content = path.read_bytes() + (companion.read_bytes() if companion != path else b"")
        digest = hashlib.sha256(content).hexdigest()
        found |= {(digest, index) for index in range(MAP_CURVES if path.name.endswith("-map") else 1)}
    return found


def run(seed: int, seconds: float, patience_s: float = 75.0) -> tuple[int, int, int, bool]:
    """Curves left in the folder, how many of them nobody decided, how many twice, and whether the books balance."""
    with TemporaryService() as trial:
        disorder = Disorder(trial, seed)
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            disorder.act()
        there, deadline_s = curves_of(trial.watch), time.monotonic() + patience_s
        while True:
            data = [event["data"] for event in history(trial)]
            decided = Counter((row["sha256"], row["curve"]) for row in data if row["score"] is not None)
            lost = there - {(row["sha256"], row["curve"]) for row in data}  # a review for a twice killed reader counts
            numbers = scrape(trial)
            if (not lost and not numbers["afm_triage_backlog_curves"]) or time.monotonic() > deadline_s:
                doubled = sum(times > 1 for times in decided.values())
                return len(there), len(lost), doubled, identity_holds(numbers)
            time.sleep(0.5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=25.0)
    args = parser.parse_args()
    there, lost, doubled, balanced = run(args.seed, args.seconds)
    print(
        f"seed {args.seed}: {there} curves left, {lost} undecided, {doubled} decided twice, books balance: {balanced}"
    )
    return 0 if not lost and not doubled and balanced else 1


if __name__ == "__main__":
    raise SystemExit(main())
