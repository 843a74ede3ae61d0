"""Adamax (Kingma & Ba, ICLR 2015, section 7.1), in torch's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpubp import ops
from gpubp.core import Array
from gpubp.nn.parameter import Parameter
from gpubp.ops import update
from gpubp.optim.adam import corrections
from gpubp.optim.base import Optimizer, Update
from gpubp.optim.group import ParamGroup, Params
from gpubp.optim.rules import average, require_betas, require_not_negative, scalar
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
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise DataError if an option is out of its range."""
        require_not_negative(self, options, "lr", "eps", "weight_decay")
        require_betas(self, options["betas"])

    def used_state(self, group: ParamGroup) -> tuple[str, ...]:
        """The moment and the maximum, always."""
        return self.state_names

    def counts_steps(self) -> bool:
        """Always: the bias correction depends on it."""
        return True

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
