"""Replay buffers: what they keep, and what they give back."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp.data import ReplayBuffer
from gpubp.errors import ArgumentError, DataError, ShapeError


def held(buffer: ReplayBuffer) -> set[int]:
    """All numbers that a buffer of numbers and their doubles gives, whole rows."""
    numbers, doubles = buffer.sample(500)
    np.testing.assert_array_equal(2 * numbers, doubles[:, 0])
    return set(numbers.tolist())


def test_the_last_rows_are_kept_together():
    buffer = ReplayBuffer(5)
    for start in range(0, 12, 3):
        numbers = np.arange(start, start + 3)
        buffer.add(numbers, 2 * numbers[:, None])
    assert len(buffer) == 5
    assert held(buffer) == {7, 8, 9, 10, 11}


def test_before_it_is_full_only_what_was_added_is_drawn():
    buffer = ReplayBuffer(100)
    buffer.add([1, 2], [[2], [4]])
    assert len(buffer) == 2 and held(buffer) == {1, 2}


def test_more_rows_at_once_than_it_holds():
    buffer = ReplayBuffer(3)
    buffer.add([50], [[100]])
    buffer.add(np.arange(10), 2 * np.arange(10)[:, None])
    assert held(buffer) == {7, 8, 9}


def test_dtypes_are_those_of_the_first_rows_and_draws_are_the_seeds():
    def drawn(seed):
        buffer = ReplayBuffer(8, seed=seed)
        buffer.add(np.arange(8, dtype=np.float32))
        buffer.add(np.arange(4))
        return buffer.sample(20)[0]

    assert drawn(1).dtype == np.float32
    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert np.any(drawn(1) != drawn(2))


def test_samples_are_copies():
    buffer = ReplayBuffer(2)
    buffer.add(np.ones((2, 3)))
    buffer.sample(2)[0][:] = 9
    np.testing.assert_array_equal(buffer.sample(2)[0], np.ones((2, 3)))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda b: ReplayBuffer(0), DataError, "capacity is 0"),
        (lambda b: ReplayBuffer(2.5), ArgumentError, "capacity"),
        (lambda b: ReplayBuffer(3).sample(1), DataError, "add rows"),
        (lambda b: b.sample(0), DataError, "batch_size is 0"),
        (lambda b: b.add(), DataError, "got 0 arrays, expected 2"),
        (lambda b: b.add([1]), DataError, "got 1 arrays, expected 2"),
        (lambda b: b.add([1, 2], [[1]]), DataError, "array 0 has 2 samples and array 1 has 1"),
        (lambda b: b.add([1], [[1, 2]]), ShapeError, r"shape \[2\], expected \[1\]"),
        (lambda b: b.add(["a"], [[1]]), DataError, "array 0 has the dtype <U1"),
        (lambda b: b.add([[1], [1, 2]], [1]), ArgumentError, "array 0, a list"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(call, error, words):
    buffer = ReplayBuffer(4)
    buffer.add([1, 2], [[2], [4]])
    with pytest.raises(error, match=words):
        call(buffer)
    assert len(buffer) == 2 and held(buffer) == {1, 2}
