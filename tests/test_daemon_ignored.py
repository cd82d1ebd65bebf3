"""What is passed over: why, by name; how many, in words; never more suffixes than a screen can hold."""

from __future__ import annotations

import pytest

from daemon.formats import NAMES
from daemon.metrics import Accounts
from daemon.sources import MOST_SUFFIXES, REASONS, Ignored, heard, suffix_of, words


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("curve.jpk-force", None),
        ("curve.txt", None),
        ("curve.001", None),
        ("a.PFC", "unclaimed"),
        ("setup.json", "unclaimed"),
        ("camera.PNG", "image"),
        ("scan.gwy", "image"),
        ("labels.csv", "table"),
        ("Thumbs.db", "temporary"),
        ("~$plan.docx", "temporary"),
        (".hidden.jpk-force", "temporary"),
        (".hidden.done", "temporary"),
        ("curve.jpk-force.part", "temporary"),
        ("curve.txt.done", "sentinel"),
        ("Line0ZSNSR.ibw", "companion"),
    ],
)
def test_every_name_that_is_never_opened_has_a_reason(name: str, reason: str | None) -> None:
    assert NAMES.why_ignored(name) == reason
    assert (NAMES.claim(name) is False) == (reason is not None)
    assert reason is None or reason in REASONS


def test_the_suffix_is_told_of_what_nobody_reads_and_a_running_number_is_one() -> None:
    assert [suffix_of(name) for name in ("a.PFC", "b.0042", "c", "d.tar.gz", "e.x y", ".z")] == [
        ".pfc",
        ".NNN",
        "without suffix",
        ".gz",
        "without suffix",
        "without suffix",
    ]


def test_the_words_begin_with_what_nobody_reads_and_end_with_what_is_read_after_all() -> None:
    ignored = Ignored()
    for reason, name, files in (("companion", "", 40), ("image", "a.png", 3), ("unclaimed", "run/a.pfc", 1234)):
        ignored.note(reason, name, files)
    assert words(ignored.kinds) == "1,234 unclaimed .pfc, 3 image; 40 companion, read with their first half"
    assert ignored.total == 1237
    assert words({}) == ""
    assert words({"companion": 2}) == "2 companion, read with their first half"


def test_a_thousand_suffixes_are_few_kinds() -> None:
    ignored = Ignored()
    for number in range(1000):
        ignored.note("unclaimed", f"a.x{number}")
        ignored.note("unclaimed", "b.x0")
    assert len(ignored.kinds) == MOST_SUFFIXES + 1
    assert ignored.kinds["unclaimed other"] == 1000 - MOST_SUFFIXES
    assert ignored.kinds["unclaimed .x0"] == 1001
    assert ignored.kinds.total() == ignored.total == 2000
    assert words(ignored.kinds).endswith("of other kinds")


def test_what_comes_over_a_socket_is_taken_as_far_as_it_makes_sense() -> None:
    assert heard({"image": 3, "table": "many", "link": -1, 7: 2}) == {"image": 3, "7": 2}
    assert heard(None) == heard([1]) == {}


def test_the_metric_knows_reasons_only_and_a_companion_is_not_in_the_number() -> None:
    accounts = Accounts()
    accounts.ignored("unclaimed", "a.pfc")
    accounts.ignored("companion", "aZSnsr.ibw")
    (family,) = [one for one in accounts.collect() if one.name == "afm_triage_files_ignored"]
    found = {sample.labels["reason"]: sample.value for sample in family.samples}
    assert found == {**dict.fromkeys(REASONS, 0), "unclaimed": 1, "companion": 1}
    assert accounts.snapshot()["ignored"] == 1
    assert accounts.ignored_kinds() == {"unclaimed .pfc": 1, "companion": 1}


def test_a_file_that_only_its_name_called_a_curve_leaves_the_books_balanced() -> None:
    accounts = Accounts()
    accounts.seen("watch")
    accounts.unseen("watch")
    accounts.ignored("image", "scan.ibw")
    assert accounts.snapshot() == {
        "seen": 0,
        "decided": 0,
        "duplicate": 0,
        "backlog": 0,
        "unreadable": 0,
        "ignored": 1,
    }
