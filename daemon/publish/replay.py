"""The replay: what was decided, for whoever was not listening.

Request ``["since", SEQ]``: the stored bodies with a greater ``seq``, at most 5,000, in order; one empty frame when
there are none. Request ``["status"]``: the status event as it is now. DEALER and REQ both work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import zmq

from daemon import events
from daemon.errors import UserError
from daemon.ledger.view import LedgerView

log = logging.getLogger(__name__)

_HELP = events.encode({"error": 'a request is ["since", SEQ] or ["status"]'})
_LARGEST_SEQ = 2**63 - 1


class Replay:
    """Answers one request a call, so that the live feed goes on in between."""

    def __init__(
        self,
        router: zmq.Socket[bytes],
        view: LedgerView,
        status_body: Callable[[], bytes],
        count: Callable[[str], None] | None = None,
    ) -> None:
        self._router, self._view, self._status_body, self._count = router, view, status_body, count

    def answer(self) -> None:
        """Take one request and answer it; what makes no sense is counted and told so."""
        envelope, request = _open(self._router.recv_multipart(zmq.DONTWAIT))
        outcome, bodies = self._bodies(request)
        if self._count is not None:
            self._count(outcome)
        if bodies:  # a peer that has gone, or that does not read, is dropped by ROUTER itself
            self._router.send_multipart(envelope + bodies, zmq.DONTWAIT)

    def _bodies(self, request: list[bytes]) -> tuple[str, list[bytes]]:
        if request == [b"status"]:
            return "status", [self._status_body()]
        seq = _seq(request)
        if seq is None:
            return "malformed", [_HELP]
        try:
            bodies = [body for _, body in self._view.bodies_since(seq)]
        except UserError as error:  # no answer: "none" would be a lie, and the client asks again
            log.error("replay since %d: %s", seq, error)
            return "damaged", []
        return "since", bodies or [b""]


def _open(frames: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Envelope and request: REQ puts an empty frame between them, DEALER may."""
    cut = 2 if frames[1:2] == [b""] else 1
    return frames[:cut], frames[cut:]


def _seq(request: list[bytes]) -> int | None:
    if len(request) != 2 or request[0] != b"since" or not request[1].isdigit() or len(request[1]) > 19:
        return None
    return min(int(request[1]), _LARGEST_SEQ)
