"""The status: how the service is, from its own answer; when it is down, what its ledger knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daemon.config import Config
from daemon.errors import UserError
from daemon.inquiry import ask_status
from daemon.ledgerview import LedgerView
from daemon.whereabouts import Whereabouts, find

#: Flagged curves that one screen names; the review page shows all of them.
SHOWN_FLAGGED = 5


def gather(config: Config) -> dict[str, Any]:
    """``running`` and, when it is, everything of the status event; ``ledger`` and ``flagged`` from the disk."""
    where = find(config)
    ledger = _read_ledger(config)
    event = ask_status(where.replay)
    data = dict(event["data"]) if event and _is_ours(event, config, ledger) else {}
    flagged = ledger.pop("flagged") if ledger else []
    report = {"running": bool(data), "instrument": config.instrument, "state_dir": str(config.state)}
    if data:  # where it speaks in fact, also when it was told to take any free port
        data |= {"publish": where.publish, "replay": where.replay}
    return report | data | {"ledger": ledger, "flagged": flagged, "note": "" if data else _absence(where, config)}


def is_well(report: Mapping[str, Any]) -> bool:
    """Running, and nothing to worry about."""
    return bool(report["running"]) and report.get("state", "ready") in ("ready", "starting")


def _is_ours(event: Mapping[str, Any], config: Config, ledger: Mapping[str, Any] | None) -> bool:
    """Another instrument's service may answer at the default address."""
    if "instrument" in config.origins and event["data"].get("instrument") != config.instrument:
        return False
    return ledger is None or ledger["stream"] == event.get("stream")


def _absence(where: Whereabouts, config: Config) -> str:
    if where.pid is None:
        return f"no service has been started on {config.state}, or it was stopped; start it with: afm-triage run"
    if where.is_alive:
        return f"process {where.pid} is there but does not answer at {where.replay}; its log says more"
    return f"it ran as process {where.pid} and has gone without stopping in order; start it again, nothing is lost"


def _read_ledger(config: Config) -> dict[str, Any] | None:
    try:
        with LedgerView(config.state / "ledger.sqlite") as view:
            last = view.last(1)
            flagged = view.queue(limit=SHOWN_FLAGGED)
            return {
                "path": str(view.path),
                "stream": view.stream,
                "last_seq": view.last_seq,
                "counts": view.verdict_counts(),
                "review_queue": view.review_count(),
                "last_decision": {"time": last[0]["time"], **_brief(last[0]["data"])} if last else None,
                "flagged": [
                    {"seq": one.seq, "time": one.time, **_brief({name: getattr(one, name) for name in _BRIEF})}
                    for one in flagged
                ],
            }
    except UserError:
        return None


_BRIEF = ("path", "curve", "score", "reasons")


def _brief(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in ("verdict", *_BRIEF) if name in data}
