"""Messages to a person: what is worth one, when it goes out, and that it arrives.

A fault that comes and goes a thousand times in a night is one story, and told in three messages: that it began, that it
goes on, that it is over. So what is told is a *kind* of condition (``source`` of all watched folders together): the
first fault at once, more of the kind after a cool-down and in one message, the last message of a night is kept for the
end. Whatever falls within some seconds goes out together.

The rules cost the loop of the service a dictionary; everything slow is done on a thread of its own, and sending in a
process of its own (:mod:`daemon.notify.channels`). What has not arrived is kept in the state folder and tried again,
also after a restart; what waited together arrives as one message.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from daemon.common.text import clean, duration, first_line, many
from daemon.config.rule import NotifyConfig
from daemon.ledger.events import Level, Messages
from daemon.ledger.numbers import ADVICE
from daemon.notify.channels import Message, Result, channels_of, deliver, noted
from models.clock import CLOCK, Clock, minute_of, night_of, rfc3339
from models.files import write_whole

log = logging.getLogger(__name__)

#: What is still to be sent, and what was told this night, in the state folder.
OUTBOX = "notify.json"
#: The condition that says that a message does not arrive: no message is sent about it.
OWN = "messages"
#: And the one that the service cannot tell itself: systemd has `notify --failed` say it.
DOWN = "service down"
#: What comes within so long goes out together; and after a message, when a fault often brings others with it.
GATHER_S, GATHER_AFTER_S = 3.0, 40.0
#: A fault is over when it has not come back for so long; one that came back, for a cool-down.
SETTLED_S = 60.0
#: A message that did not arrive is tried again after so long; then ever more rarely.
RETRY_S = (15.0, 30.0, 60.0, 120.0, 300.0)
#: A message that has not arrived for so long is a trouble of its own.
LATE_S = 60.0
_MOST_WAITING, _MOST_NAMED, _LOOK_S, _GONE_S = 20, 6, 0.5, 1.0
#: Names of conditions whose further words say which one: a folder, a format.
_MANY = frozenset({"source", "silence", "folder", "orientation", "disk"})
#: By kind of condition, what whoever reads the message can do first.
DEEDS: Mapping[str, str] = {
    "source": "is the instrument's computer on, and its share still mounted?",
    DOWN: "look with: systemctl status 'afm-triage@*' (what its last words name, then systemctl restart)",
    "silence": "does the instrument still measure, and write into the watched folder?",
    "disk": "make room on the disk of the state folder",
    "clock": "set the clock of the computer that runs afm-triage",
    "tip": "look at the last curves before you go on with this tip",
}
_GRAVITY = {"ok": 0, "advice": 1, "degraded": 2, "alarm": 3}


def kind_of(name: str) -> str:
    """``source`` of ``source /data/afm1``, ``tip`` of ``advice tip``."""
    plain = name.removeprefix(ADVICE)
    first = plain.partition(" ")[0]
    return first if first in _MANY else plain


@dataclass(frozen=True, slots=True)
class Fault:
    """A condition as it was last heard of. ``since`` is UTC, RFC 3339."""

    name: str
    level: Level
    text: str
    since: str
    is_advice: bool = False


@dataclass(slots=True)
class _Kind:
    """What is known and told of one kind; times are seconds since 1970."""

    open: dict[str, Fault] = field(default_factory=dict)  # by name, what stands now
    last: Fault | None = None  # the last that came
    untold: int = 0  # faults that came since the last message
    untold_s: float = 0.0  # when the first of them came
    is_told: bool = False  # that it began, and not that it is over
    came_back: bool = False  # since it was told
    quiet_s: float = 0.0  # since when nothing stands
    sent: int = 0  # messages this night
    sent_s: float = 0.0  # the last of them


class Rules:
    """What is told, and when. For one thread; ``hear`` and ``letter`` take the time, in seconds since 1970."""

    def __init__(self, config: NotifyConfig) -> None:
        self.config, self.held = config, 0
        self._kinds: dict[str, _Kind] = {}
        self._night, self._sent_s, self._seen_s = "", 0.0, 0.0

    def hear(self, fault: Fault, now_s: float) -> None:
        """A condition has come to a level."""
        kind = self._kinds.setdefault(kind_of(fault.name), _Kind())
        if fault.level != "ok" and self._is_wanted(fault):
            before = kind.open.get(fault.name)
            kind.open[fault.name] = kind.last = fault
            if before is not None and (before.since == fault.since or _GRAVITY[fault.level] <= _GRAVITY[before.level]):
                return
            kind.untold_s = kind.untold_s if kind.untold else now_s
            kind.untold += 1
            kind.came_back = kind.came_back or kind.is_told
        elif kind.open.pop(fault.name, None) is not None and not kind.open:
            kind.quiet_s = now_s

    def letter(self, now_s: float, about: str = "", instrument: str = "") -> Message | None:
        """What is due, as one message. ``about`` stands below: how the night is; ``instrument`` before all."""
        self._turn(now_s)
        begun = {name: kind for name, kind in self._kinds.items() if self._is_due(kind, now_s)}
        over = {name: kind for name, kind in self._kinds.items() if name not in begun and self._is_over(kind, now_s)}
        gather_s = GATHER_AFTER_S if now_s - self._sent_s < self.config.cool_down_s else GATHER_S
        waits_s = min([kind.untold_s for kind in begun.values()], default=0.0) + gather_s
        if not (begun or over) or (begun and now_s < waits_s):
            return None
        parts = [_begun(name, kind) for name, kind in begun.items()] + [
            _over(name, kind) for name, kind in over.items()
        ]
        levels = [fault.level for kind in begun.values() if (fault := kind.last)]
        level: Level = max(levels, key=_GRAVITY.__getitem__, default="ok")
        for kind in begun.values():
            kind.is_told = bool(kind.open) or kind.untold > 1 or kind.came_back
            kind.untold = 0
        for kind in over.values():
            kind.is_told = kind.came_back = False
        for kind in (*begun.values(), *over.values()):
            kind.sent, kind.sent_s = kind.sent + 1, now_s
        self._sent_s = now_s
        ends = [name for name in (*begun, *over) if self._kinds[name].sent >= self.config.most_a_night]
        parts += [f"No more messages about {', '.join(ends)} before noon."] if ends else []
        title = clean(f"{instrument} {_title(begun, over)}".strip())
        foot = _foot(instrument, begun)
        return Message(uuid.uuid4().hex, title, "\n".join([*parts, "", *foot, about]).strip(), level)

    def gathers(self, now_s: float) -> bool:
        """Whether there is something to tell, which waits for what may come with it."""
        return any(self._is_due(kind, now_s) for kind in self._kinds.values())

    def state(self) -> dict[str, Any]:
        """What is to be remembered over a restart, ready for JSON."""
        names = ("is_told", "came_back", "sent", "sent_s")
        told = {name: {one: getattr(kind, one) for one in names} for name, kind in self._kinds.items() if kind.sent}
        return {"night": self._night, "sent_s": self._sent_s, "kinds": told}

    def restore(self, state: Mapping[str, Any], now_s: float) -> None:
        """What stood when the service ended is heard of again, or is over. Raises KeyError, TypeError, ValueError."""
        self._night, self._sent_s = str(state["night"]), float(state["sent_s"])
        for name, told in state["kinds"].items():
            self._kinds[name] = _Kind(**told, quiet_s=now_s)

    def _is_wanted(self, fault: Fault) -> bool:
        level = "advice" if fault.is_advice and fault.level != "alarm" else fault.level
        kinds = self.config.kinds
        is_grave = _GRAVITY[level] >= _GRAVITY[self.config.level]
        return is_grave and fault.name != OWN and (not kinds or kind_of(fault.name) in kinds)

    def _is_due(self, kind: _Kind, now_s: float) -> bool:
        """That something began; while it stands as told, the last message is kept for the end."""
        most = self.config.most_a_night
        room = kind.sent < (max(most - 1, 1) if kind.is_told else most)
        is_cool = not kind.sent or now_s - kind.sent_s >= self.config.cool_down_s
        return kind.untold > 0 and room and is_cool

    def _is_over(self, kind: _Kind, now_s: float) -> bool:
        settled_s = max(SETTLED_S, self.config.cool_down_s) if kind.came_back else SETTLED_S
        is_quiet = not kind.open and now_s - kind.quiet_s >= settled_s
        return kind.is_told and is_quiet and kind.sent < self.config.most_a_night

    def _turn(self, now_s: float) -> None:
        """At noon the messages are counted anew; what came and went in a night that is over is told no more.

        Where the clock was set back, nothing waits for the time that it told before.
        """
        if now_s < self._seen_s:
            self._sent_s = min(self._sent_s, now_s)
            for kind in self._kinds.values():
                kind.untold_s, kind.quiet_s = min(kind.untold_s, now_s), min(kind.quiet_s, now_s)
                kind.sent_s = min(kind.sent_s, now_s)
        self._seen_s = now_s
        night = night_of(now_s)
        if night == self._night:
            return
        self._night = night
        for kind in self._kinds.values():
            kind.sent = 0
            if not kind.open and kind.untold:
                self.held += kind.untold
                kind.untold, kind.is_told, kind.came_back = 0, False, False


def _title(begun: Mapping[str, _Kind], over: Mapping[str, _Kind]) -> str:
    if begun:
        ((first, kind), *rest) = begun.items()
        text = "" if kind.last is None else kind.last.text
        more = f" (and {', '.join(name for name, _ in rest)})" if rest else ""
        return clean(f"▲ {first}: {text[:80]}{'…' if len(text) > 80 else ''}{more}")
    return clean(f"over: {', '.join(over)}")


def _begun(name: str, kind: _Kind) -> str:
    """What stands, each on a line; and how often it came, where that is more."""
    shown = list(kind.open.values()) or ([kind.last] if kind.last else [])
    lines = [clean(f"▲ {one.name}, since {minute_of(one.since)}: {one.text}") for one in shown[:_MOST_NAMED]]
    if len(shown) > _MOST_NAMED:
        lines.append(f"  and {len(shown) - _MOST_NAMED:,} more like it")
    if kind.untold > max(len(shown), 1):
        last = rfc3339(kind.untold_s, "seconds")
        lines.append(f"  {name} came {kind.untold:,} times since {minute_of(last)}")
    if not kind.open:
        lines.append("  and is over again, for now")
    return "\n".join(lines)


def _foot(instrument: str, begun: Mapping[str, _Kind]) -> list[str]:
    """What to do first, and where more is said."""
    deeds = [DEEDS[name] for name, kind in begun.items() if kind.open and name in DEEDS]
    where = f"instrument {instrument}, on {socket.gethostname()}: `afm-triage status` there says what stands now"
    return [*(f"What to do: {deed}" for deed in deeds), *([clean(where)] if instrument else [])]


def _over(name: str, kind: _Kind) -> str:
    quiet = minute_of(rfc3339(kind.quiet_s, "seconds"))
    what = "" if kind.last is None else f" ({kind.last.text})"
    more = f"; it had come {kind.untold:,} times more" if kind.untold else ""
    kind.untold = 0
    return clean(f"✓ {name} is over since {quiet}{what}{more}")


@dataclass(frozen=True, slots=True)
class _Letter:
    """A message on its way; ``left``: the channels that it has not reached."""

    message: Message
    made_s: float
    left: tuple[str, ...]


class Notifier(threading.Thread):
    """Sends what the rules want, of ``instrument``. ``hear``, ``adopt`` and ``status`` are anybody's and never wait.

    ``about`` says how the night is, for the foot of a message; ``count`` is told what became of messages: ``sent``,
    ``failed`` (a try on one channel) or ``held`` (faults that were told in no message).
    """

    def __init__(
        self,
        config: NotifyConfig,
        state: Path,
        *,
        instrument: str = "",
        about: Callable[[], str] = str,
        count: Callable[[str, int], None] = lambda result, times: None,
        clock: Clock = CLOCK,
    ) -> None:
        super().__init__(name="notify", daemon=True)
        self._state, self._about, self._count, self._clock = state, about, count, clock
        self._instrument = instrument
        self._lock, self._ending, self._news = threading.Lock(), threading.Event(), threading.Event()
        self._rules = Rules(config)
        self._outbox: list[_Letter] = []
        self._tries, self._due_s, self._why = 0, 0.0, ""
        self._saved = ""
        self._restore()

    def hear(self, name: str, level: Level, text: str, since: str, *, is_advice: bool = False) -> None:
        """A condition of the service has come to this level. ``since``: UTC, RFC 3339."""
        with self._lock:
            self._rules.hear(Fault(name, level, text, since, is_advice), self._clock.wall_s())
        self._news.set()

    def gathers(self) -> bool:
        """Whether a message will be made within seconds."""
        with self._lock:
            return self._rules.gathers(self._clock.wall_s())

    def adopt(self, config: NotifyConfig) -> None:
        """The configuration was read anew; what waits goes by the new one."""
        with self._lock:
            self._rules.config = config
            names = tuple(channels_of(config))
            kept = [replace(one, left=tuple(name for name in one.left if name in names)) for one in self._outbox]
            self._outbox = [one for one in kept if one.left]
            self._tries, self._due_s = 0, 0.0
        self._news.set()

    def status(self) -> Messages | None:
        """None where nobody is to be told."""
        with self._lock:
            config, waiting, trouble = self._rules.config, len(self._outbox), self.trouble
        if not config.is_on:
            return None
        to = tuple(str(one) for one in channels_of(config).values())
        arrived = [one["time"] for one in noted(self._state).values() if one.get("is_sent")]
        return Messages(to=to, waiting=waiting, last_arrived=max(arrived, default=None), trouble=trouble)

    @property
    def trouble(self) -> str:
        """Why a message does not arrive, "" while all is well."""
        oldest_s = min((one.made_s for one in self._outbox), default=None)
        if oldest_s is None or not self._why or self._clock.wall_s() - oldest_s < LATE_S:
            return ""
        waits = many(len(self._outbox), "message")
        return f"{waits} to a person not arrived since {minute_of(rfc3339(oldest_s, 'seconds'))}: {self._why}"

    def run(self) -> None:
        while not self._ending.is_set():
            self._news.wait(_LOOK_S)
            self._news.clear()
            try:
                self.step()
            except Exception as error:  # whatever it is: the next look may go better, and no curve waits for it
                log.exception("a message to a person")
                self._why = first_line(error)
                self._ending.wait(RETRY_S[0])

    def stop(self) -> None:
        """What waits stays in the state folder."""
        self._ending.set()
        self._news.set()
        if self.is_alive():
            self.join(_GONE_S)

    def step(self) -> None:
        """Write what is due, and send what waits and may be tried."""
        now_s = self._clock.wall_s()
        with self._lock:
            if not self._rules.config.is_on:
                self._outbox.clear()
                return
            message = self._rules.letter(now_s, self._about(), self._instrument)
            if message is not None:
                self._outbox.append(_Letter(message, now_s, tuple(channels_of(self._rules.config))))
                self._due_s = 0.0
            while len(self._outbox) > _MOST_WAITING:
                self._outbox.pop(1)  # the first says when it began, the last what is so now
                self._count("held", 1)
            held, self._rules.held = self._rules.held, 0
            config, waiting = self._rules.config, tuple(self._outbox)
        if held:
            self._count("held", held)
        if message is not None:
            log.info("a message to a person: %s", message.title)
            self._save()
        if waiting and self._clock.steady_s() >= self._due_s:
            self._send(config, waiting, now_s)
            self._save()

    def _send(self, config: NotifyConfig, waiting: tuple[_Letter, ...], now_s: float) -> None:
        wanted = {name: [one for one in waiting if name in one.left] for name in channels_of(config)}
        messages = {name: _together(letters, now_s) for name, letters in wanted.items() if letters}
        results = deliver(config, messages, self._state)
        arrived = {name for name, result in results.items() if result.is_sent}
        self._count("sent", len(arrived))
        self._count("failed", len(results) - len(arrived))
        with self._lock:
            kept = [
                replace(one, left=tuple(name for name in one.left if name not in arrived)) if one in waiting else one
                for one in self._outbox
            ]
            self._outbox = [one for one in kept if one.left]
            self._why = "; ".join(_failed(name, one) for name, one in results.items() if not one.is_sent)
            pause_s = RETRY_S[min(self._tries, len(RETRY_S) - 1)]
            self._tries = self._tries + 1 if self._why else 0
            self._due_s = self._clock.steady_s() + pause_s if self._why else 0.0
        for name, one in results.items():
            if not one.is_sent or one.text:
                log.warning("a message to a person by %s: %s", name, one.text)

    def _save(self) -> None:
        with self._lock:
            letters = [{**asdict(one), "left": list(one.left)} for one in self._outbox]
            said = json.dumps({**self._rules.state(), "outbox": letters}, indent=1) + "\n"
        if said == self._saved:
            return
        with suppress(OSError):  # a full disk is what the message is about; it goes out all the same
            write_whole(self._state / OUTBOX, said.encode())
            self._saved = said

    def _restore(self) -> None:
        try:
            said = json.loads((self._state / OUTBOX).read_bytes())
            names = channels_of(self._rules.config)
            letters = [
                _Letter(Message(**one["message"]), float(one["made_s"]), tuple(one["left"])) for one in said["outbox"]
            ]
            kept = [replace(one, left=tuple(name for name in one.left if name in names)) for one in letters]
            self._outbox = [one for one in kept if one.left][-_MOST_WAITING:]
            self._rules.restore(said, self._clock.wall_s())
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("what was told last night is not known: %s: %s", self._state / OUTBOX, first_line(error))


def _failed(name: str, result: Result) -> str:
    return f"{name}: {result.text}"


def _together(letters: list[_Letter], now_s: float) -> Message:
    """What waited as one message, the newest first; of one that is late it is said when it was written."""
    newest = letters[-1]
    texts = []
    for one in reversed(letters):
        is_late = now_s - one.made_s > LATE_S or len(letters) > 1
        written = rfc3339(one.made_s, "seconds")
        head = (
            f"Written {minute_of(written)}, {duration(now_s - one.made_s)} ago: {one.message.title}\n"
            if is_late
            else ""
        )
        texts.append(head + one.message.text)
    more = f" (and {many(len(letters) - 1, 'message')} before it)" if len(letters) > 1 else ""
    return replace(newest.message, title=newest.message.title + more, text="\n\n".join(texts))
