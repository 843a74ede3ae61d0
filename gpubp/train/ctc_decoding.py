"""What a network that was trained with CTCLoss says: the likeliest labels."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp.arguments import checked
from gpubp.core.interop import as_numpy
from gpubp.errors import DataError, ShapeError

# How likely a prefix is if it ends in a blank, and if it ends in its last label.
_Prefixes = dict[tuple[int, ...], tuple[float, float]]


@checked
def ctc_greedy(log_probs: ArrayLike, lengths: ArrayLike, blank: int = 0) -> list[list[int]]:
    """The likeliest class of each moment; repetitions count once, then blanks are left out.

    Args:
        log_probs: (T, N, C), as CTCLoss takes them; logits do as well.
        lengths: (N,), the moments of each sequence.
        blank: the class that says nothing.

    Returns:
        The labels of each sequence.

    Raises:
        ShapeError: other shapes. DataError: lengths above T, or no such blank.
    """
    scores, times = _checked(log_probs, lengths, blank)
    found = []
    for i, time in enumerate(times):
        path = scores[:time, i].argmax(axis=1)
        starts = np.r_[True, path[1:] != path[:-1]][: len(path)]
        found.append(path[starts & (path != blank)].tolist())
    return found


@checked
def ctc_beam(
    log_probs: ArrayLike, lengths: ArrayLike, width: int = 10, blank: int = 0
) -> list[list[int]]:
    """The likeliest labels, each by the sum over all its alignments (prefix beam search).

    Graves and Jaitly, "Towards end-to-end speech recognition with recurrent neural networks"
    (2014), without a dictionary. Where several alignments say the same, this finds labels that
    `ctc_greedy` does not.

    Args:
        log_probs: (T, N, C), as log_softmax gives them.
        lengths: (N,), the moments of each sequence.
        width: the prefixes that are kept at each moment.
        blank: the class that says nothing.

    Returns:
        The labels of each sequence.

    Raises:
        ShapeError: other shapes. DataError: lengths above T, no such blank, or `width` below 1.
    """
    scores, times = _checked(log_probs, lengths, blank)
    if width < 1:
        raise DataError(f"ctc_beam: width is {width}, expected 1 or more.")
    return [list(_best(scores[:time, i], width, blank)) for i, time in enumerate(times)]


def _best(scores: NDArray[np.float64], width: int, blank: int) -> tuple[int, ...]:
    """The likeliest prefix of one sequence (time, classes)."""
    beam: _Prefixes = {(): (0.0, -np.inf)}
    for row in scores:
        # Behind one prefix, `width` labels that are likelier (not counting the blank, and a label
        # behind itself) leave no place for another, unless it makes a prefix that is kept already.
        likely = np.argsort(-row, kind="stable")[: width + 2].tolist()
        likely += sorted({prefix[-1] for prefix in beam if prefix} - set(likely))
        grown = _grown(beam, row, likely, blank)
        order = sorted(grown, key=lambda p: (-np.logaddexp(*grown[p]), p))
        beam = {prefix: grown[prefix] for prefix in order[:width]}
    return next(iter(beam))


def _grown(
    beam: _Prefixes, row: NDArray[np.float64], likely: list[int], blank: int
) -> dict[tuple[int, ...], tuple[float, float]]:
    """The prefixes of the next moment: as they are, and with each likely label behind them."""
    blanks: defaultdict[tuple[int, ...], float] = defaultdict(lambda: -np.inf)
    labels: defaultdict[tuple[int, ...], float] = defaultdict(lambda: -np.inf)
    for prefix, (in_blank, in_label) in beam.items():
        both = np.logaddexp(in_blank, in_label)
        blanks[prefix] = np.logaddexp(blanks[prefix], both + row[blank])
        if prefix:  # its last label lasts
            labels[prefix] = np.logaddexp(labels[prefix], in_label + row[prefix[-1]])
        for label in likely:
            if label == blank:
                continue
            # A label behind itself needs a blank between.
            before = in_blank if prefix and prefix[-1] == label else both
            longer = (*prefix, label)
            labels[longer] = np.logaddexp(labels[longer], before + row[label])
    return {prefix: (blanks[prefix], labels[prefix]) for prefix in {**blanks, **labels}}


def _checked(log_probs: Any, lengths: Any, blank: int) -> tuple[NDArray[np.float64], list[int]]:
    scores = as_numpy(log_probs, "log_probs")
    times = as_numpy(lengths, "lengths")
    if scores.ndim != 3 or times.shape != scores.shape[1:2] or times.dtype.kind not in "iu":
        raise ShapeError(
            f"log_probs {scores.shape} and lengths {times.dtype} {times.shape}: expected (T, N, C) "
            "and N whole numbers."
        )
    if times.size and not 0 <= times.min() <= times.max() <= len(scores):
        raise DataError(f"lengths are from {times.min()} to {times.max()}, T is {len(scores)}.")
    if not 0 <= blank < scores.shape[2]:
        raise DataError(f"blank is {blank}, expected one of {scores.shape[2]} classes.")
    return scores.astype(np.float64), times.tolist()
