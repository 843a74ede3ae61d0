"""Averaged SGD (Polyak & Juditsky, SIAM J. Control Optim. 30, 1992), in torch's form."""

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


class ASGD(Optimizer):
    """Gradient descent that keeps the average of the weights beside them, as torch.optim.ASGD.

    w <- w (1 - lambd eta) - eta g and a <- a + mu (w - a), where g includes weight_decay w; then
    eta = lr / (1 + lambd lr t)^alpha and mu = 1 / max(1, t - t0) for the next step, t counting
    steps from 1. At first eta = lr and mu = 1. The average is the state "ax".

    Args:
        params: parameters, or groups of them.
        lr: learning rate, at least 0.
        lambd: decay, at least 0.
        alpha: power of eta's decay.
        t0: the step at which averaging starts.
        weight_decay: L2 penalty, at least 0.
        maximize: ascend instead.

    Raises:
        DataError: an option out of its range.
    """

    state_names = ("ax",)
    scalar_names = ("eta", "mu")

    def __init__(
        self,
        params: Params,
        lr: NotNegative = 1e-2,
        lambd: NotNegative = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: NotNegative = 0.0,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, locals())

    def initial(self, name: str, group: ParamGroup) -> float:
        """The first step's average is the weights: mu is 1."""
        return 1.0 if name == "mu" else 0.0

    def emit_group(
        self, group: ParamGroup, grads: list[tuple[Parameter, Array]], cohort: Cohort
    ) -> Update:
        """Append the update of one group."""
        eta_slot, mu_slot = cohort.scalars["eta"], cohort.scalars["mu"]
        eta = ops.where(ops.equal(cohort.count, 0), group.lr, eta_slot)
        t = ops.astype(cohort.next(), np.float64)
        growth = ops.add(ops.multiply(ops.multiply(group.lr, group["lambd"]), t), 1.0)
        new_eta = ops.divide(group.lr, ops.power(growth, group["alpha"]))
        new_mu = ops.divide(1.0, ops.maximum(ops.subtract(t, group["t0"]), 1.0))
        kept = ops.subtract(1.0, ops.multiply(eta, group["lambd"]))
        updates: Update = [(eta_slot, new_eta), (mu_slot, new_mu)]
        for param, grad in grads:
            mean = self.state_of("ax", param)
            shrunk = ops.multiply(param, scalar(kept, param))
            new = update.sgd(shrunk, grad, scalar(eta, param))
            moved = ops.multiply(ops.subtract(new, mean), scalar(mu_slot, param))
            updates += [(param, new), (mean, ops.add(mean, moved))]
        return updates
