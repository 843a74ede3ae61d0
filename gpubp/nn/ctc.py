"""Connectionist temporal classification: labels for sequences without an alignment."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.arguments import checked
from gpubp.compiler.scan import scan
from gpubp.core import describe
from gpubp.errors import ArgumentError, IndexRangeError, ShapeError
from gpubp.nn.arrays import of_arrays
from gpubp.nn.loss_base import Loss

_NEVER = -1e30  # a logarithm of 0 whose differences are numbers


class CTCLoss(Loss):
    """Minus the logarithm of the probability that a sequence says its labels.

    Graves et al., "Connectionist temporal classification" (2006): between and around labels there
    may be blanks, and each symbol may last. The sum over all ways runs forward in time, in
    logarithms; its gradient is the loop's own.

    Args:
        blank: the class that says nothing.
        reduction: "mean" (each loss by its number of labels, then the mean), "sum" or "none".
        zero_infinity: sequences that cannot say their labels (too short for them, or by symbols of
            probability 0) cost 0 instead of infinity. Their gradient is 0 in either case, so the
            others are trained on; torch's is NaN where the loss is infinite.
    """

    @checked
    def __init__(
        self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False
    ) -> None:
        super().__init__(reduction)
        self.blank, self.zero_infinity = blank, zero_infinity

    @of_arrays
    def forward(self, log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any) -> Any:
        """Logarithms of probabilities (T, N, C), or (T, C) of one sequence, and its labels.

        Args:
            log_probs: floats, as log_softmax gives them.
            targets: integers (N, S), padded behind; or (sum of target_lengths,), one behind the
                other, outside of traced functions.
            input_lengths, target_lengths: integers (N,), at most T and S.

        Raises:
            ShapeError: other shapes. ArgumentError: concatenated targets while tracing; lengths
                that are negative or too large. IndexRangeError: a label that is no class, or the
                blank. In compiled functions numbers are looked at when a program runs (DataError).
        """
        self._floats(log_probs)
        single = len(log_probs.shape) == 2
        if single:
            log_probs = ops.expand_dims(log_probs, 1)
            targets = ops.reshape(targets, (1, -1))
            input_lengths = ops.reshape(input_lengths, (1,))
            target_lengths = ops.reshape(target_lengths, (1,))
        if len(log_probs.shape) != 3:
            raise ShapeError(f"CTCLoss: got {describe(log_probs)}, expected (T, N, C).")
        if len(targets.shape) == 1:
            targets = _padded(targets, target_lengths)
        count = log_probs.shape[1]
        self._require_possible(log_probs, targets, input_lengths, target_lengths)
        if not targets.shape[0] == count == input_lengths.shape[0] == target_lengths.shape[0]:
            raise ShapeError(
                f"CTCLoss: {describe(log_probs)}, targets {describe(targets)}, lengths "
                f"{describe(input_lengths)} and {describe(target_lengths)}: expected one for each "
                f"of {count} sequences."
            )
        input_lengths = _within(input_lengths, log_probs.shape[0] + 1)
        target_lengths = _within(target_lengths, targets.shape[1] + 1)
        losses = _losses(log_probs, targets, input_lengths, target_lengths, self.blank)
        endless = ops.greater(losses, -_NEVER / 2)
        losses = ops.where(endless, 0.0 if self.zero_infinity else math.inf, losses)
        if self.reduction == "mean":
            labels = ops.astype(ops.maximum(target_lengths, 1), losses.dtype)
            losses = ops.divide(losses, labels)
        return self._reduced(ops.reshape(losses, ()) if single else losses)

    def _require_possible(self, x: Any, targets: Any, times: Any, labels: Any) -> None:
        """What is known beforehand: the blank, and lengths that are no traced arrays."""
        if not 0 <= self.blank < x.shape[2]:
            raise ArgumentError(
                f"CTCLoss: blank is {self.blank}, expected one of {x.shape[2]} classes."
            )
        for name, lengths, most in (
            ("input_lengths", times, x.shape[0]),
            ("target_lengths", labels, targets.shape[1]),
        ):
            known = isinstance(lengths, np.ndarray) and lengths.size
            if known and not 0 <= lengths.min() <= lengths.max() <= most:
                raise ArgumentError(
                    f"CTCLoss: {name} must be from 0 to {most}, got {lengths.min()} to "
                    f"{lengths.max()}."
                )
        if isinstance(targets, np.ndarray) and isinstance(labels, np.ndarray):
            self._require_labels(targets, labels, x.shape[2])

    def _require_labels(self, targets: Any, lengths: Any, classes: int) -> None:
        """Those that count: behind them may stand anything."""
        if len(targets) != len(lengths):
            return  # which is refused as another shape
        found = targets[np.arange(targets.shape[1]) < lengths[:, None]]
        bad = found[(found < 0) | (found >= classes) | (found == self.blank)]
        if bad.size:
            why = "is the blank" if bad[0] == self.blank else f"is none of {classes} classes"
            raise IndexRangeError(f"CTCLoss: label {bad[0]} {why}.")


def _within(values: Any, size: int) -> Any:
    """Whole numbers as they are; a program that meets one outside of [0, size) is stopped."""
    if isinstance(values, np.ndarray):
        return values
    zeros = ops.zeros((size,), values.dtype)
    return ops.add(values, ops.gather(zeros, values))


def _padded(targets: Any, lengths: Any) -> Any:
    """Labels one behind the other as rows."""
    if not isinstance(lengths, np.ndarray):
        raise ArgumentError(
            "CTCLoss: concatenated targets need lengths that are known. In a traced function give "
            "padded targets (N, S)."
        )
    if targets.shape[0] != lengths.sum():
        raise ShapeError(
            f"CTCLoss: {targets.shape[0]} labels, but target_lengths add up to {lengths.sum()}."
        )
    starts = np.cumsum(lengths) - lengths
    places = starts[:, None] + np.arange(max(int(lengths.max(initial=0)), 1))
    return ops.gather(targets, np.minimum(places, max(targets.shape[0] - 1, 0)), 0)


def _symbols(targets: Any, labels: Any, blank: int, classes: int) -> Any:
    """Blanks between labels, (N, 2 S + 1): -, l1, -, l2, ..., -; only blanks behind the last."""
    count, size = targets.shape
    states = 2 * size + 1
    wide = ops.expand_dims(targets, -1)
    pairs = ops.concat([ops.full_like(wide, blank), wide], -1)
    symbols = (
        ops.concat([ops.reshape(pairs, (count, 2 * size)), ops.full_like(targets[:, :1], blank)], 1)
        if size
        else ops.full_like(ops.reshape(labels, (count, 1)), blank)
    )
    inside = ops.less(np.arange(states), ops.expand_dims(2 * labels + 1, -1))
    own = np.arange(states) % 2 == 1  # where labels stand, which may not be the blank
    wrong = ops.logical_and(ops.logical_and(inside, own), ops.equal(symbols, blank))
    symbols = ops.where(inside, symbols, blank)
    return ops.where(wrong, blank, _within(ops.where(wrong, classes, symbols), classes))


def _losses(x: Any, targets: Any, times: Any, labels: Any, blank: int) -> Any:
    """One for each sequence; about `-_NEVER` where there is no way."""
    states = 2 * targets.shape[1] + 1
    symbols = _symbols(targets, labels, blank, x.shape[2])
    # A label may follow another one without a blank, unless they are the same.
    before = ops.concat([ops.full_like(symbols[:, :2], blank), symbols[:, :-2]], 1)
    skips = ops.logical_and(
        ops.not_equal(symbols, blank), ops.not_equal(symbols, before[:, :states])
    )
    chosen = ops.one_hot(symbols, x.shape[2], x.dtype)
    first = ops.where(np.arange(states) < 2, 0.0, _NEVER)
    start = ops.astype(ops.broadcast_to(first, (targets.shape[0], states)), x.dtype)

    def step(ways: Any, given: Any) -> Any:
        now, t = given
        scores = ops.sum(ops.multiply(chosen, ops.expand_dims(ops.maximum(now, _NEVER), 1)), -1)
        one = ops.concat([ops.full_like(ways[:, :1], _NEVER), ways[:, :-1]], 1)
        two = ops.concat([ops.full_like(ways[:, :2], _NEVER), ways[:, :-2]], 1)[:, :states]
        two = ops.where(skips, two, _NEVER)
        moved = ops.logaddexp(ops.logaddexp(ways, one), two)
        came = ops.where(ops.equal(t, 0), ways, moved)
        new = ops.maximum(ops.add(came, scores), _NEVER)
        kept = ops.less(t, ops.expand_dims(times, -1))
        return ops.where(kept, new, ways), None

    steps = np.arange(x.shape[0])
    ways, _ = scan(step, start, (x, ops.astype(steps, "int64")))
    ends = ops.stack([2 * labels, ops.maximum(2 * labels - 1, 0)], 1)
    final = ops.take_along_dim(ways, ops.astype(ends, "int64"), 1)
    # The way that ends with a label; there is none without labels, nor without time.
    ended = ops.logical_and(ops.greater(labels, 0), ops.greater(times, 0))
    last = ops.where(ended, final[:, 1], _NEVER)
    return ops.negative(ops.logaddexp(final[:, 0], last))
