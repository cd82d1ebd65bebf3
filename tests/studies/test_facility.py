import json
import subprocess
import sys
import time

import pytest

from daemon.client.feed import Feed
from daemon.ledger import wire
from tests.ledgerhelp import decision
from tests.speaker import preview
from tests.studies.facility import Template

pytestmark = pytest.mark.study


def test_a_body_is_the_event_with_names_of_its_own_and_the_same_each_time():
    from daemon.ledger import events

    real = events.decision_event(
        decision(2, preview=preview()), instrument="afm9", stream="s", seq=5, wall_s=0.0, total_s=0.1
    )
    template = Template(wire.encode(real))
    one, again = (wire.decode(template.body("afm1", 12, 1e9 + 0.5)) for _ in range(2))
    assert one == again
    assert (one["seq"], one["source"], one["time"]) == (12, "/afm1", "2001-09-09T01:46:40.500Z")
    assert one["data"]["path"] in one["subject"]
    assert one["data"].keys() == wire.as_plain(real)["data"].keys()
    other = wire.decode(template.body("afm2", 12, 1e9))
    for name in ("sha256", "score", "preview"):
        assert one["data"][name] != other["data"][name]
    assert template.verdict == one["data"]["verdict"]


def test_instruments_speak_live_and_of_what_was(tmp_path):
    real = decision(2, preview=preview())
    from daemon.ledger import events

    made = events.decision_event(real, instrument="afm9", stream="s", seq=5, wall_s=0.0, total_s=0.1)
    (tmp_path / "events.jsonl").write_bytes(wire.encode(made))
    words = [sys.executable, "-m", "tests.studies.facility", str(tmp_path), "7", "2", "20", "40"]
    speaker = subprocess.Popen(words)
    try:
        until_s = time.monotonic() + 30
        while not (file := tmp_path / "speaker-7.json").exists() and time.monotonic() < until_s:
            time.sleep(0.05)
        where = json.loads(file.read_text())
        assert list(where) == ["afm007", "afm008"]
        (tmp_path / "begin").write_text(str(time.time()))
        for name, at in where.items():
            with Feed(at["publish"], at["replay"], since=0) as feed:
                seqs = []
                while len(seqs) < 40:
                    seqs += [one["seq"] for one in feed.read(5.0) if one["type"].endswith("decision.v1")]
                assert seqs == list(range(1, 41)), name
    finally:
        speaker.kill()
        speaker.wait(10)
