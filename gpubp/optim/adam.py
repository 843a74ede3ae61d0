"""Adam (Kingma & Ba, ICLR 2015, arXiv:1412.6980) and AdamW, in torch's form."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp import ops
from gpubp.core import Array
from gpubp.nn.parameter import Parameter
from gpubp.ops import update
from gpubp.optim.base import Optimizer, Update
from gpubp.optim.group import ParamGroup, Params
from gpubp.optim.options import Betas, NotNegative
from gpubp.optim.rules import average, decayed, scalar
from gpubp.optim.state import Cohort


class Adam(Optimizer):
    """Gradient descent scaled by running moments of the gradient, as torch.optim.Adam.

    m <- beta1 m + (1 - beta1) g and v <- beta2 v + (1 - beta2) g^2, then
    w <- w - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps), where g includes
    weight_decay w and t counts steps from 1. Note where eps stands: other libraries differ.

    Args:
        params: parameters, or groups of them.
        lr: learning rate, at least 0.
        betas: decay of the moments, each in [0, 1).
        eps: at least 0.
        weight_decay: L2 penalty, at least 0.
        amsgrad: divide by the largest v so far (Reddi, Kale & Kumar, ICLR 2018).
        maximize: ascend instead.
        decoupled_weight_decay: shrink the weights themselves, as AdamW.

    Raises:
        DataError: an option out of its range.
    """

    state_names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")

    def __init__(
        self,
        params: Params,
        lr: NotNegative = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: NotNegative = 1e-8,
        weight_decay: NotNegative = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ) -> None:
        super().__init__(params, locals())

    def used_state(self, group: ParamGroup) -> tuple[str, ...]:
        """Both moments, and the largest second one where amsgrad needs it."""
        return self.state_names if group["amsgrad"] else self.state_names[:2]

    def emit_group(
        self, group: ParamGroup, grads: list[tuple[Parameter, Array]], cohort: Cohort
    ) -> Update:
        """Append the update of one group."""
        bias1, bias2 = corrections(group, cohort)
        step_size, bias2_sqrt = ops.divide(group.lr, bias1), ops.sqrt(bias2)
        updates: Update = []
        for param, grad in grads:
            first = self.state_of("exp_avg", param)
            second = self.state_of("exp_avg_sq", param)
            m = average(first, grad, group.momentum, param)
            v = update.ema_square(second, grad, group["betas"][1])
            updates += [(first, m), (second, v)]
            if group["amsgrad"]:
                largest = self.state_of("max_exp_avg_sq", param)
                v = ops.maximum(largest, v)
                updates.append((largest, v))
            scalars = scalar(step_size, param), scalar(bias2_sqrt, param)
            start = decayed(group, param, group["decoupled_weight_decay"])
            updates.append((param, update.adam(start, m, v, *scalars, group["eps"])))
        return updates


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019, arXiv:1711.05101).

    w <- w (1 - lr weight_decay) before Adam's step, whose gradient holds no penalty.

    Args:
        params, lr, betas, eps, amsgrad, maximize: as of Adam.
        weight_decay: at least 0.

    Raises:
        DataError: an option out of its range.
    """

    def __init__(
        self,
        params: Params,
        lr: NotNegative = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: NotNegative = 1e-8,
        weight_decay: NotNegative = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        Optimizer.__init__(self, params, {**locals(), "decoupled_weight_decay": True})


def corrections(group: ParamGroup, cohort: Cohort) -> tuple[Any, Any]:
    """(1 - beta1^t, 1 - beta2^t) as float64 scalars, t counting this step."""
    t = ops.astype(cohort.next(), np.float64)
    bias1 = ops.subtract(1.0, ops.power(group.momentum, t))
    return bias1, ops.subtract(1.0, ops.power(group["betas"][1], t))
