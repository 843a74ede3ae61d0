"""Adamax (Kingma & Ba, ICLR 2015, section 7.1), in torch's form."""

from __future__ import annotations

from gpubp import ops
from gpubp.core import Array
from gpubp.nn.parameter import Parameter
from gpubp.ops import update
from gpubp.optim.adam import corrections
from gpubp.optim.base import Optimizer, Update
from gpubp.optim.group import ParamGroup, Params
from gpubp.optim.options import Betas, NotNegative
from gpubp.optim.rules import average, scalar
from gpubp.optim.state import Cohort


class Adamax(Optimizer):
    """Adam with the largest gradient in place of the second moment, as torch.optim.Adamax.

    m <- beta1 m + (1 - beta1) g and u <- max(beta2 u, |g| + eps), then
    w <- w - lr / (1 - beta1^t) * m / u, where g includes weight_decay w and t counts steps from 1.

    Args:
        params: parameters, or groups of them.
        lr: learning rate, at least 0.
        betas: decay of m and u, each in [0, 1).
        eps: at least 0.
        weight_decay: L2 penalty, at least 0.
        maximize: ascend instead.

    Raises:
        DataError: an option out of its range.
    """

    state_names = ("exp_avg", "exp_inf")

    def __init__(
        self,
        params: Params,
        lr: NotNegative = 2e-3,
        betas: Betas = (0.9, 0.999),
        eps: NotNegative = 1e-8,
        weight_decay: NotNegative = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, locals())

    def emit_group(
        self, group: ParamGroup, grads: list[tuple[Parameter, Array]], cohort: Cohort
    ) -> Update:
        """Append the update of one group."""
        bias1, _ = corrections(group, cohort)
        rate = ops.divide(group.lr, bias1)
        updates: Update = []
        for param, grad in grads:
            first = self.state_of("exp_avg", param)
            largest = self.state_of("exp_inf", param)
            m = average(first, grad, group.momentum, param)
            shrunk = ops.multiply(largest, group["betas"][1])
            u = ops.maximum(shrunk, ops.add(ops.abs(grad), group["eps"]))
            updates += [(first, m), (largest, u)]
            direction = ops.divide(m, u)
            updates.append((param, update.sgd(param, direction, scalar(rate, param))))
        return updates
