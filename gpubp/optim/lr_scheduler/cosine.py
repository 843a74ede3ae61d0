"""Schedules along half a cosine: Loshchilov & Hutter, "SGDR", ICLR 2017, arXiv:1608.03983."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gpubp.arguments import checked, reading
from gpubp.errors import DataError
from gpubp.optim.base import Optimizer
from gpubp.optim.lr_scheduler.base import LRScheduler, require_count


class CosineAnnealingLR(LRScheduler):
    """lr(t) = eta_min + (initial_lr - eta_min) (1 + cos(pi t / T_max)) / 2.

    After T_max epochs it rises again, without a restart.

    Args:
        optimizer: whose groups it moves.
        T_max: epochs down to eta_min, at least 1.
        eta_min: the least learning rate.
        last_epoch: -1 to start.
    """

    settings = ("T_max", "eta_min")

    @checked
    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        require_count(self, "T_max", T_max)
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def lr_at(self, epoch: int, group: int) -> float:
        return _cosine(self.base_lrs[group], self.eta_min, epoch / self.T_max)

    def started(self, lr: float, group: int) -> float:
        return lr

    def resumed(self, epoch: int, lr: float, group: int) -> float:
        return lr

    def next_lr(self, epoch: int, lr: float, group: int) -> float:
        if self.on_track(epoch - 1, lr, group):
            return self.lr_at(epoch, group)
        angle = math.pi / self.T_max
        if (epoch - 1 - self.T_max) % (2 * self.T_max) == 0:
            return lr + (self.base_lrs[group] - self.eta_min) * (1.0 - math.cos(angle)) / 2.0
        ratio = (1.0 + math.cos(angle * epoch)) / (1.0 + math.cos(angle * (epoch - 1)))
        return ratio * (lr - self.eta_min) + self.eta_min


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half a cosine from initial_lr to eta_min, again and again.

    lr = eta_min + (initial_lr - eta_min) (1 + cos(pi T_cur / T_i)) / 2, where T_cur counts the
    epochs since the last restart and T_i grows by T_mult at each.

    Args:
        optimizer: whose groups it moves.
        T_0: epochs of the first period, at least 1.
        T_mult: growth of the period, an integer of at least 1.
        eta_min: the least learning rate.
        last_epoch: -1 to start.
    """

    settings = ("T_0", "T_mult", "eta_min")

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        require_count(self, "T_0", T_0)
        require_count(self, "T_mult", T_mult)
        if isinstance(eta_min, bool) or not isinstance(eta_min, (int, float)):
            raise DataError(f"eta_min is {eta_min!r}, expected a number.")
        self.T_0 = T_0
        self.T_mult = T_mult
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def period(self, epoch: int) -> tuple[int, int]:
        """(epochs since the last restart, epochs of this period)."""
        if self.T_mult == 1:
            return epoch % self.T_0, self.T_0
        start, length = 0, self.T_0
        while epoch >= start + length:
            start, length = start + length, length * self.T_mult
        return epoch - start, length

    def lr_at(self, epoch: int, group: int) -> float:
        done, length = self.period(epoch)
        return _cosine(self.base_lrs[group], self.eta_min, done / length)

    def optional_state(self) -> tuple[str, ...]:
        return ("T_cur", "T_i")

    @reading("the state of a schedule")
    @checked
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As of the base; DataError for periods that never end one."""
        for name in ("T_0", "T_mult"):
            require_count(self, name, state_dict.get(name, 1))
        super().load_state_dict(state_dict)


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1.0 + math.cos(math.pi * done)) / 2.0
