"""The sentinel of signs: one hint makes it wary for a while, three of them are told, format by format."""

from daemon.judging.sentinel import MOST, WARY, WINDOW, Sentinel

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
