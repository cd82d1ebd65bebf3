"""`make study TOPIC=facility`: many instruments at once into one collector's tables.

Processes of this module speak for the instruments, over ZeroMQ as a service does: live events, heartbeats, the history
for whoever asks. What they say are events of a real service on simulated curves, each with names, hashes, scores and a
drawing of its own, so that tables of them take the room that real ones take. The collector is the verb itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import numpy as np
import zmq

from daemon.client.feed import Feed
from daemon.client.service_file import TemporaryService
from daemon.common import ending
from daemon.common.errors import INTERNAL, USAGE, UserError
from daemon.common.options import Option
from daemon.common.sockets import bind, open_envelope, open_socket
from daemon.common.stdio import progress
from daemon.ledger import events, wire
from models.clock import rfc3339
from models.files import write_whole
from tests.ledgerhelp import status

#: What an older service says to what it does not know, such as ["labels", N].
HELP = wire.encode({"error": 'a request is ["since", SEQ] or ["status"]'})
MOST_TOLD = 5_000  # decisions in one answer
HEARTBEAT_S = 2.0
#: What is put in the place of each event's own.
MARK = re.compile(rb"~[A-Z]~|987654321")
LOOK_S = 10.0
TICK_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The defaults are those of the measured page, and take seven minutes."""

    instruments: Annotated[int, Option("how many speak", "N")] = 200
    rate: Annotated[float, Option("curves a second of each", "R")] = 5.0
    seconds: Annotated[float, Option("how long they speak", "S")] = 300.0
    processes: Annotated[int, Option("that speak for them", "N")] = 4
    to: Annotated[Literal["parquet", "duckdb"], Option("what the collector writes")] = "parquet"
    curves: Annotated[int, Option("simulated, whose events are said again and again", "N")] = 400
    work: Annotated[Path, Option("a folder for all that", "DIR")] = Path("build/facility")
    out: Annotated[Path | None, Option("the figures as JSON", "FILE")] = None


def run(options: Options) -> int:
    """Exit 0 with the figures; 70 when a decision is missing or doubled."""
    if min(options.instruments, options.processes, options.curves) < 1 or min(options.rate, options.seconds) <= 0:
        raise UserError(USAGE, "instruments, processes, curves, rate and seconds are above 0")
    if options.work.exists():
        raise UserError(USAGE, f"{options.work} is there: take it away, or name another folder with --work")
    options.work.mkdir(parents=True)
    bodies = real_events(options.work / "service", options.curves)
    (options.work / "events.jsonl").write_bytes(b"\n".join(bodies))
    with ExitStack() as stack:
        speakers = [stack.enter_context(Child(words)) for words in _speakers(options)]
        addresses = _addresses(options, speakers)
        write_whole(options.work / "instruments.toml", _toml(addresses).encode())
        collector = stack.enter_context(Child(_collector(options, "tables", "--follow"), options.work / "collector"))
        told = follow(options, collector)
        told |= caught_up(options)
    told |= {"body_bytes": median(len(body) for body in bodies), "cores": os.cpu_count(), "load": os.getloadavg()[1]}
    print(text(options, told))
    if options.out is not None:
        write_whole(options.out, json.dumps(told, indent=1).encode())
    return 0 if told["gaps"] == 0 and told["doubled"] == 0 and told["missing"] == 0 else INTERNAL


class Child:
    """A process of ours, ended at the end; what it says goes to ``log``."""

    def __init__(self, words: Sequence[str], log: Path | None = None) -> None:
        self.log = log
        with (log or Path(os.devnull)).open("wb") as said:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def end(self) -> int:
        """SIGTERM, and after 20 s SIGKILL; the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(20.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(10.0)

    def check(self) -> None:
        """UserError 70 with its last words when it has ended."""
        if (code := self.process.poll()) is not None:
            words = self.log.read_text(errors="replace").strip()[-300:] if self.log else ""
            raise UserError(INTERNAL, f"{self.process.args!r:.80} ended with {code}: {words}")

    def used(self) -> tuple[float, int]:
        """Seconds of the processor until now, and bytes of memory that it holds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK_S, int(fields[21]) * PAGE_BYTES


# What is said.


def real_events(folder: Path, curves: int) -> list[bytes]:
    """The decisions of a real service on simulated curves, as it said them."""
    with TemporaryService(folder, instrument="afm1") as service:
        words = ["simulate", "--into", str(service.watch), "--curves", str(curves), "--prevalence", "0.05"]
        subprocess.run([sys.executable, "-m", "daemon", *words, "--seed", "16"], check=True, timeout=600)
        with Feed(service.publish, service.replay, since=0) as feed:
            found: list[bytes] = []
            while len(found) < curves:
                found += [wire.encode(event) for event in feed.read(1.0) if events.kind_of(event) == "decision"]
    return found


class Template:
    """One real event, cut where each event has its own: ``body`` puts those in."""

    def __init__(self, body: bytes) -> None:
        event = wire.decode(body)
        data = event["data"]
        self._preview = np.frombuffer(base64.b64decode(data["preview"] or ""), np.uint8)
        self._score: float | None = data["score"]
        event |= {"source": "/~I~", "id": "~S~:~N~", "stream": "~S~", "time": "~T~", "seq": 987654321}
        suffix = Path(data["path"]).suffix
        data |= {"path": f"~P~{suffix}", "sha256": "~H~", "acquired": "~T~", "folder": "/data/~I~"}
        if self._preview.size:
            data["preview"] = "~V~"
        if self._score is not None:
            data["score"] = 987654321
        data["latency_s"]["total"] = 987654321
        event["subject"] = f"~P~{suffix}#{data['curve']}"
        plain = wire.encode(event)
        plain = plain.replace(b'"seq":987654321', b'"seq":~N~').replace(b'"total":987654321', b'"total":~L~')
        plain = plain.replace(b'"score":987654321', b'"score":~C~')
        self.verdict = str(data["verdict"])
        self._texts, self._marks = MARK.split(plain), MARK.findall(plain)

    def body(self, instrument: str, seq: int, wall_s: float) -> bytes:
        """The same number is the same event."""
        digest = hashlib.sha256(b"%s %d" % (instrument.encode(), seq)).digest()
        chance = digest[0] / 256 + digest[1] / 65536
        noise = np.resize(np.unpackbits(np.frombuffer(digest, np.uint8)), self._preview.size)
        drawing = np.minimum(self._preview, 254) + noise
        own = {
            b"~I~": instrument.encode(),
            b"~S~": f"stream-of-{instrument}".encode(),
            b"~N~": b"%d" % seq,
            b"~T~": rfc3339(wall_s).encode(),
            b"~P~": b"run%d/curve-%06d" % (seq // 2000, seq),
            b"~H~": digest.hex().encode(),
            b"~L~": b"%.6f" % (0.012 + 0.02 * chance),
            b"~C~": b"%.8f" % ((self._score or 0.0) * (1 - 1e-3 * chance)),
            b"~V~": base64.b64encode(drawing.tobytes()),
        }
        parts = [own[mark] + text for mark, text in zip(self._marks, self._texts[1:], strict=True)]
        return self._texts[0] + b"".join(parts)


class Instrument:
    """Its sockets, and what it has said by now: decision ``seq`` at ``began_s + seq / rate``."""

    def __init__(self, name: str, templates: Sequence[Template], rate: float) -> None:
        self.name, self._templates, self._rate = name, templates, rate
        self.began_s = 0.0  # not yet
        self.feed, self.router = open_socket(zmq.XPUB, 0), open_socket(zmq.ROUTER, 0)
        self.feed.set_hwm(10_000)
        self.publish = bind(self.feed, "tcp://127.0.0.1:0", "publish", 1 << 20, None)
        self.replay = bind(self.router, "tcp://127.0.0.1:0", "replay", 1 << 20, None)
        self.said = 0
        self._due_s = 0.0

    def turn(self, wall_s: float, last: int) -> None:
        """Say what is due, at most to number ``last``, and answer who has asked."""
        due = min(last, int((wall_s - self.began_s) * self._rate)) if self.began_s else 0
        while self.said < due:
            self.said += 1
            body, verdict = self._body(self.said)
            self.feed.send_multipart([events.topic(self.name, "decision", verdict), body])
        if wall_s >= self._due_s:
            self._due_s = wall_s + HEARTBEAT_S
            self.feed.send_multipart([events.topic(self.name, "heartbeat"), self._notice(events.Heartbeat(guard=None))])
        while self.feed.poll(0):
            self.feed.recv()
        while self.router.poll(0):
            envelope, request = open_envelope(self.router.recv_multipart())
            self.router.send_multipart(envelope + self._answer(request))

    def _body(self, seq: int) -> tuple[bytes, str]:
        template = self._templates[(seq * 7919 + hash_of(self.name)) % len(self._templates)]
        return template.body(self.name, seq, self.began_s + seq / self._rate), template.verdict

    def _answer(self, request: list[bytes]) -> list[bytes]:
        if request == [b"status"]:
            return [self._notice(status(instrument=self.name, stream=f"stream-of-{self.name}"))]
        if len(request) == 2 and request[0] == b"since":
            first = int(request[1]) + 1
            asked = range(first, min(self.said, first + MOST_TOLD - 1) + 1)
            return [self._body(seq)[0] for seq in asked] or [b""]
        return [HELP]

    def _notice(self, data: events.Notice) -> bytes:
        stream = f"stream-of-{self.name}"
        told = events.notice(data, instrument=self.name, stream=stream, last_seq=self.said, wall_s=time.time())
        return wire.encode(told)


def hash_of(name: str) -> int:
    """The same in every process."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])


def speak(folder: Path, first: int, count: int, rate: float, last: int) -> None:
    """Speak for ``count`` instruments until ended, of each to number ``last``; ``folder``/begin says from when on."""
    templates = [Template(line) for line in (folder / "events.jsonl").read_bytes().splitlines()]
    instruments = [Instrument(f"afm{number:03d}", templates, rate) for number in range(first, first + count)]
    told = {one.name: {"publish": one.publish, "replay": one.replay} for one in instruments}
    write_whole(folder / f"speaker-{first}.json", json.dumps(told).encode())
    poller = zmq.Poller()
    for one in instruments:
        poller.register(one.router, zmq.POLLIN)
    while True:
        poller.poll(20)
        if not instruments[0].began_s and (folder / "begin").exists():
            began_s = float((folder / "begin").read_text())
            for one in instruments:  # not all at the same moment
                one.began_s = began_s + hash_of(one.name) % 100 / 100 / rate
        for one in instruments:
            one.turn(time.time(), last)


# What the collector makes of it.


def follow(options: Options, collector: Child) -> dict[str, Any]:
    """Let them speak, look at the tables every now and then, and end the collector once it has everything."""
    last = int(options.rate * options.seconds)
    time.sleep(5.0)  # until everybody is connected
    collector.check()
    used_s, _ = collector.used()
    began_s = time.time()
    write_whole(options.work / "begin", b"%.3f" % began_s)
    ages_s: list[list[float]] = []
    largest = 0
    looks = int(options.seconds / LOOK_S)
    for number in progress(range(looks), "seconds", looks):
        ending.pause(max(0.0, began_s + (number + 1) * LOOK_S - time.time()))
        collector.check()
        largest = max(largest, collector.used()[1])
        if number and number < looks - 1:
            ages_s.append([time.time() - row["newest_s"] for row in rows(options, "tables").values()])
    seconds = time.time() - began_s
    cpu_s = collector.used()[0] - used_s
    found = _complete(options, collector, last)
    code = collector.end()
    if code != -signal.SIGTERM:
        raise UserError(INTERNAL, f"the collector ended with {code}")
    everything = sum(row["rows"] for row in found.values())
    files = [file for file in _out(options, "tables").rglob("*.parquet")] or [_out(options, "tables")]
    return {
        "rows": everything,
        "missing": options.instruments * last - sum(row["numbers"] for row in found.values()),
        "doubled": sum(row["rows"] - row["numbers"] for row in found.values()),
        "gaps": sum(row["last"] - row["first"] + 1 != row["numbers"] for row in found.values()),
        "core": cpu_s / seconds,
        "us_a_row": 1e6 * cpu_s / everything,
        "memory_bytes": largest,
        "age_s": {"half": median(age for ages in ages_s for age in ages), "most": max(map(max, ages_s))},
        "files": len(files),
        "bytes_a_row": sum(file.stat().st_size for file in files) / everything,
    }


def _complete(options: Options, collector: Child, last: int, patience_s: float = 120.0) -> dict[str, dict[str, Any]]:
    """What the tables have of each instrument, once they have all, or nothing more comes."""
    until_s = time.monotonic() + patience_s
    while True:
        collector.check()
        found = rows(options, "tables")
        if sum(row["numbers"] for row in found.values()) >= options.instruments * last:
            return found
        if time.monotonic() > until_s:
            return found
        ending.pause(1.0)


def caught_up(options: Options) -> dict[str, Any]:
    """All of it once more, at once, into tables of their own: what a collector does that was away."""
    began_s, used_s = time.monotonic(), sum(os.times()[2:4])
    subprocess.run(_collector(options, "again"), check=True, timeout=1800)
    seconds, cpu_s = time.monotonic() - began_s, sum(os.times()[2:4]) - used_s
    count = sum(row["numbers"] for row in rows(options, "again").values())
    return {
        "again": {"rows": count, "seconds": seconds, "rows_per_s": count / seconds, "us_a_row": 1e6 * cpu_s / count}
    }


def rows(options: Options, name: str) -> dict[str, dict[str, Any]]:
    """Instrument -> ``rows``, ``numbers`` (each once), ``first``, ``last``, ``newest_s``; {} without a table."""
    import duckdb

    out = _out(options, name)
    asked = (
        "select instrument, count(*), count(distinct (stream, seq)), min(seq), max(seq), epoch_ms(max(time)) / 1000 "
        "from {} group by instrument"
    )
    keys = ("rows", "numbers", "first", "last", "newest_s")
    for _ in range(100):
        try:
            is_file = options.to == "duckdb"
            table = "decisions" if is_file else f"read_parquet('{out}/decisions/**/*.parquet', hive_partitioning=true)"
            with duckdb.connect(str(out) if is_file else ":memory:", read_only=is_file) as database:
                found = database.execute(asked.format(table)).fetchall()
            return {row[0]: dict(zip(keys, row[1:], strict=True)) for row in found}
        except (duckdb.IOException, duckdb.CatalogException):  # not there yet, held by the writer, merged meanwhile
            time.sleep(0.1)
    return {}


def text(options: Options, told: Mapping[str, Any]) -> str:
    """The figures, as the page has them."""
    again = told["again"]
    lines = (
        f"{options.instruments} instruments at {options.rate:g} curves/s for {options.seconds:g} s, to {options.to}; "
        f"{told['cores']} cores, load {told['load']:.1f}; an event has {told['body_bytes']:,.0f} bytes",
        f"rows {told['rows']:,}; missing {told['missing']}, doubled {told['doubled']}, gaps {told['gaps']}",
        f"processor   {told['core']:.2f} of a core, {told['us_a_row']:.0f} us a row",
        f"memory      {told['memory_bytes'] / 1e6:.0f} MB",
        f"age of what is newest in the tables   half {told['age_s']['half']:.1f} s, most {told['age_s']['most']:.1f} s",
        f"disk        {told['bytes_a_row']:.0f} bytes a row, {told['bytes_a_row'] / 1e3:.2f} GB a million; "
        f"{told['files']} files",
        f"catching up {again['rows']:,} rows in {again['seconds']:.1f} s, {again['rows_per_s']:,.0f} a second, "
        f"{again['us_a_row']:.0f} us a row",
    )
    return "\n".join(lines)


def _speakers(options: Options) -> Iterator[list[str]]:
    last = int(options.rate * options.seconds)
    each = -(-options.instruments // options.processes)
    for first in range(0, options.instruments, each):
        count = min(each, options.instruments - first)
        words = [sys.executable, "-m", "tests.studies.facility", str(options.work), str(first), str(count)]
        yield [*words, str(options.rate), str(last)]


def _addresses(options: Options, speakers: Sequence[Child]) -> dict[str, dict[str, str]]:
    """Where they speak, once all do."""
    until_s = time.monotonic() + 60.0
    while len(files := sorted(options.work.glob("speaker-*.json"))) < len(speakers):
        for one in speakers:
            one.check()
        if time.monotonic() > until_s:
            raise UserError(INTERNAL, "the instruments do not speak")
        time.sleep(0.1)
    return {name: where for file in files for name, where in json.loads(file.read_text()).items()}


def _toml(addresses: Mapping[str, Mapping[str, str]]) -> str:
    tables = (
        f'[{name}]\npublish = "{where["publish"]}"\nreplay = "{where["replay"]}"\n' for name, where in addresses.items()
    )
    return "\n".join(tables)


def _out(options: Options, name: str) -> Path:
    return options.work / (name if options.to == "parquet" else f"{name}.duckdb")


def _collector(options: Options, name: str, *more: str) -> list[str]:
    words = [sys.executable, "-m", "daemon", "events", "--to", options.to, "--out", str(_out(options, name))]
    return [*words, "--instruments", str(options.work / "instruments.toml"), *more]


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    folder, first, count, rate, last = sys.argv[1:]
    speak(Path(folder), int(first), int(count), float(rate), int(last))
