"""Rprop (Riedmiller & Braun, ICNN 1993), in torch's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpubp import ops
from gpubp.arguments import is_number
from gpubp.core import Array
from gpubp.nn.parameter import Parameter
from gpubp.optim.base import Optimizer, Update
from gpubp.optim.group import ParamGroup, Params
from gpubp.optim.rules import require, require_not_negative
from gpubp.optim.state import Cohort


class Rprop(Optimizer):
    """Steps whose size depends on the gradient's sign alone, as torch.optim.Rprop.

    Each weight has a step size s, at first lr. With p the gradient before: where g p > 0,
    s <- min(s etaplus, largest); where g p < 0, s <- max(s etaminus, least) and g <- 0. Then
    w <- w - sign(g) s. Meant for whole data sets as batches.

    Args:
        params: parameters, or groups of them.
        lr: the first step size, at least 0; read at the first step only.
        etas: (etaminus, etaplus), 0 < etaminus < 1 < etaplus.
        step_sizes: (least, largest) step size.
        maximize: ascend instead.

    Raises:
        DataError: an option out of its range.
    """

    state_names = ("prev", "step_size")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "etas": etas,
            "step_sizes": step_sizes,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise DataError if an option is out of its range."""
        require_not_negative(self, options, "lr")
        etas, sizes = options["etas"], options["step_sizes"]
        require(
            _are_two(etas) and 0.0 < etas[0] < 1.0 < etas[1],
            f"Rprop: etas are {etas}, expected 0 < etas[0] < 1 < etas[1].",
        )
        require(
            _are_two(sizes) and sizes[0] <= sizes[1],
            f"Rprop: step_sizes are {sizes}, expected (least, largest).",
        )

    def used_state(self, group: ParamGroup) -> tuple[str, ...]:
        """The last gradient and the step sizes, always."""
        return self.state_names

    def counts_steps(self) -> bool:
        """Always: the first step takes its size from lr."""
        return True

    def emit_group(
        self, group: ParamGroup, grads: list[tuple[Parameter, Array]], cohort: Cohort
    ) -> Update:
        """Append the update of one group."""
        (minus, plus), (least, largest) = group["etas"], group["step_sizes"]
        is_first = ops.equal(cohort.count, 0)
        updates: Update = []
        for param, grad in grads:
            before = self.state_of("prev", param)
            sizes = self.state_of("step_size", param)
            size = ops.where(is_first, ops.astype(group.lr, param.dtype), sizes)
            agreement = ops.multiply(grad, before)
            turned = ops.less(agreement, 0.0)
            grown = ops.where(ops.greater(agreement, 0.0), ops.multiply(size, plus), size)
            scaled = ops.where(turned, ops.multiply(size, minus), grown)
            new_size = ops.clip(scaled, least, largest)
            used = ops.where(turned, 0.0, grad)
            new = ops.subtract(param, ops.multiply(ops.sign(used), new_size))
            updates += [(sizes, new_size), (before, used), (param, new)]
        return updates


def _are_two(numbers: Any) -> bool:
    return isinstance(numbers, tuple) and len(numbers) == 2 and all(map(is_number, numbers))
