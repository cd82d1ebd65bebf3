"""The cut as the page sees it: what the answers so far would move, what to look at before, and the move itself.

What the adaptation counts takes a second, so it is counted beside the requests: after a confirmed event, which may
also take a cut back, and when somebody opens the page of the cut.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from daemon.common.errors import BAD_DATA, UserError
from daemon.common.text import clean, many
from daemon.judging import Thresholds
from daemon.judging.registry import Registry
from daemon.review.desk import Desk, Held, told
from daemon.review.queues import Aims
from daemon.review.request import Refused
from models.bundle import BadBundle

if TYPE_CHECKING:
    from daemon.judging.judge import InForce
    from daemon.learn.adaptation import Proposal

log = logging.getLogger(__name__)

_HOLDS_S = 3.0


class Cutting(threading.Thread):
    """Methods may be called from any thread. ``close`` ends it; a count that is under way is left.

    It starts when there is something to see to: what it counts with takes seconds to load.
    """

    def __init__(self, desk: Desk) -> None:
        super().__init__(name="cut", daemon=True)
        self._desk, self._registry = desk, Registry(desk.config.state / "models")
        self._wanted, self._is_over, self._is_watched = threading.Event(), False, False
        self._starting = threading.Lock()
        self._proposal = Held(self._propose, _HOLDS_S)
        self._taken_back = ""  # of the last audit that took a cut back, one sentence
        self._in_force: tuple[object, InForce | None] = (None, None)

    def open(self) -> None:
        """A person has opened the page, who wants to know what the events so far allow."""
        self._is_watched = True
        self._see_to_it()

    def rests_on(self, ids: Iterable[str]) -> bool:
        """Whether the cut, or what would move it, was counted with one of these decisions as an event."""
        proposal = self._proposal.peek()
        numbers = {id.rpartition(":")[2] for id in ids}
        return proposal is not None and any(str(one) in numbers for one in (*proposal.confirmed, *proposal.withdrawn))

    def look_again(self) -> None:
        """What is an event changed: see whether a raised cut holds, and tell whoever watches what the events allow."""
        self._proposal.forget()
        if self._is_watched or self._registry.stamp() is not None:
            self._see_to_it()

    def _see_to_it(self) -> None:
        self._wanted.set()
        with self._starting:
            if self.ident is None:
                self.start()

    def close(self) -> None:
        self._is_over = True
        self._wanted.set()

    def run(self) -> None:
        from daemon.learn.adaptation import audit

        while True:
            self._wanted.wait(3600.0)
            self._wanted.clear()
            if self._is_over:
                return
            try:
                if (taken := audit(self._desk.config, by="review page")) is not None:
                    self._taken_back = taken.text
                if self._is_watched:
                    self._proposal.renew()
            except (UserError, Refused, OSError) as error:
                log.warning("the cut: %s", error)

    def proposal(self) -> dict[str, Any]:
        """What the adaptation would do now, ready for JSON. Raises Refused 503."""
        with told():
            proposal = self._proposal.value()
        ids = [event["id"] for event in self._desk.events(proposal.look_first)]
        return {**asdict(proposal), "moves": proposal.moves, "look_first_ids": ids, "taken_back": self._taken_back}

    def accept(self, by: str) -> dict[str, Any]:
        """Move the cut. Raises Refused 409 where the curves to look at first wait, or something else is in the way."""
        from daemon.learn.adaptation import accept

        with told():
            proposal = self._proposal.renew()
        if not proposal.moves:
            raise Refused(409, proposal.missing[0] if proposal.missing else "the cut is in force already")
        if proposal.look_first:
            are = "is" if len(proposal.look_first) == 1 else "are"
            left = many(len(proposal.look_first), "curve")
            raise Refused(409, f"{left} between the old and the new cut {are} to be looked at first")
        try:
            promotion = accept(self._desk.config, proposal, by)
        except UserError as error:
            raise Refused(409 if error.exit_code == BAD_DATA else 503, str(error)) from None
        except OSError as error:
            raise Refused(503, f"the state takes no model: {error.strerror}") from None
        self.look_again()
        return {"name": promotion.name, "id": promotion.id, "group": promotion.group, "old": proposal.old,
                "new": proposal.new}  # fmt: skip

    def aims(self) -> Aims:
        """What the cut wants looked at, as far as that is known already."""
        proposal = self._proposal.peek()
        return replace(self.serving(), first=() if proposal is None else proposal.look_first)

    def serving(self) -> Aims:
        """What judges the next curve, and the band of its cut.

        By the registry and the configuration; by the last decision where the service has thresholds that this page was
        not told of, or no model can be read.
        """
        view, config = self._desk.ledger, self._desk.config
        with told():
            last = view.last(1)
        data = last[0]["data"] if last else {}
        now = self._served_now()
        is_untold = config.file is None and config.thresholds.discard is None
        if data and (now is None or (is_untold and data.get("cut", {}).get("origin") == "configured")):
            return Aims(serving=(str(data["pipeline"]), Thresholds(**data["thresholds"])))
        return Aims() if now is None else Aims(band=now.band, serving=(now.pipeline, now.thresholds))

    def effect(self) -> list[str]:
        """In words, what the answers so far do to the cut, and what more would; empty while nothing is known."""
        proposal = self._proposal.peek()
        said = [self._taken_back] if self._taken_back else []
        if proposal is not None:
            from daemon.learn.adaptation import next_rung_of, withdrawn_of

            if proposal.withdrawn:
                said.append(withdrawn_of(proposal))
            said += proposal.sentences[:1]
            if proposal.rung == "provisional":
                said.append(next_rung_of(proposal))
        return [clean(one) for one in said]

    def needed(self) -> int:
        """How many more confirmed events the next rung of the ladder needs, as far as that is known already."""
        proposal = self._proposal.peek()
        return 0 if proposal is None else proposal.needed

    def _propose(self) -> Proposal:
        from daemon.learn.adaptation import propose

        return propose(self._desk.config)

    def _served_now(self) -> InForce | None:
        """Read anew where the registry, or the model that the last service was configured with, has changed."""
        config = self._desk.config
        key = (self._registry.stamp(), self._registry.base_name())
        if key != self._in_force[0]:
            from daemon.judging.judge import in_force

            found = None
            try:
                found = in_force(config)
            except (BadBundle, OSError) as error:
                log.warning("what serves: %s", error)
            self._in_force = (key, found)
        return self._in_force[1]
