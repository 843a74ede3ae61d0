"""A learning rate that falls when a metric has stopped to improve."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

from gpubp.arguments import checked, reading, shown
from gpubp.errors import ArgumentError, DataError, unknown_name
from gpubp.optim.base import Optimizer
from gpubp.optim.lr_scheduler.base import (
    checked_optimizer,
    for_groups,
    require_count,
    require_finite,
)

_STATE = (
    "mode",
    "factor",
    "patience",
    "threshold",
    "threshold_mode",
    "cooldown",
    "min_lrs",
    "eps",
    "best",
    "num_bad_epochs",
    "cooldown_counter",
    "last_epoch",
    "_last_lr",
)


class ReduceLROnPlateau:
    """Multiply the learning rates by `factor` after `patience` epochs without improvement.

    Its `step` needs the metric, so it is called between runs and cannot be part of a program.

    Args:
        optimizer: whose groups it moves.
        mode: "min" or "max": which way the metric improves.
        factor: in (0, 1).
        patience: epochs without improvement that are put up with.
        threshold: what counts as improvement.
        threshold_mode: "rel" (of the best so far) or "abs".
        cooldown: epochs after a cut in which nothing is counted.
        min_lr: the least learning rate; a number, or one for each group.
        eps: smaller cuts are not made.

    Raises:
        DataError: an argument out of its range.
        UnknownNameError: an unknown mode.
        TypeError: `optimizer` is not an optimiser.
    """

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        if not 0.0 <= factor < 1.0:
            raise DataError(f"ReduceLROnPlateau: factor is {factor}, expected one in [0, 1).")
        if mode not in ("min", "max"):
            raise unknown_name("mode of ReduceLROnPlateau", mode, ("min", "max"))
        if threshold_mode not in ("rel", "abs"):
            raise unknown_name("threshold_mode", threshold_mode, ("rel", "abs"))
        require_count(self, "patience", patience, least=0)
        require_count(self, "cooldown", cooldown, least=0)
        require_finite(self, "threshold, eps", (threshold, eps))
        self.optimizer = checked_optimizer(optimizer)
        self.mode, self.factor, self.patience = mode, factor, patience
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.cooldown, self.eps = cooldown, eps
        self.min_lrs = for_groups("min_lr", min_lr, optimizer)
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        self.last_epoch = 0
        self._last_lr = [group["lr"] for group in optimizer.param_groups]

    def step(self, metrics: SupportsFloat) -> None:
        """Note the metric of an epoch, and cut the learning rates if it is time.

        Args:
            metrics: one number; NaN is no improvement.

        Raises:
            DataError: the optimiser has other groups than it had.
        """
        current = _as_metric(metrics)
        if len(self.optimizer.param_groups) != len(self.min_lrs):
            raise DataError(
                f"the optimizer has {len(self.optimizer.param_groups)} parameter groups, min_lrs "
                f"has {len(self.min_lrs)}. Set min_lrs after adding a group."
            )
        self.last_epoch += 1
        if self._is_better(current):
            self.best, self.num_bad_epochs = current, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._cut()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _is_better(self, current: float) -> bool:
        sign = 1.0 if self.mode == "min" else -1.0
        if self.threshold_mode == "rel":
            return sign * current < sign * self.best * (1.0 - sign * self.threshold)
        return sign * current < sign * self.best - self.threshold

    def _cut(self) -> None:
        for group, least in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
            new = max(group["lr"] * self.factor, least)
            if group["lr"] - new > self.eps:
                group["lr"] = new

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group after the last `step`."""
        return list(self._last_lr)

    def state_dict(self) -> dict[str, Any]:
        """Position and settings as numbers, strings and lists, under torch's names."""
        return {name: getattr(self, name) for name in _STATE}

    @reading("the state of ReduceLROnPlateau")
    @checked
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over position and settings; load the optimiser's state too.

        Args:
            state_dict: from `state_dict`, or torch's.

        Raises:
            UnknownNameError: a name that is not part of the state.
        """
        ignored = ("default_min_lr", "mode_worse", "verbose")
        for name in state_dict:
            if name not in _STATE and name not in ignored:
                raise unknown_name("state of ReduceLROnPlateau", name, _STATE)
        for name in _STATE:
            if name in state_dict:
                setattr(self, name, state_dict[name])


def _as_metric(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ArgumentError(
            f"ReduceLROnPlateau: the metric is {shown(value)}, expected a number."
        ) from None
