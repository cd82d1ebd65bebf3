"""The study of the promise: what it counts, on piles of which the answer is known."""

from __future__ import annotations

from functools import partial

import numpy as np

from tests.studies.enough import Pool, by_head, by_score, count, hidden, needed, two_normals, write_text


def test_replays_count_what_was_looked_at_and_broken():
    good = count("good", "given", partial(two_normals, 900, 110, 0.9999), 6, 1)
    assert (good.curves, good.events, good.replays) == (900, 110, 6)
    assert (good.early, good.whole, good.broken) == (6, 0, 0)
    assert good.needed < good.looked[0] <= good.looked[1] < 0.6
    few = count("few", "given", partial(two_normals, 150, 15, 0.99), 3, 1)
    assert (few.early, few.whole, few.broken) == (0, 3, 0)
    worst = count("worst", "given", partial(hidden, 6), 10, 1)
    assert worst.broken <= 3  # more happens to a sound rule in 0.1 %
    assert write_text([good]).splitlines()[1].split()[:4] == ["good", "given", "900", "110"]


def test_the_head_of_the_study_learns_what_the_score_does_not_know():
    rng = np.random.default_rng(1)
    events = np.arange(400) < 130
    vectors = rng.normal(size=(400, 8)).astype(np.float32)
    vectors[events, 0] += 3.0
    pool = Pool(vectors, rng.normal(size=400), events)
    score = needed(*by_score(pool, 110, 250, False, np.random.default_rng(2)))
    head = needed(*by_head(pool, 110, 250, np.random.default_rng(2)))
    assert score > 0.85
    assert head < score - 0.2
