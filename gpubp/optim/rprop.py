"""Rprop (Riedmiller & Braun, ICNN 1993), in torch's form."""

from __future__ import annotations

from typing import Annotated

from gpubp import ops
from gpubp.core import Array
from gpubp.nn.parameter import Parameter
from gpubp.optim.base import Optimizer, Update
from gpubp.optim.group import ParamGroup, Params
from gpubp.optim.options import NotNegative, Range
from gpubp.optim.state import Cohort

_RISING = Range(
    "0 < etas[0] < 1 < etas[1]", lambda e: len(e) == 2 and 0.0 < e[0] < 1.0 < e[1], "are"
)
_SIZES = Range("(least, largest)", lambda sizes: len(sizes) == 2 and sizes[0] <= sizes[1], "are")
Etas = Annotated[tuple[float, float], _RISING]
StepSizes = Annotated[tuple[float, float], _SIZES]


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
        lr: NotNegative = 1e-2,
        etas: Etas = (0.5, 1.2),
        step_sizes: StepSizes = (1e-6, 50.0),
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, locals())

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
