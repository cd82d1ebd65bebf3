"""A node: what runs on one, and how this computer becomes one, of a cluster that is there or that is started here.

All that travels is bytes of the types of ``daemon.blocks``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import ray
from msgspec import Struct, msgpack

from daemon import blocks
from daemon.archive import BadArchive
from daemon.blocks import Answer, Block, Children, FileBlock, Reached, Row
from daemon.client.service_file import free_port
from daemon.common import ending
from daemon.common.ending import Closing
from daemon.common.errors import BAD_DATA, INPUT_OUTPUT, UNREACHABLE, UserError
from daemon.common.locks import lock, lock_where_possible
from daemon.common.text import clean, first_line
from daemon.config import ThresholdsConfig, engine_cache
from daemon.formats.text_rule import from_mapping as rule_from
from daemon.judging.judge import judge_of, load_model
from daemon.processes.worker_pool import WorkersBroken
from daemon.reading.ahead import find
from daemon.sources import Ignored
from deploy.classifier import EngineRequest, usable_cores

_STORE_BYTES = 100 << 20  # of a Ray that is started here; nothing of ours lies there
_START_S, _END_S = 60.0, 20.0
_OWN = "afm-node-"  # what the name of a folder of ours begins with
PIECE_BYTES = 64 << 10  # of what travels at once: Ray hands on up to 100 KiB without its object store
#: What a piece of an answer begins with: whether there is more of that answer.
MORE, LAST = b"+", b"."


class Settings(Struct, frozen=True, array_like=True):
    """What a node is to do: to judge, with a model that follows in pieces of its files; or to read for `pack`."""

    device: str = "auto"
    engine: str = "auto"
    precision: str = "auto"
    discard: float | None = None  # thresholds of the configuration, where it says any
    keep: float | None = None
    require_certificate: bool = False
    rules: tuple[dict[str, Any], ...] = ()  # what it says of text files
    packs: bool = False
    with_distance: bool = False


class Hello(Struct, frozen=True):
    """What a node says of itself before it is given anything."""

    version: str = ""  # of afm-triage; "" where there is none
    python: str = ""
    unseen: tuple[str, ...] = ()  # of the paths that it was asked for, the first that it does not see so
    trouble: str = ""  # why it has no afm-triage, or not this one


class Ready(Struct, frozen=True, array_like=True):
    """What a node judges with; nothing, where it only reads."""

    engine: str = ""
    model: str = ""
    pipeline: str = ""
    discard: float = 0.0
    keep: float = 0.0
    trouble: str = ""  # one line, where it cannot judge


class Node:
    """One seat, on its node: an engine and readers on a share of its cores. Ray makes an actor of it."""

    def __init__(self, share: int, shares: int) -> None:
        os.environ["GOMP_SPINCOUNT"] = "0"  # before torch is loaded
        cores = sorted(os.sched_getaffinity(0))
        if own := cores[share::shares]:
            for thread in os.listdir("/proc/self/task"):
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    os.sched_setaffinity(int(thread), own)
        self._turn, self._is_unwanted = threading.Lock(), False

    def begin(self, settings: bytes, names: Sequence[tuple[str, int]], *pieces: bytes) -> bytes:
        """Load the model, whose files have ``names`` and come in so many of the pieces each; Ready."""
        asked, coming = msgpack.decode(settings, type=Settings), iter(pieces)
        self._asked = asked
        if asked.packs:
            self._children = Children(None)
            return msgpack.encode(Ready())
        try:
            self._folder = OwnFolder(tempfile.gettempdir())  # an engine on a GPU looks there again
            for name, count in names:
                (self._folder.path / name).write_bytes(b"".join(next(coming) for _ in range(count)))
            wish = EngineRequest(asked.device, asked.engine, asked.precision, cache=engine_cache())
            self._model = load_model(str(self._folder.path), wish)
            if not isinstance(self._model.classifier, Closing):
                self._folder.close()  # now: most nodes are ended by a kill, and this would stay for a while
            self._rules = tuple(map(rule_from, asked.rules))
            thresholds = ThresholdsConfig(asked.discard, asked.keep)
            certified = asked.require_certificate
            self._judge = judge_of(self._model, thresholds, require_certificate=certified, text=self._rules)
            self._children = Children(self._model.bundle.profile, self._rules)
        except (UserError, OSError, ValueError) as error:
            return msgpack.encode(Ready(trouble=first_line(error)))
        judge = self._judge
        return msgpack.encode(Ready(str(judge.engine), judge.model, judge.pipeline, *judge.thresholds.both))

    def answer(self, packed: bytes, told: bytes, *, is_there: bool) -> Iterator[bytes]:
        """The answers to what is left of a block behind ``told``, in pieces.

        ``is_there``: its first file is known to be so.
        """
        reached = msgpack.decode(told, type=Reached)
        with self._turn:
            self._is_unwanted = False
            try:
                block = blocks.unpack_block(packed)
            except (BadArchive, OSError) as error:
                yield from self._trouble(reached, UNREACHABLE, f"does not see an archive as it is: {error}")
                return
            if is_there and isinstance(block, FileBlock) and not sees_first(block):
                yield from self._trouble(reached, UNREACHABLE, f"does not see {block.name} as it is")
                return
            try:
                yield from self._answers(block, reached)
            except (BadArchive, OSError) as error:
                yield from self._trouble(reached, BAD_DATA, str(error))
            except WorkersBroken as error:
                yield from self._trouble(reached, INPUT_OUTPUT, f"{error}; cut off, or its disk is damaged")
            except UserError as error:  # no process that reads can be started
                yield from self._trouble(reached, UNREACHABLE, str(error))

    def leave(self) -> None:
        """Nobody waits any more for the block in hand."""
        self._is_unwanted = True

    def _answers(self, block: Block, reached: Reached) -> Iterator[bytes]:
        kinds: dict[str, str] = {}
        with contextlib.closing(self._made(block, Ignored(files=kinds))) as rows:
            for answer in blocks.answers(block, reached, rows, kinds):
                yield from self._pieces(answer)
                if self._is_unwanted:
                    return

    def _made(self, block: Block, ignored: Ignored) -> Generator[Row]:
        if self._asked.packs and isinstance(block, FileBlock):
            return blocks.read(block, self._children, ignored, with_distance=self._asked.with_distance)
        return blocks.judge(block, self._model, self._judge, self._children, ignored, self._rules)

    def _pieces(self, answer: Answer) -> Iterator[bytes]:
        content = blocks.pack(answer, 0) if self._asked.packs else blocks.pack(answer)
        for at in range(0, len(content), PIECE_BYTES):
            stop = at + PIECE_BYTES
            yield (MORE if stop < len(content) else LAST) + content[at:stop]

    def _trouble(self, reached: Reached, code: int, text: str) -> Iterator[bytes]:
        trouble = clean(text)  # a name in it need not be UTF-8, and what travels must be
        return self._pieces(Answer(reached.rows, (), (), reached, is_last=True, code=code, trouble=trouble))


def sees_first(block: FileBlock) -> bool:
    """Whether the first file of a block is here as it was where the run was started."""
    arrival = block.jobs[0].arrival
    try:
        return os.stat(arrival.file).st_size == arrival.size_bytes
    except OSError:
        return False


def seen_here(paths: Sequence[Path]) -> list[tuple[str, int]]:
    """What every node must see as this computer does: what was named, and the first files that are found in each.

    (path, size of a file, or -1 of a folder).
    """
    named = [(str(path.absolute()), -1 if path.is_dir() else path.stat().st_size) for path in paths]
    first = [one for path in paths if path.is_dir() for one in islice(find([path]), 2)]
    return [*named, *((str(one.file.absolute()), one.size_bytes) for one in first)]


def prober() -> Callable[[list[tuple[str, int]]], str]:
    """What a node is asked first. Ray sends a function within a function as it stands: it needs nothing of ours there.

    (path, size of a file, or -1 of a folder) -> a Hello as JSON.
    """

    def probe(paths: list[tuple[str, int]]) -> str:
        import json
        import os
        import platform

        def is_so(path: str, size_bytes: int) -> bool:
            try:
                return os.path.isdir(path) if size_bytes < 0 else os.stat(path).st_size == size_bytes
            except OSError:
                return False

        unseen = [one[0] for one in paths if not is_so(*one)]
        said: dict[str, str | list[str]] = {"python": platform.python_version(), "unseen": unseen[:1]}
        try:
            import daemon
            import daemon.blocks

            said["version"] = daemon.__version__
        except ImportError as error:
            said["trouble"] = str(error)
        return json.dumps(said)

    return probe


class OwnFolder(Closing):
    """A new folder in one that others use too. What was left there by those of us who were killed is removed first.

    Whose owner lives is told by a lock on the folder, which the kernel frees with its process. OSError.
    """

    def __init__(self, parent: str) -> None:
        _sweep(Path(parent))
        self._held: int | None = None
        while self._held is None:
            self.path = Path(tempfile.mkdtemp(prefix=_OWN, dir=parent))
            with contextlib.suppress(FileNotFoundError, BlockingIOError):  # another one sweeps, before it is locked
                self._held = _open(self.path, lock_where_possible)

    def close(self) -> None:
        """It goes, with all that is in it."""
        if self._held is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._held)
            self._held = None


def _sweep(parent: Path) -> None:
    """Remove what is ours and no living process holds; on a share without locks nothing."""
    for path in parent.glob(f"{_OWN}*"):
        with contextlib.suppress(OSError):
            held = _open(path, lock)
            if os.fstat(held).st_uid == os.geteuid():
                shutil.rmtree(path, ignore_errors=True)
            os.close(held)


def _open(folder: Path, locking: Callable[[int], None]) -> int:
    """The folder, locked; it is there still. OSError."""
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        locking(held)
        folder.stat()
    except OSError:
        os.close(held)
        raise
    return held


class Connection(Closing):
    """To the Ray at an address, or to one that is started here and ends with us. UserError 69 where there is none."""

    def __init__(self, address: str) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: OwnFolder | None = None
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # else it warns of what it will change one day
        try:
            where = self._start() if address == "local" else address
            _need_ray(where)
            self._connect(where)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the Ray that was started here; of another one only what is ours."""
        ending.allow(_END_S)
        with contextlib.suppress(Exception):
            ray.shutdown()
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
            self._process.kill()
            self._process.wait(_END_S)
        if self._folder is not None:
            self._folder.close()

    def _start(self) -> str:
        """A Ray with the cores that this process may use; the kernel ends it should we be killed."""
        self._folder = OwnFolder("/tmp")  # names of its sockets must be short
        address = f"127.0.0.1:{free_port()}"
        fated = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        words = ["start", "--head", "--block", f"--port={address.rpartition(':')[2]}", "--node-ip-address=127.0.0.1"]
        words += ["--min-worker-port=0", "--max-worker-port=0"]  # any; else Ray keeps 10002 to 19999, and ours is there
        words += [f"--num-cpus={usable_cores()}", f"--object-store-memory={_STORE_BYTES}", "--include-dashboard=false"]
        root = str(Path(blocks.__file__).resolve().parents[2])  # its nodes find the very program that asks
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        token = os.environ.get("RAY_AUTH_MODE", "disabled")  # else one that lies at home is asked for, and never sent
        said = self._folder.path / "start.log"
        with said.open("wb") as log:
            self._process = subprocess.Popen(
                [*fated, str(Path(sys.executable).with_name("ray")), *words, "--temp-dir", str(self._folder.path)],
                env={**os.environ, "PYTHONPATH": paths, "RAY_AUTH_MODE": token},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us
            )
        until_s = time.monotonic() + _START_S
        while not _answers_as_ray(address):
            if self._process.poll() is not None or time.monotonic() > until_s:
                *_, why = ["no reason is told", *said.read_text(errors="replace").strip().splitlines()]
                raise UserError(UNREACHABLE, f"--cluster local: Ray does not start: {why}")
            ending.pause(ending.LOOK_S)
        return address

    def _connect(self, address: str) -> None:
        ray._private.worker.print_to_stdstream = _hear_nothing  # else what Ray says of nodes goes to our output
        try:
            with contextlib.chdir("/"):  # Ray has its workers import from where we stand, before what they have
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
        except (Exception, SystemExit) as error:
            text = first_line(error)
            if "version" in text.lower():
                raise UserError(
                    UNREACHABLE, f"--cluster {address}: another version of Ray or Python: {text}"
                ) from error
            hint = "this computer must be a node of it: ray start --num-cpus=0 --address="
            raise UserError(UNREACHABLE, f"--cluster {address}: {text}; {hint}{address}") from error
        finally:
            ending.again()  # Ray has handlers of its own


def _hear_nothing(*args: object, **also: object) -> None:
    """What a node is lost for is told by the driver."""


def _need_ray(address: str) -> None:
    """UserError where nothing, or something else, answers there: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(UNREACHABLE, f"--cluster {address}: give HOST:PORT of the head of a Ray cluster, or local")
    if not _answers_as_ray(address):
        raise UserError(UNREACHABLE, f"--cluster {address}: no Ray answers there; `ray status` on its head says more")


def _answers_as_ray(address: str) -> bool:
    """Whether HTTP/2 is spoken there, as by every head of a cluster: its first frame is a SETTINGS frame."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), 5.0) as asking:
            asking.settimeout(5.0)
            asking.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            said = asking.recv(9)
            return len(said) >= 4 and said[3] == 4
    except OSError:
        return False
