"""NAdam (Dozat, "Incorporating Nesterov momentum into Adam", 2016), in torch's form."""

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


class NAdam(Optimizer):
    """Adam with Nesterov's momentum, as torch.optim.NAdam.

    With mu(t) = beta1 (1 - 0.96^(t momentum_decay) / 2), M(t) the product of mu(1) to mu(t), and
    Adam's moments m and v: d = sqrt(v / (1 - beta2^t)) + eps and
    w <- w - lr (1 - mu(t)) / (1 - M(t)) g / d - lr mu(t+1) / (1 - M(t+1)) m / d.

    Args:
        params: parameters, or groups of them.
        lr: learning rate, at least 0.
        betas: decay of the moments, each in [0, 1).
        eps: at least 0.
        weight_decay: at least 0; an L2 penalty unless decoupled.
        momentum_decay: at least 0.
        decoupled_weight_decay: shrink the weights themselves, as AdamW.
        maximize: ascend instead.

    Raises:
        DataError: an option out of its range.
    """

    state_names = ("exp_avg", "exp_avg_sq")
    scalar_names = ("mu_product",)

    def __init__(
        self,
        params: Params,
        lr: NotNegative = 2e-3,
        betas: Betas = (0.9, 0.999),
        eps: NotNegative = 1e-8,
        weight_decay: NotNegative = 0.0,
        momentum_decay: NotNegative = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, locals())

    def initial(self, name: str, group: ParamGroup) -> float:
        """The product of no factors is 1."""
        return 1.0 if name == "mu_product" else 0.0

    def emit_group(
        self, group: ParamGroup, grads: list[tuple[Parameter, Array]], cohort: Cohort
    ) -> Update:
        """Append the update of one group."""
        t = ops.astype(cohort.next(), np.float64)
        mu, mu_next = _momentum(group, t), _momentum(group, ops.add(t, 1.0))
        product = ops.multiply(cohort.scalars["mu_product"], mu)
        of_grad = _rate(group, ops.subtract(1.0, mu), product)
        of_mean = _rate(group, mu_next, ops.multiply(product, mu_next))
        _, bias2 = corrections(group, cohort)
        updates: Update = [(cohort.scalars["mu_product"], product)]
        for param, grad in grads:
            first = self.state_of("exp_avg", param)
            second = self.state_of("exp_avg_sq", param)
            m = average(first, grad, group.momentum, param)
            v = update.ema_square(second, grad, group["betas"][1])
            scaled = ops.divide(v, scalar(bias2, param))
            d = ops.add(ops.sqrt(scaled), group["eps"])
            start = decayed(group, param, group["decoupled_weight_decay"])
            half = update.sgd(start, ops.divide(grad, d), scalar(of_grad, param))
            new = update.sgd(half, ops.divide(m, d), scalar(of_mean, param))
            updates += [(first, m), (second, v), (param, new)]
        return updates


def _momentum(group: ParamGroup, t: Any) -> Any:
    """mu(t): from beta1 / 2 up to beta1."""
    decay = ops.power(0.96, ops.multiply(t, group["momentum_decay"]))
    return ops.multiply(ops.subtract(1.0, ops.multiply(decay, 0.5)), group.momentum)


def _rate(group: ParamGroup, weight: Any, product: Any) -> Any:
    """lr weight / (1 - product)."""
    return ops.divide(ops.multiply(group.lr, weight), ops.subtract(1.0, product))
