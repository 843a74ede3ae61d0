"""How a step updates: its settings, and what it needs of optimiser, schedule and average."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from gpubp.arguments import shown
from gpubp.core import Array
from gpubp.core.store import Slot
from gpubp.errors import ArgumentError, DataError
from gpubp.runtime.loss_scale import LossScale

if TYPE_CHECKING:
    from gpubp.distributed.parallel import DataParallel

Writes = list[tuple[Slot, Array]]


class StepOptimizer(Protocol):
    """What a step needs of an optimiser; see `gpubp.optim.Optimizer`."""

    def parameters(self) -> Sequence[Slot]: ...

    def prepare(self) -> None: ...

    def emit(self, grads: dict[int, Array]) -> Writes: ...


class SearchOptimizer(StepOptimizer, Protocol):
    """An optimiser that finds loss and gradient several times a step; `gpubp.optim.LBFGS` does."""

    def search(self, evaluate: Callable[[], tuple[float, Sequence[NDArray[Any]]]]) -> None: ...


def searches(optimizer: StepOptimizer) -> TypeGuard[SearchOptimizer]:
    """It is a `SearchOptimizer`."""
    return callable(getattr(optimizer, "search", None))


class StepTable(Protocol):
    """What a step needs of a schedule's table; see `gpubp.optim.lr_scheduler.table`."""

    capacity: int

    def emit(self) -> Writes: ...

    def moving(self, updates: int) -> AbstractContextManager[None]: ...


class StepScheduler(Protocol):
    """What a step needs of a schedule; see `gpubp.optim.lr_scheduler.LRScheduler`."""

    optimizer: Any
    last_epoch: int

    @property
    def table(self) -> StepTable: ...

    def require(self, epoch: int) -> None: ...


def takes_metric(scheduler: Any) -> bool:
    """Whether `scheduler.step` wants the number it watches (ReduceLROnPlateau)."""
    parameters = list(inspect.signature(scheduler.step).parameters.values())
    return bool(parameters) and parameters[0].default is inspect.Parameter.empty


class StepAverage(Protocol):
    """What a step needs of an average of weights; see `gpubp.optim.EMA`."""

    @property
    def applied(self) -> bool: ...

    def emit(self, new: dict[int, Array]) -> Writes: ...


@dataclass(frozen=True)
class Settings:
    """How a step updates; the arguments of `compile_step`.

    Raises:
        DataError: one of them is out of its range.
    """

    max_grad_norm: float | None = None
    max_grad_value: float | None = None
    keep_grads: bool = False
    accumulate: int = 1
    scheduler: StepScheduler | None = None
    ema: StepAverage | None = None
    loss_scale: LossScale | None = None
    parallel: DataParallel | None = None

    @property
    def summed(self) -> bool:
        """Gradients are added up in slots before an update reads them."""
        return self.accumulate > 1 or self.reduced

    @property
    def reduced(self) -> bool:
        """What an update reads is the sum of all ranks' gradients."""
        return self.parallel is not None and self.parallel.average_every is None

    @property
    def reads_all_gradients(self) -> bool:
        """An update of some elements needs the gradients of others too."""
        return self.keep_grads or self.max_grad_norm is not None or self.loss_scale is not None

    @property
    def plain(self) -> bool:
        """Nothing is to be done before or after a call of the program."""
        return self.scheduler is None and self.ema is None

    def check(self, optimizer: StepOptimizer) -> None:
        """Raise DataError if a setting is out of its range or does not fit the optimiser."""
        for name in ("max_grad_norm", "max_grad_value"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise DataError(f"{name} is {value}, expected a number above 0.")
        require_count("accumulate", self.accumulate)
        if searches(optimizer):
            self._check_search(type(optimizer).__name__)
        if self.ema is not None and self.parallel is not None and self.parallel.divides:
            raise DataError(
                "ema reads whole parameters in the update, and with shard_optimizer each rank "
                "updates a part of them: leave one of them out."
            )
        if self.loss_scale is not None and self.accumulate > 1:
            raise DataError(
                "loss_scale and accumulate cannot be used together yet: leave one of them out."
            )
        if self.ema is not None and not hasattr(self.ema, "emit"):
            raise ArgumentError(f"ema is {shown(self.ema)}, expected a gpubp.optim.EMA.")
        if self.scheduler is None:
            return
        if not hasattr(self.scheduler, "table"):
            raise DataError(
                f"{type(self.scheduler).__name__} cannot run inside the program: its step() needs "
                "a metric. Call it between runs."
            )
        owners = getattr(optimizer, "members", [optimizer])
        if not any(getattr(self.scheduler, "optimizer", None) is owner for owner in owners):
            raise DataError("the scheduler was made for another optimizer than the step's.")

    def _check_search(self, name: str) -> None:
        alone = Settings(keep_grads=self.keep_grads)
        given = [k for k, v in vars(self).items() if v != getattr(alone, k)]
        if given:
            raise DataError(
                f"{name} finds the gradient several times a step, outside of the program: "
                f"{given[0]} cannot be used with it. Leave it out (a schedule or an average can be "
                "moved between runs)."
            )


def require_count(name: str, value: object) -> None:
    """Raise DataError unless `value` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise DataError(f"{name} is {value!r}, expected an integer of at least 1.")
