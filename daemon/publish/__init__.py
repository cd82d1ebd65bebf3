"""The publisher: the ledger's tail on PUB, its history on ROUTER.

It follows the ledger instead of the pipeline: a commit pokes it, it reads what is new through a read-only connection
and sends it. PUB/SUB loses without telling (a stalled subscriber at the default mark lost 89 of 100 thousand events),
so the ledger is the buffer: a subscriber that misses a ``seq`` asks for it on the other socket, and nobody's slowness
reaches the pipeline.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import zmq

from daemon import __version__
from daemon.common.allowed import Allowed
from daemon.common.errors import UserError
from daemon.common.sockets import Endpoint, Secure, bind, give_memory_back, open_envelope, open_socket, receive
from daemon.ledger import events, wire
from daemon.ledger.numbers import Pulse
from daemon.ledger.view import LedgerView
from daemon.metrics import Metrics
from models.clock import CLOCK, Clock

# The replay: what was decided, for whoever was not listening.
#
# Request ``["since", SEQ]``: the stored bodies with a greater ``seq``, at most 5,000, in order; one empty frame
# when there are none. Request ``["status"]``: the status event as it is now. ``["labels", N]`` and ``["sessions", N]``:
# one event with what people have said, behind number N. DEALER and REQ both work.

_HELP = wire.encode({"error": 'a request is ["since", SEQ], ["labels", N], ["sessions", N] or ["status"]'})
_LARGEST_SEQ = 2**63 - 1
_REQUESTS = 200  # heard in one turn
_ANSWERS_WAITING = 8  # replies kept for a peer that does not read them, up to 10 MB each
_MOST_FRAMES = 8  # of a request; the longest that makes sense has four
_STATUS_KEPT_S = 0.1
NOTHING_TOLD: Mapping[str, Callable[[int], bytes]] = MappingProxyType({})

_Asked = tuple[list[bytes], str, int]  # the envelope, what is wanted, behind which number


class Replay:
    """Answers a bounded number of requests a call, so that the live feed goes on in between.

    How the service is, is said at once; the history, which takes longer, to one peer after another. So a peer that asks
    a hundred thousand times delays nobody else.
    """

    def __init__(
        self,
        router: zmq.Socket[bytes],
        view: LedgerView,
        status_body: Callable[[], bytes],
        count: Callable[[str], None] | None = None,
        told: Mapping[str, Callable[[int], bytes]] = NOTHING_TOLD,
    ) -> None:
        self._router, self._view, self._status_body, self._count = router, view, status_body, count
        self._told = told
        self._asked: OrderedDict[bytes, deque[_Asked]] = OrderedDict()  # by peer
        self._status, self._status_s = b"", -math.inf

    @property
    def is_busy(self) -> bool:
        """Whether somebody still waits for an answer."""
        return bool(self._asked)

    def answer(self) -> None:
        """Hear what has come and answer, all but the history, of which one piece; what makes no sense is told so."""
        for _ in range(_REQUESTS):
            try:
                envelope, request = open_envelope(receive(self._router, _MOST_FRAMES))
            except zmq.Again:
                break
            self._hear(envelope, request)
        if self._asked:
            peer, waiting = self._asked.popitem(last=False)
            envelope, what, number = waiting.popleft()
            if waiting:
                self._asked[peer] = waiting  # behind all others
            self._send(envelope, *(self._since(number) if what == "since" else self._tell(what, number)))

    def _hear(self, envelope: list[bytes], request: list[bytes]) -> None:
        if request == [b"status"]:
            self._send(envelope, "status", [self._status_now()])
        elif (asked := _asked(request, ("since", *self._told))) is None:
            self._send(envelope, "malformed", [_HELP])
        else:
            waiting = self._asked.setdefault(envelope[0], deque())
            if len(waiting) < _ANSWERS_WAITING:  # no more would be kept for it, as it does not read
                waiting.append((envelope, *asked))

    def _status_now(self) -> bytes:
        now_s = time.monotonic()
        if now_s - self._status_s > _STATUS_KEPT_S:
            self._status, self._status_s = self._status_body(), now_s
        return self._status

    def _send(self, envelope: list[bytes], outcome: str, bodies: list[bytes]) -> None:
        if self._count is not None:
            self._count(outcome)
        if bodies:  # a peer that has gone, or that does not read, is dropped by ROUTER itself
            with contextlib.suppress(zmq.Again):
                self._router.send_multipart(envelope + bodies, zmq.DONTWAIT)

    def _since(self, seq: int) -> tuple[str, list[bytes]]:
        try:
            bodies = [body for _, body in self._view.bodies_since(seq)]
        except UserError as error:  # no answer: "none" would be a lie, and the client asks again
            log.error("replay since %d: %s", seq, error)
            return "damaged", []
        return "since", bodies or [b""]

    def _tell(self, what: str, number: int) -> tuple[str, list[bytes]]:
        try:
            return what, [self._told[what](number)]
        except UserError as error:  # people's programs may hold the file: no answer, and the client asks again
            log.warning("%s behind %d are not told: %s", what, number, error)
            return "unread", []


def _asked(request: list[bytes], known: Collection[str]) -> tuple[str, int] | None:
    """What is asked for, and behind which number; None for what makes no sense."""
    if len(request) != 2 or not request[1].isdigit() or len(request[1]) > 19:
        return None
    what = request[0].decode("ascii", "replace")
    return (what, min(int(request[1]), _LARGEST_SEQ)) if what in known else None


# The publisher: the ledger's tail on PUB, its history on ROUTER.

log = logging.getLogger(__name__)

#: Events a subscriber may lie behind before it loses some and must ask for them.
HIGH_WATER = 10_000
_SUBSCRIPTIONS = 1_000  # heard in one turn
_LARGEST_BYTES = 1 << 20  # a frame that anybody may send us
_LINGER_MS = 500  # after the end, for what subscribers have not been sent yet
_CLOSED_S = 5.0  # that the address of a socket we have closed may stay taken
_PORTION = 500  # rows read at a time; requests for replay are heard in between


class Publisher(threading.Thread):
    """One thread, two sockets, bound when this returns. ``status`` and ``pulse`` are called from this thread.

    ``allowed`` says who may listen from other machines; who is revoked is hung up on. Raises UserError 78 for an
    address that other machines could reach without it, 69 for one that cannot be bound. ``publish_endpoint`` and
    ``replay_endpoint`` are the addresses in fact, also where port 0 was asked for. ``told``: what can be asked for
    beside decisions -> the notice that says what lies behind a number.
    """

    def __init__(
        self,
        ledger: Path,
        instrument: str,
        *,
        publish: str,
        replay: str,
        status: Callable[[], events.Status] | None = None,
        pulse: Callable[[], Pulse] | None = None,
        counts: Metrics | None = None,
        allowed: Allowed | None = None,
        heartbeat_s: float = 2.0,
        clock: Clock = CLOCK,
        told: Mapping[str, Callable[[int], events.Notice]] | None = None,
    ) -> None:
        super().__init__(name="publisher", daemon=True)
        self._ledger, self._instrument, self._clock = ledger, instrument, clock
        self._status, self._pulse, self._counts, self._heartbeat_s = status, pulse, counts, heartbeat_s
        self._told = {what: partial(self._tell, tell) for what, tell in (told or {}).items()}
        self._notices: deque[events.Notice] = deque(maxlen=1_000)
        self._ear, self._wake = socket.socketpair()
        self._ear.setblocking(False)
        self._wake.setblocking(False)
        self._ending = threading.Event()
        self._heard = 0  # subscriptions come and gone
        with LedgerView(ledger) as view:
            self._stream, self._sent = view.stream, view.last_seq
        self._allowed = allowed
        self._revocations = 0 if allowed is None else allowed.revocations
        self._feed, self._requests = _feed_socket(), _requests_socket()
        try:
            self.publish_endpoint = bind(self._feed, publish, "publish", _LARGEST_BYTES, self._secure())
            self.replay_endpoint = bind(self._requests, replay, "replay", _LARGEST_BYTES, self._secure())
        except UserError:
            self._close()
            raise

    def poke(self) -> None:
        """Something was committed. Costs a microsecond, never waits."""
        with contextlib.suppress(OSError):  # full: it has been poked often enough; closed: it is over
            self._wake.send(b"\0")

    def emit(self, data: events.Notice) -> None:
        """Publish a notice; any thread, never waits."""
        self._notices.append(data)
        self.poke()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Send what is committed, then close; a subscriber that reads nothing is not waited for."""
        self._ending.set()
        self.poke()
        if self.is_alive():
            self.join(timeout_s)
        else:
            self._close()

    def run(self) -> None:
        """Turn until stopped. A turn that fails is told of and tried again: the ledger has lost nothing by it."""
        try:
            while not self._ending.is_set():
                try:
                    if self._has_revoked():
                        self._hang_up()
                    self._follow()
                except Exception as error:
                    log.error("publisher: %s: %s; trying again in 1 s", type(error).__name__, error)
                    self._ending.wait(1.0)
        finally:
            self._close()

    def _follow(self) -> None:
        poller, ear = zmq.Poller(), self._ear.fileno()
        for readable in (self._feed, self._requests, ear):
            poller.register(readable, zmq.POLLIN)
        with LedgerView(self._ledger) as view:
            count = self._counts.replayed if self._counts else None
            replay = Replay(self._requests, view, self._status_body, count, self._told)
            self._send_notice(self._greeting())
            due_s = 0.0  # the first heartbeat goes out at once
            while not self._ending.is_set() and not self._has_revoked():
                if (left_s := due_s - time.monotonic()) <= 0:
                    self._send_notice(events.Heartbeat(guard=self._pulse() if self._pulse else None))
                    if (status := self._look()) is not None:
                        self._send_notice(status)
                    due_s, left_s = time.monotonic() + self._heartbeat_s, self._heartbeat_s
                    if self._heard > 10 * _SUBSCRIPTIONS:  # a flood of them has come, or gone again
                        self._heard = 0
                        give_memory_back()
                ready = dict(poller.poll(0 if replay.is_busy else int(left_s * 1000) + 1))
                if ear in ready:
                    self._ear.recv(4096)
                self._send_tail(view)
                if self._feed in ready and self._has_joined():
                    self._send_notice(self._greeting())
                if self._requests in ready or replay.is_busy:
                    replay.answer()
            self._send_tail(view)

    def _send_tail(self, view: LedgerView) -> None:
        """What was committed since the last look, then what was emitted before it.

        Decisions wait while the ledger cannot be read, or lies in files that have lost their names.
        """
        notices = [self._notices.popleft() for _ in range(len(self._notices))]
        try:
            while (rows := view.since(self._sent, _PORTION)) and view.is_in_place():
                for row in rows:
                    self._feed.send_multipart([events.topic(self._instrument, "decision", row.verdict), row.body])
                self._sent = rows[-1].seq
                self._count("decision", len(rows))
        except UserError as error:  # told by the ledger's own health; notices, that one too, must go out
            log.debug("nothing is announced: %s", error)
        for data in notices:
            self._send_notice(data)

    def _send_notice(self, data: events.Notice) -> None:
        kind = events.kind_of_notice(data)
        self._feed.send_multipart([events.topic(self._instrument, kind), wire.encode(self._notice(data))])
        self._count(kind)

    def _notice(self, data: events.Notice) -> events.NoticeEvent:
        return events.notice(
            data,
            instrument=self._instrument,
            stream=self._stream,
            last_seq=self._sent,
            wall_s=self._clock.wall_s(),
        )

    def _status_body(self) -> bytes:
        status = self._look()
        return b"" if status is None else wire.encode(self._notice(status))

    def _tell(self, tell: Callable[[int], events.Notice], number: int) -> bytes:
        return wire.encode(self._notice(tell(number)))

    def _look(self) -> events.Status | None:
        """How the service is; None when that cannot be said, which must not keep decisions back."""
        try:
            return None if self._status is None else self._status()
        except Exception as error:
            log.warning("the status could not be told: %s: %s", type(error).__name__, error)
            return None

    def _greeting(self) -> events.Hello:
        return events.Hello(version=__version__, replay=self.replay_endpoint)

    def _has_joined(self) -> bool:
        """Whether somebody subscribed. XPUB shows it, so nobody has to guess when to ask for the history."""
        joined = False
        with contextlib.suppress(zmq.Again):
            for _ in range(_SUBSCRIPTIONS):
                joined |= self._feed.recv(zmq.DONTWAIT)[:1] == b"\x01"
                self._heard += 1
        return joined

    def _count(self, kind: str, times: int = 1) -> None:
        if self._counts is not None:
            self._counts.published(kind, times)

    def _secure(self) -> Secure | None:
        return None if self._allowed is None else self._allowed.secure

    def _has_revoked(self) -> bool:
        """Whether somebody may be connected who was let in once, and may listen no more."""
        return self._allowed is not None and self._allowed.revocations != self._revocations

    def _hang_up(self) -> None:
        """On everybody from other machines: who may still listen comes back by itself, and asks for what it missed."""
        revocations = self._allowed.revocations if self._allowed is not None else 0
        if not Endpoint.parse(self.publish_endpoint).is_local:
            self._feed.close(linger=0)
            self._feed = _feed_socket()
            bind(self._feed, self.publish_endpoint, "publish", _LARGEST_BYTES, self._secure(), _CLOSED_S)
        if not Endpoint.parse(self.replay_endpoint).is_local:
            self._requests.close(linger=0)
            self._requests = _requests_socket()
            bind(self._requests, self.replay_endpoint, "replay", _LARGEST_BYTES, self._secure(), _CLOSED_S)
        self._revocations = revocations

    def _close(self) -> None:
        self._feed.close()
        self._requests.close()
        self._ear.close()
        self._wake.close()


def _feed_socket() -> zmq.Socket[bytes]:
    feed = open_socket(zmq.XPUB, _LINGER_MS)
    feed.set_hwm(HIGH_WATER)
    feed.setsockopt(zmq.XPUB_VERBOSE, 1)  # every subscription shows, not only the first of its kind
    return feed


def _requests_socket() -> zmq.Socket[bytes]:
    requests = open_socket(zmq.ROUTER, _LINGER_MS)
    requests.setsockopt(zmq.SNDHWM, _ANSWERS_WAITING)
    return requests
