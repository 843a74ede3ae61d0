"""What losses share: the reduction, and checks of what they are given.

Values can be checked only where they are known: on arrays, not inside a traced function. Labels of
compiled programs are checked when the program runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp import ops
from gpubp.core import Array, concrete, describe
from gpubp.errors import DataError, DTypeError, ShapeError, unknown_name
from gpubp.nn.module import Module
from gpubp.store import Slot

REDUCTIONS = ("mean", "sum", "none")


class Loss(Module):
    """Base of losses: holds `reduction` and applies it."""

    reductions: tuple[str, ...] = REDUCTIONS

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in self.reductions:
            raise unknown_name("reduction", reduction, self.reductions)
        self.reduction = reduction

    def _reduced(self, losses: Any) -> Any:
        if self.reduction == "none":
            return losses
        return ops.mean(losses) if self.reduction == "mean" else ops.sum(losses)

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
