"""`review`: a real server in a real process, asked as the page asks and as somebody who means it ill does."""

from __future__ import annotations

import base64
import json
import os
import resource
import shlex
import shutil
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pace import allowed

from daemon.cli import main
from daemon.common.errors import ALREADY_RUNNING, UNREACHABLE, USAGE
from daemon.config import Config
from daemon.judging.audit import AUDIT_SHARE, draw
from daemon.labels import Labels
from daemon.labels.curve_name import sha256_of
from daemon.labels.schema import MIGRATIONS
from daemon.review.night import handover
from daemon.review.request import token_of
from models.bundle import SHIPPED, read
from models.clock import night_of
from tests.ledgerhelp import JUDGE
from tests.reviewhelp import SAWTOOTH, Page, fill, judged
from tests.speaker import preview

COUNT = 36
#: The thresholds in force, whatever the decisions in the ledger were made with.
NOW = {"discard": read(SHIPPED).discard, "keep": read(SHIPPED).keep}


class Lab:
    """A page on a state: decision 3 n is kept, 3 n + 1 discarded, 3 n + 2 a review with a copy."""

    def __init__(self, state: Path) -> None:
        self.state = state
        made = [judged(number, score=number / 100) for number in range(1, COUNT + 1)]
        self.stream = fill(
            state, [*made, judged(COUNT + 2, judge=replace(JUDGE, model="gone-0123456789ab"), score=0.0)]
        )
        self.ledger = (state / "ledger.sqlite").read_bytes()
        self.page = Page(state)

    def id(self, seq: int) -> str:
        return f"{self.stream}:{seq}"

    def said(self, rater: str | None = None) -> list[tuple[int | None, str, str]]:
        """(seq, label, rater) of what holds now."""
        return stored(self.state, rater)


def stored(state: Path, rater: str | None = None) -> list[tuple[int | None, str, str]]:
    file = state / "labels.sqlite"
    if not file.exists():
        return []
    with Labels(file) as labels:
        return [(one.seq, one.label, one.rater) for one in labels.current() if rater in (None, one.rater)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("page") / "state")
    with made.page:
        yield made
    there = {path.name for path in made.state.iterdir()}
    assert there <= {
        "labels.sqlite",
        "review-page.json",  # of one that was killed; nobody takes it for a page that runs
        "ledger.sqlite",
        "ledger.sqlite-announced",
        "ledger.sqlite-shm",
        "ledger.sqlite-wal",
    }
    assert (made.state / "ledger.sqlite").read_bytes() == made.ledger


def test_a_curve_is_found_drawn_labelled_and_the_label_taken_back(lab: Lab) -> None:
    queue = lab.page.ask("/api/queue?name=review&limit=3&rater=anna").json
    first = queue[0]
    assert [one["score"] for one in queue] == sorted((one["score"] for one in queue), reverse=True)
    assert {"id", "path", "curve", "score", "verdict", "reasons", "preview", "label"} <= first.keys()
    shown = lab.page.ask(f"/api/curve/{first['id']}?rater=anna").json
    assert (shown["force_unit"], shown["distance_kind"], shown["labels"]) == ("pN", "separation", [])
    x, y = (np.frombuffer(base64.b64decode(shown["retract"][axis]), "<f4") for axis in "xy")
    assert len(x) == len(y) == shown["points"]
    for one in shown["ruptures"]:
        # On the curve but for its noise: a line through the branch before the break says how high it was.
        assert one["force"] == pytest.approx(float(y[np.abs(x - one["x"]).argmin()]), rel=0.15)
    assert lab.page.label(first["id"], reason="five peaks", queue="review").status == 201
    with Labels(lab.state / "labels.sqlite") as labels:
        (held,) = labels.labelled([int(first["id"].rpartition(":")[2])]).values()
    assert [(one.label, one.reason, one.queue, one.weight, one.verdict, one.score) for one in held] == [
        ("keep", "five peaks", "review", 1.0, "review", first["score"])
    ]
    assert [one["label"] for one in lab.page.ask(f"/api/curve/{first['id']}?rater=anna").json["labels"]] == ["keep"]
    assert lab.page.ask(f"/api/curve/{first['id']}?rater=bela").json["labels"] == []
    enough = lab.page.ask("/api/state?rater=anna").json["enough"]
    assert enough["text"] == "looked at 1 of 13, 1 event seen; with fewer than 20 events look at all"
    assert (enough["looked"], enough["left"], enough["unseen_bound"], enough["is_enough"]) == (1, 12, None, False)
    left = lab.page.ask("/api/queue?name=review&rater=anna").json
    assert [one["by_chance"] for one in left] == [False] * len(left)
    assert {one["by_chance"] for one in lab.page.ask("/api/queue?name=drawn&rater=anna").json} == {True}
    assert first["id"] not in [one["id"] for one in left]
    assert first["id"] not in [one["id"] for one in lab.page.ask("/api/queue?name=review").json]
    for status in (204, 404):
        assert lab.page.ask(f"/api/labels/{first['id']}?rater=anna", "DELETE").status == status
    assert lab.said("anna") == []


def test_the_same_label_is_stored_once_and_a_list_whole_or_not_at_all(lab: Lab) -> None:
    some = [{"id": lab.id(seq), "label": "discard", "rater": "dora"} for seq in (2, 5, 8)]
    answers = [lab.page.ask("/api/labels", "POST", some) for _ in range(3)]
    assert [one.status for one in answers] == [201] * 3
    assert answers[0].json == answers[1].json == answers[2].json
    with Labels(lab.state / "labels.sqlite") as labels:
        assert sum(one.rater == "dora" for one in labels.history()) == 3
    for wrong in ({"id": lab.id(99)}, {"label": "perhaps"}, {"rater": " "}):
        bad = [{"id": lab.id(seq), "label": "keep", "rater": "eva"} for seq in (2, 5)] + [
            {"id": lab.id(8), "label": "keep", "rater": "eva", **wrong}
        ]
        assert lab.page.ask("/api/labels", "POST", bad).status in (400, 404)
    assert lab.said("eva") == []
    assert lab.page.ask(f"/api/labels/{lab.id(2)}", "DELETE").status == 204  # of its only rater
    lab.page.label(lab.id(5), rater="eva")
    assert lab.page.ask(f"/api/labels/{lab.id(5)}", "DELETE").status == 409
    assert lab.page.ask(f"/api/labels/{lab.id(5)}?rater=eva", "DELETE").status == 204


def test_a_note_comes_back_with_its_label_and_goes_with_it(lab: Lab) -> None:
    def note() -> list[tuple[str, str]]:
        said = lab.page.ask(f"/api/curve/{lab.id(11)}?rater=nora").json["labels"]
        return [(one["label"], one["reason"]) for one in said]

    assert lab.page.label(lab.id(11), "unsure", "nora", reason="a wave").json[0]["reason"] == "a wave"
    assert note() == [("unsure", "a wave")]
    assert lab.page.label(lab.id(11), "unsure", "nora").json[0]["reason"] == "a wave", "nothing was said of the note"
    for reason in ("a slow wave", ""):
        assert lab.page.label(lab.id(11), "unsure", "nora", reason=reason).json[0]["reason"] == reason
        assert note() == [("unsure", reason)]
    lab.page.ask(f"/api/labels/{lab.id(11)}?rater=nora", "DELETE")


def test_a_disagreement_is_told_to_who_has_spoken(lab: Lab) -> None:
    def told(rater: str, more: str = "") -> str | None:
        found: str | None = lab.page.ask(f"/api/curve/{lab.id(14)}?rater={rater}{more}").json["disagreement"]
        return found

    assert told("olga") is None
    lab.page.label(lab.id(14), "keep", "olga")
    lab.page.label(lab.id(14), "discard", "paul")
    try:
        assert told("olga") == told("paul") == "olga says keep, paul says discard"
        assert told("olga", "&blind=1") is None
        assert told("quin") is None, "who has not spoken is not led"
        lab.page.ask("/api/queue?name=disagreements&rater=quin")
        assert told("quin") == "olga says keep, paul says discard"
    finally:
        for rater in ("olga", "paul"):
            lab.page.ask(f"/api/labels/{lab.id(14)}?rater={rater}", "DELETE")


def test_curves_that_look_alike_are_shown_blind_without_earlier_answers(tmp_path: Path) -> None:
    stream = fill(tmp_path, [judged(number, score=0.5, preview=preview()) for number in range(1, 10)])
    with Page(tmp_path) as page:
        page.label(f"{stream}:2", "keep", "rosa")
        for more, label in (("", "keep"), ("&blind=1", None)):
            found = page.ask(f"/api/alike/{stream}:5?rater=rosa&limit=50{more}").json
            assert [one["label"] for one in found if one["id"] == f"{stream}:2"] == [label]


def test_what_is_shown_blind_tells_nothing(lab: Lab) -> None:
    item = lab.page.ask("/api/queue?name=review&rater=finn&blind=1").json[0]
    curve = lab.page.ask(f"/api/curve/{item['id']}?blind=1").json
    for one in (item, curve):
        assert (one["score"], one["verdict"], one["reasons"]) == (None, None, [])
    assert curve["thresholds"] is None
    assert "kind" not in item
    assert "weight" not in item


@pytest.mark.parametrize(
    ("path", "method", "value", "status"),
    [
        ("/api/queue?name=no", "GET", None, 400),
        ("/api/queue?name=review&limit=-1", "GET", None, 400),
        ("/api/queue?name=review&limit=1e3", "GET", None, 400),
        ("/api/queue?name=review&session=99", "GET", None, 404),
        ("/api/queue?name=review&session='; drop table labels", "GET", None, 404),
        ("/api/curve/no", "GET", None, 404),
        ("/api/curve/" + "9" * 5000, "GET", None, 404),
        ("/api/curve/..%2f..%2fetc%2fpasswd", "GET", None, 404),
        ("/api/alike/x:1", "GET", None, 404),
        ("/api/labels", "GET", None, 405),
        ("/api/labels", "POST", [], 400),
        ("/api/labels", "POST", 7, 400),
        ("/api/labels", "POST", None, 400),
        ("/api/labels", "POST", {}, 400),
        ("/api/labels", "POST", {"id": 1, "label": "keep", "rater": "x"}, 400),
        ("/api/labels", "POST", {"id": ["a"], "label": "keep", "rater": "x"}, 400),
        ("/api/labels", "POST", {"id": "a:1", "label": {"a": 1}, "rater": "x"}, 400),
        ("/api/labels", "POST", {"id": "a:1", "label": "keep", "rater": "a\x1b[31m"}, 400),
        ("/api/labels", "POST", {"id": "a:1", "label": "keep", "rater": "a\n"}, 404),  # stripped
        ("/api/labels", "POST", {"id": "a:1", "label": "keep", "rater": "x" * 101}, 400),
        ("/api/labels", "POST", {"id": "a:1", "label": "keep", "rater": "\ud800"}, 400),
        ("/api/labels", "POST", {"id": "a:1", "label": "keep", "rater": "x", "reason": "x" * 2001}, 400),
        ("/api/labels", "POST", [{"id": "a:1", "label": "keep", "rater": "x"}] * 501, 400),
        ("/api/labels", "POST", {"id": "0" * 36 + ":1", "label": "keep", "rater": "x"}, 404),
        ("/api/skips", "POST", {"id": "a:1"}, 400),
        ("/api/cut", "POST", {}, 400),
        ("/api/session", "POST", {"tip": 7}, 400),
        ("/api/session", "POST", {"tip": "x" * 3000}, 400),
        ("/static/../api.py", "GET", None, 404),
        ("/static/%2e%2e/api.py", "GET", None, 404),
        ("/static/..%2f..%2f..%2f..%2fetc/passwd", "GET", None, 404),
        ("/static//etc/passwd", "GET", None, 404),
        ("/static/", "GET", None, 404),
        ("/nothing", "GET", None, 404),
        ("//evil.example/", "GET", None, 404),
        ("/api/queue/", "GET", None, 404),
        ("/", "POST", {}, 405),
        ("/api/state", "PUT", {}, 405),
    ],
)
def test_a_mistake_is_one_sentence_and_stores_nothing(
    lab: Lab, path: str, method: str, value: Any, status: int
) -> None:
    before = snapshot(lab.state)
    answer = lab.page.ask(path.replace(" ", "%20"), method, value)
    assert answer.status == status, answer.body
    assert answer.error
    assert snapshot(lab.state) == before


def snapshot(state: Path) -> dict[str, bytes]:
    """What lies in the state, but for what a reader of SQLite makes and leaves beside it."""
    files = (path for path in state.rglob("*") if path.is_file() and not path.name.endswith(("-shm", "-wal")))
    return {str(path): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"id": NaN}',
        b"null",
        b'"' + b"x" * 900_000 + b'"',
        b'{"label": 1e999}',
    ],
)
def test_what_is_no_json_of_ours_is_refused(lab: Lab, body: bytes) -> None:
    answer = lab.page.ask("/api/labels", "POST", body=body)
    assert answer.status == 400, answer.body
    assert answer.error


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Host": "localhost.evil.example:{port}"},
        {"Host": "192.168.1.7:{port}"},
        {"Host": ""},
        {"Host": "[::1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://localhost:1"},
        {"Origin": "http://127.0.0.1:{port}.evil.example"},
        {"Referer": "http://evil.example/127.0.0.1:{port}"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "navigate"},
    ],
)
def test_requests_of_other_pages_are_refused(lab: Lab, headers: dict[str, str]) -> None:
    """Names that lead here (DNS rebinding), and pages that make a browser ask."""
    sent = {name: text.format(port=lab.page.port) for name, text in headers.items()}
    before = snapshot(lab.state)
    for path, method, value in (
        ("/api/state", "GET", None),
        ("/api/labels", "POST", {"id": lab.id(2), "label": "keep", "rater": "mallory"}),
        (f"/api/labels/{lab.id(2)}?rater=dora", "DELETE", None),
    ):
        answer = lab.page.ask(path, method, value, **sent)
        assert answer.status == 403, (path, answer.body)
        assert answer.error
    assert snapshot(lab.state) == before


def test_its_own_page_is_answered_under_each_name_of_this_machine(lab: Lab) -> None:
    for name in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]", "127.0.0.7"):
        for port in (lab.page.port, 9000):  # another one: through a tunnel
            own = {"Host": f"{name}:{port}", "Origin": f"http://{name}:{port}", "Sec_Fetch_Site": "same-origin"}
            assert lab.page.ask("/api/state", **own).status == 200, own
    visit = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}  # a link in a laboratory's wiki
    assert lab.page.ask("/", **visit).status == 200
    assert lab.page.ask("/api/state", **visit).status == 403


def test_every_answer_forbids_what_a_page_does_not_need(lab: Lab) -> None:
    for path in ("/", "/api/state", "/nothing", "/static/main.js", "/healthz"):
        headers = lab.page.ask(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers
    page = lab.page.ask("/").body.decode()
    assert "<script>" not in page
    assert " style=" not in page
    assert "<noscript>" in page


def test_a_body_that_is_too_large_is_not_read(lab: Lab) -> None:
    with socket.create_connection(("127.0.0.1", lab.page.port), 10) as client:
        client.sendall(b"POST /api/labels HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")
        assert b" 413 " in client.recv(4096)
    with socket.create_connection(("127.0.0.1", lab.page.port), 10) as client:  # and one that does not tell its length
        client.sendall(b"POST /api/labels HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(64):
                client.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        except ConnectionError:
            return  # it has heard enough
        assert b" 413 " in client.recv(4096)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a browser that was told https
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"A" * 100_000,
        b"GET /api/state HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        b"Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\nOrigin: http://evil.example\r\n\r\n",
    ],
)
def test_what_is_no_proper_request_gets_no_data(lab: Lab, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", lab.page.port), 15) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        answer = client.recv(65536)
    assert b" 200 " not in answer.partition(b"\r\n")[0]
    assert lab.page.ask("/healthz").status == 200


def test_a_thousand_slow_connections_keep_nobody_out(lab: Lab) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    clients = []
    try:
        for number in range(1000):
            client = socket.create_connection(("127.0.0.1", lab.page.port), 10)
            client.sendall(b"GET /api/state HTTP/1.1\r\nX-Slow: "[: 5 + number % 30])
            clients.append(client)
            if number % 100 == 99:
                began_s = time.monotonic()
                assert lab.page.ask("/api/queue?name=review&rater=gil").status == 200
                assert time.monotonic() - began_s < allowed(2.0)
        assert len(os.listdir(f"/proc/{lab.page.process.pid}/fd")) < 300
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert lab.page.label(lab.id(11), rater="gil").status == 201


def test_two_pages_at_once_store_each_label_once(lab: Lab) -> None:
    def one_page(rater: str) -> list[int]:
        return [lab.page.label(lab.id(seq), "discard", rater).status for seq in range(2, COUNT, 3) for _ in range(2)]

    with ThreadPoolExecutor(4) as pages:
        answers = list(pages.map(one_page, ["hans", "hans", "ida", "ida"]))
    assert {status for page in answers for status in page} == {201}
    expected = len(range(2, COUNT, 3))
    with Labels(lab.state / "labels.sqlite") as labels:
        history = [one for one in labels.history() if one.rater in ("hans", "ida")]
    assert len(history) == 2 * expected


def test_a_skipped_curve_comes_back_at_the_end(lab: Lab) -> None:
    first, second, *_ = (one["id"] for one in lab.page.ask("/api/queue?name=review&rater=jo").json)
    assert lab.page.ask("/api/skips", "POST", {"id": first, "rater": "jo", "queue": "review"}).status == 201
    after = [one["id"] for one in lab.page.ask("/api/queue?name=review&rater=jo").json]
    assert (after[0], after[-1]) == (second, first)
    assert lab.page.ask(f"/api/labels/{first}?rater=jo", "DELETE").status == 204
    assert lab.page.ask("/api/queue?name=review&rater=jo").json[0]["id"] == first


def test_questions_look_like_any_curve_and_their_answers_are_no_labels(tmp_path: Path) -> None:
    state, count = tmp_path / "state", 100
    drawn = next(n for n in range(1, 3000, 3) if draw(f"{n:064x}#0") < AUDIT_SHARE)  # a discard that is audited
    made = [judged(3 * number + 2, score=number / 100) for number in range(1, count + 1)]
    stream = fill(state, [*made, judged(drawn, score=0.01)])
    ids = [f"{stream}:{seq}" for seq in range(1, count + 1)]
    page = Page(state)
    with ExitStack() as closing:
        closing.enter_context(page)
        for blind, shown in (("", ("discard", 0.01)), ("&blind=1", (None, None))):
            (one,) = page.ask(f"/api/queue?name=discards&rater=cleo{blind}").json
            assert (one["verdict"], one["score"]) == shown
        for rater in ("anna", "bela"):
            some = [{"id": id, "label": "discard", "rater": rater} for id in ids[:30]]
            assert page.ask("/api/labels", "POST", some).status == 201
        order: list[str] = []
        while queue := page.ask("/api/queue?name=review&rater=cleo&limit=8").json:
            assert len({tuple(one) for one in queue}) == 1  # the same fields
            assert {one["label"] for one in queue} == {None}
            order.append(queue[0]["id"])
            answer = page.label(order[-1], "keep", "cleo", queue="review")
            assert answer.status == 201
            assert answer.json[0].keys() == {"id", "label", "rater", "time", "reason"}
            if len(order) == 45:  # killed, and what was answered last is sent again to the next one
                page.process.kill()
                page.process.wait(10)
                page = closing.enter_context(Page(state))
                assert page.label(order[-1], "keep", "cleo", queue="review").status == 201
            assert len(order) < 2 * count
        with Labels(state / "labels.sqlite") as labels:
            golden = [one for one in labels.shown("cleo", "golden")]
            repeats = [one for one in labels.shown("cleo", "repeat")]
            assert golden
            assert repeats
            assert {(one.answer, one.expected) for one in golden} == {("keep", "discard")}
            assert {(one.answer, one.expected) for one in repeats} == {("keep", "keep")}
            own = [one.seq for one in labels.history() if one.rater == "cleo"]
            assert len(own) == len(set(own))  # a repeat adds none
            assert not {one.seq for one in golden} & set(own)
            assert {int(id.rpartition(":")[2]) for id in order} == {*own, *(one.seq for one in golden)}
            once_more = f"{stream}:{repeats[-1].seq}"  # taken back, with the repeat: what is said then is a label again
            for _ in range(2):
                assert page.ask(f"/api/labels/{once_more}?rater=cleo", "DELETE").status == 204
            assert page.label(once_more, "unsure", "cleo", queue="review").status == 201
            assert [
                one.label for one in labels.labelled([repeats[-1].seq])[repeats[-1].seq] if one.rater == "cleo"
            ] == ["unsure"]
            last = f"{stream}:{golden[-1].seq}"
            assert page.ask(f"/api/labels/{last}?rater=cleo", "DELETE").status == 204
            assert len(labels.shown("cleo", "golden")) == len(golden) - 1


def test_the_state_the_scores_and_a_session_are_told(lab: Lab) -> None:
    state = lab.page.ask("/api/state?rater=kim").json
    assert state["running"] is False
    assert sum(state["counts"].values()) == state["last_seq"] == COUNT + 1
    assert state["queues"]["review"] == COUNT // 3 + 1
    assert state["yield"]["hours"][-1].keys() == {"hour", "keep", "review", "discard"}
    lab.page.label(lab.id(2), rater="kim")
    assert lab.page.ask("/api/state?rater=kim").json["queues"]["review"] == COUNT // 3
    scores = lab.page.ask("/api/scores").json
    assert (len(scores["scores"]), scores["thresholds"]) == (COUNT + 1, NOW)
    begun = lab.page.ask("/api/session", "POST", {"tip": "7", "sample": "Cohesin"}).json
    told = lab.page.ask("/api/state").json["session"]
    assert told["ended"] is None
    assert (told["sample"], told["counts"]) == ("Cohesin", {"keep": 0, "review": 0, "discard": 0})
    assert 0 <= told["seconds"] < 60
    assert lab.page.ask("/api/queue?name=review&rater=kim&session=current").json == []  # there is nothing yet
    assert lab.page.ask("/api/queue?name=review&rater=kim").json  # who does not say which means all
    assert lab.page.ask("/api/state?rater=kim").json["queues"]["review"] == 0
    assert lab.page.ask("/api/state?rater=kim&session=all").json["queues"]["review"] == COUNT // 3
    assert lab.page.ask(f"/api/queue?name=review&rater=kim&session={begun['number']}").json == []
    assert lab.page.ask("/api/session", "POST", {"end": True}).status == 201
    assert lab.page.ask("/api/state").json["session"]["ended"].endswith("Z"), "over, and its curves are still shown"
    assert lab.page.ask("/api/session", "POST", {"end": True}).status == 409


def test_the_heat_lies_where_the_last_molecule_breaks(lab: Lab) -> None:
    shown = lab.page.ask(f"/api/curve/{lab.id(2)}").json
    found = lab.page.ask(f"/api/curve/{lab.id(2)}/heat").json
    x, along = (np.frombuffer(base64.b64decode(found[name]), "<f4") for name in ("x", "along"))
    assert found["x"] == shown["retract"]["x"]
    assert x[along.argmax()] == pytest.approx(shown["ruptures"][-1]["x"], abs=50)
    assert (along.min(), along.max()) == (0.0, pytest.approx(1.0, abs=0.2))
    began_s = time.monotonic()
    assert lab.page.ask(f"/api/curve/{lab.id(5)}/heat").status == 200
    assert time.monotonic() - began_s < allowed(2.0)  # 60 ms where nobody else computes
    gone = lab.page.ask(f"/api/curve/{lab.id(COUNT + 1)}/heat")
    assert (gone.status, "cannot be read" in gone.error) == (404, True)


# Files, and what is served of them.


def test_only_what_was_judged_below_a_watched_folder_is_read(tmp_path: Path) -> None:
    state, watched, other = tmp_path / "state", tmp_path / "watched", tmp_path / "other"
    for folder in (watched, other):
        folder.mkdir()
        (folder / "a.jpk-force").write_bytes(SAWTOOTH.read_bytes())
    (watched / "link.jpk-force").symlink_to(other / "a.jpk-force")
    (watched / "changed.jpk-force").write_bytes(SAWTOOTH.read_bytes() + b" ")
    sha256 = sha256_of(SAWTOOTH)
    kept = {"verdict": "keep", "compact_copy": None, "sha256": sha256}
    paths = [
        ("a.jpk-force", watched), ("../other/a.jpk-force", watched), ("link.jpk-force", watched),
        ("changed.jpk-force", watched), ("gone.jpk-force", watched), ("a.jpk-force", other), ("etc/passwd", Path("/")),
    ]  # fmt: skip
    made = [judged(n, path=path, folder=str(folder), **kept) for n, (path, folder) in enumerate(paths, 1)]
    stream = fill(state, made)
    (state / "watched.json").write_text(json.dumps({"watch": [str(watched)]}))
    with Page(state) as page:
        answers = [page.ask(f"/api/curve/{stream}:{seq}") for seq in range(1, len(paths) + 1)]
    assert [one.status for one in answers] == [200, 404, 404, 404, 404, 404, 404]
    assert answers[0].json["is_compact"] is False
    assert len({one.error for one in answers[1:]}) >= 3
    assert not any(str(other) in one.error or "passwd" in one.error for one in answers[1:])


def test_a_ledger_that_comes_goes_or_is_another_is_told(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    with Page(state) as page:
        assert page.ask("/").status == 200
        assert "no ledger" in page.ask("/api/state").error
        stream = fill(state, [judged(2)])
        assert page.ask(f"/api/curve/{stream}:1").status == 200
        for file in state.glob("ledger.sqlite*"):
            file.unlink()
        assert page.ask("/api/queue?name=review").status == 503
        assert page.label(f"{stream}:1").status == 503
        other = fill(state, [judged(2)])
        assert page.label(f"{stream}:1").status == 404  # of another stream
        assert page.label(f"{other}:1").status == 201
        (state / "ledger.sqlite").write_bytes(b"no ledger at all" * 500)
        for file in state.glob("ledger.sqlite-*"):
            file.unlink()
        assert page.ask("/api/state").status == 503


def test_labels_that_are_locked_newer_or_gone_are_told_and_nothing_is_lost(tmp_path: Path) -> None:
    state = tmp_path / "state"
    stream = fill(state, [judged(2), judged(5)])
    file = state / "labels.sqlite"
    with Page(state) as page:
        assert page.label(f"{stream}:1").status == 201
        held = sqlite3.connect(file, isolation_level=None)
        held.execute("begin exclusive")
        answer = page.label(f"{stream}:2")
        assert (answer.status, "locked" in answer.error) == (503, True)
        held.execute("rollback")
        held.close()
        assert stored(state) == [(1, "keep", "anna")]
        with sqlite3.connect(file) as newer:
            newer.execute(f"pragma user_version = {len(MIGRATIONS) + 1}")
        newer.close()
        assert page.label(f"{stream}:2").status == 503
        file.unlink()  # moved away, so that a backup can be put back
        assert page.label(f"{stream}:2", "unsure").status == 201
        assert stored(state) == [(2, "unsure", "anna")]


def test_a_full_disk_is_507_and_stores_nothing(tmp_path: Path) -> None:
    """A file may not grow beyond a limit: to SQLite that is a disk without room."""
    state = tmp_path / "state"
    stream = fill(state, [judged(number) for number in range(2, 400, 3)])
    with Page(state) as page:
        assert page.label(f"{stream}:1").status == 201
        size_bytes = (state / "labels.sqlite").stat().st_size
        resource.prlimit(page.process.pid, resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))
        some = [
            {"id": f"{stream}:{seq}", "label": "keep", "rater": "x" * 90, "reason": "y" * 2000} for seq in range(2, 60)
        ]
        answer = page.ask("/api/labels", "POST", some)
        assert answer.status in (503, 507), answer.body
        assert answer.error
        assert stored(state) == [(1, "keep", "anna")]
        resource.prlimit(page.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert page.ask("/api/labels", "POST", some).status == 201
    assert len(stored(state)) == 59


# The program.


def test_it_starts_quickly_without_torch_and_ends_in_time_in_the_middle_of_requests(tmp_path: Path) -> None:
    state = tmp_path / "state"
    stream = fill(state, [judged(number) for number in range(2, 300, 3)])
    began_s = time.monotonic()
    with Page(state) as page:
        assert time.monotonic() - began_s < allowed(4.0)  # 2 s where nobody else computes
        page.ask(f"/api/curve/{stream}:1")
        assert "libtorch" not in Path(f"/proc/{page.process.pid}/maps").read_text()
        answered: list[str] = []

        def go_on() -> None:
            for seq in range(1, 99):
                try:
                    if page.label(f"{stream}:{seq}", "discard").status == 201:
                        answered.append(f"{stream}:{seq}")
                except OSError:
                    return

        pages = threading.Thread(target=go_on)
        pages.start()
        with socket.create_connection(("127.0.0.1", page.port)) as slow:
            slow.sendall(b"POST /api/labels HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
            time.sleep(0.3)
            code, took_s, said = page.end(signal.SIGTERM)
        pages.join(10)
    assert (code, said) == (0, "")
    assert took_s < allowed(3.0)  # 2 s where nobody else computes
    assert len(stored(state)) >= len(answered) > 0


def test_it_ends_in_time_while_a_label_waits_for_a_locked_file(tmp_path: Path) -> None:
    state = tmp_path / "state"
    stream = fill(state, [judged(2)])
    with Page(state) as page:
        page.label(f"{stream}:1")
        held = sqlite3.connect(state / "labels.sqlite", isolation_level=None)
        held.execute("begin exclusive")
        with ThreadPoolExecutor(1) as waiting:
            answer = waiting.submit(page.label, f"{stream}:1", "discard")
            time.sleep(0.3)
            code, took_s, _ = page.end(signal.SIGINT)
            assert answer.exception(10) is not None or answer.result().status != 201
        held.close()
    assert code == 0
    assert took_s < allowed(3.0)
    assert stored(state) == [(1, "keep", "anna")]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--port", "{port}"], ALREADY_RUNNING, "the page is there already: http://127.0.0.1:{port}/"),
        (["--port", "{port}", "--state", "{other}"], UNREACHABLE, "port {port} is taken"),
        (["--state", "{none}"], UNREACHABLE, "no state folder"),
        (["--bind", "203.0.113.9", "--port", "0"], USAGE, "give an address of this machine"),
        (["--port", "99999"], USAGE, "from 0 to 65535"),
    ],
)
def test_what_cannot_work_is_one_line(
    words: list[str], code: int, said: str, lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = {"port": lab.page.port, "none": tmp_path / "none", "other": tmp_path}
    given = [word.format(**facts) for word in words]
    assert main(["review", "--state", str(lab.state), *given]) == code
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert said.format(**facts) in told


def test_other_machines_need_the_token(tmp_path: Path) -> None:
    state = tmp_path / "state"
    stream = fill(state, [judged(2)])
    with Page(state, "--bind", "0.0.0.0") as page:
        token = page.address.rpartition("?token=")[2]
        file = state / "review-token"
        assert (file.read_text().strip(), file.stat().st_mode & 0o777) == (token, 0o600)
        assert page.ask("/healthz").status == 200
        for path in ("/", "/api/state", f"/api/curve/{stream}:1", "/static/main.js", "/?token=wrong", "/?token="):
            answer = page.ask(path)
            assert (answer.status, token in answer.body.decode()) == (401, False), path
        assert page.label(f"{stream}:1").status == 401
        entered = page.ask(f"/?token={token}")
        assert (entered.status, entered.headers["location"]) == (303, "/")
        cookie, _, marks = entered.headers["set-cookie"].partition(";")
        assert "HttpOnly" in marks
        assert "SameSite" in marks
        assert page.ask("/api/state", Cookie=cookie).status == 200
        for others in ('_ga={"x":[1, 2]}', "flag", "a{b}=1", "name=two words"):  # of a program on another port
            assert page.ask("/api/state", Cookie=f"{others}; {cookie}").status == 200, others
        assert page.ask("/api/state", Cookie=f"x{cookie}").status == 401
        assert page.ask("/api/state", Authorization=f"Bearer {token}").status == 200
        assert page.ask("/api/state", Cookie=cookie, Origin="http://evil.example").status == 403
        assert page.ask("/api/state", Cookie=cookie, Host="evil.example").status == 403
        assert page.ask("/api/state", Cookie=cookie, Host=f"10.0.0.5:{page.port}").status == 200
    assert token_of(state) == token  # a bookmark still opens it
    mine = tmp_path / "token"
    mine.write_text("a-line-of-mine\n")
    mine.chmod(0o600)
    with Page(state, "--token-file", str(mine)) as page:  # also on this computer, behind a proxy, which says what it is
        assert "token" not in page.address
        form = page.ask("/", Accept="text/html,*/*")
        assert (
            form.status,
            b"<form" in form.body,
            "form-action 'self'" in form.headers["content-security-policy"],
        ) == (
            *(401, True),
            True,
        )
        assert page.ask("/login", "POST", body=b"token=guessed").status == 401
        assert page.ask("/login", "POST", body=b"token=a-line-of-mine", Origin="http://evil.example").status == 403
        entered = page.ask("/login", "POST", body=b"token=a-line-of-mine", X_Forwarded_Proto="https")
        cookie, _, marks = entered.headers["set-cookie"].partition(";")
        assert (entered.status, "Secure" in marks) == (303, True)
        assert page.ask("/api/state", Cookie=cookie).status == 200
        assert page.ask("/api/state").status == 401
    assert stored(state) == []
    (tmp_path / "afm.toml").write_text(f'state = "{state}"\n[review]\ntoken_file = "{mine}"\n')
    with Page(state, "--config", str(tmp_path / "afm.toml")) as page:  # as the unit starts it
        assert page.ask("/api/state").status == 401
        assert page.ask("/api/state", Authorization="Bearer a-line-of-mine").status == 200


def test_the_page_says_how_to_hand_over_and_leads_to_the_last_report(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab.page.ask("/report").status == 404
    begun = lab.page.ask("/api/session", "POST", {"sample": "titin"}).json["number"]
    known = lab.page.ask("/api/state").json
    assert (known["goal"], known["report"]) == (None, None)
    assert known["handover"]["what"] == f"in session {begun}, so far"
    assert f"report --state {lab.state} --html" in known["handover"]["report"]  # where no timer writes one
    words = shlex.split(known["handover"]["table"])
    which = ["--state", str(lab.state), "--session", str(begun)]
    assert words == ["afm-triage", "collect", *which, "--csv", f"kept-session-{begun}.csv"]
    lab.page.ask("/api/session", "POST", {"end": True})
    assert lab.page.ask("/api/state").json["handover"]["what"] == f"in session {begun}"
    night = night_of(time.time())
    assert f"--since {night}T12:00 --copy kept-{night}" in handover(Config(state=lab.state), None)["copies"]
    assert main([*words[1:-1], str(lab.state.parent / "x.csv"), "--dry-run"]) == 0, capsys.readouterr()
    reports = lab.state / "reports"
    reports.mkdir()
    try:
        (reports / "2026-11-26.html").write_text("<p>older</p>")
        (reports / "2026-11-27.html").write_text("<style>p { color: red }</style><p>the night</p>")
        answer = lab.page.ask("/report")
        assert "the night" in answer.body.decode()
        policy = answer.headers["content-security-policy"]
        assert "script" not in policy
        assert "default-src 'none'" in policy
        assert lab.page.ask("/api/state").json["report"] == "2026-11-27"
    finally:
        shutil.rmtree(reports)
