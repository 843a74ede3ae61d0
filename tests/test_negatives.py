"""Items that a user has no pair with."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp.data import NegativeSampler
from gpubp.errors import DataError, IndexRangeError, ShapeError

RNG = np.random.default_rng(0)
PAIRS = np.unique(RNG.integers(0, (30, 20), (200, 2)), axis=0)


def test_no_pair_that_occurred_is_drawn():
    users, items = PAIRS.T
    drawn = NegativeSampler(users, items, 20).sample(np.repeat(users, 10), 5)
    assert drawn.shape == (10 * len(users), 5) and drawn.min() >= 0 and drawn.max() < 20
    seen = {(int(u), int(i)) for u, i in PAIRS}
    assert not any(
        (int(u), int(i)) in seen for u, row in zip(np.repeat(users, 10), drawn) for i in row
    )


def test_what_is_left_is_drawn_evenly():
    drawn = NegativeSampler([0, 0], [1, 3], 5).sample([0], 30_000)
    counts = np.bincount(drawn[0], minlength=5)
    assert counts[1] == counts[3] == 0
    np.testing.assert_allclose(counts[[0, 2, 4]], 10_000, rtol=0.05)


def test_a_power_draws_by_how_often_items_occur():
    users, items = np.arange(80), np.repeat([0, 1], [16, 64])  # user 99 has none of them
    drawn = NegativeSampler(users, items, 3, power=0.5).sample([99], 30_000)
    counts = np.bincount(drawn[0], minlength=3)
    assert counts[2] == 0  # never occurs
    np.testing.assert_allclose(counts[1] / counts[0], 2.0, rtol=0.05)


def test_the_last_item_that_is_left_is_found():
    items = np.arange(5000)
    sampler = NegativeSampler(np.zeros(4999, int), items[items != 4321], 5000)
    assert sampler.sample([0], 2).tolist() == [[4321, 4321]]
    rare = NegativeSampler(np.zeros(4999, int), items[items != 4321], 5000, power=1.0)
    assert rare.sample([0]).tolist() == [[4321]]  # though it never occurs


def test_draws_depend_on_the_seed():
    users, items = PAIRS.T
    drawn = [NegativeSampler(users, items, 20, seed=s).sample(users) for s in (1, 1, 2)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()


def test_bad_pairs_are_refused():
    with pytest.raises(DataError, match="user 1 has all of 2 items"):
        NegativeSampler([0, 1, 1], [0, 0, 1], 2)
    with pytest.raises(IndexRangeError, match="from 0 to 1"):
        NegativeSampler([0], [2], 2)
    with pytest.raises(IndexRangeError):
        NegativeSampler([-1], [0], 2)
    with pytest.raises(ShapeError, match="one length"):
        NegativeSampler([0, 1], [0], 2)
    with pytest.raises(ShapeError, match="whole numbers"):
        NegativeSampler([0.5], [0], 2)
    with pytest.raises(DataError, match="no pairs"):
        NegativeSampler(np.zeros(0, int), np.zeros(0, int), 2)
    sampler = NegativeSampler([0], [0], 2)
    with pytest.raises(DataError, match="count is 0"):
        sampler.sample([0], 0)
    with pytest.raises(ShapeError, match="row of indices"):
        sampler.sample([[0]])
    with pytest.raises(IndexRangeError, match="users from -1"):
        sampler.sample([-1])
