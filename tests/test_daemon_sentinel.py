"""The sentinel of signs: one hint makes it wary for a while, three of them are told, format by format.

And the second opinion: no more than 2 % of the curves are disputed, whatever comes, and a sudden rise is told.
"""

import random

from guardhelp import judged

from daemon.judging.sentinel import BLOCK, FIRST, LEVEL, MOST, RECENT, WARY, WINDOW, Dispute, Sentinel
from daemon.judging.sentinel import QUIET as QUIET_BLOCKS

HINT, PUSHED, QUIET = ("score", "no_contact", "flipped"), ("score", "flipped"), ("score",)


def feed(sentinel, name, reasons, times=1):
    for _ in range(times):
        sentinel.observe(name, reasons)


def test_a_hint_makes_it_wary_of_its_format_for_a_thousand_curves():
    sentinel = Sentinel()
    feed(sentinel, "jpk", QUIET, 5)
    assert sentinel.wary_of == frozenset()
    feed(sentinel, "jpk", HINT)
    feed(sentinel, "text", QUIET, 2 * WARY)
    assert sentinel.wary_of == {"jpk"}
    feed(sentinel, "jpk", QUIET, WARY - 1)
    assert sentinel.wary_of == {"jpk"}
    feed(sentinel, "jpk", QUIET)
    assert sentinel.wary_of == frozenset()


def test_three_hints_in_two_hundred_are_told_with_a_remedy_until_they_are_past():
    sentinel = Sentinel()
    feed(sentinel, "text", HINT, MOST - 1)
    assert list(sentinel.findings()) == []
    feed(sentinel, "text", HINT)
    ((name, is_well, text),) = sentinel.findings()
    assert (name, is_well) == ("text", False)
    assert text.startswith("3 of 3 text curves in a row look like events when turned upside down")
    assert "[[text]]" in text
    feed(sentinel, "text", QUIET, WINDOW - 2)
    ((name, is_well, text),) = sentinel.findings()
    assert (name, is_well, text.split()[0]) == ("text", True, "2")
    assert sentinel.summary()[0].startswith("3 of 3 text curves")


def test_hints_far_apart_or_of_several_formats_are_none_together():
    sentinel = Sentinel()
    for name in ("jpk", "asylum", "ingest"):
        feed(sentinel, name, HINT, MOST - 1)
    feed(sentinel, "jpk", QUIET, WINDOW)
    feed(sentinel, "jpk", HINT)
    assert list(sentinel.findings()) == []
    assert sentinel.summary() == []


def test_a_push_that_was_found_speaks_for_the_sign_and_what_has_no_format_is_passed_over():
    sentinel = Sentinel()
    feed(sentinel, "jpk", PUSHED, 10)
    feed(sentinel, None, HINT, 10)
    assert sentinel.wary_of == frozenset()
    assert list(sentinel.findings()) == []


def disputed(dispute, steps, is_discard=True):
    return [dispute.observe(one, is_discard=is_discard) for one in steps]


def quiet(count, seed=1, scale=0.4):
    """Steps that exceed the first level in about 4 of 100."""
    rng = random.Random(seed)
    return [rng.expovariate(1 / scale) for _ in range(count)]


def test_no_more_than_two_in_a_hundred_are_disputed_whatever_comes():
    for steps in (quiet(5000), [9.0] * 5000, quiet(2000) + [9.0] * 1000 + quiet(2000), sorted(quiet(5000))):
        seen = disputed(Dispute(), steps)
        for end in range(50, len(seen) + 1, 50):
            assert sum(seen[:end]) <= 0.02 * end
    assert sum(disputed(Dispute(), quiet(20_000))) > 0.015 * 20_000


def test_the_level_is_known_before_the_curves_of_a_block_and_never_falls_below_the_first():
    dispute = Dispute()
    disputed(dispute, [2.0] * (FIRST - 1))
    assert dispute.level == LEVEL
    disputed(dispute, [2.0])
    assert dispute.level == 2.0
    disputed(dispute, [5.0] * (BLOCK - 1))
    assert dispute.level == 2.0
    disputed(dispute, [5.0])
    assert dispute.level == 5.0
    disputed(dispute, [0.1] * (RECENT + BLOCK))
    assert dispute.level == LEVEL


def test_what_is_kept_or_has_no_steps_is_not_disputed():
    dispute = Dispute()
    disputed(dispute, [0.0] * 60)
    told = dispute.look_at(
        [
            judged(0, verdict="keep", steps=9.0),
            judged(1, verdict="discard", steps=None),
            judged(2, verdict="discard", steps=9.0),
        ]
    )
    assert [one.decision.is_disputed for one in told] == [False, False, True]
    assert [one.decision.verdict for one in told] == ["keep", "discard", "discard"]
    assert len(dispute._recent) == 63


def test_the_sign_explains_what_follows_only_while_most_curves_are_of_its_format() -> None:
    sentinel = Sentinel()
    for _ in range(3):
        sentinel.observe("jpk", ("flipped", "no_contact"))
    assert sentinel.turned == "jpk"
    for _ in range(11):
        sentinel.observe("nanoscope", ("no_contact",))
    assert sentinel.turned == ""
    for _ in range(11):
        sentinel.observe("jpk", ("no_contact",))
    assert sentinel.turned == "jpk"


def test_a_sudden_rise_is_told_and_is_over_some_blocks_later():
    dispute = Dispute()
    disputed(dispute, quiet(1000))
    assert dispute.finding() == ""
    disputed(dispute, [8.0 if place % 5 == 0 else one for place, one in enumerate(quiet(200, seed=2))])
    assert dispute.finding().startswith("20 of the last 100 curves were discarded")
    assert "of the last 100 curves were discarded though the second opinion sees a rupture in them" in dispute.finding()
    disputed(dispute, quiet((QUIET_BLOCKS + 2) * BLOCK, seed=3))
    assert dispute.finding() == ""


def test_twenty_thousand_curves_of_unchanged_running_tell_nothing():
    for seed in range(5):
        dispute = Dispute()
        for one in quiet(20_000, seed, scale=1.0):
            dispute.observe(one, is_discard=True)
            assert dispute.finding() == ""
