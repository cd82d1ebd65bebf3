"""Look-alikes: curves of one kind lie on one sheet, and every curve on exactly one."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pace import allowed

from daemon.ledger import LedgerView
from daemon.review.lookalikes import SIZE, nearest, sheets
from tests.ledgerhelp import decision, ledger_with

KINDS = 4


def drawing(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(2, 256): nothing, one fall, three falls, or a fall and a rise; where it stands tells nothing of the kind."""
    rng = np.random.default_rng(number)
    course = np.full(256, 90.0) + rng.normal(0.0, 2.0, 256)
    places = np.sort(rng.choice(np.arange(30, 200), 3, replace=False))
    if number % KINDS == 1:
        course[: places[0]] += 60
    elif number % KINDS == 2:
        for place in places:
            course[place - 25 : place] += np.linspace(0, 45, 25)
    elif number % KINDS == 3:
        course[places[0] : places[0] + 40] += 50
    return np.clip(np.stack((course - 2, course + 2)), 0, 255).astype(np.uint8)


def preview(number: int) -> str:
    return base64.b64encode(drawing(number).tobytes()).decode()


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerView]:
    """Curves 1 to 400 of four kinds; 401 to 403 without a drawing, 404 with a strange one, 405 of a wider raster."""
    ledger = ledger_with(tmp_path_factory.mktemp("alike") / "ledger.sqlite", 0)
    ledger.record([decision(number, preview=preview(number)) for number in range(1, 401)])
    ledger.record([decision(number, preview=None) for number in range(401, 404)])
    wide = base64.b64encode(np.repeat(drawing(1), 2, axis=1).tobytes()).decode()
    ledger.record([decision(404, preview="no drawing"), decision(405, preview=wide)])
    with ledger.view() as view:
        yield view
    ledger.close()


def test_every_curve_lies_on_one_sheet_and_hardly_any_with_another_kind(view: LedgerView) -> None:
    wanted = [*range(400, 0, -1), 402, 402]
    found = sheets(view, wanted)
    assert sorted(seq for sheet in found for seq in sheet) == [*range(1, 401), 402]
    assert found[-1] == [402]
    assert {len(sheet) for sheet in found[:-1]} == {400 // 17, 400 // 17 + 1}
    assert max(map(len, found)) <= SIZE
    strangers = sum(len(sheet) - max(np.bincount([seq % KINDS for seq in sheet])) for sheet in found)
    assert strangers <= 40  # a quarter of all by chance: 250


def test_the_nearest_are_of_the_same_kind_and_never_the_curve_itself(view: LedgerView) -> None:
    found = [nearest(view, seq, 5, range(1, 401)) for seq in range(1, 101)]
    assert all(len(set(some)) == 5 and seq not in some for seq, some in enumerate(found, 1))
    same = sum(one % KINDS == seq % KINDS for seq, some in enumerate(found, 1) for one in some)
    assert same >= 450  # of 500
    assert nearest(view, 405, 1, range(1, 401)) == [1]  # the same curve, drawn twice as wide


def test_without_a_drawing_there_is_nothing_to_compare(view: LedgerView) -> None:
    assert nearest(view, 401, 5, range(1, 401)) == []
    assert nearest(view, 404, 5, range(1, 401)) == []
    assert nearest(view, 1, 5, [1, 401, 9_999]) == []
    assert sheets(view, []) == []
    assert sheets(view, [403, 401]) == [[403, 401]]
    assert sheets(view, [7]) == [[7]]


def test_ten_thousand_curves_are_laid_out_before_anybody_looks_up(tmp_path: Path) -> None:
    drawn = [preview(number) for number in range(50)]
    ledger = ledger_with(tmp_path / "ledger.sqlite", 0)
    for start in range(0, 10_000, 2_000):
        ledger.record([decision(n, preview=drawn[n % 50]) for n in range(start, start + 2_000)])
    with ledger.view() as view:
        took_s = []
        for seqs in (range(1, 10_001), range(2, 10_001)):  # the second time their descriptions are remembered
            begun_s = time.process_time()
            assert sum(map(len, sheets(view, seqs))) == len(seqs)
            took_s.append(time.process_time() - begun_s)
        assert took_s[0] < allowed(2.0)  # 0.7 s on the computer that it was written on
        assert took_s[1] < allowed(0.7)
    ledger.close()
