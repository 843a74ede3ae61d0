"""Base of schedules that go up and down, and move the momentum the other way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpubp.arguments import checked, reading
from gpubp.errors import DataError
from gpubp.optim.base import Optimizer
from gpubp.optim.lr_scheduler.base import LRScheduler, for_groups


class Cycle(LRScheduler):
    """Base: momentum (or the first of the betas) between two bounds, in slots."""

    base_momentums: Sequence[float] = ()
    max_momentums: Sequence[float] = ()

    def _cycle_between(
        self, optimizer: Optimizer, base: Any, largest: Any, last_epoch: int
    ) -> None:
        self.base_momentums = for_groups("base_momentum", base, optimizer)
        self.max_momentums = for_groups("max_momentum", largest, optimizer)
        for group, low, high in zip(
            optimizer.param_groups, self.base_momentums, self.max_momentums
        ):
            group.move_momentum()
            for momentum in (low, high) if last_epoch == -1 else ():
                _set_momentum(group, momentum)
            group.update({"max_momentum": high, "base_momentum": low})

    @reading("the state of a schedule")
    @checked
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As of every schedule.

        Raises:
            DataError: one cycles the momentum and the other does not.
        """
        cycles = bool(state_dict.get("cycle_momentum", self.cycle_momentum))
        if cycles != self.cycle_momentum:
            raise DataError(
                f"the state has cycle_momentum={cycles}, this schedule has {self.cycle_momentum}."
            )
        super().load_state_dict(state_dict)

    def optional_state(self) -> tuple[str, ...]:
        return ("use_beta1", "_scale_fn_custom", "base_momentums", "max_momentums")


def _set_momentum(group: Any, momentum: float) -> None:
    """Set it, after the optimiser's own check of its range."""
    if "betas" in group:
        group["betas"] = (momentum, *group["betas"][1:])
    else:
        group["momentum"] = momentum
