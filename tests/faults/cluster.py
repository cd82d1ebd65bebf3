"""A cluster beside one computer, on the same cores: `python -m tests.faults.cluster --page build/cluster.md`.

The same archive of maps, files and a packed archive is judged by `score --out` on this computer, by an undisturbed
cluster of one core a node, and by one of whose nodes one is killed and one hangs. Then every row is compared with its
line. The page has the rates, the CPU and the memory of all three.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon import tables
from tests.faults import plenty
from tests.faults.hosts import Cluster, Host, Switch, end_of

#: What a second look says otherwise: how long it took, and when it was.
_OF_THE_RUN = ("latency_s", "time")
Key = tuple[str | None, str, int, str | None]  # folder, path, curve, sha256
_LONGEST_S = 3600.0
_SAID = re.compile(r"^\d+ curves in ([\d.]+) s")
_PATIENCE_S = 15.0  # that a hung node of the disturbed run is given


def lines_of(*files: Path) -> Iterator[tuple[Key, dict[str, Any]]]:
    """What `score --out` has written."""
    for file in files:
        with file.open("rb") as lines:
            yield from (_told(json.loads(line)) for line in lines)


def rows_of(folder: Path) -> Iterator[tuple[Key, dict[str, Any]]]:
    """What stands in a dataset, as anybody reads it who has DuckDB and nothing of ours."""
    import duckdb

    names = f"read_parquet('{folder}/**/*.parquet', hive_partitioning = true)"
    reader = duckdb.sql(f"select * from {names}").to_arrow_reader(10_000)
    for batch in reader:
        yield from (_told(tables.data_of(row)) for row in batch.to_pylist())


def count_rows(folder: Path) -> int:
    """How many rows it has, from the ends of its files; a file that has just been merged away counts nothing."""
    import pyarrow.parquet

    total = 0
    for file in folder.glob("**/*.parquet"):
        try:
            total += pyarrow.parquet.read_metadata(file).num_rows
        except OSError:
            continue
    return total


def _told(data: dict[str, Any]) -> tuple[Key, dict[str, Any]]:
    key = data["folder"], data["path"], data["curve"], data["sha256"]
    return key, {name: value for name, value in data.items() if name not in _OF_THE_RUN}


@dataclass(frozen=True, slots=True)
class Compared:
    """Rows against lines; everything that must be empty is."""

    lines: int
    rows: int
    missing: list[Key]
    strange: list[Key]
    doubled: list[Key]
    differing: Counter[str]  # by field
    first: list[str]

    def words(self) -> list[str]:
        """What is wrong; nothing when nothing is."""
        found = {"missing": self.missing, "strange": self.strange, "doubled": self.doubled}
        said = [f"{len(keys)} {name}, as {keys[0]}" for name, keys in found.items() if keys]
        return said + [f"{count} differ in {name}" for name, count in self.differing.items()] + self.first


def compare(lines: Iterator[tuple[Key, dict[str, Any]]], rows: Iterator[tuple[Key, dict[str, Any]]]) -> Compared:
    """Order does not matter; each curve once."""
    expected = dict(lines)
    seen: Counter[Key] = Counter()
    strange, first = list[Key](), list[str]()
    differing: Counter[str] = Counter()
    for key, row in rows:
        seen[key] += 1
        line = expected.get(key)
        if line is None:
            strange.append(key)
            continue
        others = sorted(name for name in line.keys() | row.keys() if line.get(name) != row.get(name))
        differing.update(others)
        if others and len(first) < 3:
            told = ", ".join(f"{name} {line.get(name)!r:.80} and in the row {row.get(name)!r:.80}" for name in others)
            first.append(f"{key[1]}#{key[2]}: {told}")
    missing = [key for key in expected if key not in seen]
    doubled = [key for key, times in seen.items() if times > 1]
    return Compared(len(expected), seen.total(), missing, strange, doubled, differing, first)


@dataclass(slots=True)
class Run:
    """One way of judging all of them, and what it took. Nodes are what reads and judges; the rest drives."""

    name: str
    seconds: float = 0.0
    cpu_s: float = 0.0  # of all processes of all hosts
    peak_mb: dict[str, float] = field(default_factory=dict)  # by host
    story: list[str] = field(default_factory=list)

    def row(self, curves: int) -> str:
        memory = ", ".join(f"{name} {mb:.0f}" for name, mb in self.peak_mb.items())
        rate, cpu_ms = curves / self.judging_s, 1e3 * self.cpu_s / curves
        return f"| {self.name} | {self.seconds:.0f} | {self.judging_s:.0f} | {rate:.0f} | {cpu_ms:.2f} | {memory} |"

    @property
    def judging_s(self) -> float:
        """Without what begins and ends it, by what each command says of itself."""
        said = (_SAID.search(line) for line in self.story)
        return sum(float(found[1]) for found in said if found)


class Watching(threading.Thread):
    """Looks at hosts each second: at their memory, and at what each process has computed.

    The last second of a process is missed, in all ways of judging alike: of one that Ray has ended nobody else tells.
    """

    def __init__(self, run: Run, hosts: Sequence[Host]) -> None:
        super().__init__(daemon=True)
        self._run, self._hosts, self._over = run, hosts, threading.Event()
        self._computed_s: dict[int, float] = {}
        self._before_s = 0.0

    def run(self) -> None:
        while not self._over.wait(1.0):
            for host in self._hosts:
                self._computed_s |= host.cpu_s()
                peak = self._run.peak_mb.get(host.name, 0.0)
                self._run.peak_mb[host.name] = max(peak, host.memory_mb())

    def __enter__(self) -> Watching:
        self._before_s = sum(sum(host.cpu_s().values()) for host in self._hosts)
        self._begun_s = time.monotonic()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._run.seconds += time.monotonic() - self._begun_s
        self._over.set()
        self.join(30)
        self._run.cpu_s += sum(self._computed_s.values()) - self._before_s


def on_one(there: plenty.Plenty, work: Path) -> tuple[Run, list[Path]]:
    """`score --out` on all cores of this computer, and the files that it wrote."""
    run = Run("one computer, `score --out`")
    outs = [work / "files.jsonl", work / "archive.jsonl"]
    with Switch() as switch:
        host = switch.add("single")
        with Watching(run, [host]):
            for out, paths in zip(outs, (there.folders, [there.archive]), strict=True):
                command = [sys.executable, "-m", "daemon", "score", "--out", out, *paths]
                done = end_of(host.start(*command), _LONGEST_S)
                if done.returncode:
                    raise SystemExit(f"score --out: exit {done.returncode}: {done.stderr}")
                run.story.append(done.stderr.strip().splitlines()[-1])
    return run, outs


def on_many(there: plenty.Plenty, out: Path, name: str, *, is_disturbed: bool) -> Run:
    """`score --cluster` on as many nodes of one core as there are cores, which are killed and hung if asked."""
    run = Run(name)
    with Cluster(2) as cluster, Watching(run, cluster.hosts):
        for paths in (there.folders, [there.archive]):
            patience = ("--patience", f"{_PATIENCE_S:g}") if is_disturbed else ()
            process = cluster.start("score", "--cluster", cluster.address, *patience, "--out", out, *paths)
            if is_disturbed and paths == there.folders:
                _disturb(cluster, process, run, out, there)
            done = end_of(process, _LONGEST_S)
            if done.returncode:
                raise SystemExit(f"score --cluster: exit {done.returncode}: {done.stderr}\n{cluster.logs()}")
            run.story += done.stderr.strip().splitlines()[-6:]
    return run


def _disturb(cluster: Cluster, process: subprocess.Popen[str], run: Run, out: Path, there: plenty.Plenty) -> None:
    """The first node is killed at a fifth, and comes back; the second hangs from half of them to four fifths, or on.

    The shares are of rows in the dataset, which come there in commits.
    """
    one, other = cluster.nodes
    begun_s = time.monotonic()

    def await_share(share: float) -> None:
        while process.poll() is None and count_rows(out) < share * there.in_files:
            time.sleep(1.0)
        if process.poll() is not None and share < 0.8:
            raise SystemExit(f"score --cluster ended early: exit {process.returncode}: {process.communicate()[1]}")

    def say(what: str) -> None:
        run.story.append(f"after {time.monotonic() - begun_s:.0f} s, at {count_rows(out)} rows: {what}")

    await_share(0.2)
    one.kill()
    say(f"{one.name} is killed")
    time.sleep(10.0)
    cluster.switch_on(one)
    say(f"{one.name} is back")
    await_share(0.5)
    other.hang()
    say(f"{other.name} hangs")
    await_share(0.8)
    other.wake()
    say(f"{other.name} wakes")


def page(there: plenty.Plenty, runs: Sequence[Run], compared: Mapping[str, Compared], command: str) -> str:
    """Markdown."""
    single, calm = runs[0], runs[1]
    slower = calm.judging_s / single.judging_s - 1.0
    costlier = calm.cpu_s / single.cpu_s - 1.0
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    said = [
        f"    $ {command}",
        "",
        f"{there.in_files} curves in maps and files of six formats, some broken; {there.in_archive} in an archive. "
        f"{len(os.sched_getaffinity(0))} cores; load at the end {load}.",
        "",
        "| way | s | of them judging | curves/s judging | CPU ms a curve | memory at its largest, MB |",
        "|---|---|---|---|---|---|",
        *(run.row(there.curves) for run in runs),
        "",
        f"Against one computer, the undisturbed cluster takes {slower:+.1%} time to judge, and {costlier:+.1%} CPU.",
        "",
    ]
    for name, found in compared.items():
        wrong = "; ".join(found.words()) or "none missing, none twice, none strange, no field differs"
        said.append(f"* {name}: {found.rows} rows, {found.lines} lines: {wrong}.")
    for run in runs:
        said += ["", f"{run.name}:", "", *(f"    {line}" for line in run.story)]
    return "\n".join(said) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=int, default=100_000)
    parser.add_argument("--archive", type=Path, help="where they lie, or are made; else for this run alone")
    parser.add_argument("--page", type=Path, help="write the page there too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cluster-") as name:
        work = Path(name)
        there = plenty.make(args.archive or work / "plenty", args.curves)
        single, lines = on_one(there, work)
        print(single.row(there.curves), flush=True)
        calm = on_many(there, work / "calm", "cluster of two nodes of one core", is_disturbed=False)
        print(calm.row(there.curves), flush=True)
        wild = on_many(there, work / "wild", "the same, one node killed and one hung", is_disturbed=True)
        print(wild.row(there.curves), flush=True)
        compared = {run: compare(lines_of(*lines), rows_of(work / run)) for run in ("calm", "wild")}
    text = page(there, [single, calm, wild], compared, f"python -m tests.faults.cluster --curves {args.curves}")
    print(text)
    if args.page:
        args.page.write_text(text, encoding="utf-8")
    return 1 if any(found.words() for found in compared.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
