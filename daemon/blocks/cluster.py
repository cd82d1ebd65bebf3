"""The cluster: blocks go to nodes, which judge or read them, and come back as answers; a lost node loses nothing.

Ray carries it. An actor (a seat) has a GPU, or some cores of a node, to itself: an engine, and processes that read. It
answers a block piece by piece; the driver alone writes. What a node has told holds, and the rest of its block goes to
another one when it is lost or says nothing any more; whatever is told twice counts once.

All that travels is bytes of the types of ``daemon.blocks``, in pieces so small that Ray hands them on without its
object store: a store that others have filled stops nothing. A node waits while some of them are not taken yet.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import ray
from msgspec import msgpack
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    ObjectStoreFullError,
    OutOfMemoryError,
    RayError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from daemon import __version__, blocks
from daemon.blocks import Answer, Block, FileBlock, Reached
from daemon.blocks.node import MORE, PIECE_BYTES, Hello, Node, Ready, Settings, prober, seen_here, sees_first
from daemon.common import ending
from daemon.common.errors import INPUT_OUTPUT, UNREACHABLE, UserError
from daemon.common.text import first_line
from models.bundle import CARD, MANIFEST, WEIGHTS

GROUP_CORES = 8  # of one engine: with more the one process between readers and network is what all wait for
MOST_KILLS = 3  # seats that one block may take with it, and in a row one node
_READ_BYTES_PER_S = 25e6  # of a large file on a slow share
_HELLO_S = 20.0, 60.0  # the least and the most that a node is given to say who it is: Ray starts a process for it
_BEGIN_S, _LOOK_S = 900.0, 2.0  # an engine for a GPU is compiled for minutes
_MOST_PIECES = 64  # that a node is ahead of what is taken from it
_MOST_FAILURES = 3 * MOST_KILLS  # seats that a node may lose in a row; one that never began counts thrice


@dataclass(slots=True, eq=False)
class _Host:
    """A node of the cluster."""

    id: str
    address: str
    cores: int
    gpus: int
    failures: int = 0  # seats lost in a row
    is_known: bool = False  # it has said who it is
    is_refused: bool = False

    def shares(self, device: str) -> int:
        """How many seats it has."""
        if self.gpus and device != "cpu":
            return self.gpus
        return -(-self.cores // GROUP_CORES)


@dataclass(slots=True, eq=False)
class _Task:
    """A block that has been begun and is not told to its end."""

    block: Block
    reached: Reached = field(default_factory=Reached)
    kills: int = 0
    lost_on: set[str] = field(default_factory=set)
    is_there: bool = True  # a node is to look first whether it sees it
    is_over: bool = False


@dataclass(slots=True, eq=False)
class _Seat:
    """An engine on a node, and what it has in hand."""

    host: _Host
    share: int
    actor: Any
    stream: Any  # while it begins the promise of a Ready, then the answers to its block; None: it is free
    heard_s: float
    is_ready: bool = False
    is_silent: bool = False
    task: _Task | None = None
    heard: bytearray = field(default_factory=bytearray)  # of an answer that has not come to its end


class Cluster:
    """The nodes behind a :class:`Connection`, and what each is doing. ``say`` is given a line whenever there is one."""

    def __init__(self, settings: Settings, say: Callable[[str], object], patience_s: float) -> None:
        self._settings, self._say, self._patience_s = settings, say, patience_s
        self._paths: list[tuple[str, int]] = []
        self._hosts: dict[str, _Host] = {}
        self._asked: dict[Any, tuple[_Host, float]] = {}  # who they are, and until when they may say so
        self._seats: list[_Seat] = []
        self._waiting: deque[_Task] = deque()
        self._tasks: list[_Task] = []  # begun and not over, in the order of their blocks
        self._most_ahead = math.inf
        self._coming: Iterator[Block] = iter(())
        self._ahead: Block | None = None
        self._ready: Ready | None = None
        self._looked_s = self._alone_s = 0.0
        self.engines: set[str] = set()
        self.troubles: dict[str, int] = {}  # what could not be judged, and why, in a line -> exit code

    def begin(self, model: Path | None, paths: Sequence[Path]) -> Ready:
        """Have every node looked at and the engines begun, if there is a model; what the first of them judges with.

        UserError 69 where a node is of another version, or does not see one of the ``paths``.
        """
        files = [(name, (model / name).read_bytes()) for name in (MANIFEST, WEIGHTS, CARD)] if model else []
        cut = [[data[at : at + PIECE_BYTES] for at in range(0, len(data), PIECE_BYTES)] for _, data in files]
        self._model = (
            [(name, len(some)) for (name, _), some in zip(files, cut, strict=True)],
            [piece for some in cut for piece in some],
        )
        self._paths = seen_here(paths)
        self._look_for_hosts(is_first=True)
        while self._ready is None:
            self._look_for_hosts()
            self._need_seats()
            self._look_at_the_silent()
            for _ in self._hear():
                raise AssertionError("an answer to nothing")
        return self._ready

    def answers(self, coming: Iterable[Block], most_ahead: float = math.inf) -> Iterator[tuple[Block, Answer]]:
        """The answers to all blocks, those of one in order, each row once. ``troubles`` has what cannot be done.

        ``most_ahead``: from the first block that is not over to the last that is begun, numbers of blocks.
        """
        self._coming, self._ahead, self._most_ahead = iter(coming), None, most_ahead
        while self._tasks or self._fetch() is not None:
            ending.check()
            self._look_for_hosts()
            self._give()
            self._need_seats()
            for told in self._hear():
                before_s = time.monotonic()
                yield told
                spent_s = time.monotonic() - before_s  # in which nobody listened
                for seat in self._seats:
                    seat.heard_s += spent_s
            self._look_at_the_silent()

    # Nodes and seats.

    def _look_for_hosts(self, *, is_first: bool = False) -> None:
        """Whether nodes have come, and whether one has a share of its cores without a seat."""
        if not is_first and time.monotonic() < self._looked_s + _LOOK_S:
            return
        self._looked_s = time.monotonic()
        alive = _alive()
        for host in [_host_of(one) for id, one in alive.items() if id not in self._hosts]:
            self._hosts[host.id] = host
            if host.shares(self._settings.device):
                self._greet(host)
        while self._asked:
            self._hear_who_they_are(is_first=is_first)
            if not is_first:
                break
        for host in self._hosts.values():
            if host.is_refused or not host.is_known or host.id not in alive:
                continue
            taken = {seat.share for seat in self._seats if seat.host is host}
            for share in range(host.shares(self._settings.device)):
                if share not in taken:
                    self._seats.append(self._seat(host, share))

    def _greet(self, host: _Host) -> None:
        """Ask a new node who it is."""
        here = NodeAffinitySchedulingStrategy(host.id, soft=False)
        probe = ray.remote(prober()).options(num_cpus=0, max_retries=0, scheduling_strategy=here)
        limit_s = min(max(self._patience_s, _HELLO_S[0]), _HELLO_S[1])
        self._asked[probe.remote(self._paths)] = host, time.monotonic() + limit_s

    def _hear_who_they_are(self, *, is_first: bool) -> None:
        """A node that differs is not used, and if it was there at first, nothing is."""
        ending.check()
        ready, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=ending.LOOK_S if is_first else 0)
        for one in ready:
            host, _ = self._asked.pop(one)
            why = self._why_not(one)
            host.is_known = why is None
            if why and host.id in _alive():  # else it had gone, and Ray knew not
                self._refuse(host, why, is_first=is_first)
        for one, (host, until_s) in list(self._asked.items()):
            if time.monotonic() > until_s:
                del self._asked[one]
                self._refuse(host, "does not answer")

    def _why_not(self, asked: Any) -> str | None:
        """What is wrong with a node by its Hello."""
        try:
            said = msgspec.json.decode(ray.get(asked), type=Hello)
        except (RayError, ValueError) as error:
            return f"cannot be asked: {first_line(error)}"
        if said.version and said.version != __version__:
            return f"has afm-triage {said.version}, this is {__version__}"
        if said.trouble:
            return f"has no afm-triage {__version__}: {said.trouble}"
        return f"does not see {said.unseen[0]} as this computer does" if said.unseen else None

    def _refuse(self, host: _Host, why: str, *, is_first: bool = False) -> None:
        if is_first:
            raise UserError(UNREACHABLE, f"node {host.address} {why}; nothing was done")
        if not host.is_refused:
            self._say(f"node {host.address} {why}; it is not used")
        host.is_refused = True

    def _seat(self, host: _Host, share: int) -> _Seat:
        shares = host.shares(self._settings.device)
        gpus = 1 if host.gpus and self._settings.device != "cpu" else 0
        actor: Any = (
            ray.remote(Node)
            .options(
                num_cpus=host.cores // shares,
                num_gpus=gpus,
                max_restarts=0,
                max_concurrency=3,  # a block, the one after it, and what is said of them
                scheduling_strategy=NodeAffinitySchedulingStrategy(host.id, soft=False),
            )
            .remote(share, shares)
        )
        names, pieces = self._model
        begun = actor.begin.remote(msgpack.encode(self._settings), names, *pieces)
        return _Seat(host, share, actor, begun, time.monotonic())

    def _need_seats(self) -> None:
        """UserError 69 where for long there has been nobody who could judge."""
        if any(not seat.is_silent for seat in self._seats):
            self._alone_s = 0.0
            return
        self._alone_s = self._alone_s or time.monotonic()
        usable = [host for host in self._hosts.values() if not host.is_refused and host.shares(self._settings.device)]
        if not usable or time.monotonic() > self._alone_s + self._patience_s:
            why = "no node answers any more" if self._hosts and usable else "no node that could do it"
            held = "what is written holds, the same command goes on from there"
            raise UserError(UNREACHABLE, f"{why}; {'nothing was written' if self._settings.packs else held}")

    # Blocks.

    def _fetch(self) -> Block | None:
        """The block that is given next, which the folders are looked through for as late as can be."""
        if self._ahead is None:
            self._ahead = next(self._coming, None)
        return self._ahead

    def _give(self) -> None:
        """Something to do for every seat that is free."""
        for seat in self._seats:
            if seat.is_ready and seat.stream is None and (task := self._next_for(seat)) is not None:
                packed, told = blocks.pack_block(task.block.behind(task.reached)), msgpack.encode(task.reached)
                how = {"num_returns": "streaming", "_generator_backpressure_num_objects": _MOST_PIECES}
                seat.stream = seat.actor.answer.options(**how).remote(packed, told, is_there=task.is_there)
                seat.task, seat.heard_s = task, time.monotonic()

    def _next_for(self, seat: _Seat) -> _Task | None:
        """What was taken from others first, unless it was lost on this node and another one may try it."""
        others = {one.host.id for one in self._seats if one.is_ready and not one.is_silent}
        for task in self._waiting:
            if seat.host.id not in task.lost_on or others <= task.lost_on:
                self._waiting.remove(task)
                return task
        block = self._fetch()
        if block is None or (self._tasks and block.number > self._tasks[0].block.number + self._most_ahead):
            return None
        self._ahead = None
        self._tasks.append(_Task(block))
        return self._tasks[-1]

    def _hear(self) -> Iterator[tuple[Block, Answer]]:
        """What has come from any seat, waiting a moment for the first."""
        streams = {seat.stream: seat for seat in self._seats if seat.stream is not None}
        if not streams:
            ending.pause(ending.LOOK_S)
            return
        ready, _ = ray.wait(list(streams), timeout=ending.LOOK_S)
        if ready:
            ready, _ = ray.wait(list(streams), num_returns=len(streams), timeout=0)
        for stream in ready:
            yield from self._take(streams[stream])

    def _take(self, seat: _Seat) -> Iterator[tuple[Block, Answer]]:
        """The next thing that a seat says."""
        seat.heard_s = time.monotonic()
        try:
            if not seat.is_ready:
                self._enter(seat, msgpack.decode(ray.get(seat.stream), type=Ready))
                return
            try:
                piece: bytes = ray.get(next(seat.stream))
            except StopIteration:
                task, seat.task, seat.stream = seat.task, None, None
                self._take_back(task)
                return
        except RayError as error:
            self._lose(seat, _words(error))
            return
        seat.heard += piece[1:]
        if piece[:1] == MORE:
            return
        answer = blocks.unpack_answer(bytes(seat.heard))
        seat.heard.clear()
        seat.host.failures = 0
        if seat.is_silent:
            seat.is_silent = False
            self._say(f"node {seat.host.address} answers again")
        if seat.task is None or seat.task.is_over:
            seat.actor.leave.remote()
        elif answer.code == UNREACHABLE:
            self._cannot(seat, seat.task, answer.trouble)
        else:
            yield from self._note(seat.task, answer)

    def _enter(self, seat: _Seat, said: Ready) -> None:
        """A seat has its engine, or cannot have one."""
        if said.trouble:
            self._seats.remove(seat)
            if self._ready is None and len(self._seats) == 0:
                raise UserError(UNREACHABLE, f"node {seat.host.address}: {said.trouble}; nothing was done")
            self._refuse(seat.host, f"cannot judge: {said.trouble}")
            return
        self._ready = self._ready or said
        ours = msgspec.structs.replace(self._ready, engine=said.engine)
        if said != ours:
            self._seats.remove(seat)
            self._refuse(seat.host, f"judges by {said.pipeline}, the others by {ours.pipeline}")
            return
        self.engines.add(said.engine)
        seat.is_ready, seat.stream = True, None

    def _note(self, task: _Task, answer: Answer) -> Iterator[tuple[Block, Answer]]:
        """What is new of a block goes to whoever writes; what was told before does not."""
        fresh = answer.behind(task.reached)
        if fresh.reached.rows > task.reached.rows:
            task.reached = fresh.reached
        if fresh.code:
            self.troubles[f"{task.block.name}: {fresh.trouble}"] = fresh.code
        if fresh.is_last:
            self._end(task)
        if fresh.contents or fresh.is_last:
            yield task.block, fresh

    def _end(self, task: _Task) -> None:
        task.is_over = True
        self._tasks.remove(task)
        if task in self._waiting:
            self._waiting.remove(task)

    def _cannot(self, seat: _Seat, task: _Task, why: str) -> None:
        """The node, and not the block, is at fault, unless its first file has gone for everybody."""
        if isinstance(task.block, FileBlock) and task.is_there:
            left = task.block.behind(task.reached)
            if left.jobs and not sees_first(left):
                task.is_there = False
                return
        self._refuse(seat.host, why)
        for one in [one for one in self._seats if one.host is seat.host]:
            self._part_with(one)

    def _part_with(self, seat: _Seat) -> None:
        self._seats.remove(seat)
        with contextlib.suppress(Exception):  # it may be gone already
            ray.kill(seat.actor)
        self._take_back(seat.task)

    def _take_back(self, task: _Task | None) -> None:
        """Another one shall go on with it, unless it is over or somebody has it who speaks."""
        has_one = any(one.task is task and not one.is_silent for one in self._seats)
        if task is not None and not task.is_over and not has_one and task not in self._waiting:
            self._waiting.append(task)

    def _lose(self, seat: _Seat, why: str) -> None:
        """A seat is gone, with its node or without."""
        task, host = seat.task, seat.host
        host.failures += 1 if seat.is_ready else MOST_KILLS
        if task is not None and not task.is_over:
            self._say(f"node {host.address} was lost at {task.block.name}, another one goes on: {why}")
            task.kills += 1
            task.lost_on.add(host.id)
            if task.kills >= MOST_KILLS:
                self.troubles[f"{task.block.name}: was with {task.kills} nodes that were lost"] = INPUT_OUTPUT
                self._end(task)
        self._part_with(seat)
        if host.failures >= _MOST_FAILURES:
            self._refuse(host, f"was lost again and again: {why}")

    def _look_at_the_silent(self) -> None:
        """Take what a node has in hand that says nothing; should it answer after all, the first answer wins."""
        now_s = time.monotonic()
        for seat in list(self._seats):
            task, quiet_s = seat.task, now_s - seat.heard_s
            if not seat.is_ready and quiet_s > _BEGIN_S:
                self._lose(seat, f"its engine was not ready within {_BEGIN_S:g} s; are its cores in use by others?")
            elif task is not None and not seat.is_silent:
                limit_s = self._patience_s + task.block.largest_bytes / _READ_BYTES_PER_S
                if quiet_s > limit_s:
                    seat.is_silent = True
                    self._say(f"node {seat.host.address} says nothing for {limit_s:.0f} s, another has its work")
                    self._take_back(task)


def _alive() -> dict[str, dict[str, Any]]:
    """The nodes that Ray hears of, by their ids; one that was killed is among them for some seconds."""
    found: list[dict[str, Any]] = ray.nodes()
    return {one["NodeID"]: one for one in found if one["Alive"]}


def _words(error: RayError) -> str:
    """What a user needs of it: Ray explains at length, with numbers of its own."""
    if isinstance(error, OutOfMemoryError | ObjectStoreFullError):
        return "its memory is full"
    if isinstance(error, ActorUnavailableError | NodeDiedError):
        return "its network or its power is gone"
    if isinstance(error, ActorDiedError):
        return "its process has ended"
    return first_line(error)


def _host_of(node: dict[str, Any]) -> _Host:
    has = node["Resources"]
    return _Host(node["NodeID"], node["NodeManagerAddress"], int(has.get("CPU", 0)), int(has.get("GPU", 0)))
