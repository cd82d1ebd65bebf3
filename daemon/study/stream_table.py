"""The rare streams as text for a terminal, beside what was published and what is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daemon.common.text import align

RECALL_BAR, REVIEW_BAR = 0.98, 0.033
_PUBLISHED = "published (arXiv 2606.09541, one stream): recall 12/13, not discarded 9.2 %"


def write_text(report: Mapping[str, Any]) -> str:
    """The whole study; ``report`` is what ``--out`` writes."""
    limits, drawn = report["thresholds"], report["simulated"]
    twice = f"event-free curves drawn again and again from {report['pool']}" if report["pool"] else "no curve twice"
    lines = [
        f"{report['model']} by {report['engine']}: discard at {limits['discard']:.4g}, keep from {limits['keep']:.4g}",
        f"{report['streams']} simulated streams of 13 events among 970 (seed {report['seed']}; {twice})",
        "",
        *_mixes(drawn["mixes"]),
        _PUBLISHED,
        "",
        f"events not discarded: {_share(drawn['recall'])}",
        *(
            f"event-free curves left to a person, {name}: {_share(one['review'])}"
            for name, one in drawn["event_free"].items()
        ),
        f"by a reason and not by their score: {_lifted(drawn)}",
        *(_ranking(recall, cut) for recall, cut in drawn["ranking"].items()),
        "",
        "simulated events",
        *_kinds(drawn["event_kinds"], "discard"),
        "",
        "simulated event-free curves",
        *_kinds(drawn["event_free_kinds"], "review"),
    ]
    if report["real"]:
        lines += ["", *_real(report["real"], report["streams"], report["least"])]
    return "\n".join(lines)


def _mixes(mixes: Mapping[str, Mapping[str, float]]) -> list[str]:
    head = ("event-free curves", *_HEAD, f"bar: recall {RECALL_BAR:g}, {REVIEW_BAR:.1%} left")
    return align([head, *((name, *_figures(one), _bar(one)) for name, one in mixes.items())])


_HEAD = ("mean recall", "worst stream", "without a miss", "left to a person", "worst stream", "kept", "not discarded")


def _figures(one: Mapping[str, float]) -> tuple[str, ...]:
    return (
        f"{one['recall']:.4f}",
        f"{round(one['recall_worst'] * 13)}/13",
        f"{one['streams_without_miss']:.1%}",
        f"{one['review']:.2%}",
        f"{one['review_worst']:.2%}",
        f"{one['kept']:.2%}",
        f"{one['not_discarded']:.2%}",
    )


def _bar(one: Mapping[str, float]) -> str:
    words = {True: "reached", False: "missed"}
    return f"{words[one['recall'] >= RECALL_BAR]}, {words[one['review'] <= REVIEW_BAR]}"


def _lifted(drawn: Mapping[str, Any]) -> str:
    """Of all simulated event-free curves: what no other threshold would change."""
    total = drawn["event_free"]["all"]["review"]["of"]
    return ", ".join(f"{reason} {count / total:.2%}" for reason, count in drawn["lifted"].items()) or "none"


def _ranking(recall: str, cut: Mapping[str, float]) -> str:
    """Chosen on the very curves it is told of, so a bound on what thresholds can do and no promise."""
    return (
        f"by ranking alone, a discard threshold of {cut['discard']:.4g} would save {float(recall):.1%} of these events "
        f"and discard {cut['discarded']:.1%} of the event-free, as simulated"
    )


def _kinds(kinds: Mapping[str, Mapping[str, Any]], told: str) -> list[str]:
    head = ("kind", "curves", "kept", "review", "discarded", f"{told} [exact 95 %]")
    rows = [
        (
            kind,
            str(one["keep"]["of"]),
            *(f"{one[v]['share']:.2%}" for v in ("keep", "review", "discard")),
            _share(one[told]),
        )
        for kind, one in kinds.items()
    ]
    return align([head, *rows])


def _real(groups: Mapping[str, Mapping[str, Any]], streams: int, least: int) -> list[str]:
    head = ("system", *_HEAD, "events not discarded", "event-free left to a person")
    rows = [
        (name, *_figures(one["streams"]), _share(one["recall"]), _share(one["review"])) for name, one in groups.items()
    ]
    note = [
        f"real curves: {streams} streams of 13 among 970 of each system with {least} of both kinds, and of all",
        "together. Labelled curves are few, so a stream repeats them many times: the intervals are of the distinct",
        "curves. The mix of event-free curves is that of the files, where hard ones are more common than in a run.",
    ]
    return [*note, *align([head, *rows])]


def _share(one: Mapping[str, Any]) -> str:
    low, high = one["interval"]
    return f"{one['hits']}/{one['of']} = {one['share']:.2%} [{low:.2%}, {high:.2%}]"
