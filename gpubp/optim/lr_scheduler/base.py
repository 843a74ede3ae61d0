"""What every schedule is: a rule that moves the learning rates of an optimiser's groups.

Comes in: the numbers of the groups (a learning rate each, then a momentum each if the schedule
cycles it). Goes out: the numbers of the next epoch. What an epoch is, the caller decides: `step()`
is called once an epoch, or a compiled step takes one epoch an update (see `table`).

Holds in between: `advance` has no side effects, so it may look ahead. While a group's rate is where
the schedule itself would have it, the next one comes from the closed form of the epoch; if anything
else has moved it (another schedule, the user), torch's chainable form goes on from there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpubp.arguments import checked, is_number, reading, shown
from gpubp.core.store import Slot
from gpubp.errors import ArgumentError, DataError, unknown_name
from gpubp.optim.base import Optimizer
from gpubp.optim.lr_scheduler.table import Table

_ON_TRACK = 1e-9
# What torch keeps in a scheduler's state dict beside its settings and its position.
_TORCHS_OWN = ("_step_count", "_get_lr_called_within_step", "_is_initial", "verbose")


class LRScheduler:
    """Base of schedules whose `step` takes no argument.

    Args:
        optimizer: whose groups it moves.
        last_epoch: -1 to start; else the last epoch that was done, for an optimiser whose groups
            know their "initial_lr" (a restored one does).

    Attributes:
        last_epoch: epochs done.
        base_lrs: "initial_lr" of each group.

    Raises:
        ArgumentError: `optimizer` is not an optimiser.
        DataError: last_epoch without "initial_lr", or an argument out of its range.
    """

    settings: tuple[str, ...] = ()
    cycle_momentum = False

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = checked_optimizer(optimizer)
        for name in self.settings:
            require_finite(self, name, getattr(self, name))
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise DataError(
                    f"last_epoch is {last_epoch}, but parameter group {i} has no 'initial_lr'. "
                    "Load the optimizer's state first, or start with last_epoch=-1."
                )
        self.base_lrs = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._table: Table | None = None
        self._start()

    def _start(self) -> None:
        """Bring the groups to where the schedule starts, or goes on."""
        numbers, epoch = self._numbers(), self.last_epoch + 1
        if epoch == 0:
            self._move(0, self.begin(numbers))
            return
        rates = [self.resumed(epoch, lr, i) for i, lr in enumerate(numbers[: len(self.base_lrs)])]
        self._move(epoch, rates + self._momenta(epoch, numbers))

    def lr_at(self, epoch: int, group: int) -> float:
        """The learning rate of a group at an epoch, if nothing else has moved it."""
        raise NotImplementedError

    def next_lr(self, epoch: int, lr: float, group: int) -> float:
        """The learning rate of a group at an epoch, from the one that it had at the epoch before.

        Default: schedules that do not look at it.
        """
        return self.lr_at(epoch, group)

    def momentum_at(self, epoch: int, group: int) -> float:
        """The momentum of a group at an epoch, for schedules that cycle it."""
        raise NotImplementedError

    def begin(self, numbers: Sequence[float]) -> list[float]:
        """The numbers at epoch 0, from those before the schedule."""
        count = len(self.base_lrs)
        rates = [self.started(lr, i) for i, lr in enumerate(numbers[:count])]
        return rates + self._momenta(0, numbers)

    def started(self, lr: float, group: int) -> float:
        """The learning rate of a group at epoch 0, from the one before the schedule."""
        return self.lr_at(0, group)

    def resumed(self, epoch: int, lr: float, group: int) -> float:
        """The learning rate of a group where a restored schedule goes on."""
        return self.lr_at(epoch, group)

    def restart(self, numbers: Sequence[float]) -> list[float]:
        """The numbers at epoch 0 of a schedule that takes over from another one."""
        rates = [self.lr_at(0, i) for i in range(len(self.base_lrs))]
        return rates + self._momenta(0, numbers)

    def advance(self, epoch: int, numbers: Sequence[float]) -> list[float]:
        """The numbers at `epoch`, from those of the epoch before.

        Args:
            epoch: at least 1.
            numbers: a learning rate for each group, then a momentum for each if one is cycled.
        """
        count = len(self.base_lrs)
        rates = [self.next_lr(epoch, lr, i) for i, lr in enumerate(numbers[:count])]
        return rates + self._momenta(epoch, numbers)

    def on_track(self, epoch: int, lr: float, group: int) -> bool:
        """A group's rate is the schedule's own of that epoch: nothing else has moved it."""
        return math.isclose(lr, self.lr_at(epoch, group), rel_tol=_ON_TRACK)

    def _momenta(self, epoch: int, numbers: Sequence[float]) -> list[float]:
        """The momenta at an epoch: as they are, unless this schedule cycles them."""
        count = len(self.base_lrs)
        if not self.cycle_momentum:
            return list(numbers[count:])
        return [self.momentum_at(epoch, i) for i in range(count)]

    def step(self) -> None:
        """One epoch on: call it after the optimiser's steps of an epoch.

        Raises:
            DataError: the schedule has ended, or the optimiser has other groups than it had.
        """
        self._move(self.last_epoch + 1, self.advance(self.last_epoch + 1, self._numbers()))

    def require(self, epoch: int) -> None:
        """Raise DataError if the schedule ends before `epoch`."""

    def updates_meant(self) -> float:
        """Steps that make sense only as one an update: the length of a cycle; 0 for none."""
        return 0

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group, as the schedule set it last."""
        return list(self._last_lr)

    def moves_momentum(self) -> bool:
        """The momentum of the groups is cycled, by this schedule or one inside it."""
        return self.cycle_momentum

    def slots(self) -> list[Slot]:
        """Where the numbers live: what programs read.

        Raises:
            DataError: the optimiser has other groups than it had.
        """
        groups = self.optimizer.param_groups
        if len(groups) != len(self.base_lrs):
            raise DataError(
                f"the optimizer has {len(groups)} parameter groups, the schedule was made for "
                f"{len(self.base_lrs)}. Make the schedule after adding groups."
            )
        momenta = [group.move_momentum() for group in groups] if self.moves_momentum() else []
        return [group.lr for group in groups] + momenta

    @property
    def table(self) -> Table:
        """The next numbers, for a program that steps the schedule by itself."""
        if self._table is None:
            self._table = Table(self)
        return self._table

    def __getstate__(self) -> dict[str, Any]:
        # The table belongs to this very schedule, and holds nothing between two runs.
        return {**self.__dict__, "_table": None}

    def _numbers(self) -> list[float]:
        return [float(slot.value) for slot in self.slots()]

    def _move(self, epoch: int, numbers: Sequence[float]) -> None:
        for slot, number in zip(self.slots(), numbers, strict=True):
            slot.value = np.float64(number)
        self.settle(epoch)

    def settle(self, epoch: int) -> None:
        """Take note that the groups' numbers are those of `epoch`."""
        self.last_epoch = epoch
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Position and settings as numbers, strings and lists, under torch's names.

        Functions among the settings are not saved. The learning rates that go on from here are in
        the optimiser's state.
        """
        return {name: _copied(getattr(self, name)) for name in self._state_names()}

    def _state_names(self) -> tuple[str, ...]:
        return ("last_epoch", "base_lrs", "_last_lr", *self.settings)

    @reading("the state of a schedule")
    @checked
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over position and settings; load the optimiser's state too.

        Args:
            state_dict: from `state_dict`, or torch's of the same schedule.

        Raises:
            UnknownNameError: a setting that this schedule does not have.
            DataError: rates of another number of groups.
        """
        known = self._state_names()
        given = {k: _copied(v) for k, v in state_dict.items() if k not in _TORCHS_OWN}
        for name in given:
            if name not in known and name not in self.optional_state():
                raise unknown_name(f"state of {type(self).__name__}", name, known)
        for name in ("base_lrs", "_last_lr"):
            if len(given.get(name, self.base_lrs)) != len(self.base_lrs):
                raise DataError(
                    f"{name} holds {len(given[name])} rates, expected {len(self.base_lrs)}: one "
                    "for each parameter group."
                )
        for name in known:
            if name in given and not _alike(getattr(self, name), given[name]):
                raise DataError(
                    f"state of {type(self).__name__}: {name} is {shown(given[name])}, which is of "
                    f"another kind than mine, {shown(getattr(self, name))}."
                )
        for name in known:
            if name in given:
                setattr(self, name, given[name])

    def optional_state(self) -> tuple[str, ...]:
        """Names in torch's state dict that are passed over."""
        return ()


def checked_optimizer(optimizer: Any) -> Optimizer:
    """The optimiser; TypeError if it is none."""
    if not isinstance(optimizer, Optimizer):
        raise ArgumentError(f"{type(optimizer).__name__} is not an optimizer of gpubp.optim.")
    return optimizer


def for_groups(name: str, value: Any, optimizer: Optimizer) -> list[float]:
    """One number for each group, from a number or a sequence of as many.

    Raises:
        DataError: a sequence of another length.
    """
    count = len(optimizer.param_groups)
    require_finite(optimizer, name, value)
    if not isinstance(value, (list, tuple)):
        return [float(value)] * count
    if len(value) != count:
        raise DataError(
            f"{name} has {len(value)} values, but the optimizer has {count} parameter groups."
        )
    return [float(v) for v in value]


def require_count(schedule: object, name: str, value: Any, least: int = 1) -> None:
    """Raise DataError unless `value` is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise DataError(
            f"{type(schedule).__name__}: {name} is {value!r}, expected an integer of at least "
            f"{least}."
        )


def require_finite(owner: object, name: str, value: Any) -> None:
    """Raise DataError if a number, or one of a list, is NaN or infinite."""
    for number in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(number, float) and not math.isfinite(number):
            raise DataError(f"{type(owner).__name__}: {name} is {value}, expected finite numbers.")


def _alike(mine: Any, given: Any) -> bool:
    """A setting and one from a state are of one kind: numbers, texts, lists of numbers."""
    if isinstance(mine, (list, tuple)):
        return isinstance(given, (list, tuple)) and all(map(is_number, given))
    if is_number(mine):
        return is_number(given)
    return not isinstance(mine, str) or isinstance(given, str)


def _copied(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
