"""Schedules that multiply the initial learning rate by a factor of the epoch, as torch's."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any

from gpubp.arguments import checked, reading
from gpubp.errors import DataError
from gpubp.optim.base import Optimizer
from gpubp.optim.lr_scheduler.base import LRScheduler, require_count


class FactorLR(LRScheduler):
    """Base: lr(t) = initial_lr * scale(t)."""

    @abstractmethod
    def scale(self, epoch: int) -> float:
        """What the initial learning rate is multiplied by at an epoch."""

    def lr_at(self, epoch: int, group: int) -> float:
        return self.base_lrs[group] * self.scale(epoch)

    def started(self, lr: float, group: int) -> float:
        return lr * self.scale(0)

    def resumed(self, epoch: int, lr: float, group: int) -> float:
        return lr

    def next_lr(self, epoch: int, lr: float, group: int) -> float:
        if self.on_track(epoch - 1, lr, group):
            return self.lr_at(epoch, group)
        before = self.scale(epoch - 1)
        return lr * (self.scale(epoch) / before) if before else lr


class StepLR(FactorLR):
    """gamma^(t // step_size).

    Args:
        optimizer: whose groups it moves.
        step_size: epochs between two drops, at least 1.
        gamma: the factor of a drop.
        last_epoch: -1 to start.
    """

    settings = ("step_size", "gamma")

    @checked
    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        require_count(self, "step_size", step_size)
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def scale(self, epoch: int) -> float:
        return float(self.gamma ** (epoch // self.step_size))


class MultiStepLR(FactorLR):
    """gamma for each milestone passed.

    Args:
        optimizer: whose groups it moves.
        milestones: epochs, in any order; one that is given twice counts twice.
        gamma: the factor of a drop.
        last_epoch: -1 to start.
    """

    settings = ("milestones", "gamma")

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        found = list(milestones)
        for milestone in found:
            require_count(self, "a milestone", milestone, least=0)
        self.milestones = sorted(found)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def scale(self, epoch: int) -> float:
        return float(self.gamma ** bisect_right(self.milestones, epoch))

    @reading("the state of a schedule")
    @checked
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As of the base; torch keeps the milestones as {epoch: how often}."""
        counts = state_dict.get("milestones")
        if isinstance(counts, Mapping):
            flat = [int(epoch) for epoch, count in counts.items() for _ in range(count)]
            state_dict = {**state_dict, "milestones": sorted(flat)}
        super().load_state_dict(state_dict)


class ConstantLR(FactorLR):
    """`factor` for the first total_iters epochs, then 1.

    Args:
        optimizer: whose groups it moves.
        factor: in [0, 1].
        total_iters: epochs, at least 0.
        last_epoch: -1 to start.
    """

    settings = ("factor", "total_iters")

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1.0 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0.0 <= factor <= 1.0:
            raise DataError(f"ConstantLR: factor is {factor}, expected a number in [0, 1].")
        require_count(self, "total_iters", total_iters, least=0)
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def scale(self, epoch: int) -> float:
        return self.factor if epoch < self.total_iters else 1.0


class LinearLR(FactorLR):
    """From start_factor to end_factor in equal steps over total_iters epochs.

    Args:
        optimizer: whose groups it moves.
        start_factor: in (0, 1].
        end_factor: in [0, 1].
        total_iters: epochs, at least 1.
        last_epoch: -1 to start.
    """

    settings = ("start_factor", "end_factor", "total_iters")

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0.0 < start_factor <= 1.0:
            raise DataError(f"LinearLR: start_factor is {start_factor}, expected one in (0, 1].")
        if not 0.0 <= end_factor <= 1.0:
            raise DataError(f"LinearLR: end_factor is {end_factor}, expected one in [0, 1].")
        require_count(self, "total_iters", total_iters)
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def scale(self, epoch: int) -> float:
        done = min(self.total_iters, epoch) / self.total_iters
        return self.start_factor + (self.end_factor - self.start_factor) * done


class ExponentialLR(FactorLR):
    """gamma^t.

    Args:
        optimizer: whose groups it moves.
        gamma: the factor of an epoch.
        last_epoch: -1 to start.
    """

    settings = ("gamma",)

    @checked
    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def scale(self, epoch: int) -> float:
        return float(self.gamma**epoch)


class PolynomialLR(FactorLR):
    """(1 - t / total_iters)^power, 0 from total_iters on.

    Args:
        optimizer: whose groups it moves.
        total_iters: epochs, at least 1.
        power: of the polynomial.
        last_epoch: -1 to start.
    """

    settings = ("total_iters", "power")

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int = 5,
        power: float = 1.0,
        last_epoch: int = -1,
    ) -> None:
        require_count(self, "total_iters", total_iters)
        self.total_iters = total_iters
        self.power = power
        super().__init__(optimizer, last_epoch)

    def scale(self, epoch: int) -> float:
        return float((1.0 - min(self.total_iters, epoch) / self.total_iters) ** self.power)


class InverseTimeLR(FactorLR):
    """1 / (1 + gamma t / decay_steps), as Keras's InverseTimeDecay; torch has none.

    Args:
        optimizer: whose groups it moves.
        gamma: decay rate, at least 0.
        decay_steps: epochs after which the decay has had its rate once, at least 1.
        staircase: decay once every decay_steps epochs instead of every epoch.
        last_epoch: -1 to start.
    """

    settings = ("gamma", "decay_steps", "staircase")

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        gamma: float,
        decay_steps: int = 1,
        staircase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if not gamma >= 0.0:
            raise DataError(f"InverseTimeLR: gamma is {gamma}, expected at least 0.")
        require_count(self, "decay_steps", decay_steps)
        self.gamma = gamma
        self.decay_steps = decay_steps
        self.staircase = staircase
        super().__init__(optimizer, last_epoch)

    def scale(self, epoch: int) -> float:
        done = epoch // self.decay_steps if self.staircase else epoch / self.decay_steps
        return 1.0 / (1.0 + self.gamma * done)
