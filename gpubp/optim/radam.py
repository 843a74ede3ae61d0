"""RAdam (Liu et al., ICLR 2020, arXiv:1908.03265), in torch's form."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp import ops
from gpubp.core import Array
from gpubp.nn.parameter import Parameter
from gpubp.ops import update
from gpubp.optim.adam import corrections
from gpubp.optim.base import Optimizer, Update
from gpubp.optim.group import ParamGroup, Params
from gpubp.optim.options import Betas, NotNegative
from gpubp.optim.rules import average, decayed, scalar
from gpubp.optim.state import Cohort


class RAdam(Optimizer):
    """Adam whose first steps, while the second moment is unreliable, are plain momentum.

    As torch.optim.RAdam. With Adam's moments m and v, R = 2 / (1 - beta2) - 1 and
    r(t) = R - 2 t beta2^t / (1 - beta2^t): while r(t) <= 5, w <- w - lr / (1 - beta1^t) m; then
    w <- w - lr / (1 - beta1^t) m c sqrt(1 - beta2^t) / (sqrt(v) + eps) with
    c = sqrt((r - 4) (r - 2) R / ((R - 4) (R - 2) r)).

    Args:
        params: parameters, or groups of them.
        lr: learning rate, at least 0.
        betas: decay of the moments, each in [0, 1).
        eps: at least 0.
        weight_decay: at least 0; an L2 penalty unless decoupled.
        decoupled_weight_decay: shrink the weights themselves, as AdamW.
        maximize: ascend instead.

    Raises:
        DataError: an option out of its range.
    """

    state_names = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Params,
        lr: NotNegative = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: NotNegative = 1e-8,
        weight_decay: NotNegative = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, locals())

    def emit_group(
        self, group: ParamGroup, grads: list[tuple[Parameter, Array]], cohort: Cohort
    ) -> Update:
        """Append the update of one group."""
        bias1, bias2 = corrections(group, cohort)
        rate = ops.divide(group.lr, bias1)
        reliable, scale = _rectification(group, cohort, bias2)
        updates: Update = []
        for param, grad in grads:
            first = self.state_of("exp_avg", param)
            second = self.state_of("exp_avg_sq", param)
            m = average(first, grad, group.momentum, param)
            v = update.ema_square(second, grad, group["betas"][1])
            direction = m
            if reliable is not None:
                root = ops.add(ops.sqrt(v), group["eps"])
                adaptive = ops.divide(ops.multiply(m, scalar(scale, param)), root)
                direction = ops.where(reliable, adaptive, m)
            start = decayed(group, param, group["decoupled_weight_decay"])
            new = update.sgd(start, direction, scalar(rate, param))
            updates += [(first, m), (second, v), (param, new)]
        return updates


def _rectification(group: ParamGroup, cohort: Cohort, bias2: Any) -> tuple[Any, Any]:
    """(r(t) > 5, c sqrt(1 - beta2^t)) as scalars; (None, None) if r never gets there."""
    beta2 = group["betas"][1]
    limit = 2.0 / (1.0 - beta2) - 1.0
    if limit <= 5.0:
        return None, None
    t = ops.astype(cohort.next(), np.float64)
    lost = ops.divide(ops.multiply(ops.multiply(t, 2.0), ops.power(beta2, t)), bias2)
    length = ops.subtract(limit, lost)
    # No NaN in the branch that is not taken: below 5 the root may be of a negative number.
    r = ops.maximum(length, 5.0)
    over = ops.multiply(ops.multiply(ops.subtract(r, 4.0), ops.subtract(r, 2.0)), limit)
    c = ops.sqrt(ops.divide(over, ops.multiply(r, (limit - 4.0) * (limit - 2.0))))
    return ops.greater(length, 5.0), ops.multiply(c, ops.sqrt(bias2))
