"""The summary of a session: what came and what became of it, for who has watched the service in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from daemon.common.text import latency

#: Verdict -> what it says, the one to look at first.
MEANINGS = {
    "keep": "an event, by the model",
    "review": "unsure, or something about the file; a person looks",
    "discard": "nothing there; the file stays where it is",
}


def lines(counts: Mapping[str, int], latency_s: Mapping[str, float | None], model: str, engine: str) -> Iterator[str]:
    """``counts`` of the session, by verdict; ``latency_s``: its median ("p50") and 99th percentile ("p99")."""
    for verdict, meaning in MEANINGS.items():
        yield f"  {verdict:<8} {counts.get(verdict, 0):>4,}   {meaning}"
    median_s, slowest_s = latency_s["p50"], latency_s["p99"]
    if median_s is not None and slowest_s is not None:
        median, slowest = latency(median_s), latency(slowest_s)
        yield f"finished file noticed to verdict on disk: median {median}, 99 % within {slowest}"
    yield f"model {model} on {engine}"
