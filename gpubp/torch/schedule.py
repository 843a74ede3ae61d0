"""A schedule of torch's that moves inside of a compiled step.

Comes in: a scheduler of `torch.optim.lr_scheduler`. Goes out: the rates (and momenta) of the next
updates, in the table that a step's program reads. The scheduler itself is stepped to find them, so
every one of them works but those that ask for a metric.

Holds in between: after a run the scheduler and its optimiser stand where the program has come to,
also if that was stopped.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

from gpubp.core.store import Slot
from gpubp.errors import ArgumentError
from gpubp.optim.base import Optimizer
from gpubp.optim.lr_scheduler.table import Table

_MOVED = ("lr", "momentum", "betas")


class Schedule:
    """What a step needs of a schedule.

    Args:
        theirs: of torch.
        mine: gpubp's optimiser.
        optimizer: what the step takes for its optimiser.

    Raises:
        ArgumentError: it needs a metric.
    """

    def __init__(self, theirs: Any, mine: Optimizer, optimizer: Any) -> None:
        if type(theirs).__name__ == "ReduceLROnPlateau" or not hasattr(theirs, "last_epoch"):
            raise ArgumentError(
                f"{type(theirs).__name__} cannot move inside of a step: its step() needs a metric. "
                "Leave it out of compile_step, and call it between runs."
            )
        self._theirs, self._groups = theirs, mine.param_groups
        self.optimizer = optimizer
        self.last_epoch = 0
        self._slots = [group.lr for group in self._groups]
        self._moves_momentum = _cycles(theirs)
        if self._moves_momentum:
            self._slots += [group.move_momentum() for group in self._groups]
        self._start: Any = None
        self._ahead = 0
        self.table = Table(self)

    def slots(self) -> list[Slot]:
        """Rates, and momenta where these move."""
        return self._slots

    def require(self, epoch: int) -> None:
        """torch's schedules have no end, or say so themselves."""

    def advance(self, epoch: int, numbers: Sequence[float]) -> list[float]:
        """The numbers after one more step of the scheduler."""
        if self._start is None:
            self._start, self._ahead = self._now(), 0
        self._step()
        self._ahead += 1
        groups = self._theirs.optimizer.param_groups
        found = [float(group["lr"]) for group in groups]
        if self._moves_momentum:
            found += [_momentum(group) for group in groups]
        return found

    def settle(self, epoch: int) -> None:
        """The program has come to this many updates."""
        done, self.last_epoch = epoch - self.last_epoch, epoch
        if self._start is not None and done != self._ahead:
            state, options = self._start
            self._theirs.load_state_dict(state)
            for group, kept in zip(self._theirs.optimizer.param_groups, options, strict=True):
                group.update(kept)
            for _ in range(done):
                self._step()
        self._start = None

    def _step(self) -> None:
        self._theirs.optimizer._opt_called = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own deprecated arguments
            self._theirs.step()

    def _now(self) -> Any:
        options = [
            {key: group[key] for key in _MOVED if key in group}
            for group in self._theirs.optimizer.param_groups
        ]
        return copy.deepcopy(self._theirs.state_dict()), options


def _momentum(group: Any) -> float:
    return float(group["betas"][0] if "betas" in group else group["momentum"])


def _cycles(scheduler: Any) -> bool:
    """It, or one that it is made of, moves momenta too."""
    if getattr(scheduler, "cycle_momentum", False):
        return True
    return any(map(_cycles, getattr(scheduler, "_schedulers", [])))
