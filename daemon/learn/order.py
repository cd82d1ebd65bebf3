"""The order of the pile: which flagged curves a head on the labels so far would have looked at first.

The curves are embedded by the network that serves, from the ledger's copies, and a head on the labelled ones says which
of the others are likest an event; the network's own score is one of its features. The head only orders: no verdict and
no cut comes from it. All of it is done by a process of its own, beside the page, which stands back for everybody else
(``python -m daemon.learn.order FD``); the page never waits for it.

What was embedded lies in ``order.sqlite``, a cache: where it is damaged it is made anew, and where nothing can be
written it is done without.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from daemon.common.ending import Closing
from daemon.common.errors import BAD_DATA, UserError
from daemon.common.sqlite_file import Versions, ensure_file, file_of, is_damaged, trouble
from daemon.common.text import first_line, many
from daemon.config import Config, Flags, load
from daemon.judging.judge import base_name, choose
from daemon.judging.registry import Registry
from daemon.labels import Labels, unanimous
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import Look
from daemon.processes import frames
from daemon.processes.child import Child, has_come, serving, spawn
from models.bundle import BadBundle, Bundle, read

if TYPE_CHECKING:
    from models.heads import Features
    from models.network import ResNet18

log = logging.getLogger(__name__)

#: Labelled curves from which on a head orders the pile, of both kinds.
FEWEST = 8
#: The latest flagged curves are ordered, and the latest labelled ones teach.
MOST_CURVES, MOST_LABELLED = 20_000, 2_000

Vector = NDArray[np.float16]  # (D,); (0,) of a curve that has none
_TELL_S = 2.0  # between two looks at what was decided, and between two rankings while curves are being embedded
_AT_ONCE = 32  # curves between two looks at the labels: a tenth of a second
_LEARNED_ON = 4_000  # curves at most from which features are learned, and again when half as many more are there
_NAME = "order.sqlite"
_SCRIPTS = (
    """
    create table vectors (
        network text not null,     -- ledger, raster and weights
        seq     integer not null,
        vector  blob not null,     -- half precision, little-endian; empty of a curve that has none
        primary key (network, seq)
    ) strict, without rowid;
    """,
)
#: The application is "AFMO".
_VERSIONS = Versions(0x41464D4F, _SCRIPTS, "is no cache of afm-triage: move it away")


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """What a head on ``labels`` labelled curves thinks of K curves."""

    seqs: NDArray[np.int64]  # (K,), ascending
    scores: NDArray[np.float64]  # (K,), the greater the more like an event; no probabilities
    labels: int

    def order(self, looks: Sequence[Look]) -> list[Look]:
        """The same curves, given with the highest score of the network first, in the order of the head.

        A curve that the head does not know yet has as many of the known ones before it as the network puts before it.
        Those without a score come last, in their order.
        """
        scored = [look for look in looks if look.score is not None]
        seqs = np.array([look.seq for look in scored], np.int64)
        places = np.searchsorted(self.seqs, seqs)
        is_known = places < self.seqs.size
        is_known[is_known] = self.seqs[places[is_known]] == seqs[is_known]
        known = np.flatnonzero(is_known)
        rank = np.cumsum(is_known) - 0.5  # of an unknown one: just before the known one of this number
        rank[known[np.argsort(-self.scores[places[known]], kind="stable")]] = np.arange(known.size)
        first = [scored[place] for place in np.argsort(rank, kind="stable")]
        return first + [look for look in looks if look.score is None]


# The cache.


class Cache(Closing):
    """Embedded curves on the disk, for one thread; never in the way. ``tell`` hears what is wrong with the file."""

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self._path, self._tell = path, tell
        self._connection: sqlite3.Connection | None = None
        with self._trying():
            self._open()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def load(self, network: str, wanted: Collection[int], size: int) -> dict[int, Vector]:
        """What is known of these curves, (size,) or (0,) each; all else is dropped from the file."""
        found: dict[int, Vector] = {}

        def take(connection: sqlite3.Connection) -> None:
            strange = "network <> ? or length(vector) not in (0, ?)"
            connection.execute(f"delete from vectors where {strange}", (network, 2 * size))
            rows = connection.execute("select seq, vector from vectors").fetchall()
            read = ((seq, np.frombuffer(vector, "<f2").astype(np.float16)) for seq, vector in rows if seq in wanted)
            found.update((seq, vector) for seq, vector in read if np.isfinite(vector).all())
            connection.executemany("delete from vectors where seq = ?", ((seq,) for seq, _ in rows if seq not in found))

        self._change(take)
        return found

    def store(self, network: str, vectors: Mapping[int, Vector]) -> None:
        rows = [(network, seq, vector.astype("<f2").tobytes()) for seq, vector in vectors.items()]
        self._change(lambda connection: connection.executemany("insert or replace into vectors values (?, ?, ?)", rows))

    def _open(self) -> None:
        self._connection = sqlite3.connect(ensure_file(self._path), timeout=2.0, isolation_level=None)
        _VERSIONS.of(self._connection, self._path)
        self._connection.execute("pragma synchronous = off")  # what a power failure damages is made anew
        _VERSIONS.bring_up(self._connection)

    def _change(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """All of it or nothing."""
        if (connection := self._connection) is not None:
            with self._trying(), connection:
                connection.execute("begin")
                work(connection)

    @contextlib.contextmanager
    def _trying(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UserError) as error:
            self.close()
            if isinstance(error, sqlite3.Error) and is_damaged(error):
                self._tell(f"{self._path.name} was damaged, and is made anew")
                with contextlib.suppress(OSError, sqlite3.Error, UserError):
                    self._path.unlink()
                    self._open()
                return
            said = str(error) if isinstance(error, UserError) else trouble(error, self._path)
            self._tell(f"{said}; what was embedded is not kept")


# The pile.


class Pile(Closing):
    """The flagged curves of a state, embedded, and the labelled ones beside them; for one thread.

    ``tell`` hears what is wrong and can be done without. Raises UserError 69 where there is no ledger, 74 where it is
    damaged, 65 where no model can be read.
    """

    def __init__(self, config: Config, tell: Callable[[str], None]) -> None:
        self._config, self._registry = config, Registry(config.state / "models")
        self._view = LedgerView(config.ledger_file)
        self._labels_file = config.state / "labels.sqlite"
        self._labels: Labels | None = None
        self._labels_name: tuple[int, int] | None = None
        self._cache = Cache(config.state / _NAME, tell)
        self._serving: object = None  # what the registry said when it was last asked
        self._marks: tuple[object, int] = (None, -1)  # of the labels, and of the ledger
        self._counted_s, self._last = -math.inf, 0  # when curves were last counted
        self._network: tuple[str, Bundle, ResNet18] | None = None
        self._vectors: dict[int, Vector] = {}
        self._features: tuple[int, Features] | None = None  # and from how many curves they were learned
        self._flagged: list[int] = []  # ascending
        self._events: dict[int, bool] = {}  # labelled curves, whether a person has confirmed an event
        self._left: list[int] = []  # to be embedded, the last one first

    def close(self) -> None:
        with contextlib.ExitStack() as closing:
            for one in (self._view, self._labels, self._cache):
                if one is not None:
                    closing.enter_context(one)

    @property
    def left(self) -> int:
        """Curves still to be embedded."""
        return len(self._left)

    def look(self) -> bool:
        """See what is new: labels, the network that serves, and now and then curves. Whether anything is."""
        if not self._view.is_in_place():
            self._view.release()
        key = (self._registry.stamp(), self._registry.base_name())
        is_other = key != self._serving
        if time.monotonic() - self._counted_s > _TELL_S:
            self._counted_s, self._last = time.monotonic(), self._view.last_seq
        marks = (_mark(self._labels_file), self._last)
        if not is_other and marks == self._marks:
            return False
        if is_other:
            self._take_network()
            self._serving = key
        if marks[0] != self._marks[0] or is_other:
            self._events = self._labelled()
        newest = self._view.looks("review", order="newest", limit=MOST_CURVES)
        self._flagged = sorted(look.seq for look in newest if look.score is not None)
        self._marks = marks
        wanted = [*self._flagged, *self._events]  # from its end on: the labelled ones first, then the newest
        if is_other and self._network is not None:
            name, _, net = self._network
            self._vectors = self._cache.load(name, set(wanted), net.fc.in_features)
        self._left = [seq for seq in dict.fromkeys(reversed(wanted)) if seq not in self._vectors][::-1]
        return True

    def embed_some(self) -> None:
        """Some of the curves that are left."""
        some, self._left = self._left[-_AT_ONCE:], self._left[:-_AT_ONCE]
        if not some or self._network is None:
            return
        from daemon.learn.head import embed_copies

        network, bundle, net = self._network
        found = embed_copies(net, bundle.profile, {seq: self._view.compact_copy(seq) for seq in some})
        self._vectors |= found
        self._cache.store(network, found)

    @property
    def missing(self) -> str:
        """What a head lacks, in words; "" where it lacks nothing."""
        if len(self._events) < FEWEST:
            return many(FEWEST - len(self._events), "more label")
        return "" if len(set(self._events.values())) > 1 else "a label of the other kind, keep or discard"

    def ranking(self) -> Ranking | None:
        """What a head on the labels so far thinks of the flagged curves that are embedded; None where it cannot be."""
        from daemon.learn.head import features_of, order

        known = [seq for seq in self._events if self._has(seq)]
        events = np.array([self._events[seq] for seq in known], np.bool_)
        flagged = [seq for seq in self._flagged if self._has(seq)]
        if self._network is None or len(known) < FEWEST or events.all() or not events.any() or not flagged:
            return None
        if self._features is None or 2 * len(flagged) > 3 * self._features[0]:
            some = flagged[:: -(-len(flagged) // _LEARNED_ON)]
            seen = self._stack([*some, *known])
            self._features = len(flagged), features_of(self._network[2], self._config.review.features, seen)
        scores = order(self._network[2], self._features[1], self._stack(known), events, self._stack(flagged))
        return Ranking(np.array(flagged, np.int64), scores, len(known))

    def _has(self, seq: int) -> bool:
        return (vector := self._vectors.get(seq)) is not None and vector.size > 0

    def _stack(self, seqs: Iterable[int]) -> NDArray[np.float64]:
        return np.stack([self._vectors[seq] for seq in seqs]).astype(np.float64)

    def _take_network(self) -> None:
        from daemon.learn.head import Start

        try:
            name = base_name(self._config)
            chosen = choose(name, self._registry.models, self._config.thresholds)
            bundle = chosen.bundle or read(chosen.folder)
        except BadBundle as error:
            raise UserError(BAD_DATA, f"model {self._config.model}: {error}") from error
        network = "|".join([self._view.stream, *bundle.pipeline.split("|")[:2]])
        if self._network is None or self._network[0] != network:  # another cut alone changes no embedding
            net = Start(parent=bundle).network()
            assert net is not None
            self._network, self._features = (network, bundle, net), None

    def _labelled(self) -> dict[int, bool]:
        """The latest labelled curves on which the raters agree, the latest last."""
        if self._labels is not None and self._labels_name != file_of(self._labels_file):
            self._labels.close()
            self._labels = None
        if self._labels is None:
            if not self._labels_file.is_file():
                return {}
            self._labels_name = file_of(self._labels_file)
            self._labels = Labels(self._labels_file, is_reading=True)
        agreed = {seq: unanimous(said.values()) for seq, said in self._labels.words().items()}
        sure = [(seq, word == "keep") for seq, word in agreed.items() if word != "unsure"]
        return dict(sure[-MOST_LABELLED:])


def _mark(file: Path) -> tuple[int, int, int] | None:
    """Another one whenever a file was written."""
    with contextlib.suppress(OSError):
        stat = file.stat()
        return stat.st_ino, stat.st_mtime_ns, stat.st_size
    return None


# The process.

_LOOK_S = 0.2  # between two looks at the labels
_AGAIN_S = 5.0  # after trouble


def main(descriptor: int) -> None:
    """Order the pile of the state that is named, anew whenever something changes, until the page hangs up."""
    with serving(descriptor, memory_bytes=None) as connection:
        import torch

        from daemon.learn.head import require_sklearn

        torch.set_num_threads(1)
        said, _ = frames.receive(connection)

        def tell(text: str) -> None:
            frames.send(connection, {"trouble": text})

        while True:
            try:
                require_sklearn()
                config = load(Flags(said["file"], {"state": said["state"]}))
                with Pile(config, tell) as pile:
                    _order(pile, lambda header, arrays: frames.send(connection, header, arrays), connection)
            except UserError as error:
                tell(str(error))
            except (sqlite3.Error, MemoryError) as error:
                tell(first_line(error))
            if has_come(connection, _AGAIN_S):
                return  # the page says nothing more: it has hung up


def _order(pile: Pile, send: Callable[[frames.Header, Sequence[frames.Array]], None], connection: Any) -> None:
    told_s, is_due = 0.0, False
    while not has_come(connection, 0.0 if pile.left else _LOOK_S):
        is_new = pile.look()
        is_due = is_due or is_new or pile.left > 0
        pile.embed_some()
        if is_due and (is_new or not pile.left or time.monotonic() - told_s > _TELL_S):
            ranking = pile.ranking()
            arrays = () if ranking is None else (ranking.seqs.astype(np.float64), ranking.scores)
            labels = 0 if ranking is None else ranking.labels
            send({"labels": labels, "left": pile.left, "missing": pile.missing}, arrays)
            told_s, is_due = time.monotonic(), False
    raise EOFError


# The page's end of it.


@dataclass(frozen=True, slots=True)
class Order:
    """How the pile is ordered now. ``sentence`` is what the page says of it."""

    ranking: Ranking | None
    sentence: str

    def plain(self) -> dict[str, Any]:
        """Ready for JSON."""
        by, labels = ("score", 0) if self.ranking is None else ("head", self.ranking.labels)
        return {"by": by, "labels": labels, "sentence": self.sentence}


_BY_SCORE = "by score"
_STARTS = 3  # of a process that ends by itself
_PAUSE_S = 30.0  # before the next start


class Orderer(threading.Thread):
    """Keeps the order up to date by a process of its own. Methods may be called from any thread.

    ``is_wanted``: whether anybody has labelled a curve yet, so that the process is worth its memory. The process is
    ended with this thread.
    """

    def __init__(self, config: Config, is_wanted: Callable[[], bool]) -> None:
        super().__init__(name="order", daemon=True)
        self._config, self._is_wanted = config, is_wanted
        self._is_over, self._starting = threading.Event(), threading.Lock()
        self._now = Order(None, _BY_SCORE)
        self._told: set[str] = set()
        self._child: Child | None = None

    def open(self) -> None:
        """Somebody looks at the pile."""
        with self._starting:
            if self.ident is None and self._config.review.order == "head":
                self.start()

    def close(self) -> None:
        self._is_over.set()
        if (child := self._child) is not None:
            child.end()

    @property
    def now(self) -> Order:
        """The last order that there is; by score where there is none."""
        return self._now

    def run(self) -> None:
        while not self._is_wanted():
            if self._is_over.wait(1.0):
                return
        for _ in range(_STARTS):
            self._child = child = spawn("daemon.learn.order", may_be_left=True)  # by a page that was killed
            child.stand_back()
            if self._is_over.is_set():
                child.end()
                return
            with contextlib.suppress(EOFError, OSError):
                file = None if self._config.file is None else str(self._config.file)
                said = {"state": str(self._config.state.absolute()), "file": file}
                frames.send(child.connection, said, until_s=time.monotonic() + _PAUSE_S)
                while True:
                    self._take(*frames.receive(child.connection))
            child.end()
            if self._is_over.is_set():
                return
            self._say(f"the process that orders the pile {child.last_words()}")
            self._now = Order(None, _BY_SCORE)
            if self._is_over.wait(_PAUSE_S):
                return

    def _take(self, header: frames.Header, arrays: Sequence[frames.Array]) -> None:
        if "trouble" in header:
            self._say(header["trouble"])
        elif len(arrays) == 2:
            ranking = Ranking(arrays[0].astype(np.int64), arrays[1].astype(np.float64), header["labels"])
            self._now = Order(ranking, f"in the order of your {many(ranking.labels, 'label')}")
        else:
            lacks = header["missing"]
            more = f"{lacks} and your labels order it" if lacks else "the order of your labels is being worked out"
            self._now = Order(None, f"{_BY_SCORE}; {more}")

    def _say(self, text: str) -> None:
        """Once, whatever it is."""
        if text not in self._told:
            self._told.add(text)
            log.warning("the order of the pile: %s", text)


if __name__ == "__main__":
    main(int(sys.argv[1]))
