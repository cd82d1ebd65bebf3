"""Live verdicts against a second look: `python -m tests.faults.again` (make again) prints how many differ, which is 0.

Curves of every kind come in any order, in bursts, into a service that is killed, restarted and given other sizes of
batches on the way. Then they are packed into an archive, and `score` judges that.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.instrument import pack
from models.simulate import simulate
from tests.faults.harness import CURVES, scrape
from tests.faults.soak.feed import commented, renumbered
from tests.faults.soak.trouble import SoakedLab
from tests.makers import a_retract, make_ibw_pair, make_jpk_map

SAME = ("verdict", "score", "reasons", "sha256", "model", "pipeline", "engine", "force_unit")
BATCHES = (1, 3, 8, 32, 100)
_MAP_CURVES = 50
_QUIET_S = 4.0  # a text file is looked at when it has been still for two
_PREVALENCE = 0.2  # more events than a laboratory has, so that more scores lie where verdicts change


@dataclass(frozen=True, slots=True)
class Compared:
    """How many curves were judged live, and how many of them otherwise in what; the first ones in words."""

    live: int
    missing: int
    doubted: int  # of them: held for a person while the sign of their format was in doubt, which an archive cannot know
    differing: Counter[str]
    furthest: float  # between a score and its second
    first: list[str]
    seconds: float


def run(folder: Path, curves: int, kills: int, seed: int, also: Path | None = None) -> Compared:
    """Work below ``folder``; ``also`` has more files, which come among the others."""
    begun_s = time.monotonic()
    staged = folder / "staged"
    _stage(staged, curves, seed)
    if also is not None:
        shutil.copytree(also, staged / "also")
    lab = SoakedLab(folder / "lab", toml="[batch]\n")
    try:
        _feed(lab, staged, kills, seed)
    finally:
        lab.stop()
    live = {(event["data"]["path"], event["data"]["curve"]): event["data"] for event in lab.history()}
    archive = folder / "again.h5"
    _verb(lab, "pack", lab.watch, "--out", archive)
    rows = map(json.loads, _verb(lab, "score", "--json", archive).splitlines())
    return _compare(live, {(row["path"], row["curve"]): row for row in rows}, time.monotonic() - begun_s)


def _stage(folder: Path, curves: int, seed: int) -> None:
    """What will come: a tenth in maps, a twentieth in pairs and text, the rest simulated, each a file."""
    folder.mkdir(parents=True)
    maps, others = curves // 10 // _MAP_CURVES, curves // 40
    for number in range(maps):
        content = make_jpk_map(_MAP_CURVES, 600, seed=seed + 1000 * number, peak_pn=25.0 * (number % 5))
        (folder / f"map-{number:04d}.jpk-force-map").write_bytes(content)
    text = [path.read_bytes() for path in sorted(CURVES.glob("waite_*.txt"))]
    real = [path.read_bytes() for path in sorted(CURVES.glob("*.jpk-force"))]
    for number in range(others):
        (folder / f"text-{number:05d}.txt").write_bytes(renumbered(text[number % len(text)], number))
        (folder / f"real-{number:05d}.jpk-force").write_bytes(commented(real[number % len(real)], number))
    halves = make_ibw_pair(*a_retract(900, seed))
    for half, content in zip(("Defl", "ZSnsr"), halves, strict=True):
        (folder / f"pair{half}.ibw").write_bytes(content)
    rest = curves - maps * _MAP_CURVES - 2 * others - 1
    for number, simulated in enumerate(simulate(rest, seed, _PREVALENCE)):
        (folder / f"sim-{number:06d}.jpk-force").write_bytes(pack(simulated.curve))


def _feed(lab: SoakedLab, staged: Path, kills: int, seed: int) -> None:
    """Everything into the watched folder, in any order; killed and configured anew between bursts."""
    rng = random.Random(seed)
    files = sorted(path for path in staged.rglob("*") if path.is_file())
    rng.shuffle(files)
    lab.start()
    lab.wait_ready()
    killed_after = set(rng.sample(range(len(files)), kills))
    for number, burst in enumerate(_bursts(files, rng)):
        for file in burst:
            place = lab.watch / file.relative_to(staged)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.rename(place)
        begun, ended = files.index(burst[0]), files.index(burst[-1])
        if any(begun <= one <= ended for one in killed_after):
            time.sleep(rng.uniform(0.0, 1.0))
            lab.kill()
            lab.configure(f"[batch]\nlargest = {rng.choice(BATCHES)}\n")
            lab.start()
            lab.wait_ready()
        elif number % 10 == 9:
            lab.configure(f"[batch]\nlargest = {rng.choice(BATCHES)}\n")
            _verb(lab, "reload", "--state", lab.state)
    _settle(lab)


def _bursts(files: list[Path], rng: random.Random) -> Iterator[list[Path]]:
    begun = 0
    while begun < len(files):
        size = rng.choice((1, 2, 7, 40, 200))
        yield files[begun : begun + size]
        begun += size
        time.sleep(rng.choice((0.0, 0.02, 0.3)))


def _settle(lab: SoakedLab) -> None:
    """Until nothing has come for some seconds, and nothing waits."""
    count, moved_s = lab.count(), time.monotonic()
    while time.monotonic() - moved_s < _QUIET_S or scrape(lab)["afm_triage_backlog_curves"]:
        time.sleep(0.2)
        if (now := lab.count()) != count:
            count, moved_s = now, time.monotonic()


def _verb(lab: SoakedLab, *words: str | Path) -> str:
    answer = lab.run(*words, limit_s=3600)
    if answer.returncode:
        raise SystemExit(f"{words[0]}: exit {answer.returncode}: {answer.stderr}")
    return answer.stdout


def _compare(
    live: dict[tuple[str, int], dict[str, Any]], second: dict[tuple[str, int], dict[str, Any]], seconds: float
) -> Compared:
    """What has the same bytes as another was judged once: its curve counts as seen where that one was."""
    known = {(row["sha256"], row["curve"]) for row in live.values()}
    missing = [key for key, row in second.items() if key not in live and (row["sha256"], row["curve"]) not in known]
    differing: Counter[str] = Counter()
    doubted, furthest, first = 0, 0.0, [f"{path}#{curve}: not judged live" for path, curve in missing[:3]]
    for key, was in live.items():
        now = second.get(key, {})
        is_held = "flipped" in was["reasons"] and (was["verdict"], now.get("verdict")) == ("review", "discard")
        doubted += is_held
        others = [name for name in SAME if was[name] != now.get(name)]
        if is_held:
            others = [name for name in others if name not in ("verdict", "reasons")]
        differing.update(others)
        if "score" in others and was["score"] is not None and now.get("score") is not None:
            furthest = max(furthest, abs(was["score"] - now["score"]))
        if others and len(first) < 6:
            told = ", ".join(f"{name} {was[name]} and then {now.get(name)}" for name in others)
            first.append(f"{key[0]}#{key[1]}: {told}")
    return Compared(len(live), len(missing), doubted, differing, furthest, first, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--also", type=Path, help="a folder of real files, which come among the others")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="again-") as folder:
        found = run(Path(folder), args.curves, args.kills, args.seed, args.also)
    print(
        f"{found.live} curves judged live through {args.kills} kills, and again from an archive "
        f"({found.seconds:.0f} s): {found.differing['verdict']} verdicts differ, {found.differing['score']} scores "
        f"(by {found.furthest:.2g} at most), {found.missing} never judged live, {found.doubted} held as flipped"
    )
    print(*[f"  {name}: {count}" for name, count in found.differing.items()], *found.first, sep="\n")
    return 1 if found.differing["verdict"] or found.missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
