"""What losses share: the reduction, weights of samples, and checks of what they are given.

A loss is a sum and a count. The mean of one that counts other things than samples (labels that are
not ignored, weights of classes) and a sum remember what they are (`gpubp.ops.totals`), so that
batches which meet (accumulation, epochs, evaluation) give what one batch of all would give.

A number of a loss (a smoothing, a margin) may be a `Buffer` of one float: programs read it at every
step, so that it may change, and differ between members of a population.

Values can be checked only where they are known: on arrays, not inside a traced function. Labels of
compiled programs are checked when the program runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp import ops
from gpubp.arguments import checked
from gpubp.core import Array, concrete, describe, note
from gpubp.core.store import Slot
from gpubp.errors import DataError, DTypeError, ShapeError, unknown_name
from gpubp.nn.module import Module
from gpubp.nn.parameter import Buffer
from gpubp.ops.totals import whole

REDUCTIONS = ("mean", "sum", "none")


def present(value: float | Buffer, what: str) -> float:
    """A number of a loss as it is now: what a buffer holds, or the number itself.

    Raises:
        DataError: a buffer that does not hold one float.
    """
    if not isinstance(value, Buffer):
        return value
    if value.shape or value.dtype.kind != "f":
        given = describe(value)
        raise DataError(f"{what} is {given}; expected a number, or a Buffer of one float.")
    return float(value.value)


def typed(value: Any, dtype: Any) -> Any:
    """A number of a loss beside arrays of this dtype; what comes from a buffer is no constant."""
    return value if isinstance(value, (int, float)) else ops.astype(value, dtype)


class _Samples:
    """Weights of the samples of a batch.

    Attributes:
        weights: one a sample.
        used: a loss has met them.
    """

    @checked
    def __init__(self, weights: Any) -> None:
        self.weights = weights
        self.used = False


_samples: ContextVar[_Samples | None] = ContextVar("sample weights", default=None)


@contextmanager
def weighing_samples(weights: Any) -> Iterator[None]:
    """While open, every loss multiplies what each sample costs by its weight.

    Counts stay: the mean is still one over samples (or what else counts), so that weights of 1
    change nothing.

    Args:
        weights: one a sample, shape (N,).

    Raises:
        DataError: no loss was called meanwhile.
        ShapeError: a loss's values are not one or several a sample.
    """
    mine = _Samples(weights)
    token = _samples.set(mine)
    try:
        yield
    finally:
        _samples.reset(token)
    if not mine.used:
        raise DataError(
            "sample and class weights have no effect here: this loss computes its value without "
            "a loss of gpubp.nn. Write it as a function of (outputs, y, weights)."
        )


class Loss(Module):
    """Base of losses: holds `reduction` and applies it.

    Attributes:
        from_logits: the input holds logits: above 0 means yes. Metrics follow it.
    """

    reductions: tuple[str, ...] = REDUCTIONS
    from_logits: bool = False

    @checked
    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in self.reductions:
            raise unknown_name("reduction", reduction, self.reductions)
        self.reduction = reduction

    def _reduced(self, losses: Any, counts: Any = None) -> Any:
        """The losses by the reduction.

        Args:
            losses: of each element, already times what it counts.
            counts: what each counts in the mean; None: 1.
        """
        if self.from_logits:
            note("from_logits", True)
        losses = self._weighed(losses)
        if self.reduction == "none":
            return losses
        if self.reduction == "sum":
            return whole(ops.sum(losses))
        if self.reduction == "batchmean":
            samples = losses.shape[0] if losses.shape else 1
            if not samples:
                raise ShapeError(f"batchmean: the losses {describe(losses)} are of no samples.")
            return ops.multiply(ops.sum(losses), 1.0 / samples)
        if counts is None:
            return ops.mean(losses)
        return ops.mean_over(ops.sum(losses), ops.sum(counts))

    def _weighed(self, losses: Any) -> Any:
        """The losses times the weights of their samples, if there are any."""
        samples = _samples.get()
        if samples is None:
            return losses
        samples.used = True
        weights = samples.weights
        if tuple(losses.shape[:1]) != tuple(weights.shape):
            raise ShapeError(
                f"the losses are {describe(losses)}; expected one for each of the weights "
                f"{describe(weights)}."
            )
        rest = (1,) * (len(losses.shape) - 1)
        column = ops.reshape(weights, (*weights.shape, *rest)) if rest else weights
        return ops.multiply(losses, ops.astype(column, losses.dtype))

    def _register(self, name: str, weight: ArrayLike | None) -> None:
        """Keep constant weights as a buffer, or None."""
        if weight is None:
            setattr(self, name, None)
            return
        values: NDArray[Any] = concrete(weight, f"{type(self).__name__}: {name}")
        if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
            raise DataError(
                f"{type(self).__name__}: {name} must be finite numbers, got {weight!r}."
            )
        self.register_buffer(name, values if values.dtype.kind == "f" else values.astype("float32"))

    def _same_shapes(self, input: Any, target: Any, hint: str = "") -> None:
        if tuple(input.shape) != tuple(target.shape):
            raise ShapeError(
                f"{type(self).__name__}: got input {describe(input)} and target "
                f"{describe(target)}, expected equal shapes.{hint}"
            )

    def _floats(self, input: Any, what: str = "input") -> None:
        if input.dtype.kind != "f":
            raise DTypeError(
                f"{type(self).__name__}: got {what} {describe(input)}, expected floats."
            )

    def _weighted(self, losses: Any, name: str) -> Any:
        """The losses times the buffer `name`, if there is one; it must broadcast to them."""
        weight = getattr(self, name)
        if weight is None:
            return losses
        fits = len(weight.shape) <= len(losses.shape) and all(
            n in (1, m) for n, m in zip(weight.shape[::-1], losses.shape[::-1], strict=False)
        )
        if not fits:
            raise ShapeError(
                f"{type(self).__name__}: {name} {describe(weight)} does not broadcast to "
                f"{describe(losses)}."
            )
        return ops.multiply(losses, ops.astype(weight, losses.dtype))

    def _between(self, value: Any, low: float, high: float, what: str) -> None:
        """Raise DataError unless all known numbers are in [low, high]."""
        if isinstance(value, (Array, Slot)):
            return
        numbers = concrete(value)
        outside = ~((numbers >= low) & (numbers <= high))
        if outside.any():
            at = tuple(int(i) for i in np.argwhere(outside)[0])
            raise DataError(
                f"{type(self).__name__}: {what} holds {numbers[at]} at index {at}; expected "
                f"numbers from {low:g} to {high:g}."
            )
