"""How far sequences are from what they should be: phoneme, character and word error rates."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from gpubp.errors import DataError


def edit_distance(given: Iterable[Hashable], wanted: Iterable[Hashable]) -> int:
    """The fewest insertions, deletions and substitutions that make one sequence of the other.

    Levenshtein, "Binary codes capable of correcting deletions, insertions and reversals" (1966).
    Elements are compared by `==`: letters of texts, words of lists.
    """
    left, right = list(given), list(wanted)
    # Row i: distances of left[:i] to each right[:j]. What is inserted in a row follows from the
    # smallest of what stands before it, less its place.
    places = np.arange(len(right) + 1)
    index = {token: i for i, token in enumerate(dict.fromkeys(right))}
    codes = np.array([index[token] for token in right], np.int64)
    row = places.copy()
    for token in left:
        differs = (codes != index.get(token, -1)).astype(np.int64)
        above = np.r_[row[0] + 1, np.minimum(row[1:] + 1, row[:-1] + differs)]
        row = np.minimum.accumulate(above - places) + places
    return int(row[-1])


def error_rate(given: Sequence[Iterable[Hashable]], wanted: Sequence[Iterable[Hashable]]) -> float:
    """The sum of edit distances over the number of elements wanted; 0 is right, above 1 possible.

    Args:
        given: N sequences, as a model writes them.
        wanted: the N right ones.

    Raises:
        DataError: other numbers of sequences, or nothing wanted.
    """
    if len(given) != len(wanted):
        raise DataError(f"error_rate: {len(given)} sequences given, {len(wanted)} wanted.")
    right = [list(sequence) for sequence in wanted]
    total = sum(map(len, right))
    if not total:
        raise DataError("error_rate: the sequences that are wanted have no elements.")
    return sum(edit_distance(a, b) for a, b in zip(given, right)) / total
