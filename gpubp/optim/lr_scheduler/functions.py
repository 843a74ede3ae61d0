"""Schedules that are a function of the user's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from gpubp.arguments import checked, is_number, shown
from gpubp.errors import ArgumentError, DataError
from gpubp.optim.base import Optimizer
from gpubp.optim.lr_scheduler.base import LRScheduler


class LambdaLR(LRScheduler):
    """lr(t) = initial_lr * lr_lambda(t).

    Args:
        optimizer: whose groups it moves.
        lr_lambda: a function of the epoch, or one for each group. It is not saved.
        last_epoch: -1 to start.
    """

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        self.lr_lambdas = functions_for_groups(lr_lambda, optimizer)
        super().__init__(optimizer, last_epoch)

    def lr_at(self, epoch: int, group: int) -> float:
        return checked_rate(self, epoch, self.base_lrs[group], self.lr_lambdas[group])

    def optional_state(self) -> tuple[str, ...]:
        return ("lr_lambdas",)


class MultiplicativeLR(LRScheduler):
    """lr(t) = lr(t - 1) * lr_lambda(t), from initial_lr.

    Args:
        optimizer: whose groups it moves.
        lr_lambda: a function of the epoch, or one for each group. It is not saved.
        last_epoch: -1 to start.
    """

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        self.lr_lambdas = functions_for_groups(lr_lambda, optimizer)
        super().__init__(optimizer, last_epoch)

    def started(self, lr: float, group: int) -> float:
        return lr

    def resumed(self, epoch: int, lr: float, group: int) -> float:
        return lr

    def restart(self, numbers: Sequence[float]) -> list[float]:
        """Goes on from where the schedule before ended, as torch's does."""
        rates = [checked_rate(self, 0, lr, f) for lr, f in zip(numbers, self.lr_lambdas)]
        return rates + self._momenta(0, numbers)

    def next_lr(self, epoch: int, lr: float, group: int) -> float:
        return checked_rate(self, epoch, lr, self.lr_lambdas[group])

    def optional_state(self) -> tuple[str, ...]:
        return ("lr_lambdas",)


def functions_for_groups(functions: Any, optimizer: Optimizer) -> list[Any]:
    """One function for each group, from a function or a sequence of as many.

    Raises:
        DataError: a sequence of another length.
        ArgumentError: something that cannot be called.
    """
    count = len(optimizer.param_groups)
    found = list(functions) if isinstance(functions, (list, tuple)) else [functions] * count
    if len(found) != count:
        raise DataError(f"expected {count} functions, one for each group, got {len(found)}.")
    for function in found:
        if not callable(function):
            raise ArgumentError(f"lr_lambda must be a function, got {type(function).__name__}.")
    return found


def checked_rate(schedule: object, epoch: int, lr: float, function: Callable[[int], Any]) -> float:
    """A learning rate times what a function of the user's says.

    Raises:
        DataError: it is negative, NaN or infinite.
    """
    factor = function(epoch)
    if not is_number(factor):
        raise ArgumentError(
            f"{type(schedule).__name__}: the function returned {shown(factor)} at epoch {epoch}, "
            "expected a number."
        )
    found = float(lr * factor)
    if not (math.isfinite(found) and found >= 0.0):
        raise DataError(
            f"{type(schedule).__name__}: the function made the learning rate {found} at epoch "
            f"{epoch}, expected a number of at least 0."
        )
    return found
