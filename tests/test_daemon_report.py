import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from makers import a_retract

from daemon.charts import Axis, Drawing, draw_trace, even_ticks, outline, trace
from daemon.judging import Judge, Thresholds
from daemon.learn.evaluation import MOST, Judged, draw_all, evaluate, rank, thumbnail, worst, write_html
from deploy.classifier import EngineId
from models.curve import Curve

JUDGE = Judge("model-1", "p", EngineId("torch", "cpu", "fp32"), Thresholds(0.1, 0.8), "simulation", 0.02)
EVIL = "<script>alert(1)</script>\x1b[2J"


def a_curve(seed=0, **given):
    force, distance = a_retract(seed=seed)
    return Curve(force=force, force_unit="N", distance=distance, **given)


def judged(count=40):
    """Events score higher, overlapping; names and systems are hostile."""
    rng = np.random.default_rng(3)
    found = []
    for number in range(count):
        label = ("keep", "discard", "discard", "unsure")[number % 4]
        score = float(np.clip(rng.normal(0.8 if label == "keep" else 0.2, 0.25), 0, 1))
        verdict = "keep" if score >= 0.8 else "discard" if score <= 0.1 else "review"
        reasons = ("score", "no_contact") if number % 3 else ("score",)
        system = f"b<c{number % 2}"
        found.append(Judged(system, label, verdict, score, f"{EVIL}{number}#0", reasons, trace(a_curve(number))))
    return [*found, Judged("b<c0", "keep", "review", None, "short.txt#0", ("too_short",), None)]


class Balance(HTMLParser):
    """Every tag that opens closes, in order; and what a page may not have."""

    def __init__(self):
        super().__init__()
        self.open, self.attributes = [], []

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_safe_and_alone():
    page = write_html({**evaluate(judged(), JUDGE), "warnings": [EVIL]}, judged())
    balance = Balance()
    balance.feed(page)
    balance.close()
    assert balance.open == []
    assert "<script" not in page
    assert "\x1b" not in page
    assert "b<c" not in page
    assert not {name for name, _ in balance.attributes} & {"src", "onload", "onclick", "action"}
    marks = {value for name, value in balance.attributes if name == "id"}
    links = [value for name, value in balance.attributes if name == "href"]
    assert links
    assert {link.removeprefix("#") for link in links} == marks, "a picture is enlarged by a link to itself"
    assert "url(" not in page
    assert "@import" not in page
    assert "nan" not in re.sub(r"<[^>]*>", "", page).lower()
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_every_picture_is_well_formed_and_stays_in_its_frame():
    page = write_html(evaluate(judged(), JUDGE), judged())
    pictures = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(pictures) == 4 + 10 + MOST
    for text in pictures:
        picture = ElementTree.fromstring(text)
        _, _, width, height = map(float, picture.attrib["viewBox"].split())
        for part in picture.iter():
            told = part.attrib.get("points") or part.attrib.get("d") or ""
            pairs = re.findall(r"(-?[\d.]+)[ ,](-?[\d.]+)", told)
            assert all(-0.1 <= float(x) <= width + 0.1 and -0.1 <= float(y) <= height + 0.1 for x, y in pairs)


def test_the_worst_come_first_and_none_without_a_score():
    lowest, highest = worst(judged())
    assert {one.label for one in lowest} == {"keep"}
    assert {one.label for one in highest} == {"discard"}
    scores = [one.score for one in lowest]
    assert scores == sorted(scores)
    assert len(lowest) == 10
    assert len(highest) == MOST
    assert highest[0].score == max(one.score for one in judged() if one.label == "discard")


def test_a_thumbnail_says_what_was_measured_and_what_was_said():
    one = Judged("titin", "keep", "review", 0.1234, "day1/a.txt#0", ("score", "no_contact"), trace(a_curve()))
    drawn = thumbnail(one)
    told = (drawn.name, drawn.verdict, drawn.beside, drawn.caption)
    assert told == ("day1/a.txt#0", "review", "0.1234", "labelled event; titin; no_contact")
    assert "pN over 400 nm" in drawn.svg
    assert "cannot be drawn" in thumbnail(Judged("x", "keep", "review", None, "a#0")).svg


def test_one_kind_of_curves_has_a_histogram_only():
    events = [one for one in judged() if one.label == "keep"]
    assert len(draw_all(rank(events), JUDGE.thresholds, 0.02)) == 1
    assert len(draw_all(rank(judged()), JUDGE.thresholds, 0.02)) == 4


@pytest.mark.parametrize("scores", [[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
def test_extreme_scores_and_thresholds_can_be_drawn(scores):
    curves = [Judged("a", label, "review", score) for label, score in zip(("keep", "discard"), scores, strict=True)]
    for drawn in draw_all(rank(curves), Thresholds(0.0, 1.0), 0.02):
        ElementTree.fromstring(drawn.svg)
        assert "nan" not in drawn.svg


def test_a_logit_axis_spreads_the_ends():
    axis = Axis("score", 1e-4, 1 - 1e-4, logit=True)
    assert axis.share(0.5) == pytest.approx(0.5)
    assert axis.share(0.0) == 0.0
    assert axis.share(1.0) == pytest.approx(1.0)
    assert axis.share(0.001) - axis.share(0.0001) > 0.1
    drawing = Drawing("d", Axis("x"), Axis("y"))
    assert drawing.place(0, 0)[1] > drawing.place(0, 1)[1]


def test_an_outline_goes_there_and_back():
    assert outline([0.0, 0.0], [1.0, 1.0], 10, 20) == "M0.0 0.0L10.0 0.0L10.0 20.0L0.0 20.0Z"


def test_a_trace_keeps_spikes_and_knows_its_units():
    force = np.zeros(3000)
    force[1234] = 5e-10
    drawn = trace(Curve(force=force, force_unit="N", distance=np.linspace(0, 1e-6, 3000)))
    assert drawn.edges.shape == (2, 150)
    assert drawn.edges[1].max() == np.float32(5e-10)
    assert drawn.travel_nm == pytest.approx(1000)
    assert trace(Curve(force=np.array([0.0, np.nan, 1.0]), force_unit=None)) is None
    assert trace(Curve(force=np.zeros(3), force_unit=None)).edges.shape == (2, 1)


def test_a_mark_stands_where_the_sample_is():
    drawn = draw_trace(trace(a_curve(), samples=[0, len(a_curve()) - 1]))
    assert [float(x) for x in re.findall(r'class="threshold" d="M([\d.]+) ', drawn)] == [0.0, 220.0]


@pytest.mark.parametrize(
    ("high", "ticks"),
    [
        (7, (0, 2, 4, 6, 8)),
        (1, (0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        (0, (0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        (640, (0, 200, 400, 600, 800)),
    ],
)
def test_ticks_are_even_and_reach_beyond(high, ticks):
    assert even_ticks(high) == pytest.approx(ticks)
