"""`review`: a real server in a real process, asked as the page asks and as somebody who means it ill does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.labels import Labels
from tests.reviewhelp import Page, fill, judged


class Lab:
    """A page on a state of twelve decisions: every third is a review."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.stream = fill(state, [judged(number) for number in range(1, 13)])
        self.page = Page(state)

    def id(self, seq: int) -> str:
        return f"{self.stream}:{seq}"

    def labels(self) -> list[tuple[str, str, str]]:
        file = self.state / "labels.sqlite"
        if not file.exists():
            return []
        with Labels(file) as labels:
            return [(one.path, one.label, one.rater) for one in labels.current()]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("page") / "state")
    with made.page:
        yield made


def test_a_curve_is_found_drawn_labelled_and_the_label_taken_back(lab: Lab) -> None:
    (first, *_) = lab.page.ask("/api/queue?name=review&limit=3&rater=anna").json
    assert {"id", "path", "curve", "score", "verdict", "reasons", "preview", "label"} <= first.keys()
    shown = lab.page.ask(f"/api/curve/{first['id']}?rater=anna").json
    assert (shown["force_unit"], shown["distance_kind"], shown["labels"]) == ("pN", "separation", [])
    assert lab.page.label(first["id"], reason="five peaks").status == 201
    assert lab.labels() == [(first["path"], "keep", "anna")]
    assert [one["label"] for one in lab.page.ask(f"/api/curve/{first['id']}?rater=anna").json["labels"]] == ["keep"]
    left = lab.page.ask("/api/queue?name=review&rater=anna").json
    assert first["id"] not in [one["id"] for one in left]
    assert lab.page.ask(f"/api/labels/{first['id']}?rater=anna", "DELETE").status == 204
    assert lab.labels() == []
    assert lab.page.ask(f"/api/labels/{first['id']}?rater=anna", "DELETE").status == 404
