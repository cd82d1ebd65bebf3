"""The soak: many curves of every kind, everything that goes wrong meanwhile, and what must hold afterwards.

`python -m tests.faults.soak --page FILE` takes about 95 minutes; exit 1 where something does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from daemon.client.service_file import free_port
from tests.faults.lab import put
from tests.faults.soak import verdict
from tests.faults.soak.feed import SHARES, Contents, Feed, Oracle, Sender, commented, into_folder, renumbered
from tests.faults.soak.sampling import Sample, Sampler
from tests.faults.soak.trouble import SETTINGS, Fall, FarShare, Plan, SoakedLab, Trouble, small_disk

_STATE_BYTES = 6 << 30
_PATIENCE_S = 300.0  # after the last curve was written, without one more decision
_SAMPLE_S = 2.0
_FRESH_S = 5.0  # within which a curve must be decided once all is over


@dataclass(frozen=True, slots=True)
class Soaked:
    """What came of it."""

    oracle: Oracle
    decided: list[verdict.Decided]
    findings: verdict.Findings
    falls: list[Fall]
    done: Counter[str]
    told: list[str]
    samples: list[Sample]
    canaries: dict[str, int]
    pruned: Counter[str]
    scrapes: int
    begun_s: float
    ended_s: float
    fresh_s: float
    again: int  # messages that had to be sent again


def run(folder: Path, curves: int, minutes: float, plan: Plan) -> Soaked:
    """Everything below ``folder``; without root there is neither a small disk nor a share."""
    with contextlib.ExitStack() as stack:
        far, disk = None, None
        if os.geteuid() == 0:
            disk = folder / "lab" / "state"
            stack.enter_context(small_disk(disk, _STATE_BYTES))
            if plan.losses:
                far = FarShare(folder)
                stack.callback(far.close)
        ingest = f"tcp://127.0.0.1:{free_port()}"
        also = [far.point] if far else []
        lab = SoakedLab(folder / "lab", also=also, toml=SETTINGS, options=("--ingest", ingest))
        sender = Sender(ingest, Contents(plan.seed).sent)
        stack.callback(sender.close)
        feeds = _feeds(lab, far, sender, curves, minutes * 60, plan.seed)
        trouble, sampler = Trouble(lab, plan, far, disk), Sampler(lab, _SAMPLE_S, folder / "samples.csv")
        stack.callback(trouble.close)
        stack.callback(lab.stop)
        lab.start()
        lab.wait_ready()
        follower = stack.enter_context(_following(lab, folder / "followed.jsonl"))
        begun_s = time.time()
        sampler.start()
        for feed in feeds:
            feed.start()
        trouble.run(minutes * 60)
        for feed in feeds:
            feed.join()
        ended_s = time.time()
        oracle = {key: content for feed in feeds for key, content in feed.oracle.items()}
        oracle |= {(path, 0): content for path, content in sender.drain(_PATIENCE_S)}
        said = [f"{feed.name} ended early: {feed.wrong!r}" for feed in feeds if feed.wrong] + trouble.said
        _wait_decided(lab, len(oracle))
        fresh_s = _fresh(lab, oracle)
        said += _trouble_left(lab, sampler)
        sampler.stop()
        _wait_heard(folder / "followed.jsonl", len(oracle))
        follower.terminate()
        follower.wait(20)
        if code := lab.stop():
            said.append(f"stopped with exit {code}")
        said += _damage(lab.state / "ledger.sqlite")
        decided = verdict.read_ledger(lab.state / "ledger.sqlite")
        found = verdict.compare(oracle, decided, folder / "followed.jsonl")
        found.said += said + verdict.Flat.of(sampler.samples).words()
        return Soaked(
            oracle=oracle,
            decided=decided,
            findings=found,
            falls=trouble.falls,
            done=trouble.done,
            told=trouble.told,
            samples=sampler.samples,
            canaries=sampler.canaries_told(),
            pruned=sampler.pruned,
            scrapes=sampler.scrapes,
            begun_s=begun_s,
            ended_s=ended_s,
            fresh_s=fresh_s,
            again=sender.again,
        )


def _feeds(lab: SoakedLab, far: FarShare | None, sender: Sender, curves: int, seconds: float, seed: int) -> list[Feed]:
    contents = Contents(seed)
    there = far.remote if far else lab.watch
    writers = {
        "jpk": into_folder(lab.watch, "jpk", ".jpk-force", contents.jpk, commented),
        "map": into_folder(lab.watch, "map", ".jpk-force-map", contents.map, commented),
        "text": into_folder(lab.watch, "text", ".txt", contents.text, renumbered),
        # behind the numbers of the others: the same bytes under another name would be a duplicate
        "far": into_folder(there, "far", ".jpk-force", contents.jpk, lambda raw, i: commented(raw, 10**7 + i)),
        "far-map": into_folder(
            there, "far-map", ".jpk-force-map", contents.map, lambda raw, i: commented(raw, 10**7 + i)
        ),
        "sent": sender.write,
    }
    return [Feed(share, curves, seconds, writers[share.name]) for share in SHARES]


@contextlib.contextmanager
def _following(lab: SoakedLab, file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A client that hears everything, through every kill: `events --since 0 --follow`."""
    words = ["events", "--since", "0", "--follow", "--patience", "600", "--state", str(lab.state)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    with (
        file.open("wb") as out,
        subprocess.Popen(
            [sys.executable, "-m", "daemon", *words], stdout=out, stdin=subprocess.DEVNULL, env=environment
        ) as client,
    ):
        try:
            yield client
        finally:
            client.kill()


def _wait_decided(lab: SoakedLab, count: int) -> None:
    """Until all are decided, or nothing more comes."""
    decided, moved_s = lab.count(), time.monotonic()
    while decided < count and time.monotonic() - moved_s < _PATIENCE_S:
        time.sleep(0.5)
        if (now := lab.count()) != decided:
            decided, moved_s = now, time.monotonic()


def _wait_heard(file: Path, count: int) -> None:
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s and file.read_bytes().count(b"\n") < count:
        time.sleep(0.5)


def _fresh(lab: SoakedLab, oracle: Oracle) -> float:
    """Seconds until one more curve is decided, now that all is over."""
    path = put(lab.watch, len(oracle), "fresh")
    oracle[path.name, 0] = "fresh"
    begun_s, before = time.monotonic(), lab.count()
    while lab.count() <= before and time.monotonic() - begun_s < 60.0:
        time.sleep(0.02)
    return time.monotonic() - begun_s


def _trouble_left(lab: SoakedLab, sampler: Sampler) -> list[str]:
    said = [f"afterwards: {one}" for one in lab.troubles() if not one.startswith("advice")]  # of tip and sample
    if lost := sampler.canaries_told().get("lost"):
        said.append(f"{lost} canaries never came back")
    if sampler.unbalanced:
        said.append(f"seen = decided + duplicate + backlog did not hold at {sampler.unbalanced} scrapes")
    return said


def _damage(ledger: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as database:
        answer = database.execute("pragma integrity_check").fetchone()[0]
    return [] if answer == "ok" else [f"the ledger: {answer}"]


def report(found: Soaked, command: str) -> str:
    """The page."""
    quiet = verdict.quiet_minutes(found.begun_s, found.ended_s, found.falls)
    seconds = found.ended_s - found.begun_s
    flat = verdict.Flat.of(found.samples)
    last = flat.samples
    verdicts = Counter(one.verdict for one in found.decided)
    kinds = Counter(re.split(r"\d|/", one.key[0])[0] for one in found.decided)
    wrong = found.findings.words()
    if found.fresh_s > _FRESH_S:
        wrong.append(f"a fresh curve afterwards took {found.fresh_s:.1f} s")
    reasons = Counter(word for one in found.decided for word in one.reasons)
    lines = [
        f"# Soak, {verdict.today()}",
        "",
        f"{verdict.machine()}. Load of others at the end: {os.getloadavg()[2]:.1f} (15 minutes).",
        "A real service on a small disk of its own (ext4, real syncs), a local folder, a share by sshfs and a script",
        "that sends; canaries on; two subscribers that never read, and one client that follows all the time.",
        "",
        f"    $ {command}",
        "",
        "    "
        + (f"holds: {len(found.decided):,} of {len(found.oracle):,} decided once" if not wrong else "DOES NOT HOLD"),
        *(f"    {one}" for one in wrong),
        "",
        "## What happened",
        "",
        *(f"    {what:<28}{count:>6}" for what, count in sorted(found.done.items())),
        f"    {'messages sent again':<28}{found.again:>6}",
        f"    {'scrapes':<28}{found.scrapes:>6}",
        *(f"    {one}" for one in found.told),
        "",
        "## What came of it",
        "",
        f"    {seconds / 60:.1f} minutes, {len(found.decided) / seconds:.1f} curves/s on average",
        f"    by kind: {_told(kinds)}",
        f"    by verdict: {_told(verdicts)}",
        f"    by reason: {_told(reasons)}",
        f"    models that judged: {len({one.model for one in found.decided})}",
        f"    canaries: {_told(Counter(found.canaries))}",
        f"    pruned in the last life: {_told(found.pruned)}",
        f"    a fresh curve afterwards: {found.fresh_s:.2f} s",
        "",
        "## How late a verdict is",
        "",
        "From the moment the finished file was noticed to the commit; what a dead service or a lost share delays",
        "counts from its return. A minute is quiet when nothing happened in it and in the half minute before it.",
        "",
        *(f"    {row}" for row in verdict.latency_rows(found.decided, quiet, found.oracle)),
        "",
        "## What it takes",
        "",
        f"The last life of the service, {flat.hours:.2f} h: everything but the kills. PSS; a slope by least squares.",
        "",
        *(f"    {row}" for row in flat.rows()),
        f"    all processes, MB, by tenths of that life: {flat.tenths()}",
        *(f"    {of:<12}{_three([getattr(one, of) for one in last])}" for of in ("threads", "descriptors")),
        f"    WAL at most {max(one.wal_mb for one in found.samples):.1f} MB; ledger {last[-1].ledger_mb:.0f} MB",
        f"    CPU {last[-1].cpu_s - last[0].cpu_s:.0f} s in {flat.hours:.2f} h",
        "",
    ]
    return "\n".join(lines)


def _three(counts: list[int]) -> str:
    return f"{counts[0]} at first, {counts[-1]} at last, {max(counts)} at most"


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{word} {count:,}" for word, count in counts.most_common()) or "none"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--curves", type=int, default=200_000)
    parser.add_argument("--minutes", type=float, default=85.0, help="in which they are written")
    parser.add_argument("--folder", type=Path, help="to work in, and to keep; else a temporary one")
    parser.add_argument("--page", type=Path, help="where the report goes, besides the screen")
    usual = Plan()
    for name in ("kills", "reader_kills", "swaps", "reloads", "fulls", "losses", "care", "seed"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(usual, name))
    args = parser.parse_args()
    plan = Plan(
        args.kills, args.reader_kills, args.swaps, args.reloads, args.fulls, args.losses, args.care, seed=args.seed
    )
    command = " ".join(["python -m tests.faults.soak", *sys.argv[1:]])
    with contextlib.ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        folder.mkdir(parents=True, exist_ok=True)
        found = run(folder, args.curves, args.minutes, plan)
    page = report(found, command)
    print(page)
    if args.page:
        args.page.write_text(page, encoding="utf-8")
    return 1 if "DOES NOT HOLD" in page else 0


if __name__ == "__main__":
    raise SystemExit(main())
