"""CTC refuses labels and lengths that cannot be: when it is called, or when a program runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from registered import BACKENDS
from tolerances import assert_close

import gpubp as gp
from gpubp import nn, ops
from gpubp.errors import ArgumentError, DataError, IndexRangeError

X = ops.log_softmax(np.random.default_rng(0).normal(size=(6, 2, 4)))
LABELS, TIMES, SIZES = np.array([[1, 2, 3], [2, 9, -1]]), np.array([6, 5]), np.array([3, 1])
LOSS = nn.CTCLoss()
BAD: dict[str, Any] = {
    "is the blank": ((np.array([[1, 0, 3], [2, 2, 2]]), TIMES, SIZES), IndexRangeError),
    "label 4 is none of 4": ((np.array([[1, 4, 3], [2, 2, 2]]), TIMES, SIZES), IndexRangeError),
    "label -1 is none of 4": ((np.array([[1, -1, 3], [2, 2, 2]]), TIMES, SIZES), IndexRangeError),
    "input_lengths must be": ((LABELS, np.array([7, 5]), SIZES), ArgumentError),
    "target_lengths must be": ((LABELS, TIMES, np.array([3, 4])), ArgumentError),
}


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_is_refused_at_the_call_and_in_a_program(message: str) -> None:
    given, error = BAD[message]
    with pytest.raises(error, match=message):
        LOSS(X, *given)
    for backend in BACKENDS:
        with pytest.raises(DataError, match=r"out of range|must be"):
            gp.compile(LOSS, backend=backend)(X, *given)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_stands_behind_the_labels_may_be_anything(backend: str) -> None:
    wanted = LOSS(X, np.array([[1, 2, 3], [2, 1, 1]]), TIMES, SIZES)
    assert_close(LOSS(X, LABELS, TIMES, SIZES), wanted)
    assert_close(gp.compile(LOSS, backend=backend)(X, LABELS, TIMES, SIZES), wanted)
