"""Adagrad (Duchi, Hazan & Singer, JMLR 12, 2011), in torch's form."""

from __future__ import annotations

import numpy as np

from gpubp import ops
from gpubp.core import Array
from gpubp.nn.parameter import Parameter
from gpubp.ops import update
from gpubp.optim.base import Optimizer, Update
from gpubp.optim.group import ParamGroup, Params
from gpubp.optim.options import NotNegative
from gpubp.optim.rules import scalar
from gpubp.optim.state import Cohort


class Adagrad(Optimizer):
    """Gradient descent scaled by the sum of all squared gradients, as torch.optim.Adagrad.

    s <- s + g^2, then w <- w - lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps), where g includes
    weight_decay w and t counts steps from 1.

    Args:
        params: parameters, or groups of them.
        lr: learning rate, at least 0.
        lr_decay: of the learning rate with the steps, at least 0.
        weight_decay: L2 penalty, at least 0.
        initial_accumulator_value: what s starts from, at least 0.
        eps: at least 0.
        maximize: ascend instead.

    Raises:
        DataError: an option out of its range.
    """

    state_names = ("sum",)
    saves_initial = True

    def __init__(
        self,
        params: Params,
        lr: NotNegative = 1e-2,
        lr_decay: NotNegative = 0.0,
        weight_decay: NotNegative = 0.0,
        initial_accumulator_value: NotNegative = 0.0,
        eps: NotNegative = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, locals())

    def initial(self, name: str, group: ParamGroup) -> float:
        """The sum starts from initial_accumulator_value."""
        return float(group["initial_accumulator_value"])

    def emit_group(
        self, group: ParamGroup, grads: list[tuple[Parameter, Array]], cohort: Cohort
    ) -> Update:
        """Append the update of one group."""
        before = ops.astype(cohort.count, np.float64)
        rate = group.lr
        if group["lr_decay"]:
            rate = ops.divide(rate, ops.add(1.0, ops.multiply(before, group["lr_decay"])))
        updates: Update = []
        for param, grad in grads:
            total = self.state_of("sum", param)
            s = ops.add(total, ops.square(grad))
            direction = ops.divide(grad, ops.add(ops.sqrt(s), group["eps"]))
            updates.append((total, s))
            updates.append((param, update.sgd(param, direction, scalar(rate, param))))
        return updates
