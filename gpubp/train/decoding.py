"""Beam search: the likeliest sequences of a model that writes one token at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpubp.arguments import checked
from gpubp.errors import DataError, ShapeError


class Beams(NamedTuple):
    """What `beam_search` found, the likeliest sequence of each sample first.

    Attributes:
        tokens: (N, width, T) indices, T at most `max_length`; behind a sequence's end `end`.
        scores: (N, width), logarithms of probabilities, divided by (length + 1) ** length_penalty.
    """

    tokens: NDArray[np.int64]
    scores: NDArray[np.float64]


@checked
def beam_search(
    step: Callable[[NDArray[np.int64], Any], tuple[Any, Any]],
    state: Any,
    start: int,
    end: int,
    width: int = 4,
    max_length: int = 50,
    length_penalty: float = 0.0,
) -> Beams:
    """Keep the `width` likeliest beginnings of a sequence, and lengthen each by every token.

    Sutskever et al., "Sequence to sequence learning with neural networks" (2014); with `width` 1 it
    takes the likeliest token each time. `step` is called with N * width rows in each round, also
    for sequences that have ended, so that one compiled program serves all rounds.

    Args:
        step: takes the last tokens (N * width,) and the state; returns the logarithms of the next
            tokens' probabilities (N * width, C), and the next state.
        state: of N samples: an array with the samples along the first axis, or tuples, lists and
            dicts of such arrays (of which at least one).
        start: the token before the first.
        end: the token that ends a sequence.
        width: the beginnings that are kept for each sample.
        max_length: tokens at most, `end` among them.
        length_penalty: 0 prefers short sequences, 1 ranks by the mean over tokens. It ranks what is
            found; the search itself goes by probabilities.

    Returns:
        Tokens and scores. A sequence that found no end has none.

    Raises:
        DataError: `width` or `max_length` below 1, no array in the state, or tokens out of range.
        ShapeError: `step` returned something else than (N * width, C).
    """
    if width < 1 or max_length < 1:
        raise DataError(
            f"beam_search: width {width} and max_length {max_length}, expected 1 or more."
        )
    samples = _samples(state)
    state = _mapped(state, lambda a: np.repeat(np.asarray(a), width, axis=0))
    last = np.full(samples * width, start, np.int64)
    scores = np.tile(np.r_[0.0, np.full(width - 1, -np.inf)], (samples, 1))  # all begin alike
    ended, tokens = np.zeros((samples, width), bool), np.zeros((samples, width, 0), np.int64)
    for _ in range(max_length):
        log_probs, state = step(last, state)
        found = _checked_scores(log_probs, samples * width, end)
        found[ended.ravel()] = -np.inf
        found[ended.ravel(), end] = 0.0  # an ended sequence goes on at no cost, with `end` alone
        scores, parents, chosen = _best(scores, found.reshape(samples, width, -1))
        rows = (np.arange(samples)[:, None] * width + parents).ravel()
        state = _mapped(state, partial(_rows, rows))
        tokens = np.concatenate(
            [np.take_along_axis(tokens, parents[..., None], 1), chosen[..., None]], axis=2
        )
        ended = np.take_along_axis(ended, parents, 1) | (chosen == end)
        if ended.all():
            break
        last = chosen.ravel()
    return _ranked(tokens, scores, end, length_penalty)


def _best(
    scores: NDArray[np.float64], found: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """The best of all beginnings with all next tokens: scores, beginnings, tokens."""
    samples, width, classes = found.shape
    flat = (scores[..., None] + found).reshape(samples, width * classes)
    # Stable, so that of equal ones the first is taken on every machine.
    order = np.argsort(-flat, axis=1, kind="stable")[:, :width]
    return np.take_along_axis(flat, order, 1), order // classes, order % classes


def _checked_scores(log_probs: Any, rows: int, end: int) -> NDArray[np.float64]:
    found = np.array(log_probs, np.float64)
    if found.ndim != 2 or len(found) != rows:
        raise ShapeError(f"beam_search: step returned {found.shape}, expected ({rows}, tokens).")
    if not 0 <= end < found.shape[1]:
        raise DataError(f"beam_search: end is {end}, expected one of {found.shape[1]} tokens.")
    return found


def _ranked(
    tokens: NDArray[np.int64], scores: NDArray[np.float64], end: int, penalty: float
) -> Beams:
    lengths = np.sum(np.cumsum(tokens == end, axis=2) == 0, axis=2)
    scores = scores / (lengths + 1.0) ** penalty
    order = np.argsort(-scores, axis=1, kind="stable")
    tokens = np.take_along_axis(tokens, order[..., None], 1)
    return Beams(tokens, np.take_along_axis(scores, order, 1))


def _mapped(state: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(state, Mapping):
        return {name: _mapped(value, change) for name, value in state.items()}
    if isinstance(state, (tuple, list)):
        return type(state)(_mapped(value, change) for value in state)
    return change(state)


def _rows(rows: NDArray[np.int64], array: Any) -> Any:
    return np.asarray(array)[rows]


def _samples(state: Any) -> int:
    """The length of the first axis of the state's arrays."""
    sizes: list[Any] = []
    _mapped(state, lambda a: sizes.append(np.shape(a)[:1]))
    if not sizes or any(size != sizes[0] or not size for size in sizes):
        raise DataError(
            "beam_search: expected a state of arrays with the samples along the first axis, got "
            f"first axes of {sizes}."
        )
    return int(sizes[0][0])
