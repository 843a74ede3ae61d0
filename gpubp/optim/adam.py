"""Adam (Kingma & Ba, ICLR 2015, arXiv:1412.6980), in torch's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.core import Array
from gpubp.nn.parameter import Parameter
from gpubp.ops import update
from gpubp.optim.base import Optimizer, Update, require, scalar
from gpubp.optim.group import ParamGroup, Params


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
        maximize: ascend instead.

    Raises:
        DataError: an option out of its range.
    """

    state_names = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": tuple(betas),
                "eps": eps,
                "weight_decay": weight_decay,
                "maximize": maximize,
            },
        )

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise DataError if an option is out of its range."""
        for name in ("lr", "eps", "weight_decay"):
            value = options[name]
            require(value >= 0.0, f"Adam: {name} is {value}, expected at least 0.")
        betas = options["betas"]
        require(
            len(betas) == 2 and all(0.0 <= beta < 1.0 for beta in betas),
            f"Adam: betas are {betas}, expected two numbers in [0, 1).",
        )

    def used_state(self, group: ParamGroup) -> tuple[str, ...]:
        """Both moments, always."""
        return self.state_names

    def counts_steps(self) -> bool:
        """Always: the bias corrections depend on it."""
        return True

    def emit_group(
        self, group: ParamGroup, grads: list[tuple[Parameter, Array]], new_count: Array | None
    ) -> Update:
        """Append the update of one group."""
        beta1, beta2 = group["betas"]
        step_size, bias2_sqrt = _corrections(group, new_count)
        updates: Update = []
        for param, grad in grads:
            first = self.state_of("exp_avg", param)
            second = self.state_of("exp_avg_sq", param)
            m = update.ema(first, grad, beta1)
            v = update.ema_square(second, grad, beta2)
            scalars = scalar(step_size, param), scalar(bias2_sqrt, param)
            new = update.adam(param, m, v, *scalars, group["eps"])
            updates += [(first, m), (second, v), (param, new)]
        return updates


def _corrections(group: ParamGroup, count: Any) -> tuple[Any, Any]:
    """(lr / (1 - beta1^t), sqrt(1 - beta2^t)) as float64 scalars."""
    beta1, beta2 = group["betas"]
    t = ops.astype(count, np.float64)
    bias1 = ops.subtract(1.0, ops.power(beta1, t))
    bias2 = ops.subtract(1.0, ops.power(beta2, t))
    return ops.divide(group.lr, bias1), ops.sqrt(bias2)
