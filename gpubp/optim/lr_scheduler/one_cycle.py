"""One cycle of the learning rate: Smith & Topin, "Super-convergence", arXiv:1708.07120."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gpubp.arguments import checked, reading
from gpubp.errors import DataError, unknown_name
from gpubp.optim.base import Optimizer
from gpubp.optim.lr_scheduler.base import checked_optimizer, for_groups, require_count
from gpubp.optim.lr_scheduler.cycles import Cycle

_STRATEGIES = ("cos", "linear")


class OneCycleLR(Cycle):
    """From max_lr / div_factor up to max_lr, and down to that over final_div_factor.

    Meant to take one epoch an update: `compile_step(..., scheduler=...)`.

    Args:
        optimizer: whose groups it moves; with cycle_momentum it needs a momentum or betas.
        max_lr: the largest learning rate; a number, or one for each group.
        total_steps: of the cycle, at least 1.
        epochs, steps_per_epoch: their product, instead of total_steps.
        pct_start: share of the cycle that goes up, in [0, 1].
        anneal_strategy: "cos" or "linear".
        cycle_momentum: move the momentum from max_momentum to base_momentum and back.
        base_momentum, max_momentum: its bounds; numbers, or one for each group.
        div_factor: max_lr over the first learning rate.
        final_div_factor: the first learning rate over the last one.
        three_phase: down to the first learning rate as fast as up, and from there to the last one.
        last_epoch: -1 to start.

    Raises:
        DataError: no length, or an argument out of its range; `step` raises it at the end.
    """

    settings = ("total_steps", "cycle_momentum", "phase_ends", "_anneal_func_type")

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        checked_optimizer(optimizer)
        self.total_steps = self._length(total_steps, epochs, steps_per_epoch)
        if not 0.0 <= pct_start <= 1.0:
            raise DataError(f"OneCycleLR: pct_start is {pct_start}, expected one in [0, 1].")
        if anneal_strategy not in _STRATEGIES:
            raise unknown_name("anneal_strategy", anneal_strategy, _STRATEGIES)
        self._anneal_func_type = anneal_strategy
        self.phase_ends = _phase_ends(self.total_steps, pct_start, three_phase)
        peaks = for_groups("max_lr", max_lr, optimizer)
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self._cycle_between(optimizer, base_momentum, max_momentum, last_epoch)
        if last_epoch == -1:
            for group, lr in zip(optimizer.param_groups, peaks):
                first = lr / div_factor
                group.update(
                    {"initial_lr": first, "max_lr": lr, "min_lr": first / final_div_factor}
                )
        super().__init__(optimizer, last_epoch)

    def _length(self, total: int | None, epochs: int | None, each: int | None) -> int:
        if total is not None:
            require_count(self, "total_steps", total)
            return total
        if epochs is None or each is None:
            raise DataError("OneCycleLR: pass total_steps, or epochs and steps_per_epoch.")
        require_count(self, "epochs", epochs)
        require_count(self, "steps_per_epoch", each)
        return epochs * each

    def require(self, epoch: int) -> None:
        """Raise DataError if the cycle ends before."""
        if epoch > self.total_steps:
            raise DataError(
                f"OneCycleLR: step {epoch} was asked for, but the cycle has {self.total_steps} "
                "steps. Pass a larger total_steps."
            )

    def updates_meant(self) -> float:
        return self.total_steps

    def _phase(self, epoch: int) -> tuple[int, float]:
        """(which phase, how much of it is done)."""
        self.require(epoch)
        start = 0.0
        for i, end in enumerate(self.phase_ends):
            if epoch <= end or i == len(self.phase_ends) - 1:
                return i, (epoch - start) / (end - start) if end != start else 1.0
            start = end
        raise AssertionError

    def _anneal(self, start: float, end: float, done: float) -> float:
        if self._anneal_func_type == "linear":
            return (end - start) * done + start
        return end + (start - end) / 2.0 * (math.cos(math.pi * done) + 1.0)

    @reading("the state of a schedule")
    @checked
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As of every schedule; torch keeps the ends of the phases as "_schedule_phases"."""
        state = dict(state_dict)
        phases = state.pop("_schedule_phases", None)
        if phases is not None:
            state["phase_ends"] = [phase["end_step"] for phase in phases]
        super().load_state_dict(state)

    def lr_at(self, epoch: int, group: int) -> float:
        phase, done = self._phase(epoch)
        notes = self.optimizer.param_groups[group]
        points = ["initial_lr", "max_lr", "initial_lr", "min_lr"]
        if len(self.phase_ends) == 2:
            points = ["initial_lr", "max_lr", "min_lr"]
        return self._anneal(notes[points[phase]], notes[points[phase + 1]], done)

    def momentum_at(self, epoch: int, group: int) -> float:
        phase, done = self._phase(epoch)
        notes = self.optimizer.param_groups[group]
        points = ["max_momentum", "base_momentum", "max_momentum", "max_momentum"]
        return self._anneal(notes[points[phase]], notes[points[phase + 1]], done)


def _phase_ends(total: int, share: float, three_phase: bool) -> list[float]:
    """The last step of each phase."""
    if three_phase:
        return [share * total - 1.0, 2.0 * share * total - 2.0, total - 1.0]
    return [share * total - 1.0, total - 1.0]
