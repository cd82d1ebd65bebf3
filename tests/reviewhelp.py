"""The review page as a process of its own, and a client that can send anything: what the tests of the page share."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from daemon.formats import open_file
from daemon.formats.afmcurve import compact_copy_of
from daemon.judging import Decision
from daemon.ledger import Ledger
from models.frontend import prepare_to_judge
from models.raster import RasterProfile
from tests.ledgerhelp import decision

CURVES = Path(__file__).resolve().parents[1] / "daemon" / "curves"
#: The pile in the order of the network's scores: a head takes a process that loads torch, for seconds.
BY_SCORE = {"AFM_TRIAGE_REVIEW__ORDER": "score"}
SAWTOOTH = CURVES / "force-save-0441.jpk-force"


@lru_cache(maxsize=4)
def copy_of(file: Path) -> bytes:
    """The compact copy that the ledger keeps of a file's first curve."""
    curve, profile = open_file(file)[0], RasterProfile()
    return compact_copy_of(curve, profile, prepare_to_judge([curve], profile)[0])


def judged(number: int, **changes: Any) -> Decision:
    """As ``ledgerhelp.decision``, with a copy that can be drawn where there is one."""
    made = decision(number, **changes)
    if made.compact_copy is None or "compact_copy" in changes:
        return made
    return decision(number, **{"compact_copy": copy_of(SAWTOOTH), **changes})


def fill(state: Path, decisions: Iterable[Decision]) -> str:
    """A ledger of them, closed again; its stream."""
    state.mkdir(exist_ok=True)
    ledger = Ledger(state / "ledger.sqlite", "afm1")
    ledger.record(list(decisions))
    stream = ledger.stream
    ledger.close()
    return stream


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        said: str = self.json["error"]
        assert "\n" not in said
        return said


class Page:
    """A running `review`; ``with`` ends it."""

    def __init__(self, state: Path, *words: str, environment: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "daemon", "review", "--state", str(state), "--port", "0", "--json", *words]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | BY_SCORE | dict(environment or {}),
            process_group=0,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate(timeout=10)[1]
        self.address: str = json.loads(line)["address"]
        self.host = self.address.split("/")[2]
        self.port = int(self.host.rpartition(":")[2])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=10)

    def end(self, number: int) -> tuple[int, float, str]:
        """Exit code after this signal, seconds that it took, standard error."""
        began_s = time.monotonic()
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=20)
        return self.process.returncode, time.monotonic() - began_s, said

    def ask(
        self, path: str, method: str = "GET", value: Any = None, *, body: bytes | None = None, **headers: str
    ) -> Reply:
        """``value`` is sent as JSON, ``body`` as it is; ``Sec_Fetch_Site=…`` is a header."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            sent = body if value is None else json.dumps(value).encode()
            named = {name.replace("_", "-"): text for name, text in headers.items()}
            connection.request(method, path, sent, named)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def label(self, id: str, label: str = "keep", rater: str = "anna", **more: Any) -> Reply:
        return self.ask("/api/labels", "POST", {"id": id, "label": label, "rater": rater, **more})
