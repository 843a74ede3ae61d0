"""Schedules made of schedules: one after the other, or all at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from gpubp.arguments import checked, reading
from gpubp.errors import ArgumentError, DataError
from gpubp.optim.base import Optimizer
from gpubp.optim.lr_scheduler.base import LRScheduler, checked_optimizer


class _Composite(LRScheduler):
    """Base: holds schedules of one optimiser."""

    _schedulers: list[LRScheduler]

    def _hold(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler]) -> None:
        self.optimizer = optimizer
        self._schedulers = list(schedulers)
        self._table = None
        self.base_lrs = [float(group["initial_lr"]) for group in optimizer.param_groups]

    def moves_momentum(self) -> bool:
        """The momentum of the groups is cycled by one of the schedules."""
        return any(schedule.moves_momentum() for schedule in self._schedulers)

    def updates_meant(self) -> float:
        """The longest cycle of its parts."""
        return max(schedule.updates_meant() for schedule in self._schedulers)

    def reset(self) -> None:
        """Back to before the first epoch."""
        self.last_epoch = -1
        for schedule in self._schedulers:
            _reset(schedule)

    def _state_names(self) -> tuple[str, ...]:
        return ("last_epoch", "_last_lr", *self.settings)

    def state_dict(self) -> dict[str, Any]:
        """As of every schedule, with those of its parts."""
        parts = [schedule.state_dict() for schedule in self._schedulers]
        return {**super().state_dict(), "_schedulers": parts}

    @reading("the state of a schedule")
    @checked
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As of every schedule.

        Raises:
            DataError: another number of parts.
        """
        parts = state_dict["_schedulers"]
        if len(parts) != len(self._schedulers):
            raise DataError(
                f"the state is of {len(parts)} schedules, expected {len(self._schedulers)}."
            )
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "_schedulers"})
        for schedule, part in zip(self._schedulers, parts, strict=True):
            schedule.load_state_dict(part)


class SequentialLR(_Composite):
    """One schedule after the other, each from its own epoch 0.

    Args:
        optimizer: whose groups they move.
        schedulers: in order, all of this optimiser.
        milestones: the epochs at which the next one takes over, one less than schedules.
        last_epoch: -1 to start.

    Raises:
        DataError: no schedule, one of another optimiser, or another number of milestones.
        ArgumentError: something that is not a schedule; ReduceLROnPlateau cannot be part of
            another.
    """

    settings = ("_milestones",)

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        checked_parts(schedulers, checked_optimizer(optimizer))
        if len(milestones) != len(schedulers) - 1:
            raise DataError(
                f"SequentialLR: {len(schedulers)} schedules need {len(schedulers) - 1} milestones, "
                f"got {len(milestones)}."
            )
        if list(milestones) != sorted(milestones):
            raise DataError(f"SequentialLR: milestones {list(milestones)} are not in order.")
        self._milestones = list(milestones)
        self._hold(optimizer, schedulers)
        self.reset()
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        self._move(0, self.begin(self._numbers()))
        self.last_epoch = last_epoch + 1

    def _active(self, epoch: int) -> tuple[LRScheduler, int]:
        """The schedule of an epoch, and its own epoch then."""
        index = bisect_right(self._milestones, epoch)
        return self._schedulers[index], epoch - (self._milestones[index - 1] if index else 0)

    def begin(self, numbers: Sequence[float]) -> list[float]:
        """The first schedule's."""
        return self._active(0)[0].begin(numbers)

    def restart(self, numbers: Sequence[float]) -> list[float]:
        """The first schedule's."""
        return self._active(0)[0].restart(numbers)

    def advance(self, epoch: int, numbers: Sequence[float]) -> list[float]:
        """Those of the schedule whose turn it is."""
        schedule, own = self._active(epoch)
        return schedule.restart(numbers) if own == 0 else schedule.advance(own, numbers)

    def require(self, epoch: int) -> None:
        """Raise DataError if a schedule ends before its turn does."""
        starts = [0, *self._milestones]
        for i in range(bisect_right(self._milestones, epoch) + 1):
            last = min(epoch, starts[i + 1] - 1) if i + 1 < len(starts) else epoch
            self._schedulers[i].require(last - starts[i])

    def settle(self, epoch: int) -> None:
        """Tell the schedule whose turn it is, and those before that they ended."""
        super().settle(epoch)
        starts = [0, *self._milestones]
        for i, schedule in enumerate(self._schedulers[: bisect_right(self._milestones, epoch)]):
            schedule.last_epoch = starts[i + 1] - starts[i] - 1
        active, own = self._active(epoch)
        active.settle(own)


class ChainedScheduler(_Composite):
    """Schedules that all move the learning rate, each going on from what the one before made.

    Args:
        schedulers: in order, all of one optimiser.
        optimizer: default is the first schedule's.

    Raises:
        DataError: no schedule, or one of another optimiser.
        ArgumentError: something that is not a schedule; ReduceLROnPlateau cannot be part of
            another.
    """

    @checked
    def __init__(
        self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None
    ) -> None:
        checked_parts(schedulers, optimizer)
        self._hold(schedulers[0].optimizer, schedulers)
        self.last_epoch = 0
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def begin(self, numbers: Sequence[float]) -> list[float]:
        """What the schedules make of the numbers before them, one after the other."""
        for schedule in self._schedulers:
            numbers = schedule.begin(numbers)
        return list(numbers)

    def restart(self, numbers: Sequence[float]) -> list[float]:
        """From the initial learning rates."""
        return self.begin([*self.base_lrs, *numbers[len(self.base_lrs) :]])

    def advance(self, epoch: int, numbers: Sequence[float]) -> list[float]:
        """What the schedules make of the numbers, one after the other."""
        for schedule in self._schedulers:
            own = schedule.last_epoch + epoch - self.last_epoch
            numbers = schedule.advance(own, numbers)
        return list(numbers)

    def require(self, epoch: int) -> None:
        """Raise DataError if one of them ends before."""
        for schedule in self._schedulers:
            schedule.require(schedule.last_epoch + epoch - self.last_epoch)

    def settle(self, epoch: int) -> None:
        """Tell all."""
        for schedule in self._schedulers:
            schedule.settle(schedule.last_epoch + epoch - self.last_epoch)
        super().settle(epoch)


def checked_parts(schedulers: Sequence[Any], optimizer: Optimizer | None) -> None:
    """Raise unless these are schedules of one optimiser."""
    if len(schedulers) == 0:
        raise DataError("expected at least one schedule, got none.")
    for i, schedule in enumerate(schedulers):
        if not isinstance(schedule, LRScheduler):
            raise ArgumentError(
                f"schedule {i} is a {type(schedule).__name__}, which cannot be part of another: "
                "expected a schedule whose step() takes no argument."
            )
        if schedule.optimizer is not (optimizer or schedulers[0].optimizer):
            raise DataError(f"schedule {i} ({type(schedule).__name__}) has another optimizer.")


def _reset(schedule: LRScheduler) -> None:
    if isinstance(schedule, _Composite):
        schedule.reset()
    else:
        schedule.last_epoch = -1
