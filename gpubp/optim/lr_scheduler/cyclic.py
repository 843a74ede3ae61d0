"""Cycles without end: Smith, "Cyclical learning rates", WACV 2017, arXiv:1506.01186."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpubp.arguments import checked, reading
from gpubp.errors import DataError, unknown_name
from gpubp.optim.base import Optimizer
from gpubp.optim.lr_scheduler.base import checked_optimizer, for_groups
from gpubp.optim.lr_scheduler.cycles import Cycle

_MODES = ("triangular", "triangular2", "exp_range")


class CyclicLR(Cycle):
    """Between base_lr and max_lr, again and again.

    Args:
        optimizer: whose groups it moves; with cycle_momentum it needs a momentum or betas.
        base_lr, max_lr: the bounds; numbers, or one for each group.
        step_size_up: epochs of the way up, above 0.
        step_size_down: epochs of the way down; default step_size_up.
        mode: "triangular", "triangular2" (half the height each cycle) or "exp_range" (height
            gamma^t).
        gamma: for "exp_range".
        scale_fn: the height of a cycle instead of `mode`, a function of what scale_mode says.
        scale_mode: "cycle" (counted from 1) or "iterations" (epochs).
        cycle_momentum: move the momentum from max_momentum to base_momentum and back.
        base_momentum, max_momentum: its bounds; numbers, or one for each group.
        last_epoch: -1 to start.

    Raises:
        UnknownNameError: an unknown mode.
        DataError: an argument out of its range.
    """

    settings = (
        "total_size",
        "step_ratio",
        "max_lrs",
        "mode",
        "gamma",
        "scale_mode",
        "cycle_momentum",
        "base_momentums",
        "max_momentums",
    )

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | Sequence[float],
        max_lr: float | Sequence[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.8,
        max_momentum: float | Sequence[float] = 0.9,
        last_epoch: int = -1,
    ) -> None:
        checked_optimizer(optimizer)
        if scale_fn is None and mode not in _MODES:
            raise unknown_name("mode of CyclicLR", mode, _MODES)
        if scale_mode not in ("cycle", "iterations"):
            raise unknown_name("scale_mode", scale_mode, ("cycle", "iterations"))
        up, down = float(step_size_up), float(step_size_down or step_size_up)
        if not (up > 0 and down > 0):
            raise DataError(f"CyclicLR: step sizes are {up} and {down}, expected above 0.")
        self.total_size, self.step_ratio = up + down, up / (up + down)
        self.mode, self.gamma = mode, gamma
        self._scale_fn = scale_fn
        by_epoch = scale_fn is None and mode == "exp_range"
        self.scale_mode = "iterations" if by_epoch else scale_mode if scale_fn else "cycle"
        lows = for_groups("base_lr", base_lr, optimizer)
        self.max_lrs = for_groups("max_lr", max_lr, optimizer)
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self._cycle_between(optimizer, base_momentum, max_momentum, last_epoch)
        if last_epoch == -1:
            for group, lr in zip(optimizer.param_groups, lows):
                group["lr"] = lr
        self._lows = lows
        super().__init__(optimizer, last_epoch)
        self.base_lrs = lows

    @reading("the state of a schedule")
    @checked
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As of every schedule."""
        super().load_state_dict(state_dict)
        self._lows = self.base_lrs

    def updates_meant(self) -> float:
        return self.total_size

    def _height(self, epoch: int) -> float:
        """How far up between the bounds, in units of their distance."""
        cycle = math.floor(1 + epoch / self.total_size)
        x = 1.0 + epoch / self.total_size - cycle
        up = x / self.step_ratio if x <= self.step_ratio else (x - 1.0) / (self.step_ratio - 1.0)
        return up * self._scale(cycle if self.scale_mode == "cycle" else epoch)

    def _scale(self, position: int) -> float:
        if self._scale_fn is not None:
            return float(self._scale_fn(position))
        if self.mode == "exp_range":
            return float(self.gamma**position)
        return 1.0 if self.mode == "triangular" else 0.5 ** (position - 1)

    def lr_at(self, epoch: int, group: int) -> float:
        low = self._lows[group]
        return low + (self.max_lrs[group] - low) * self._height(epoch)

    def momentum_at(self, epoch: int, group: int) -> float:
        high = self.max_momentums[group]
        return high - (high - self.base_momentums[group]) * self._height(epoch)
