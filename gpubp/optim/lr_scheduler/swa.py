"""The learning rate of stochastic weight averaging: to a fixed value, and then constant."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gpubp.arguments import checked
from gpubp.errors import DataError
from gpubp.optim.base import Optimizer
from gpubp.optim.lr_scheduler.base import LRScheduler, for_groups, require_count


class SWALR(LRScheduler):
    """From the rate of each group to swa_lr within anneal_epochs, as torch.optim.swa_utils.SWALR.

    lr(t) = (1 - a) lr(0) + a swa_lr, where a goes from 0 to 1: t / anneal_epochs, or
    (1 - cos(pi t / anneal_epochs)) / 2. It goes on from whatever the rate is when `step` is called
    first, so that another schedule may come before it.

    Args:
        optimizer: whose groups it moves; each keeps its "swa_lr".
        swa_lr: the rate that is reached, at least 0; one for all groups, or one for each.
        anneal_epochs: epochs until then, at least 0.
        anneal_strategy: "cos" or "linear".
        last_epoch: -1 to start.

    Raises:
        DataError: an argument out of its range.
    """

    settings = ("anneal_epochs", "_anneal_strategy")

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float | Sequence[float],
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        require_count(self, "anneal_epochs", anneal_epochs, 0)
        if anneal_strategy not in ("cos", "linear"):
            raise DataError(
                f"SWALR: anneal_strategy is {anneal_strategy!r}, expected 'cos' or 'linear'."
            )
        rates = for_groups("swa_lr", swa_lr, optimizer)
        if min(rates) < 0.0:
            raise DataError(f"SWALR: swa_lr is {min(rates)}, expected at least 0.")
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["swa_lr"] = rate
        self.anneal_epochs, self._anneal_strategy = anneal_epochs, anneal_strategy
        super().__init__(optimizer, last_epoch)

    def share(self, epoch: int) -> float:
        """How much of the way is gone: 0 to 1."""
        t = max(0.0, min(1.0, epoch / self.anneal_epochs)) if self.anneal_epochs else 1.0
        return t if self._anneal_strategy == "linear" else (1.0 - math.cos(math.pi * t)) / 2.0

    def lr_at(self, epoch: int, group: int) -> float:
        return self._between(self.base_lrs[group], epoch, group)

    def started(self, lr: float, group: int) -> float:
        return self._between(lr, 0, group)

    def resumed(self, epoch: int, lr: float, group: int) -> float:
        return lr

    def restart(self, numbers: Sequence[float]) -> list[float]:
        """The rates as the schedule before has left them."""
        return self.begin(numbers)

    def next_lr(self, epoch: int, lr: float, group: int) -> float:
        if self.on_track(epoch - 1, lr, group):
            return self.lr_at(epoch, group)
        gone, goal = self.share(epoch - 1), self._goal(group)
        start = goal if gone == 1.0 else (lr - gone * goal) / (1.0 - gone)
        return self._between(start, epoch, group)

    def _goal(self, group: int) -> float:
        return float(self.optimizer.param_groups[group]["swa_lr"])

    def _between(self, start: float, epoch: int, group: int) -> float:
        share = self.share(epoch)
        return self._goal(group) * share + start * (1.0 - share)
