"""`notify --test`: a message to the person whom `[notify]` names, on the way that an alarm takes."""

from __future__ import annotations

import socket
import uuid
from dataclasses import dataclass
from typing import Annotated

from daemon.client import status
from daemon.common.errors import BAD_CONFIG, UNREACHABLE, USAGE, UserError
from daemon.common.options import Option
from daemon.common.text import clean
from daemon.config import Flags, Keys, load
from daemon.notify.channels import Message, channels_of, deliver


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    service: Annotated[Flags, Keys("state", "instrument")]
    test: Annotated[bool, Option("send one now, by every channel of [notify], and say what came of it")] = False


def run(options: Options) -> int:
    """Exit 0 where every channel has taken it, 69 where one has not, 78 where `[notify]` names nobody."""
    if not options.test:
        raise UserError(USAGE, "say --test: the service itself sends alarms, as [notify] in its configuration says")
    config = load(options.service)
    channels = channels_of(config.notify)
    if not channels:
        told = status.gather(config).get("messages")
        names = f"{config.file or 'no --config, and so'}: [notify] names nobody"
        if told:
            to = ", ".join(told.get("to") or ())
            how = f"the running {config.instrument} tells {to}: give the --config that it was started with"
            raise UserError(BAD_CONFIG, clean(f"{names}; {how}"))
        raise UserError(BAD_CONFIG, f"{names}; {HOW}")
    title = f"afm-triage {config.instrument}: a test"
    text = (
        f"Sent by hand on {socket.gethostname()}. An alarm of {config.instrument} would take the same way;"
        " nothing is wrong."
    )
    message = Message(uuid.uuid4().hex, title, text, "ok")
    results = deliver(config.notify, dict.fromkeys(channels, message), config.state)
    for name, result in results.items():
        mark, more = "✓" if result.is_sent else "✗", f": {result.text}" if result.text else ""
        print(clean(f"{mark} {channels[name]}{more}"))
    if missing := [name for name, result in results.items() if not result.is_sent]:
        said = "; ".join(f"{name}: {results[name].text}" for name in missing)
        raise UserError(UNREACHABLE, f"an alarm would not arrive: {said}")
    print("taken by every channel; look whether it has come")
    return 0


HOW = (
    'write to = ["you@example.org"] and smtp_host = "…", or ntfy = "https://…/TOPIC", or webhook = "https://…" into it'
)
